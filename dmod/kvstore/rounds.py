"""One piece of a key on its server: its values, and the rounds that change them.

A round is complete when every rank has contributed to it, not when so many requests came in. At most
two rounds of a piece are open: the current one, and, since a push is acknowledged before its round is
applied, the next one. Rounds count from 1 in every epoch. A round is applied whole or dropped whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from dmod.kvstore.fields import ENCODED
from dmod.kvstore.messages import Key
from dmod.kvstore.tree import Allocate, LastSum, TreeSum, sum_dtype
from dmod.ndarray.flat import aligned_empty

__all__ = ["FreeBuffers", "Piece", "PieceUpdater"]


class PieceUpdater(Protocol):
    """The optimizer of one piece, as `dmod.optimizer.flat.FlatUpdater` is one. Pure compute."""

    @property
    def count(self) -> int:
        """Updates so far."""

    def update(self, weight: np.ndarray, grad: np.ndarray | LastSum) -> None:
        """Change `weight` in place. Of `grad`, only ``shape``, ``dtype`` and slices may be used."""

    def get_states(self) -> list[np.ndarray]:
        """The states, one 1-D array each."""

    def set_states(self, arrays: Sequence[np.ndarray], count: int) -> None:
        """The inverse of `get_states`."""


class FreeBuffers:
    """Buffers for sums, shared by all pieces of a size: the one that was used last is still in the cache.

    Parameters
    ----------
    allocate : callable
        Makes the buffers of sums and values: where the workers can read them, if memory is shared.
    """

    def __init__(self, allocate: Allocate = aligned_empty) -> None:
        self.allocate = allocate
        self._lists: dict[tuple[int, np.dtype[Any]], list[np.ndarray]] = {}
        self._scratch: dict[np.dtype[Any], np.ndarray] = {}

    def scratch(self, size: int, dtype: Any) -> np.ndarray:
        """Private memory that is used again at the next call."""
        dtype = np.dtype(dtype)
        if dtype not in self._scratch or self._scratch[dtype].size < size:
            self._scratch[dtype] = aligned_empty(size, dtype)
        return self._scratch[dtype][:size]

    def of(self, size: int, dtype: Any) -> list[np.ndarray]:
        """The free buffers of `size` elements of `dtype`."""
        return self._lists.setdefault((size, np.dtype(dtype)), [])


class Piece:
    """Elements ``[start, stop)`` of a key's buffer.

    Parameters
    ----------
    key : int or str
    number : int
        The piece's number within its key.
    start, stop : int
    dtype : str
    num_workers : int
    free : FreeBuffers

    Attributes
    ----------
    value : ndarray or None
        None until there is one; what replies are sent from, without a copy. A buffer that has been
        replaced is used again only after the next round, to which every rank contributes only when it
        has received the reply.
    updater : PieceUpdater or None
        Without one a round's sum becomes the value.
    accepts : frozenset of str
        What contributions may come as: dtypes, and kinds of compression.
    applied : int
        Rounds applied in this epoch.
    version : int
        Rounds applied in all.
    turns : dict of int to int, or None
        With a key of mode 'async' rounds are each rank's own, and these are the last ones applied.
    bundle : Piece or None
        What this one is a part of at present: then its rounds, value and states are there. See `bundles`.
    dissolved : int
        How many times it has been taken out of a bundle.
    """

    def __init__(
        self, key: Key, number: int, start: int, stop: int, dtype: str, num_workers: int, free: FreeBuffers
    ):
        self.key, self.number, self.start, self.stop = key, number, start, stop
        self.size, self.dtype = stop - start, np.dtype(dtype)
        self.value: np.ndarray | None = None
        self.updater: PieceUpdater | None = None
        names = (self.dtype.name, sum_dtype(dtype).name)
        self.accepts = frozenset((*names, *ENCODED) if self.dtype == np.float32 else names)
        self.applied = 0
        self.version = 0
        self._free = free
        self.turns: dict[int, int] | None = None
        self._kept: Sequence[np.ndarray] = ()  # until the next round: replies may lie there
        self.bundle: Piece | None = None
        self.dissolved = 0
        buffers = free.of(self.size, sum_dtype(dtype))
        self._trees = [TreeSum(num_workers, self.size, dtype, buffers, free.allocate) for _ in range(2)]
        self._ranks = frozenset(range(num_workers))
        self._stays = False

    @property
    def keys(self) -> list[Key]:
        """Whose elements these are."""
        return [self.key]

    @property
    def common(self) -> tuple[Any, ...]:
        """What pieces have in common that can be bundled."""
        updates = None if self.updater is None else self.updater.count
        return (self.dtype, self.applied, self.value is None, updates, self.turns is None)

    @property
    def idle(self) -> bool:
        """Whether nobody has contributed to an open round."""
        return not any(tree.slots for tree in self._trees)

    def enter(self, bundle: Piece, part: slice) -> None:
        """Be `part` of a bundle from now on."""
        self.bundle = bundle
        self.value = None if bundle.value is None else bundle.value[part]

    def go_on_from(self, bundle: Piece, part: slice, rounds: int) -> None:
        """Leave a bundle, in which this piece was `part` for so many rounds."""
        self.bundle = None
        self.applied = bundle.applied
        self.version += rounds
        self._kept = bundle._kept
        # Not a copy: replies that have not been read yet lie there.
        self.value = None if bundle.value is None else bundle.value[part]
        for tree, whole in zip(self._trees, bundle._trees, strict=True):
            tree.take_part(whole, part)

    def stay(self) -> None:
        """Write each sum to where the last one is, from now on.

        For keys of which nobody reads a value any more when the next round is complete.
        """
        self._stays = True

    def has(self, rank: int, round: int) -> bool:
        """Whether `rank` has contributed to `round`, or `round` has been applied already."""
        ahead = round - self.applied
        return ahead <= 0 or (ahead <= 2 and rank in self._trees[ahead - 1].slots)

    def missing(self, round: int) -> set[int]:
        """The ranks without which `round` cannot be applied."""
        return {rank for rank in self._ranks if not self.has(rank, round)}

    def contribute(self, rank: int, round: int, array: np.ndarray) -> None:
        """Add what `rank` has sent for `round`, the current one or the next. A repeat is not added."""
        ahead = round - self.applied
        if ahead > 0 and rank not in self._trees[ahead - 1].slots:
            self._trees[ahead - 1].add(rank, array)

    @property
    def current(self) -> TreeSum:
        """What has been contributed to the current round."""
        return self._trees[0]

    @property
    def complete(self) -> bool:
        """Whether every rank has contributed to the current round."""
        return self._trees[0].complete

    def apply(self) -> None:
        """Apply the current round, which is complete; the next one becomes the current one."""
        tree = self._trees[0]
        if self.updater is not None and self.value is not None:
            self.updater.update(self.value, tree.last_sum(self._free.scratch))
        else:
            value = self._free.allocate(self.size, self.dtype) if self.value is None else self.value
            self.value = tree.exchange(value, stays=self._stays)
        tree.clear()
        self._kept = ()
        self._trees.reverse()
        self.applied += 1
        self.version += 1

    def apply_alone(self, rank: int, turn: int, array: np.ndarray) -> None:
        """Apply what `rank` has sent, whatever others do; a repeat is not applied."""
        assert self.turns is not None and self.value is not None and self.updater is not None
        if turn > self.turns.get(rank, 0):
            self.updater.update(self.value, array.astype(self.dtype, copy=False))
            self.turns[rank] = turn
            self.version += 1

    def drop_without(self, rank: int) -> int | None:
        """Drop the open rounds which wait for `rank`, which will contribute no more.

        Returns
        -------
        int or None
            The first round that cannot be applied any more; None if `rank` is in all open rounds.
        """
        for ahead, tree in enumerate(self._trees):
            if rank not in tree.slots:
                for later in self._trees[ahead:]:
                    later.clear()
                return self.applied + ahead + 1
        return None

    def begin_epoch(self) -> None:
        """Count rounds from 1 again."""
        for tree in self._trees:
            tree.clear()
        self.applied = 0

    def check_invariants(self) -> None:
        """Raise AssertionError where this state contradicts itself."""
        current, following = (tree.slots for tree in self._trees)
        assert not self.complete, f"{self.key!r}: a complete round has not been applied"
        assert following <= current, f"{self.key!r}: a rank is a round ahead of itself"
        assert self.applied <= self.version
        assert self.value is None or (self.value.shape, self.value.dtype) == ((self.size,), self.dtype)
