"""Where intermediate results lie: buffers that are not needed at the same time share memory.

Given for each buffer the first and the last step that touches it, `assign_offsets` places all of them
in one block. A `Workspace` holds such a block, and memory for steps to work in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np

from dmod.device.base import ALIGNMENT, Backend

__all__ = ["Pool", "Workspace", "assign_offsets"]


def assign_offsets(intervals: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Place buffers ``(first, last, nbytes)`` so that no two overlap in both time and space.

    Large buffers are placed first, each at the lowest offset that is free during its life.

    Returns
    -------
    (offsets, total)
        In bytes; all offsets are multiples of 64.

    Examples
    --------
    >>> assign_offsets([(0, 1, 100), (1, 2, 50), (2, 3, 100)])
    ([0, 128, 0], 192)
    """
    order = sorted(range(len(intervals)), key=lambda i: (-intervals[i][2], intervals[i][0], i))
    offsets = [0] * len(intervals)
    placed: list[tuple[int, int, int, int]] = []  # (offset, end, first, last), sorted by offset
    total = 0
    for i in order:
        first, last, nbytes = intervals[i]
        size = -(-nbytes // ALIGNMENT) * ALIGNMENT
        offset = 0
        for low, high, born, died in placed:
            if born > last or died < first:
                continue
            if offset + size <= low:
                break
            offset = max(offset, high)
        offsets[i] = offset
        placed.append((offset, offset + size, first, last))
        placed.sort()
        total = max(total, offset + size)
    return offsets, total


class Tenant(Protocol):
    """Who has plans over a workspace's block."""

    def forget_plans(self) -> None:
        """Drop the plans: they are compiled again when needed, over the new block."""


class Workspace:
    """The memory of one device's executors: a block for intermediate results, and one for scratch.

    Executors that never run at the same time, such as those of different batch shapes, share one
    workspace; `owner` is the plan whose forward results it holds. There is one block, as large as the
    largest plan needs: when it has to grow, the plans over the old one are dropped with it, so that
    memory does not depend on how many executors there are, nor on the order in which they came.
    """

    def __init__(self, backend: Backend):
        self.backend = backend
        self.owner: object | None = None
        self._block = backend.raw(0)
        self._scratch = backend.raw(0)
        self._used = 0
        self._tenants: WeakSet[Tenant] = WeakSet()

    def admit(self, tenant: Tenant) -> None:
        """Tell `tenant` when its plans' memory is replaced."""
        self._tenants.add(tenant)

    @property
    def nbytes(self) -> int:
        """The bytes of the block and of the scratch memory."""
        return int(self._block.size + self._scratch.size)

    def block(self, nbytes: int) -> Any:
        """`nbytes` of memory for a plan; the plans of a workspace get the same memory."""
        if nbytes > self._block.size:
            for tenant in list(self._tenants):
                tenant.forget_plans()
            self.owner = None
            self._block = self.backend.raw(nbytes)
        return self._block

    def begin_step(self) -> None:
        """Start giving out scratch memory from the beginning again."""
        self._used = 0

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Memory that belongs to the step being built, while it runs."""
        dtype = np.dtype(dtype)
        nbytes = dtype.itemsize
        for n in shape:
            nbytes *= n
        start = self._used
        self._used = start + -(-nbytes // ALIGNMENT) * ALIGNMENT
        if self._used > self._scratch.size:  # earlier steps keep the old memory: together less than the new
            self._scratch = self.backend.raw(max(2 * self._scratch.size, self._used))
            start, self._used = 0, self._used - start
        return self._scratch[start : start + nbytes].view(dtype).reshape(shape)


class Pool:
    """Arrays that executors which take turns have in common, such as the outputs of buckets.

    Each name has one piece of memory, as large as its largest use so far; one that has to grow leaves the
    old piece to those that have it. What is lent holds whatever its last user wrote.
    """

    def __init__(self, backend: Backend):
        self.backend = backend
        self._pieces: dict[str, Any] = {}

    @property
    def nbytes(self) -> int:
        """The bytes of all pieces."""
        return int(sum(piece.size for piece in self._pieces.values()))

    def lend(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array over the memory that belongs to `name`."""
        dtype = np.dtype(dtype)
        nbytes = dtype.itemsize
        for n in shape:
            nbytes *= n
        piece = self._pieces.get(name)
        if piece is None or piece.size < nbytes:
            piece = self._pieces[name] = self.backend.zeros((nbytes,), np.uint8)
        return piece[:nbytes].view(dtype).reshape(shape)
