"""Host memory that GPUs read by themselves: who fills batches takes it, and they are copied once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["PinnedMemory"]


class PinnedMemory:
    """The pinned memory of a process.

    Parameters
    ----------
    allocate : callable
        From a number of bytes to a uint8 array.
    """

    def __init__(self, allocate: Callable[[int], np.ndarray]):
        self._allocate = allocate
        self._ends: dict[int, int] = {}  # of each piece, by where it begins

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array: a view of one of bytes."""
        dtype = np.dtype(dtype)
        block = self._allocate(max(int(np.prod(shape)) * dtype.itemsize, 1))
        begin = block.ctypes.data
        self._ends[begin] = begin + block.nbytes
        array = block[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
        weakref.finalize(array.base, self._ends.pop, begin, None)  # whom all views hold
        return array

    def holds(self, array: np.ndarray) -> bool:
        """Whether `array` lies in it, in one run."""
        if not self._ends or not array.flags.c_contiguous:
            return False
        begin = array.ctypes.data
        pieces = list(self._ends.items())  # a thread may allocate meanwhile
        return any(start <= begin and begin + array.nbytes <= end for start, end in pieces)
