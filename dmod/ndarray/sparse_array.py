"""Arrays that store some of their rows (row_sparse) or some of their elements (csr).

What keeps zeros at zero stays sparse; everything else falls back to dense copies. Their arithmetic is
done on the host (`sparse_math`), whichever device they are on.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np

from dmod.base import InvalidArgument, MXNetError, NotSupportedForSparseNDArray
from dmod.context import Context
from dmod.device import backend, to_host
from dmod.ndarray import sparse_math
from dmod.ndarray.arithmetic import FUNCTIONS, Arithmetic, same_device
from dmod.ndarray.ndarray import NDArray
from dmod.ndarray.ndarray import array as dense_array
from dmod.ndarray.ndarray import zeros as dense_zeros
from dmod.ndarray.params_file import Stored

__all__ = [
    "BaseSparseNDArray",
    "CSRNDArray",
    "RowSparseNDArray",
    "cast_storage",
    "from_stored",
    "index_list",
    "retain",
]


class BaseSparseNDArray(NDArray):
    """What both kinds of sparse arrays share.

    Parameters
    ----------
    data : numpy.ndarray
        The stored values.
    aux : list of numpy.ndarray
        int64 indices; for csr: where rows begin, and columns.
    shape : tuple of int
    ctx : Context
    """

    __slots__ = ("_aux", "_full_shape")
    _stype: ClassVar[str]

    def __init__(self, data: np.ndarray, aux: Sequence[np.ndarray], shape: Sequence[int], ctx: Context):
        self._ctx = ctx
        self._full_shape = tuple(shape)
        self._set(data, aux)

    def _set(self, data: np.ndarray, aux: Sequence[np.ndarray]) -> None:
        """Replace the stored values."""
        stored = Stored(self._stype, self._full_shape, data, aux)
        if problem := stored.problem():
            raise InvalidArgument(f"{self._stype} array: {problem}")
        memory = backend(self._ctx)
        own: Callable[[Any], Any] = np.ascontiguousarray if memory.is_host else memory.from_host
        self._data, self._aux = own(data), [own(a.astype(np.int64, copy=False)) for a in aux]

    def _parts(self) -> tuple[np.ndarray, ...]:
        """Indices and values on the host, as `sparse_math` takes them."""
        return (*map(to_host, self._aux), to_host(self._data))

    def _stored(self) -> Stored:
        *aux, data = self._parts()
        return Stored(self._stype, self.shape, data, aux)

    def _with(self, parts: Sequence[np.ndarray], shape: Sequence[int] | None = None) -> Any:
        """A new array of this kind and device."""
        *aux, data = parts
        return type(self)(data, aux, self.shape if shape is None else shape, self._ctx)

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self._full_shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._full_shape)

    @property
    def size(self) -> int:
        """The number of elements, stored or not."""
        return math.prod(self._full_shape)

    @property
    def stype(self) -> str:
        """The storage type: 'row_sparse' or 'csr'."""
        return self._stype

    @property
    def data(self) -> NDArray:
        """A copy of the stored values."""
        return NDArray(self._data, self._ctx).copy()

    @property
    def indices(self) -> NDArray:
        """A copy of the rows (row_sparse) or columns (csr) of the stored values, int64."""
        return NDArray(self._aux[-1], self._ctx).copy()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"\n<{type(self).__name__} {shape} @{self._ctx}>"

    def __getstate__(self) -> dict[str, Any]:
        ctx = (self._ctx.device_type, self._ctx.device_id)
        return {"parts": self._parts(), "shape": self.shape, "ctx": ctx}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._ctx, self._full_shape = Context(*state["ctx"]), state["shape"]
        *aux, data = state["parts"]
        self._set(data, aux)

    # ---- values and copies

    def _to_dense(self) -> np.ndarray:
        raise NotImplementedError

    def _dense(self) -> NDArray:
        return NDArray(backend(self._ctx).from_host(self._to_dense()), self._ctx)

    def asnumpy(self) -> np.ndarray:
        """A dense numpy array."""
        return self._to_dense()

    def _copied(self, ctx: Context, dtype: Any = None) -> Any:
        *aux, data = self._parts()
        with np.errstate(all="ignore"):
            data = data.astype(data.dtype if dtype is None else dtype)
        return type(self)(data, [a.copy() for a in aux], self.shape, ctx)

    def copyto(self, other: Any) -> NDArray:
        """Copy into an array of the same shape, dense or of this storage type, or to a device."""
        if isinstance(other, Context):
            return self._copied(other)
        if not isinstance(other, NDArray):
            raise TypeError(f"copyto: expected an NDArray or a Context, got {type(other).__name__}")
        if other.stype == "default":
            return self._dense().copyto(other)
        other[:] = self
        return other

    def detach(self) -> Any:
        """The same array without the array that `attach_grad` made."""
        return self._with(self._parts())

    def check_format(self, full_check: bool = True) -> None:
        """Raise `InvalidArgument` if indices are out of range or, with `full_check`, not ascending."""
        if (problem := self._stored().problem()) or (full_check and (problem := self._disorder())):
            raise InvalidArgument(f"{self._stype} array: {problem}")

    def _disorder(self) -> str:
        raise NotImplementedError

    def __setitem__(self, key: Any, value: Any) -> None:
        if not (isinstance(key, slice) and key == slice(None)):
            raise InvalidArgument(f"{type(self).__name__} only supports [:] for assignment")
        if isinstance(value, (bool, int, float, np.number)):
            self._fill(value)
            return
        source = value if isinstance(value, NDArray) else dense_array(value, self._ctx)
        if source.shape != self.shape:
            raise InvalidArgument(f"assignment of shape {source.shape} into a sparse array of {self.shape}")
        same = cast_storage(source, self._stype) if source.stype != self._stype else source
        *aux, data = same._parts()
        self._set(data.astype(self._data.dtype), [a.copy() for a in aux])

    def _fill(self, value: Any) -> None:
        raise InvalidArgument(f"assigning numbers to a {type(self).__name__} is not supported")

    # ---- arithmetic

    def _binary(self, other: Any, name: str, swap: bool = False) -> Any:
        if isinstance(other, Arithmetic):
            result = None if swap else self._binary_array(other, name)
        elif isinstance(other, (bool, int, float, np.bool_, np.integer, np.floating)):
            result = self._binary_number(other, name, swap)
        else:
            raise TypeError(f"{name}: type {type(other)} not supported")
        return self._dense()._binary(other, name, swap) if result is None else result

    def _binary_number(self, other: Any, name: str, swap: bool) -> Any:
        """The result if zeros stay zero, else None."""
        keeps = name in ("add", "subtract", "multiply", "divide") or "equal" in name or name in _ORDER
        if not keeps or (swap and name in ("divide", "subtract")):
            return None
        if name not in ("multiply", "divide"):
            nothing = dense_zeros((1,), self._ctx, self.dtype)
            if nothing._binary(other, name, swap).asscalar() != 0:
                return None
        *aux, data = self._parts()
        values = NDArray(data, Context("cpu", 0))._binary(other, name, swap)
        return self._with((*aux, values._data))

    def _binary_array(self, other: Any, name: str) -> Any:
        if name not in ("add", "subtract", "multiply"):
            return None
        if other.stype != self._stype:
            return self._times_dense(other) if name == "multiply" and other.stype == "default" else None
        same_device(self._ctx, other.context, name)
        if other.shape != self.shape:
            raise InvalidArgument(f"{name}: shapes {self.shape} and {other.shape}")
        if other.dtype != self.dtype:
            raise InvalidArgument(f"{name}: dtypes {self.dtype.__name__} and {other.dtype.__name__} differ")
        with np.errstate(all="ignore"):
            return self._combine(other, lambda a, b: FUNCTIONS[name](np, a, b))

    def _combine(self, other: Any, function: Callable[..., np.ndarray]) -> Any:
        raise NotImplementedError

    def _times_dense(self, other: NDArray) -> Any:
        """The product with a dense array: what is not stored stays zero. None if shapes don't fit."""
        raise NotImplementedError

    def _inplace(self, other: Any, name: str) -> Any:
        self[:] = self._binary(other, name)
        return self

    def _unary(self, name: str) -> Any:
        *aux, data = self._parts()
        return self._with((*aux, getattr(np, name)(data)))

    # ---- what only dense arrays have

    def _refuse(self, name: str) -> NoReturn:
        raise NotSupportedForSparseNDArray(
            f"{name} is not supported for a {type(self).__name__}; tostype('default') makes a dense array"
        )

    def reshape(self, *shape: Any, **kwargs: Any) -> NoReturn:
        """Not supported."""
        self._refuse("reshape")

    def asscalar(self) -> NoReturn:
        """Not supported."""
        self._refuse("asscalar")

    def slice_assign(self, rhs: NDArray, begin: Any, end: Any, step: Any) -> NoReturn:
        """Not supported."""
        self._refuse("slice_assign")

    def slice_assign_scalar(self, value: float, begin: Any, end: Any, step: Any) -> NoReturn:
        """Not supported."""
        self._refuse("slice_assign_scalar")

    def to_dlpack_for_read(self) -> NoReturn:
        """Not supported."""
        self._refuse("to_dlpack_for_read")

    def to_dlpack_for_write(self) -> NoReturn:
        """Not supported."""
        self._refuse("to_dlpack_for_write")

    def flatten(self, inplace: bool = False) -> NDArray:
        """A dense array."""
        return self._dense().flatten(inplace)

    def expand_dims(self, axis: int, inplace: bool = False) -> NDArray:
        """A dense array."""
        return self._dense().expand_dims(axis, inplace)

    def squeeze(self, axis: int | Sequence[int] | None = None, inplace: bool = False) -> NDArray:
        """A dense array."""
        return self._dense().squeeze(axis, inplace)

    def transpose(self, *args: Any, **kwargs: Any) -> NDArray:
        """A dense array."""
        return self._dense().transpose(*args, **kwargs)

    def broadcast_to(self, shape: int | Sequence[int]) -> NDArray:
        """A dense array."""
        return self._dense().broadcast_to(shape)

    def split_v2(self, indices_or_sections: Any, axis: int = 0, squeeze_axis: bool = False) -> Any:
        """Dense arrays."""
        return self._dense().split_v2(indices_or_sections, axis, squeeze_axis)


_ORDER = ("greater", "lesser")


class RowSparseNDArray(BaseSparseNDArray):
    """An array of which some rows are stored; all others are zero. Gradients of embeddings are such.

    Examples
    --------
    >>> from dmod.ndarray.sparse import row_sparse_array
    >>> x = row_sparse_array(([[1, 2]], [3]), shape=(5, 2))
    >>> x.indices.asnumpy()
    array([3])
    """

    __slots__ = ()
    _stype = "row_sparse"

    def _to_dense(self) -> np.ndarray:
        rows, values = self._parts()
        out = np.zeros(self.shape, values.dtype)
        out[rows] = values
        return out

    def _disorder(self) -> str:
        rows = self._parts()[0]
        return "row indices are not in ascending order" if (np.diff(rows) <= 0).any() else ""

    def _fill(self, value: Any) -> None:
        values = np.empty(self.shape, self._data.dtype)
        values.fill(value)
        self._set(values, [np.arange(self.shape[0])])

    def __getitem__(self, key: Any) -> RowSparseNDArray:
        if isinstance(key, slice) and key == slice(None):
            return self
        raise InvalidArgument("RowSparseNDArray only supports [:]; tostype('default') makes a dense array")

    def _combine(self, other: Any, function: Callable[..., np.ndarray]) -> RowSparseNDArray:
        return self._with(sparse_math.rows_combine(self._parts(), other._parts(), function))  # type: ignore[arg-type]

    def _times_dense(self, other: NDArray) -> Any:
        if other.shape != self.shape or other.dtype != self.dtype:
            return None
        rows, values = self._parts()
        return self._with((rows, values * to_host(other._data)[rows]))

    def retain(self, *args: Any, **kwargs: Any) -> RowSparseNDArray:
        """Only the rows ``indices``; those that are not stored are zero. See `retain`."""
        return retain(self, *args, **kwargs)


class CSRNDArray(BaseSparseNDArray):
    """A matrix of which some elements are stored, row by row; LibSVM data is such.

    Examples
    --------
    >>> from dmod.ndarray.sparse import csr_matrix
    >>> x = csr_matrix(([5, 7], [2, 0], [0, 1, 2]), shape=(2, 3))
    >>> x.asnumpy()
    array([[0., 0., 5.],
           [7., 0., 0.]], dtype=float32)
    """

    __slots__ = ()
    _stype = "csr"

    @property
    def indptr(self) -> NDArray:
        """A copy of where each row's values begin and the last one's end, int64."""
        return NDArray(self._aux[0], self._ctx).copy()

    def _to_dense(self) -> np.ndarray:
        indptr, columns, values = self._parts()
        return sparse_math.csr_to_dense(indptr, columns, values, self.shape[1])

    def _disorder(self) -> str:
        indptr, columns, _ = self._parts()
        keys = sparse_math.csr_row_numbers(indptr) * self.shape[1] + columns
        return "columns are not in ascending order within each row" if (np.diff(keys) <= 0).any() else ""

    def __getitem__(self, key: Any) -> CSRNDArray:
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"row {key} of a csr matrix of {len(self)} rows")
            key = slice(int(key) % len(self), int(key) % len(self) + 1)
        if not isinstance(key, slice) or key.step not in (None, 1):
            raise InvalidArgument("CSRNDArray supports one row or a slice of successive rows only")
        begin, end, _ = key.indices(len(self))
        end = max(begin, end)
        indptr, columns, values = self._parts()
        parts = sparse_math.csr_slice(indptr, columns, values, begin, end)
        return self._with(parts, (end - begin, self.shape[1]))

    def _combine(self, other: Any, function: Callable[..., np.ndarray]) -> CSRNDArray:
        left, right = self._parts(), other._parts()
        return self._with(sparse_math.csr_combine(left, right, self.shape[1], function))  # type: ignore[arg-type]

    def _times_dense(self, other: NDArray) -> Any:
        if other.dtype != self.dtype or other.ndim > 2:
            return None
        try:
            factors = np.broadcast_to(to_host(other._data), self.shape)
        except ValueError:
            return None
        indptr, columns, values = self._parts()
        return self._with((indptr, columns, values * factors[sparse_math.csr_row_numbers(indptr), columns]))

    def asscipy(self) -> Any:
        """A ``scipy.sparse.csr_matrix`` of the values; needs SciPy."""
        try:
            scipy_matrix = importlib.import_module("scipy.sparse").csr_matrix
        except ImportError:
            raise MXNetError("asscipy needs SciPy, which is not installed") from None
        indptr, columns, values = self._parts()
        return scipy_matrix((values, columns, indptr), shape=self.shape)


# ---- between kinds


def index_list(values: Any) -> np.ndarray:
    """Indices as a list of int64 on the host."""
    host = to_host(values._data) if isinstance(values, NDArray) else np.asarray(values)
    if host.ndim != 1:
        raise InvalidArgument(f"indices of a sparse array have shape {host.shape}, expected one axis")
    return host.astype(np.int64)


def from_stored(stored: Stored, ctx: Context) -> BaseSparseNDArray:
    """The array that a ``.params`` file holds."""
    kind = RowSparseNDArray if stored.stype == "row_sparse" else CSRNDArray
    return kind(stored.data, stored.aux, stored.shape, ctx)


def cast_storage(data: NDArray, stype: str, out: NDArray | None = None, name: str | None = None) -> Any:
    """A copy in another storage type.

    Parameters
    ----------
    data : NDArray
    stype : {'default', 'row_sparse', 'csr'}
        row_sparse and csr do not become each other.
    out : NDArray, optional
        Where the copy goes.
    name : str, optional
        Ignored.
    """
    return _cast(data, stype) if out is None else _cast(data, stype).copyto(out)


def _cast(data: NDArray, stype: str) -> Any:
    if stype not in ("default", "row_sparse", "csr"):
        raise InvalidArgument(f"storage type {stype!r}: expected 'default', 'row_sparse' or 'csr'")
    if data.stype == stype:
        return data.copy()
    if stype == "default":
        return data._dense()
    if data.stype != "default":
        raise InvalidArgument(f"cast_storage from {data.stype} to {stype} is not supported")
    host, ctx = to_host(data._data), data.context
    if stype == "row_sparse" and data.ndim:
        rows, values = sparse_math.rows_of_dense(host)
        return RowSparseNDArray(values, [rows], data.shape, ctx)
    if data.ndim != 2:
        raise InvalidArgument(f"cast_storage: an array of shape {data.shape} cannot be {stype}")
    indptr, columns, values = sparse_math.csr_of_dense(host)
    return CSRNDArray(values, [indptr, columns], data.shape, ctx)


def retain(data: RowSparseNDArray, indices: Any, out: NDArray | None = None, name: str | None = None) -> Any:
    """Only some rows of a row_sparse array.

    Parameters
    ----------
    data : RowSparseNDArray
    indices : NDArray or array-like
        Row numbers; rows that are not stored come out as zeros.
    out : NDArray, optional
        Where the rows go.
    name : str, optional
        Ignored.
    """
    if not isinstance(data, RowSparseNDArray):
        raise InvalidArgument(f"retain: expected a RowSparseNDArray, got {type(data).__name__}")
    wanted = index_list(indices)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= len(data)):
        raise InvalidArgument(f"retain: row indices are not below {len(data)}")
    rows, values = data._parts()
    kept = data._with(sparse_math.rows_retain(rows, values, wanted))
    return kept if out is None else kept.copyto(out)
