"""``mx.nd.sparse``: making sparse arrays, and the operators that know them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context, current_context
from dmod.device import to_host
from dmod.ndarray import sparse_math
from dmod.ndarray.arithmetic import add, divide, multiply, subtract
from dmod.ndarray.invoke import make_namespace
from dmod.ndarray.ndarray import NDArray, _shape
from dmod.ndarray.ndarray import array as dense_array
from dmod.ndarray.ndarray import empty as dense_empty
from dmod.ndarray.ndarray import zeros as dense_zeros
from dmod.ndarray.sparse_array import (
    BaseSparseNDArray,
    CSRNDArray,
    RowSparseNDArray,
    cast_storage,
    index_list,
    retain,
)

__all__ = [
    "BaseSparseNDArray",
    "CSRNDArray",
    "RowSparseNDArray",
    "add",
    "array",
    "cast_storage",
    "csr_matrix",
    "divide",
    "empty",
    "multiply",
    "retain",
    "row_sparse_array",
    "subtract",
    "zeros",
]


def _source_array(values: Any, dtype: Any) -> np.ndarray:
    """Host values; lists become float32, as in MXNet."""
    if isinstance(values, NDArray):
        host = to_host(values._data)
    else:
        host = np.asarray(values)
        if dtype is None and not isinstance(values, np.ndarray):
            dtype = np.float32
    return np.array(host, dtype=dtype if dtype is not None else host.dtype)


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(n, (int, np.integer)) for n in value)


def row_sparse_array(
    arg1: Any, shape: Sequence[int] | None = None, ctx: Context | None = None, dtype: Any = None
) -> RowSparseNDArray:
    """Make a `RowSparseNDArray`.

    Parameters
    ----------
    arg1 : tuple, NDArray or array-like
        ``(data, indices)``: stored rows and their numbers; a shape, for zeros; or an array.
    shape : tuple of int, optional
        Default: as many rows as the largest index needs.
    ctx : Context, optional
    dtype : optional
        Default: that of an array, float32 for lists.
    """
    ctx = ctx or current_context()
    if _is_shape(arg1) and shape is None and len(arg1) > 1:
        return zeros("row_sparse", arg1, ctx, dtype)
    if isinstance(arg1, RowSparseNDArray):
        return arg1._copied(ctx, dtype)
    if not isinstance(arg1, tuple):
        dense = arg1 if isinstance(arg1, NDArray) else NDArray(_source_array(arg1, dtype), Context("cpu", 0))
        return cast_storage(dense_array(dense, ctx, dtype), "row_sparse")
    if len(arg1) != 2:
        raise InvalidArgument(f"row_sparse_array: a tuple of {len(arg1)} parts, expected (data, indices)")
    data, rows = _source_array(arg1[0], dtype), index_list(arg1[1])
    if data.shape[:1] != rows.shape:
        raise InvalidArgument(f"row_sparse_array: data {data.shape} and indices {rows.shape} do not fit")
    order = np.argsort(rows, kind="stable")
    if (np.diff(rows[order]) == 0).any():
        raise InvalidArgument("row_sparse_array: a row is given twice")
    full = (int(rows.max(initial=-1)) + 1, *data.shape[1:]) if shape is None else _shape(shape)
    return RowSparseNDArray(data[order], [rows[order]], full, ctx)


def csr_matrix(
    arg1: Any, shape: Sequence[int] | None = None, ctx: Context | None = None, dtype: Any = None
) -> CSRNDArray:
    """Make a `CSRNDArray`.

    Parameters
    ----------
    arg1 : tuple, NDArray, SciPy matrix or array-like
        ``(data, indices, indptr)``; ``(data, (row, col))``; a shape, for zeros; or a matrix.
    shape : (int, int), optional
        Default: as large as the indices need.
    ctx : Context, optional
    dtype : optional
        Default: that of an array, float32 for lists.
    """
    ctx = ctx or current_context()
    if _is_shape(arg1) and shape is None and len(arg1) == 2:
        return zeros("csr", arg1, ctx, dtype)
    if isinstance(arg1, CSRNDArray):
        return arg1._copied(ctx, dtype)
    if isinstance(arg1, BaseSparseNDArray):
        raise InvalidArgument(f"csr_matrix: cannot be made of a {type(arg1).__name__}")
    if hasattr(arg1, "tocsr"):
        matrix = arg1.tocsr()
        shape = matrix.shape if shape is None else shape
        arg1 = (matrix.data, matrix.indices, matrix.indptr)
    if not isinstance(arg1, tuple):
        dense = arg1 if isinstance(arg1, NDArray) else NDArray(_source_array(arg1, dtype), Context("cpu", 0))
        return cast_storage(dense_array(dense, ctx, dtype), "csr")
    if len(arg1) == 2:
        return _of_coordinates(arg1, shape, ctx, dtype)
    if len(arg1) != 3:
        raise InvalidArgument(f"csr_matrix: a tuple of {len(arg1)} parts, expected (data, indices, indptr)")
    data, columns, indptr = _source_array(arg1[0], dtype), index_list(arg1[1]), index_list(arg1[2])
    if shape is None:
        shape = (len(indptr) - 1, int(columns.max(initial=-1)) + 1)
    return CSRNDArray(data, [indptr, columns], _shape(shape), ctx)


def _of_coordinates(arg1: Any, shape: Sequence[int] | None, ctx: Context, dtype: Any) -> CSRNDArray:
    data = _source_array(arg1[0], dtype)
    row, columns = index_list(arg1[1][0]), index_list(arg1[1][1])
    if not data.shape == row.shape == columns.shape:
        raise InvalidArgument(
            f"csr_matrix: data {data.shape}, rows {row.shape} and columns {columns.shape} do not fit"
        )
    full = (
        (int(row.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1) if shape is None else _shape(shape)
    )
    if len(full) != 2 or (row < 0).any() or (row >= full[0]).any():
        raise InvalidArgument(f"csr_matrix: row indices are not below {full[0]}")
    indptr, columns, values = sparse_math.csr_of_coordinates(row, columns, data, full[0])
    return CSRNDArray(values, [indptr, columns], full, ctx)


def zeros(
    stype: str, shape: int | Sequence[int], ctx: Context | None = None, dtype: Any = None, **kwargs: Any
) -> Any:
    """An array of zeros, of which nothing is stored.

    Parameters
    ----------
    stype : {'row_sparse', 'csr', 'default'}
    shape : tuple of int
    ctx : Context, optional
    dtype : optional
        Default: float32.
    """
    if stype == "default":
        return dense_zeros(shape, ctx, dtype, **kwargs)
    full, ctx = _shape(shape), ctx or current_context()
    none, wanted = np.zeros(0, np.int64), np.dtype(dtype or np.float32)
    if stype == "row_sparse" and full:
        return RowSparseNDArray(np.zeros((0, *full[1:]), wanted), [none], full, ctx)
    if stype == "csr" and len(full) == 2:
        return CSRNDArray(np.zeros(0, wanted), [np.zeros(full[0] + 1, np.int64), none], full, ctx)
    raise InvalidArgument(f"zeros: storage type {stype!r} with shape {full}")


def empty(stype: str, shape: int | Sequence[int], ctx: Context | None = None, dtype: Any = None) -> Any:
    """An array of unspecified values; sparse ones store nothing."""
    return dense_empty(shape, ctx, dtype) if stype == "default" else zeros(stype, shape, ctx, dtype)


def array(source_array: Any, ctx: Context | None = None, dtype: Any = None) -> Any:
    """A sparse copy of a sparse array, of dmod or SciPy.

    Parameters
    ----------
    source_array : CSRNDArray, RowSparseNDArray or SciPy matrix
    ctx : Context, optional
    dtype : optional
    """
    if isinstance(source_array, BaseSparseNDArray):
        return source_array._copied(ctx or current_context(), dtype)
    if hasattr(source_array, "tocsr"):
        return csr_matrix(source_array, None, ctx, dtype)
    raise InvalidArgument(f"sparse.array: expected a sparse array, got {type(source_array).__name__}")


_GENERATED = {name: f for name, f in make_namespace("sparse").items() if name not in __all__}
globals().update(_GENERATED)
__all__ += sorted(_GENERATED)
