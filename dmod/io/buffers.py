"""Memory for batches that is used again once nobody holds it: new memory costs a page fault for each 4 KB."""

from __future__ import annotations

import sys

import numpy as np

__all__ = ["Buffers", "Room"]


class Buffers:
    """Arrays of one shape that are used again once nobody else holds them, or a view of them.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy dtype
    most : int
        How many to keep; what is asked for beyond is made and forgotten.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, most: int):
        self._shape, self._dtype, self._most = shape, dtype, most
        self._arrays: list[np.ndarray] = []

    def take(self) -> np.ndarray:
        """An array that nobody uses, with whatever is in it."""
        for i in range(len(self._arrays)):
            # All views of an array hold the array itself, so its count says whether any is left.
            if sys.getrefcount(self._arrays[i]) <= _IDLE:
                return self._arrays[i]
        array = np.empty(self._shape, self._dtype)
        if len(self._arrays) < self._most:
            self._arrays.append(array)
        return array


def _idle_count() -> int:
    """What `sys.getrefcount` says of an array that only a list holds."""
    arrays = [np.empty(1)]
    return sys.getrefcount(arrays[0])


_IDLE = _idle_count()


class Room:
    """Arrays of any length, over memory that is used again; for lengths that vary little."""

    def __init__(self, dtype: np.dtype | type, most: int):
        self._dtype, self._most = np.dtype(dtype), most
        self._buffers: dict[int, Buffers] = {}

    def take(self, count: int) -> np.ndarray:
        """`count` elements that nobody uses, with whatever is in them."""
        size = 1 << max(count - 1, 0).bit_length()  # what is not touched costs nothing
        if size not in self._buffers:
            self._buffers = {size: Buffers((size,), self._dtype, self._most)}
        return self._buffers[size].take()[:count]
