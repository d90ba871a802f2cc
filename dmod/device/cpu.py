"""The CPU: numpy arrays in host memory, aligned so that kernels see the same bits wherever they run."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from dmod.device.base import ALIGNMENT, Backend
from dmod.device.random import SlotStream

__all__ = ["CpuBackend"]


class CpuBackend(Backend):
    """Memory and arithmetic of the host."""

    name = "cpu"
    is_host = True

    @property
    def xp(self) -> ModuleType:
        return np

    def raw(self, nbytes: int) -> np.ndarray:
        block = np.empty(nbytes + ALIGNMENT, np.uint8)
        skip = -block.ctypes.data % ALIGNMENT
        return block[skip : skip + nbytes]

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        dtype = np.dtype(dtype)
        nbytes = math.prod(shape) * dtype.itemsize
        block = np.zeros(nbytes + ALIGNMENT, np.uint8)  # large ones are zero without being touched
        skip = -block.ctypes.data % ALIGNMENT
        return block[skip : skip + nbytes].view(dtype).reshape(shape)

    def owns(self, array: Any) -> bool:
        return isinstance(array, np.ndarray)

    def copy_in(self, target: Any, source: np.ndarray) -> None:
        np.copyto(target, source, casting="unsafe")

    def copy_out(self, target: np.ndarray, source: Any) -> None:
        np.copyto(target, source, casting="unsafe")

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def uniform(self, out: np.ndarray, stream: SlotStream, node: int) -> None:
        stream.generator(node).random(out=out, dtype=np.float32)
