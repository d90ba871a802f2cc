"""`NDArray`: an array on a device, and the functions that make arrays.

An NDArray wraps one array of its device's array module. Basic indexing gives views that write through
where the region is contiguous, and copies elsewhere, as in MXNet. The operators that are methods too are
in `fluent`, arithmetic is in `arithmetic`, keys are in `indexing`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np

from dmod.base import InvalidArgument, MXNetError
from dmod.context import Context, current_context
from dmod.device import Backend, backend, copy, synchronize, to_host
from dmod.ndarray.arithmetic import Arithmetic
from dmod.ndarray.fluent import FluentMethods
from dmod.ndarray.indexing import array_key, indexing_key_expand_implicit_axes, is_basic
from dmod.ops.shape import reshaped

__all__ = [
    "NDArray",
    "arange",
    "array",
    "concatenate",
    "empty",
    "eye",
    "from_numpy",
    "full",
    "linspace",
    "ones",
    "waitall",
    "zeros",
]


class NDArray(Arithmetic, FluentMethods):
    """A fixed-size array of one dtype on one device.

    Parameters
    ----------
    data : array
        One of the device's; wrapped, not copied. Use `array` to make an NDArray from other data.
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

    __slots__ = ("__weakref__", "_ctx", "_data", "_grad")
    __array_priority__ = 1000.0  # numpy's operators give way to ours
    __hash__ = object.__hash__

    def __init__(self, data: Any, ctx: Context | None = None):
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
        """The storage type: 'default', that is, dense; or 'row_sparse' or 'csr'."""
        return "default"

    @property
    def T(self) -> NDArray:
        """The array with its axes reversed, as a copy."""
        return self.transpose()

    @property
    def _memory(self) -> Backend:
        return backend(self._ctx)

    @property
    def _is_host(self) -> bool:
        return isinstance(self._data, np.ndarray)

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
        raise ValueError("The truth value of an NDArray with multiple elements is ambiguous.")

    def __float__(self) -> float:
        return float(self.asscalar())

    def __int__(self) -> int:
        return int(self.asscalar())

    def __index__(self) -> int:
        if self.size == 1 and np.issubdtype(self.dtype, np.integer):
            return int(self.asscalar())
        raise TypeError("only integer NDArrays of one element can be used as an index")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.asnumpy() if dtype is None else self.asnumpy().astype(dtype, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"data": self.asnumpy(), "ctx": (self._ctx.device_type, self._ctx.device_id)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._ctx = Context(*state["ctx"])
        self._data = self._memory.from_host(state["data"])

    # ---- values out

    def asnumpy(self) -> np.ndarray:
        """A copy as a numpy array."""
        return self._data.copy(order="C") if self._is_host else to_host(self._data)

    def asscalar(self) -> Any:
        """The value of an array of one element, as a numpy scalar."""
        if self.size != 1:
            raise ValueError(f"asscalar: shape {self.shape} has {self.size} elements, expected 1")
        return self.asnumpy().reshape(-1)[0]

    item = asscalar

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self.asnumpy().tolist()

    def wait_to_read(self) -> None:
        """Wait until the array's value is computed; on the CPU it always is."""
        self._memory.synchronize()

    wait_to_write = wait_to_read

    # ---- copies

    def _copied(self, ctx: Context, dtype: Any = None) -> NDArray:
        """A contiguous copy on a device."""
        out = backend(ctx).empty(self.shape, self._data.dtype if dtype is None else dtype)
        with np.errstate(all="ignore"):
            copy(out, self._data)
        return NDArray(out, ctx)

    def copy(self) -> NDArray:
        """A copy on the same device."""
        return self._copied(self._ctx)

    def copyto(self, other: Any) -> NDArray:
        """Copy into an array of the same shape, or to a new one on a device.

        Parameters
        ----------
        other : NDArray or Context

        Returns
        -------
        NDArray
            `other`, or the new array.

        Raises
        ------
        InvalidArgument
            The shapes differ.
        """
        if isinstance(other, Context):
            return self._copied(other)
        if not isinstance(other, NDArray):
            raise TypeError(f"copyto: expected an NDArray or a Context, got {type(other).__name__}")
        if other.shape != self.shape:
            raise InvalidArgument(f"copyto: shape {self.shape} into an array of shape {other.shape}")
        if other.stype != "default":
            other[:] = self
        else:
            with np.errstate(all="ignore"):
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
        return self._copied(self._ctx, _dtype(dtype))

    def tostype(self, stype: str) -> NDArray:
        """The values in another storage type: 'default', 'row_sparse' or 'csr'."""
        from dmod.ndarray.sparse_array import cast_storage

        return cast_storage(self, stype)

    def _dense(self) -> NDArray:
        """The values as a dense array: this one, if it is dense."""
        return self

    def as_nd_ndarray(self) -> NDArray:
        """This array."""
        return self

    def as_np_ndarray(self) -> NoReturn:
        """MXNet's numpy-like arrays are not part of dmod."""
        raise MXNetError("as_np_ndarray: mx.np is not part of dmod; asnumpy() gives a numpy array")

    # ---- gradients: none are recorded for imperative code

    @property
    def grad(self) -> NDArray | None:
        """The array that `attach_grad` made, if it was called."""
        return getattr(self, "_grad", None)

    def attach_grad(self, grad_req: str = "write", stype: str | None = None) -> None:
        """Attach an array of zeros as `grad`; nothing writes into it."""
        self._grad = zeros(self.shape, self._ctx, self.dtype, stype)

    def detach(self) -> NDArray:
        """The same array without the array that `attach_grad` made."""
        return NDArray(self._data, self._ctx)

    def backward(self, out_grad: Any = None, retain_graph: bool = False, train_mode: bool = True) -> NoReturn:
        """Imperative gradients are not part of dmod."""
        raise MXNetError("NDArray.backward: bind a Symbol to compute gradients; imperative code records none")

    # ---- shape

    def reshape(self, *shape: Any, **kwargs: Any) -> NDArray:
        """A view of another shape.

        In `shape`, 0 keeps an axis, -1 takes what is left, -2 copies the remaining axes, -3 joins two
        axes and -4 splits one. With ``reverse=True`` the codes are matched from the right.
        """
        reverse = kwargs.pop("reverse", False)
        shape = kwargs.pop("shape", shape)
        if kwargs:
            raise TypeError(f"reshape: unknown argument {next(iter(kwargs))!r}")
        if isinstance(shape, (int, np.integer)):
            shape = (shape,)
        elif len(shape) == 1 and isinstance(shape[0], (tuple, list)):
            shape = tuple(shape[0])
        if not shape:
            raise InvalidArgument("reshape: the shape is missing")
        return NDArray(self._data.reshape(reshaped(self.shape, tuple(shape), reverse)), self._ctx)

    def _viewed(self, shape: tuple[int, ...], inplace: bool) -> NDArray:
        """This array in another shape: a view, or a copy."""
        view = NDArray(self._data.reshape(shape), self._ctx)
        return view if inplace else view.copy()

    def flatten(self, inplace: bool = False) -> NDArray:
        """As a matrix: the first axis, and all others as one; a view if `inplace`."""
        return self._viewed((self.shape[0], self.size // max(1, self.shape[0])), inplace)

    def expand_dims(self, axis: int, inplace: bool = False) -> NDArray:
        """With a new axis of length 1 at `axis`; a view if `inplace`."""
        if not -self.ndim - 1 <= axis <= self.ndim:
            raise InvalidArgument(f"expand_dims: axis {axis} does not fit {self.ndim} axes")
        at = axis % (self.ndim + 1)
        return self._viewed((*self.shape[:at], 1, *self.shape[at:]), inplace)

    def squeeze(self, axis: int | Sequence[int] | None = None, inplace: bool = False) -> NDArray:
        """Without axes of length 1: `axis`, or all of them; a view if `inplace`."""
        axes = [axis] if isinstance(axis, (int, np.integer)) else axis
        if axes is None:
            shape = tuple(n for n in self.shape if n != 1)
        else:
            for a in axes:
                if not -self.ndim <= a < self.ndim or self.shape[a] != 1:
                    raise InvalidArgument(f"squeeze: axis {a} of shape {self.shape} has not length 1")
            gone = {a % self.ndim for a in axes}
            shape = tuple(n for i, n in enumerate(self.shape) if i not in gone)
        return self._viewed(shape or (1,), inplace)

    def transpose(self, *args: Any, **kwargs: Any) -> NDArray:
        """A copy with its axes permuted, by ``axes`` or numbers; reversed by default."""
        axes = kwargs.pop("axes", args)
        if kwargs:
            raise TypeError(f"transpose: unknown argument {next(iter(kwargs))!r}")
        if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
            axes = axes[0] or ()
        if axes and sorted(a % self.ndim for a in axes) != list(range(self.ndim)):
            raise InvalidArgument(f"transpose: axes {tuple(axes)} of an array of {self.ndim} axes")
        return NDArray(self._data.transpose(*axes), self._ctx).copy()

    def broadcast_to(self, shape: int | Sequence[int]) -> NDArray:
        """A copy, repeated along axes of length 1 to `shape`."""
        memory = self._memory
        try:
            with memory.activate():
                return NDArray(memory.xp.broadcast_to(self._data, _shape(shape)), self._ctx).copy()
        except ValueError:
            raise InvalidArgument(f"broadcast_to: shape {self.shape} to {shape}") from None

    def split_v2(self, indices_or_sections: Any, axis: int = 0, squeeze_axis: bool = False) -> Any:
        """Parts along an axis; see ``mx.nd.split_v2``."""
        from dmod.ndarray.functions import split_v2

        return split_v2(self, indices_or_sections, axis, squeeze_axis)

    # ---- elements

    def __getitem__(self, key: Any) -> NDArray:
        with self._memory.activate():
            place = self._place(key)
            part = self._data[place]
            if not hasattr(part, "ndim") or part.ndim == 0:  # one element: a view of shape (1,)
                part = self._data[(*place, None) if isinstance(place, tuple) else (place, None)]
        found = NDArray(part, self._ctx)
        return found if part.flags.c_contiguous else found.copy()

    def _place(self, key: Any) -> Any:
        """The key of the device's array module for `key`."""
        if is_basic(key):
            indexing_key_expand_implicit_axes(key, self.shape)  # refuses too many indices
        return array_key(key, self._memory)

    def __setitem__(self, key: Any, value: Any) -> None:
        with self._memory.activate():
            place = self._place(key)
        try:
            if isinstance(value, (bool, int, float, np.bool_, np.number)):
                self._assign_number(place, value)
            else:
                self._assign_array(place, value)
        except ValueError as error:
            raise InvalidArgument(f"assignment into an array of shape {self.shape}: {error}") from None

    def _assign_number(self, place: Any, value: Any) -> None:
        with np.errstate(all="ignore"):
            number = np.asarray(value).astype(self._data.dtype)[()]
        with self._memory.activate():
            self._data[place] = number

    def _assign_array(self, place: Any, value: Any) -> None:
        """Assign an NDArray of any device, or what numpy takes for an array."""
        memory = self._memory
        if isinstance(value, NDArray):
            source = value._dense()._data
        else:
            source = np.asarray(value)
        if not memory.owns(source):
            source = memory.from_host(np.ascontiguousarray(to_host(source)))
        with np.errstate(all="ignore"), memory.activate():
            if source.dtype != self._data.dtype:
                source = source.astype(self._data.dtype)
            self._data[place] = source.reshape(()) if source.size == 1 else source

    def slice_assign(self, rhs: NDArray, begin: Any, end: Any, step: Any) -> NDArray:
        """Write `rhs` into the region from `begin` to `end`, in steps; returns this array."""
        self[_region(begin, end, step)] = rhs
        return self

    def slice_assign_scalar(self, value: float, begin: Any, end: Any, step: Any) -> NDArray:
        """Write a number into the region from `begin` to `end`, in steps; returns this array."""
        self[_region(begin, end, step)] = value
        return self

    def __iter__(self) -> Iterator[NDArray]:
        for i in range(len(self)):
            yield self[i]

    def _stored(self) -> Any:
        """What a ``.params`` file keeps."""
        return to_host(self._data)

    # ---- exchange with other libraries

    def to_dlpack_for_read(self) -> Any:
        """A DLPack capsule over this array's memory; see ``mx.nd.from_dlpack``."""
        return self._data.__dlpack__()

    def to_dlpack_for_write(self) -> Any:
        """A DLPack capsule over this array's memory, which its taker may write to."""
        return self._data.__dlpack__()


def _region(begin: Any, end: Any, step: Any) -> tuple[slice, ...]:
    steps = step or (None,) * len(begin)
    return tuple(slice(b, e, s) for b, e, s in zip(begin, end, steps, strict=True))


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    dims = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    for n in dims:
        if not isinstance(n, (int, np.integer)) or n < 0:
            raise InvalidArgument(f"shape {shape}: expected whole numbers that are not negative")
    return tuple(map(int, dims))


def _dtype(dtype: Any) -> np.dtype:
    """A dtype that arrays can have; float32 for None."""
    found = np.dtype(np.float32 if dtype is None else dtype)
    if found.kind not in "fiub":
        raise InvalidArgument(f"dtype {found}: expected floating-point or whole numbers, or bool")
    return found


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
        wanted = source_array.dtype if dtype is None else dtype
        if source_array.stype != "default":
            return source_array.astype(wanted).as_in_context(ctx)
        return source_array._copied(ctx, _dtype(wanted))
    source = np.asarray(source_array)
    if source.dtype == object:
        raise TypeError("array: expected numbers in a rectangular nesting")
    return NDArray(source, Context("cpu", 0))._copied(ctx, _dtype(dtype))


def from_numpy(ndarray: np.ndarray, zero_copy: bool = True, array_cls: type[NDArray] = NDArray) -> NDArray:
    """An NDArray on a numpy array's own memory, or on a copy.

    Raises
    ------
    InvalidArgument
        The memory is to be shared, but the array is not C-contiguous.
    """
    if zero_copy and not ndarray.flags.c_contiguous:
        raise InvalidArgument("from_numpy: only C-contiguous arrays can be shared; give zero_copy=False")
    return array_cls(ndarray if zero_copy else ndarray.copy(order="C"), Context("cpu", 0))


def empty(
    shape: int | Sequence[int], ctx: Context | None = None, dtype: Any = None, stype: str | None = None
) -> NDArray:
    """An array of unspecified values; float32 by default."""
    if stype not in (None, "default"):
        return zeros(shape, ctx, dtype, stype)
    ctx = ctx or current_context()
    return NDArray(backend(ctx).empty(_shape(shape), _dtype(dtype)), ctx)


def zeros(
    shape: int | Sequence[int],
    ctx: Context | None = None,
    dtype: Any = None,
    stype: str | None = None,
    **kwargs: Any,
) -> NDArray:
    """An array of zeros; float32 by default."""
    if stype not in (None, "default"):
        from dmod.ndarray import sparse

        return sparse.zeros(stype, shape, ctx, dtype)
    ctx = ctx or current_context()
    return NDArray(backend(ctx).zeros(_shape(shape), _dtype(dtype)), ctx)


def ones(shape: int | Sequence[int], ctx: Context | None = None, dtype: Any = None, **kwargs: Any) -> NDArray:
    """An array of ones; float32 by default."""
    return full(shape, 1, ctx, dtype or np.float32)


def full(
    shape: int | Sequence[int],
    val: float,
    ctx: Context | None = None,
    dtype: Any = np.float32,
    out: NDArray | None = None,
) -> NDArray:
    """An array of the value `val`; float32 by default."""
    out = empty(shape, ctx, dtype) if out is None else out
    out[:] = val
    return out


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
    first, last = (0, start) if stop is None else (start, stop)
    wanted = _dtype(dtype)
    count = max(0, math.ceil((last - first) / step))
    values = np.arange(count).astype(wanted) * wanted.type(step) + wanted.type(first)
    return array(np.repeat(values, repeat), ctx, wanted)


def linspace(
    start: float,
    stop: float,
    num: int,
    endpoint: bool = True,
    ctx: Context | None = None,
    dtype: Any = np.float32,
) -> NDArray:
    """`num` evenly spaced values from `start` to `stop`, or to before it without `endpoint`."""
    return array(np.linspace(start, stop, num, endpoint), ctx, dtype or np.float32)


def eye(
    N: int, M: int = 0, k: int = 0, ctx: Context | None = None, dtype: Any = None, **kwargs: Any
) -> NDArray:
    """A matrix of N rows and M columns (0: N) with ones on its k-th diagonal."""
    return array(np.eye(N, M or None, k), ctx, dtype or np.float32)


def concatenate(arrays: Sequence[NDArray], axis: int = 0, always_copy: bool = True) -> NDArray:
    """Join arrays along an axis, on the first one's device."""
    if not arrays:
        raise InvalidArgument("concatenate: expected at least one array")
    if not always_copy and len(arrays) == 1:
        return arrays[0]
    ctx, dtype = arrays[0].context, arrays[0].dtype
    for other in arrays:
        if other.dtype != dtype:
            raise InvalidArgument(f"concatenate: dtypes {dtype.__name__} and {other.dtype.__name__} differ")
    memory = backend(ctx)
    parts = [a._dense().as_in_context(ctx)._data for a in arrays]
    try:
        with memory.activate():
            return NDArray(memory.xp.concatenate(parts, axis), ctx)
    except ValueError as error:
        raise InvalidArgument(f"concatenate: {error}") from None


def waitall() -> None:
    """Wait for all computation on all devices that were used."""
    synchronize()
