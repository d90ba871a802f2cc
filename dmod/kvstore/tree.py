"""The one fixed binary tree in which all sums over devices and workers are taken.

The tree over slots 0..n-1 has the first `split(n)` slots, the largest power of two below n, on its
left and the rest on its right. Floating-point addition is not associative, so a sum has the same
bits everywhere only if it is taken in the same tree everywhere. When each of W workers has D devices
and D is a power of two, the tree over W * D slots is the tree over W workers of the trees over D
devices: a worker may add up its own devices first, and nobody can tell.

float16 is added in float32 and rounded once, at the root; every other dtype is added in itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dmod.ndarray.flat import aligned_empty

__all__ = ["Allocate", "LastSum", "TreeSum", "split", "sum_dtype", "tree_sum"]


_FLOAT16, _FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)


def split(n: int) -> int:
    """How many of `n` slots lie on the left: the largest power of two below `n`.

    Examples
    --------
    >>> [split(n) for n in (2, 3, 4, 5, 8, 9)]
    [1, 2, 2, 4, 4, 8]
    """
    if n < 2:
        raise ValueError(f"split({n}): a tree of fewer than two slots has no branches")
    return 1 << (n - 1).bit_length() - 1


def sum_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype in which arrays of `dtype` are added."""
    dtype = np.dtype(dtype)
    return _FLOAT32 if dtype == _FLOAT16 else dtype


def tree_sum(arrays: Sequence[np.ndarray], out: np.ndarray | None = None) -> np.ndarray:
    """The sum of `arrays`, one for each slot, taken in the tree.

    Parameters
    ----------
    arrays : sequence of ndarray
        Equal shapes; any order of arrival, but the slots' order here.
    out : ndarray, optional
        Where the sum goes, rounded to its dtype; may be one of `arrays`.

    Examples
    --------
    >>> tree_sum([np.float32([1e8]), np.float32([-1e8]), np.float32([1])])
    array([1.], dtype=float32)
    """
    if out is None:
        out = np.empty(arrays[0].shape, arrays[0].dtype)
    tree = TreeSum(len(arrays), arrays[0].size, arrays[0].dtype)
    for slot, array in enumerate(arrays):
        tree.add(slot, array.reshape(-1))
    np.copyto(out, tree.total().reshape(out.shape), casting="same_kind")
    return out


Allocate = Callable[[int, Any], np.ndarray]
"""``allocate(size, dtype)`` makes an uninitialised 1-D array."""


class _Step(NamedTuple):
    """Where a node's sum goes: its parent, its sibling, and whether it is the left one of the two."""

    parent: int
    sibling: int
    is_left: bool


@functools.lru_cache(maxsize=64)
def _steps(n: int) -> tuple[_Step | None, ...]:
    """For each node its step up; nodes 0..n-1 are the slots, the root has none."""
    steps: list[_Step | None] = [None] * (2 * n - 1)
    fresh = iter(range(n, 2 * n - 1))

    def grow(low: int, high: int) -> int:
        if high - low == 1:
            return low
        middle = low + split(high - low)
        left, right = grow(low, middle), grow(middle, high)
        node = next(fresh)
        steps[left], steps[right] = _Step(node, right, True), _Step(node, left, False)
        return node

    grow(0, n)
    return tuple(steps)


class LastSum:
    """The sum of the tree's last two nodes, taken where and when somebody reads it.

    Whoever goes through it in slices of a few thousand elements has the sum in the cache, and it never
    goes to memory: so an optimizer sums and updates in one pass. ``np.asarray`` gives the whole sum. numpy
    may warn of an overflow, which is the model's affair: who takes slices does so under `numpy.errstate`.

    Parameters
    ----------
    left, right : ndarray
        1-D, of `dtype` or the wide one.
    dtype : dtype
        Of the result.
    scratch : callable
        ``scratch(size, dtype)`` gives memory, which is used again at the next call.
    """

    def __init__(self, left: np.ndarray, right: np.ndarray, dtype: np.dtype[Any], scratch: Allocate):
        self.shape, self.size, self.dtype = left.shape, left.size, dtype
        self._left, self._right, self._scratch = left, right, scratch
        self._wide = sum_dtype(dtype)

    @property
    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        """The two arrays, which nobody may write to; of `dtype` if there is no wider one."""
        return _read_only(self._left), _read_only(self._right)

    def __getitem__(self, part: slice) -> np.ndarray:
        left = self._left[part]
        out = self._scratch(left.size, self._wide)
        np.add(left, self._right[part], out=out, dtype=self._wide)
        return out if self.dtype == self._wide else out.astype(self.dtype)

    def write(self, out: np.ndarray) -> None:
        """Write the whole sum, in the wide dtype, into `out`."""
        with np.errstate(all="ignore"):
            np.add(self._left, self._right, out=out, dtype=self._wide)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole: np.ndarray = np.add(self._left, self._right, dtype=self._wide)
        return np.asarray(whole, self.dtype if dtype is None else dtype)


def _read_only(array: np.ndarray) -> np.ndarray:
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


class TreeSum:
    """Adds up one array per slot, whatever order they come in: two siblings as soon as both are there.

    The last addition, at the root, is left to whoever asks for the total, since more can be done in the
    same pass.

    Parameters
    ----------
    n : int
        The number of slots.
    size : int
        Elements of each array.
    dtype : dtype
        The arrays' dtype; those that come may also have `sum_dtype` of it.
    free : list of ndarray, optional
        Buffers of `size` elements of the wide dtype to use, which several trees may share.
    allocate : callable, optional
        Makes more of them.

    Notes
    -----
    The arrays that are given are read until `clear`, and never written to. Sums live in the tree's own
    buffers, which the next round uses again: about log2(n) of them when the slots come in order, n / 2
    at the worst.
    """

    def __init__(
        self,
        n: int,
        size: int,
        dtype: Any,
        free: list[np.ndarray] | None = None,
        allocate: Allocate = aligned_empty,
    ):
        self.n, self.size, self.dtype = n, size, np.dtype(dtype)
        self._wide = sum_dtype(dtype)
        self._steps = _steps(n)
        self._root = len(self._steps) - 1
        self._sums: dict[int, np.ndarray] = {}  # node -> its sum, where its parent's is still missing
        self._owned: set[int] = set()  # those of them which lie in a buffer of ours
        self._free = [] if free is None else free
        self._allocate = allocate
        self.slots: set[int] = set()
        """The slots that have come."""

    @property
    def complete(self) -> bool:
        """Whether all slots have come."""
        return len(self.slots) == self.n

    def add(self, slot: int, array: np.ndarray) -> None:
        """The 1-D `array` of `slot` has come."""
        if not 0 <= slot < self.n or slot in self.slots:
            raise ValueError(f"slot {slot} of {self.n}: out of range, or there already")
        if array.shape != (self.size,) or (array.dtype != self.dtype and array.dtype != self._wide):
            raise ValueError(f"slot {slot}: {array.dtype}{array.shape}, expected {self.dtype}({self.size},)")
        self.slots.add(slot)
        node, value = slot, array
        while (step := self._steps[node]) is not None and step.parent != self._root:
            if step.sibling not in self._sums:
                break
            node, value = step.parent, self._add(node, value, step)
        self._sums[node] = value

    def _add(self, node: int, value: np.ndarray, step: _Step) -> np.ndarray:
        """The sum of a node, which is not among the sums, and its sibling."""
        other = self._sums.pop(step.sibling)
        out = self._buffer(node, value, step.sibling, other)
        left, right = (value, other) if step.is_left else (other, value)
        with np.errstate(all="ignore"):  # an overflow is the model's affair, not a warning of ours
            np.add(left, right, out=out, dtype=self._wide)
        self._owned.add(step.parent)
        return out

    def _buffer(self, node: int, value: np.ndarray, sibling: int, other: np.ndarray) -> np.ndarray:
        """Where the sum of two nodes goes: into one of them if that is ours, and the other is free then."""
        owned = [array for child, array in ((node, value), (sibling, other)) if child in self._owned]
        self._owned -= {node, sibling}
        self._free += owned[1:]
        if owned:
            return owned[0]
        return self._free.pop() if self._free else self._allocate(self.size, self._wide)

    def _check_complete(self) -> None:
        if not self.complete:
            raise ValueError(f"{len(self.slots)} of {self.n} slots have come")

    def total(self) -> np.ndarray:
        """The sum, in the wide dtype; it stays as it is until `clear`. With one slot: what was given."""
        self._check_complete()
        if self._root not in self._sums:
            node = next(iter(self._sums))
            step = self._steps[node]
            assert step is not None
            self._sums[self._root] = self._add(node, self._sums.pop(node), step)
        return self._sums[self._root]

    def last_sum(self, scratch: Allocate) -> LastSum | np.ndarray:
        """The sum in the arrays' dtype, as something to go through once, in slices, before `clear`."""
        self._check_complete()
        if self._root in self._sums:
            return self._sums[self._root].astype(self.dtype, copy=False)
        node, other = self._sums
        step = self._steps[node]
        assert step is not None
        left, right = (node, other) if step.is_left else (other, node)
        return LastSum(self._sums[left], self._sums[right], self.dtype, scratch)

    def exchange(self, buffer: np.ndarray, stays: bool = False) -> np.ndarray:
        """The sum in `buffer`'s dtype, as the caller's own: `buffer`, or another in exchange for it.

        With `stays` it is `buffer`.
        """
        if self._root in self._sums or buffer.dtype != self._wide:
            total = self.total()
            if stays or self._root not in self._owned or buffer.dtype != self._wide:
                np.copyto(buffer, total, casting="same_kind")
                return buffer
            self._sums[self._root] = buffer
            return total
        last = self.last_sum(self._allocate)
        assert isinstance(last, LastSum)
        if stays:
            last.write(buffer)
            return buffer
        out = self._free.pop() if self._free else self._allocate(self.size, self._wide)
        last.write(out)
        self._free.append(buffer)
        return out

    def take_part(self, whole: TreeSum, part: slice) -> None:
        """Go on where `whole` stands, a tree over more elements of which these are `part`; it is used up."""
        self._sums = {node: array[part] for node, array in whole._sums.items()}
        self._owned, self.slots = set(whole._owned), set(whole.slots)

    def clear(self) -> None:
        """Forget all slots, and keep the buffers."""
        if self._owned:
            self._free += [self._sums[node] for node in self._owned]
            self._owned.clear()
        self._sums.clear()
        self.slots.clear()
