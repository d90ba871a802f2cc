"""The CPU: numpy arrays in host memory, aligned so that kernels see the same bits wherever they run."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["CpuBackend"]

_ALIGNMENT = 64


class CpuBackend:
    """Memory and arithmetic of the host."""

    name = "cpu"

    @property
    def xp(self) -> ModuleType:
        """The array module that operators are written against."""
        return np

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array that starts at a 64-byte boundary."""
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return self.raw(nbytes)[:nbytes].view(dtype).reshape(shape)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of zeros that starts at a 64-byte boundary."""
        array = self.empty(shape, dtype)
        array.fill(0)
        return array

    def raw(self, nbytes: int) -> np.ndarray:
        """`nbytes` of uninitialised memory as uint8, from a 64-byte boundary on."""
        block = np.empty(nbytes + _ALIGNMENT, np.uint8)
        skip = -block.ctypes.data % _ALIGNMENT
        return block[skip : skip + nbytes]
