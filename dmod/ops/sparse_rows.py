"""What operators do with sparse arrays: products of csr matrices, gradients of some rows.

A csr input and a row_sparse gradient reach an operator as the sparse array object itself, whose contents
change from step to step: ``_aux`` (csr: where rows begin, and columns; row_sparse: rows), ``_data`` and
``_set``. Only operators that say so (`Operator.takes_sparse`) see them; others get dense copies.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from dmod.device.kernels import compiled_kernels

__all__ = ["add_by_row", "csr_product", "csr_transposed_product", "is_sparse"]


def is_sparse(array: Any, stype: str | None = None) -> bool:
    """Whether an operator's array is sparse (of a storage type)."""
    found = getattr(array, "stype", "default")
    return found != "default" and (stype is None or found == stype)


def _add(out, into, source, start, values):  # type: ignore[no-untyped-def]
    """``out[into[p]] += values[p] * source[start[p]]``, one after the other."""
    for p in range(len(values)):
        for k in range(out.shape[1]):
            out[into[p], k] += values[p] * source[start[p], k]


@cache
def _compiled_add() -> Any:
    """`_add`, compiled; None without numba."""
    if compiled_kernels() is None:
        return None
    from dmod.device.compiled_math import compiled

    return compiled(_add)


def _add_products(out: Any, into: Any, source: Any, start: Any, values: Any) -> None:
    add = _compiled_add()
    if add is not None:
        add(out, into, source, start, values)
    else:
        np.add.at(out, into, values[:, None] * source[start])


def _row_numbers(csr: Any) -> np.ndarray:
    indptr = csr._aux[0]
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def csr_product(csr: Any, dense: np.ndarray, out: np.ndarray) -> None:
    """``out = csr @ dense``, for a csr array (m, n) and matrices (n, k) and (m, k)."""
    out.fill(0)
    _add_products(out, _row_numbers(csr), dense, csr._aux[1], csr._data)


def csr_transposed_product(csr: Any, dense: np.ndarray, out: Any) -> None:
    """``out = csr.T @ dense``: the rows of the columns that `csr` has, or all if `out` is a numpy array.

    Each row's products are added in the order in which `csr` stores the values.
    """
    columns = csr._aux[1]
    if not is_sparse(out):
        out.fill(0)
        _add_products(out, columns, dense, _row_numbers(csr), csr._data)
        return
    rows, where = np.unique(columns, return_inverse=True)
    total = np.zeros((len(rows), *out.shape[1:]), out.dtype)
    matrix = total.reshape(len(rows), -1)
    _add_products(matrix, where, dense, _row_numbers(csr), csr._data)
    out._set(total, [rows])


def add_by_row(index: np.ndarray, dense: np.ndarray, out: Any) -> None:
    """Set a row_sparse array to the sums of the rows of `dense` with the same `index`."""
    rows, where = np.unique(index, return_inverse=True)
    total = np.zeros((len(rows), *out.shape[1:]), out.dtype)
    matrix = dense.reshape(len(where.reshape(-1)), -1)
    ones = np.ones(len(matrix), matrix.dtype)
    _add_products(total.reshape(len(rows), -1), where.reshape(-1), matrix, np.arange(len(matrix)), ones)
    out._set(total, [rows.astype(np.int64)])
