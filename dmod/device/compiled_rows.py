"""Compiled sums of rows by number. Importing this file imports numba."""

from __future__ import annotations

from dmod.device.compiled_math import compiled

__all__ = ["add_rows"]


@compiled
def add_rows(source, index, target):  # type: ignore[no-untyped-def]
    """``target = 0; target[index[i]] += source[i]``, one row after the other, as `numpy.add.at` does.

    Parameters
    ----------
    source : array (N, D)
    index : int64 array (N,)
        Within [0, V).
    target : array (V, D)

    Notes
    -----
    For 700 rows of 200 into 10000, one core of an AMD EPYC: 0.08 ms, with `numpy.add.at` 0.22 ms.
    """
    target[:, :] = 0
    for i in range(index.size):
        row, into = source[i], target[index[i]]
        for j in range(row.size):
            into[j] += row[j]
