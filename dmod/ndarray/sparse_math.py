"""Arithmetic on the parts of sparse arrays, on the host: numpy arrays in, numpy arrays out.

A csr matrix is (indptr, columns, values); row_sparse is (rows, values) with rows in ascending order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = [
    "csr_combine",
    "csr_dot",
    "csr_of_coordinates",
    "csr_of_dense",
    "csr_row_numbers",
    "csr_slice",
    "csr_to_dense",
    "csr_transposed_dot",
    "rows_combine",
    "rows_of_dense",
    "rows_retain",
]

Csr = tuple[np.ndarray, np.ndarray, np.ndarray]
Rows = tuple[np.ndarray, np.ndarray]
_CHUNK = 1 << 20
"""Products that are held at a time: 4 MB of float32, which stays in cache."""


def csr_row_numbers(indptr: np.ndarray) -> np.ndarray:
    """The row of each stored value."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def csr_to_dense(indptr: np.ndarray, columns: np.ndarray, values: np.ndarray, width: int) -> np.ndarray:
    """The matrix; values that are stored twice add up."""
    out = np.zeros((len(indptr) - 1, width), values.dtype)
    np.add.at(out, (csr_row_numbers(indptr), columns), values)
    return out


def csr_of_dense(dense: np.ndarray) -> Csr:
    """The values that are not zero."""
    row, columns = np.nonzero(dense)
    return _indptr(row, len(dense)), columns.astype(np.int64), dense[row, columns]


def _indptr(row: np.ndarray, n_rows: int) -> np.ndarray:
    counts = np.bincount(row, minlength=n_rows)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def csr_of_coordinates(row: np.ndarray, columns: np.ndarray, values: np.ndarray, n_rows: int) -> Csr:
    """A csr matrix of values at coordinates, in any order."""
    order = np.lexsort((columns, row))
    return _indptr(row, n_rows), columns[order].astype(np.int64), values[order]


def csr_slice(indptr: np.ndarray, columns: np.ndarray, values: np.ndarray, begin: int, end: int) -> Csr:
    """The rows from `begin` to before `end`."""
    first, last = int(indptr[begin]), int(indptr[end])
    return indptr[begin : end + 1] - first, columns[first:last].copy(), values[first:last].copy()


def csr_combine(left: Csr, right: Csr, width: int, function: Callable[..., np.ndarray]) -> Csr:
    """Add, subtract or multiply two matrices of one shape; zeros that result are not stored."""
    n_rows = len(left[0]) - 1
    keys = [csr_row_numbers(m[0]) * width + m[1] for m in (left, right)]
    places, where = np.unique(np.concatenate(keys), return_inverse=True)
    sides = np.zeros((2, len(places)), left[2].dtype)
    np.add.at(sides[0], where[: len(keys[0])], left[2])
    np.add.at(sides[1], where[len(keys[0]) :], right[2])
    values = function(sides[0], sides[1])
    kept = values != 0
    places = places[kept]
    return _indptr(places // max(1, width), n_rows), places % max(1, width), values[kept]


def csr_dot(indptr: np.ndarray, columns: np.ndarray, values: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """The product of the matrix and a dense one, in pieces that fit into the cache."""
    out = np.zeros((len(indptr) - 1, dense.shape[1]), values.dtype)
    filled = np.flatnonzero(np.diff(indptr))
    per_piece = max(1, _CHUNK // max(1, dense.shape[1]))
    start = 0
    while start < len(filled):
        limit = indptr[filled[start]] + per_piece
        stop = max(start + 1, int(np.searchsorted(indptr[filled + 1], limit, "right")))
        rows = filled[start:stop]
        first, last = indptr[rows[0]], indptr[rows[-1] + 1]
        products = values[first:last, None] * dense[columns[first:last]]
        out[rows] = np.add.reduceat(products, indptr[rows] - first, axis=0)
        start = stop
    return out


def csr_transposed_dot(
    indptr: np.ndarray, columns: np.ndarray, values: np.ndarray, dense: np.ndarray
) -> Rows:
    """The product of the transposed matrix and a dense one: only rows with stored values come out."""
    rows, where = np.unique(columns, return_inverse=True)
    by_column = np.argsort(where, kind="stable")
    turned = np.concatenate([[0], np.cumsum(np.bincount(where, minlength=len(rows)))]).astype(np.int64)
    product = csr_dot(turned, csr_row_numbers(indptr)[by_column], values[by_column], dense)
    return rows.astype(np.int64), product


def rows_of_dense(dense: np.ndarray) -> Rows:
    """The rows that are not all zero."""
    rows = np.flatnonzero((dense != 0).reshape(len(dense), -1).any(axis=1))
    return rows.astype(np.int64), dense[rows]


def rows_combine(left: Rows, right: Rows, function: Callable[..., np.ndarray]) -> Rows:
    """Add, subtract or multiply: the rows that either side has."""
    rows = np.union1d(left[0], right[0])
    sides = np.zeros((2, len(rows), *left[1].shape[1:]), left[1].dtype)
    sides[0, np.searchsorted(rows, left[0])] = left[1]
    sides[1, np.searchsorted(rows, right[0])] = right[1]
    return rows, function(sides[0], sides[1])


def rows_retain(rows: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> Rows:
    """The rows `wanted`, in ascending order; those that are not stored are zero."""
    wanted = np.unique(wanted.astype(np.int64))
    out = np.zeros((len(wanted), *values.shape[1:]), values.dtype)
    if len(rows):
        at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
        found = rows[at] == wanted
        out[found] = values[at[found]]
    return wanted, out
