"""`NDArray`: an array on a device, and the functions that make, save and load arrays.

An NDArray wraps one array of its device's array module; indexing gives views that write through.
Arithmetic keeps the dtype of the arrays: a Python number never changes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, MXNetError
from dmod.context import Context, current_context
from dmod.device import backend, copy, to_host
from dmod.ndarray.params_file import parse_arrays, read_arrays, write_arrays

__all__ = [
    "NDArray",
    "arange",
    "array",
    "concatenate",
    "empty",
    "from_numpy",
    "full",
    "load",
    "load_frombuffer",
    "ones",
    "ones_like",
    "save",
    "waitall",
    "zeros",
    "zeros_like",
]


class NDArray:
    """A fixed-size array of one dtype on one device.

    Parameters
    ----------
    data : numpy.ndarray
        Wrapped, not copied. Use `array` to make an NDArray from other data.
    ctx : Context, optional
        The device; default `current_context()`.

    Examples
    --------
    >>> x = array([[1, 2], [3, 4]])
    >>> x[0] = 7
    >>> (x * 2 + x).asnumpy()
    array([[21., 21.],
           [ 9., 12.]], dtype=float32)
    """

    __slots__ = ("__weakref__", "_ctx", "_data")
    __array_priority__ = 1000.0  # numpy's operators give way to ours
    __hash__ = object.__hash__

    def __init__(self, data: np.ndarray, ctx: Context | None = None):
        self._data = data
        self._ctx = ctx or current_context()

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._data.shape

    @property
    def dtype(self) -> type:
        """The numpy type of the elements, such as ``numpy.float32``."""
        return self._data.dtype.type

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def context(self) -> Context:
        """The device."""
        return self._ctx

    ctx = context

    @property
    def stype(self) -> str:
        """The storage type: 'default', that is, dense."""
        return "default"

    @property
    def T(self) -> NDArray:
        """The array with its axes reversed, as a copy."""
        return NDArray(np.ascontiguousarray(self._data.T), self._ctx)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"\n{self.asnumpy()}\n<{type(self).__name__} {shape} @{self._ctx}>"

    def __bool__(self) -> bool:
        if self.size == 0:
            return False
        if self.size == 1:
            return bool(self.asscalar())
        raise ValueError("The truth value of an NDArray with more than one element is ambiguous.")

    def __float__(self) -> float:
        return float(self.asscalar())

    def __int__(self) -> int:
        return int(self.asscalar())

    def __index__(self) -> int:
        if self.size == 1 and np.issubdtype(self.dtype, np.integer):
            return int(self.asscalar())
        raise TypeError("only integer NDArrays of one element can be used as an index")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._data, dtype=dtype, copy=True if copy is None else copy)

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.asnumpy(), "ctx": (self._ctx.device_type, self._ctx.device_id)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._data = state["data"]
        self._ctx = Context(*state["ctx"])

    # ---- values out

    def asnumpy(self) -> np.ndarray:
        """A copy as a numpy array."""
        return to_host(self._data).copy(order="C") if self._is_host else to_host(self._data)

    @property
    def _is_host(self) -> bool:
        return isinstance(self._data, np.ndarray)

    def asscalar(self) -> Any:
        """The value of an array of one element, as a numpy scalar."""
        if self.size != 1:
            raise ValueError(f"asscalar: shape {self.shape} has {self.size} elements, expected 1")
        return to_host(self._data.reshape(-1))[0]

    item = asscalar

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self._data.tolist()

    def wait_to_read(self) -> None:
        """Wait until the array's value is computed; on the CPU it always is."""

    wait_to_write = wait_to_read

    # ---- copies

    def copy(self) -> NDArray:
        """A copy on the same device."""
        return NDArray(self._data.copy(), self._ctx)

    def copyto(self, other: NDArray | Context) -> NDArray:
        """Copy into an array of the same shape, or to a new one on a device.

        Returns
        -------
        NDArray
            `other`, or the new array.

        Raises
        ------
        ValueError
            The shapes differ.
        """
        if isinstance(other, Context):
            return NDArray(backend(other).from_host(to_host(self._data)), other)
        if not isinstance(other, NDArray):
            raise TypeError(f"copyto: expected an NDArray or a Context, got {type(other).__name__}")
        if other.shape != self.shape:
            raise InvalidArgument(f"copyto: shape {self.shape} into an array of shape {other.shape}")
        copy(other._data, self._data)
        return other

    def as_in_context(self, context: Context) -> NDArray:
        """This array if it is on `context` already, else a copy there."""
        return self if context == self._ctx else self.copyto(context)

    as_in_ctx = as_in_context

    def astype(self, dtype: Any, copy: bool = True) -> NDArray:
        """The array in another dtype; itself if `copy` is false and the dtype is the same."""
        if not copy and self._data.dtype == np.dtype(dtype):
            return self
        return NDArray(self._data.astype(dtype), self._ctx)

    # ---- shape

    def reshape(self, *shape: Any, **kwargs: Any) -> NDArray:
        """A view of another shape.

        In `shape`, 0 keeps an axis, -1 takes what is left, -2 copies the remaining axes, -3 joins two
        axes and -4 splits one.
        """
        from dmod.ops.shape import reshaped

        reverse = kwargs.pop("reverse", False)
        shape = kwargs.pop("shape", shape)
        if kwargs:
            raise TypeError(f"reshape: unknown argument {next(iter(kwargs))!r}")
        if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        return NDArray(self._data.reshape(reshaped(self.shape, shape, reverse)), self._ctx)

    def flatten(self) -> NDArray:
        """A copy as a matrix: the first axis, and all others as one."""
        return NDArray(self._data.reshape(self.shape[0], -1).copy(), self._ctx)

    def expand_dims(self, axis: int) -> NDArray:
        """With a new axis of length 1 at `axis`."""
        return NDArray(np.expand_dims(self._data, axis), self._ctx)

    def transpose(self, *axes: Any) -> NDArray:
        """A copy with its axes permuted; reversed by default."""
        if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
            axes = tuple(axes[0])
        return NDArray(np.ascontiguousarray(self._data.transpose(*axes)), self._ctx)

    def slice_axis(self, axis: int, begin: int, end: int | None) -> NDArray:
        """The part ``[begin, end)`` along `axis`, as a copy."""
        where = [slice(None)] * self.ndim
        where[axis] = slice(begin, end)
        return NDArray(self._data[tuple(where)].copy(), self._ctx)

    def broadcast_to(self, shape: tuple[int, ...]) -> NDArray:
        """A copy, repeated along axes of length 1 to `shape`."""
        return NDArray(np.broadcast_to(self._data, shape).copy(), self._ctx)

    # ---- elements

    def __getitem__(self, key: Any) -> NDArray:
        part = self._data[_index(key)]
        if not isinstance(part, np.ndarray):  # one element: keep it an array, of shape (1,), and a view
            part = self._data[(*_index(key), None) if isinstance(key, tuple) else (_index(key), None)]
        elif part.ndim == 0:
            part = part.reshape(1)
        return NDArray(part, self._ctx)

    def __setitem__(self, key: Any, value: Any) -> None:
        value = value._data if isinstance(value, NDArray) else value
        place = _index(key)
        try:
            if self._is_host:
                self._data[place] = to_host(value) if hasattr(value, "shape") else value
            elif np.isscalar(value):
                self._data[place] = value
            else:
                self._assign_from(self._data[place], value)
        except ValueError as error:
            raise InvalidArgument(f"assignment into an array of shape {self.shape}: {error}") from None

    @staticmethod
    def _assign_from(view: Any, value: Any) -> None:
        """Copy a host array, or one of any device, into a view of a device's array."""
        host = to_host(value) if hasattr(value, "shape") else np.asarray(value)
        copy(view, np.broadcast_to(host, view.shape))

    def __iter__(self) -> Any:
        for i in range(len(self)):
            yield self[i]

    # ---- arithmetic

    def _binary(self, other: Any, function: Callable[..., np.ndarray], swap: bool = False) -> NDArray:
        if isinstance(other, NDArray):
            right = other._data
        elif isinstance(other, np.ndarray):
            right = other.astype(self._data.dtype)
        elif np.isscalar(other):
            right = self._data.dtype.type(other)
        else:
            return NotImplemented
        left = self._data
        with np.errstate(all="ignore"):
            out = function(right, left) if swap else function(left, right)
        if out.dtype != left.dtype:
            out = out.astype(left.dtype)
        return NDArray(out, self._ctx)

    def _inplace(self, other: Any, function: Callable[..., np.ndarray]) -> NDArray:
        right = other._data if isinstance(other, NDArray) else other
        with np.errstate(all="ignore"):
            function(self._data, right, out=self._data, casting="unsafe")
        return self

    def __add__(self, other: Any) -> NDArray:
        return self._binary(other, np.add)

    __radd__ = __add__

    def __sub__(self, other: Any) -> NDArray:
        return self._binary(other, np.subtract)

    def __rsub__(self, other: Any) -> NDArray:
        return self._binary(other, np.subtract, swap=True)

    def __mul__(self, other: Any) -> NDArray:
        return self._binary(other, np.multiply)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> NDArray:
        return self._binary(other, _divide)

    def __rtruediv__(self, other: Any) -> NDArray:
        return self._binary(other, _divide, swap=True)

    def __mod__(self, other: Any) -> NDArray:
        return self._binary(other, np.mod)

    def __rmod__(self, other: Any) -> NDArray:
        return self._binary(other, np.mod, swap=True)

    def __pow__(self, other: Any) -> NDArray:
        return self._binary(other, np.power)

    def __rpow__(self, other: Any) -> NDArray:
        return self._binary(other, np.power, swap=True)

    def __neg__(self) -> NDArray:
        return NDArray(-self._data, self._ctx)

    def __abs__(self) -> NDArray:
        return NDArray(np.abs(self._data), self._ctx)

    abs = __abs__

    def __iadd__(self, other: Any) -> NDArray:
        return self._inplace(other, np.add)

    def __isub__(self, other: Any) -> NDArray:
        return self._inplace(other, np.subtract)

    def __imul__(self, other: Any) -> NDArray:
        return self._inplace(other, np.multiply)

    def __itruediv__(self, other: Any) -> NDArray:
        return self._inplace(other, np.divide)

    def __eq__(self, other: Any) -> Any:
        return self._binary(other, np.equal) if other is not None else False

    def __ne__(self, other: Any) -> Any:
        return self._binary(other, np.not_equal) if other is not None else True

    def __lt__(self, other: Any) -> NDArray:
        return self._binary(other, np.less)

    def __le__(self, other: Any) -> NDArray:
        return self._binary(other, np.less_equal)

    def __gt__(self, other: Any) -> NDArray:
        return self._binary(other, np.greater)

    def __ge__(self, other: Any) -> NDArray:
        return self._binary(other, np.greater_equal)

    # ---- reductions and functions

    def _reduce(self, function: Callable[..., Any], axis: Any, keepdims: bool) -> NDArray:
        axis = tuple(axis) if isinstance(axis, list) else axis
        out = np.asarray(function(self._data, axis=axis, keepdims=keepdims), dtype=self._data.dtype)
        return NDArray(out.reshape(1) if out.ndim == 0 else out, self._ctx)

    def sum(self, axis: Any = None, keepdims: bool = False) -> NDArray:
        """The sum over `axis` (default: all)."""
        return self._reduce(np.sum, axis, keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> NDArray:
        """The mean over `axis` (default: all)."""
        return self._reduce(np.mean, axis, keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> NDArray:
        """The largest value over `axis` (default: all)."""
        return self._reduce(np.max, axis, keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> NDArray:
        """The smallest value over `axis` (default: all)."""
        return self._reduce(np.min, axis, keepdims)

    def norm(self) -> NDArray:
        """The Euclidean norm of all elements."""
        return NDArray(np.linalg.norm(self._data.reshape(-1)).astype(self.dtype).reshape(1), self._ctx)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> NDArray:
        """The places of the largest values along `axis`, as float32 like MXNet."""
        return NDArray(np.asarray(np.argmax(self._data, axis, keepdims=keepdims), np.float32), self._ctx)

    def clip(self, a_min: float, a_max: float) -> NDArray:
        """The values, limited to ``[a_min, a_max]``."""
        return NDArray(np.clip(self._data, a_min, a_max), self._ctx)

    def sqrt(self) -> NDArray:
        """The square root of each element."""
        return NDArray(np.sqrt(self._data), self._ctx)

    def square(self) -> NDArray:
        """The square of each element."""
        return NDArray(np.square(self._data), self._ctx)

    def exp(self) -> NDArray:
        """The exponential of each element."""
        return NDArray(np.exp(self._data), self._ctx)

    def log(self) -> NDArray:
        """The natural logarithm of each element."""
        with np.errstate(all="ignore"):
            return NDArray(np.log(self._data), self._ctx)


def _divide(left: Any, right: Any, **kwargs: Any) -> Any:
    """Division that stays in the integers for integer arrays, as MXNet's does."""
    out = np.divide(left, right, **kwargs)
    return np.trunc(out) if np.issubdtype(np.result_type(left, right), np.integer) else out


def _index(key: Any) -> Any:
    """A key of numpy's for a key that may hold NDArrays."""
    if isinstance(key, NDArray):
        return key._data.astype(np.int64) if key._data.dtype != bool else key._data
    if isinstance(key, tuple):
        return tuple(_index(k) for k in key)
    return key


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)


def array(source_array: Any, ctx: Context | None = None, dtype: Any = None) -> NDArray:
    """Copy `source_array` to a new NDArray.

    Parameters
    ----------
    source_array : array-like
    ctx : Context, optional
    dtype : optional
        Default: the dtype of an NDArray, else float32.

    Examples
    --------
    >>> array([1, 2, 3]).dtype
    <class 'numpy.float32'>
    """
    ctx = ctx or current_context()
    if isinstance(source_array, NDArray):
        source = source_array._data
        dtype = source.dtype if dtype is None else dtype
    else:
        source = np.asarray(source_array)
        if source.dtype == object:
            raise TypeError("array: expected numbers in a rectangular nesting")
        dtype = np.float32 if dtype is None else dtype
    out = backend(ctx).empty(source.shape, dtype)
    copy(out, source)
    return NDArray(out, ctx)


def from_numpy(ndarray: np.ndarray, zero_copy: bool = True) -> NDArray:
    """An NDArray on a numpy array's own memory, or on a copy."""
    return NDArray(ndarray if zero_copy else ndarray.copy(), Context("cpu", 0))


def empty(shape: int | Sequence[int], ctx: Context | None = None, dtype: Any = None) -> NDArray:
    """An array of unspecified values; float32 by default."""
    ctx = ctx or current_context()
    return NDArray(backend(ctx).empty(_shape(shape), dtype or np.float32), ctx)


def zeros(
    shape: int | Sequence[int], ctx: Context | None = None, dtype: Any = None, **kwargs: Any
) -> NDArray:
    """An array of zeros; float32 by default."""
    ctx = ctx or current_context()
    return NDArray(backend(ctx).zeros(_shape(shape), dtype or np.float32), ctx)


def ones(shape: int | Sequence[int], ctx: Context | None = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """An array of ones; float32 by default."""
    return full(shape, 1, ctx, dtype)


def full(
    shape: int | Sequence[int],
    val: float,
    ctx: Context | None = None,
    dtype: Any = None,
    out: NDArray | None = None,
) -> NDArray:
    """An array of the value `val`; float32 by default."""
    out = empty(shape, ctx, dtype) if out is None else out
    out._data[...] = val
    return out


def zeros_like(data: NDArray) -> NDArray:
    """Zeros in the shape, dtype and place of `data`."""
    return zeros(data.shape, data.context, data.dtype)


def ones_like(data: NDArray) -> NDArray:
    """Ones in the shape, dtype and place of `data`."""
    return ones(data.shape, data.context, data.dtype)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1.0,
    repeat: int = 1,
    infer_range: bool | None = None,
    ctx: Context | None = None,
    dtype: Any = np.float32,
) -> NDArray:
    """Evenly spaced values in ``[start, stop)``, each `repeat` times."""
    values = np.arange(start, step=step) if stop is None else np.arange(start, stop, step)
    return array(np.repeat(values, repeat), ctx, dtype)


def concatenate(arrays: Sequence[NDArray], axis: int = 0, always_copy: bool = True) -> NDArray:
    """Join arrays along an axis, on the first one's device."""
    if not arrays:
        raise InvalidArgument("concatenate: expected at least one array")
    if not always_copy and len(arrays) == 1:
        return arrays[0]
    ctx = arrays[0].context
    memory = backend(ctx)
    with memory.activate():
        return NDArray(memory.xp.concatenate([a.as_in_context(ctx)._data for a in arrays], axis), ctx)


def waitall() -> None:
    """Wait for all computation on all devices; the CPU has none outstanding."""


def save(fname: str | os.PathLike[str], data: Any) -> None:
    """Save an array, a list of arrays, or a dict of names to arrays in MXNet's ``.params`` format.

    The file appears whole or not at all.
    """
    if isinstance(data, NDArray):
        data = [data]
    if isinstance(data, dict):
        names, values = list(data.keys()), list(data.values())
    elif isinstance(data, (list, tuple)):
        names, values = [], list(data)
    else:
        raise InvalidArgument(
            f"save: expected an NDArray, a list or a dict of them, got {type(data).__name__}"
        )
    for name in names:
        if not isinstance(name, str):
            raise InvalidArgument(f"save: expected names to be strings, got {name!r}")
    for value in values:
        if not isinstance(value, NDArray):
            raise InvalidArgument(f"save: expected NDArrays, got {type(value).__name__}")
    write_arrays(fname, [value._data for value in values], names)


def _named(arrays: list[np.ndarray], names: list[str]) -> list[NDArray] | dict[str, NDArray]:
    wrapped = [NDArray(a, Context("cpu", 0)) for a in arrays]
    return dict(zip(names, wrapped, strict=True)) if names else wrapped


def load(fname: str | os.PathLike[str]) -> list[NDArray] | dict[str, NDArray]:
    """Load what `save`, or MXNet, wrote.

    Raises
    ------
    FormatError
        The file is not a whole, valid file of arrays; the message has path and byte offset.
    MXNetError
        The file cannot be opened.
    """
    try:
        return _named(*read_arrays(fname))
    except OSError as error:
        raise MXNetError(f"load: cannot read {os.fspath(fname)}: {error.strerror or error}") from error


def load_frombuffer(buf: bytes) -> list[NDArray] | dict[str, NDArray]:
    """Load arrays from the bytes of such a file."""
    return _named(*parse_arrays(buf))
