"""Sums over the devices of one process, in the fixed tree.

On the host in pieces that stay in the cache; on GPUs on the first one of them, by copies between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.device import backend_of, copy
from dmod.kvstore.transports.segments import gradient_buffer
from dmod.kvstore.tree import split, sum_dtype
from dmod.ndarray.flat import aligned_empty

__all__ = ["DeviceSum"]

CHUNK_NBYTES = 1 << 18
"""Bytes of each array that are added before the next piece: two operands and a sum stay in a core's L2."""


class DeviceSum:
    """Adds up arrays of one size, one per device, always in the tree of `dmod.kvstore.tree`.

    Parameters
    ----------
    n : int
        The number of devices.
    size : int
        Elements of each array.
    dtype : dtype
        Theirs; the sum is in float32 for float16, which is rounded only after the workers' sums.

    Examples
    --------
    >>> DeviceSum(3, 2, 'float32')([np.float32([1, 2]), np.float32([3, 4]), np.float32([5, 6])])
    array([ 9., 12.], dtype=float32)
    """

    def __init__(self, n: int, size: int, dtype: Any):
        self.n, self.size = n, size
        self._dtype = sum_dtype(dtype)
        self._chunk = max(1, CHUNK_NBYTES // self._dtype.itemsize)
        self._steps: list[tuple[int, int, int]] = []
        depth = self._plan(0, n, n)
        self._scratch = [aligned_empty(min(self._chunk, size), self._dtype) for _ in range(depth)]
        self._total = gradient_buffer(size if n > 1 else 0, self._dtype)
        self._registers: list[Any] = []

    def __len__(self) -> int:
        return self.n

    def _plan(self, low: int, high: int, out: int) -> int:
        """Steps (left, right, sum) over registers: 0..n-1 the devices, n the total, then scratch.

        Returns how many scratch registers the sum of these devices needs."""
        if high - low < 2:
            return 0
        middle = low + split(high - low)
        left = low if middle - low == 1 else out
        right = middle if high - middle == 1 else out + 1
        depth = self._plan(low, middle, out)
        depth = max(depth, self._plan(middle, high, out + 1) + (right == out + 1))
        self._steps.append((left, right, out))
        return depth

    def __call__(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The sum, where the first array is: ours until the next call, or the only array itself."""
        if self.n == 1:
            return arrays[0]
        if not isinstance(arrays[0], np.ndarray):
            return self._on_device(arrays)
        with np.errstate(all="ignore"):  # an overflow is the model's affair, not a warning of ours
            for start in range(0, self.size, self._chunk):
                stop = min(start + self._chunk, self.size)
                registers = [a[start:stop] for a in (*arrays, self._total)]
                registers += [s[: stop - start] for s in self._scratch]
                for left, right, out in self._steps:
                    np.add(registers[left], registers[right], out=registers[out], dtype=self._dtype)
        return self._total

    def _on_device(self, arrays: Sequence[Any]) -> Any:
        """The sum in the first array's memory, to which the others are copied."""
        device = backend_of(arrays[0])
        if not self._registers:
            count = self.n + 1 + len(self._scratch)
            self._registers = [device.empty((self.size,), self._dtype) for _ in range(count)]
        registers = self._registers
        for register, array in zip(registers, arrays, strict=False):
            copy(register, array)
        with device.activate():
            for left, right, out in self._steps:
                device.xp.add(registers[left], registers[right], out=registers[out])
        return registers[self.n]
