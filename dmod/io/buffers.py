"""Memory for batches that is used again once nobody holds it: new memory costs a page fault for each 4 KB."""

from __future__ import annotations

import math
import sys

import numpy as np

from dmod.device import pinned_memory
from dmod.device.pinned import PinnedMemory

__all__ = ["Buffers", "Room"]


class Buffers:
    """Arrays of one shape that are used again once nobody else holds them, or a view of them.

    Once a GPU is in use, they lie in pinned memory, from which it copies them without another copy before.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy dtype
    most : int
        How many to keep; what is asked for beyond is made and forgotten.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, most: int):
        self._shape, self._dtype, self._most = shape, dtype, most
        self._pinned: PinnedMemory | None = None
        self._owners: list[tuple[np.ndarray, int]] = []  # and where in their memory an array begins

    def take(self) -> np.ndarray:
        """An array that nobody uses, with whatever is in it."""
        pinned = pinned_memory()
        if pinned is not self._pinned:
            self._pinned, self._owners = pinned, []
        for i in range(len(self._owners)):
            # All views of an array hold its owner, so the count of that says whether any is left.
            if sys.getrefcount(self._owners[i][0]) <= _IDLE:
                return self._array(*self._owners[i])
        if pinned is None:
            array = owner = np.empty(self._shape, self._dtype)
        else:
            array = pinned.empty(self._shape, self._dtype)
            assert array.base is not None
            owner = array.base
        if len(self._owners) < self._most:
            self._owners.append((owner, array.ctypes.data - owner.ctypes.data))
        return array

    def _array(self, owner: np.ndarray, offset: int) -> np.ndarray:
        if self._pinned is None:
            return owner
        nbytes = math.prod(self._shape) * self._dtype.itemsize
        return owner[offset : offset + nbytes].view(self._dtype).reshape(self._shape)


def _idle_count() -> int:
    """What `sys.getrefcount` says of an array that only a tuple in a list holds."""
    arrays = [(np.empty(1), 0)]
    return sys.getrefcount(arrays[0][0])


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
