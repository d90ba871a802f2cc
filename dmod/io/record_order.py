"""Which record comes when: passes over the records, shuffled or not, cut into batches.

Everything follows from the seed, the number of the pass and the position in it, so three numbers say where an
iterator stands. It touches no file and decodes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

__all__ = ["BatchPlan", "Place", "RecordOrder", "begun_again", "plan_batch"]


class RecordOrder:
    """The order of the records in each pass.

    Parameters
    ----------
    sizes : numpy.ndarray of int
        Bytes of each record.
    shuffle : bool
    seed : int
        Of the order within a chunk.
    chunk_bytes : int
        Records are shuffled within chunks of about so many bytes, and the chunks as a whole: reading stays
        local. 0: all records at once.
    chunk_seed : int
        Of the order of the chunks.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        shuffle: bool = False,
        seed: int = 0,
        chunk_bytes: int = 0,
        chunk_seed: int = 0,
    ):
        self._count = len(sizes)
        self._shuffle = shuffle
        self._seed = seed
        self._chunk_seed = chunk_seed
        starts = np.cumsum(sizes) - sizes
        chunk_of = starts // chunk_bytes if chunk_bytes else np.zeros(self._count, np.int64)
        self._chunks = np.split(np.arange(self._count), np.flatnonzero(np.diff(chunk_of)) + 1)
        self._cache: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._count

    def of(self, number: int) -> np.ndarray:
        """The records of a pass, in their order."""
        if not self._shuffle:
            number = 0
        if number not in self._cache:
            for old in [n for n in self._cache if n < number - 2]:
                del self._cache[old]
            self._cache[number] = self._shuffled(number) if self._shuffle else np.arange(self._count)
        return self._cache[number]

    def _shuffled(self, number: int) -> np.ndarray:
        # RandomState's numbers are the same under every version of NumPy, those of Generators are not.
        within = np.random.RandomState(_words(self._seed, number))
        if len(self._chunks) == 1:
            return within.permutation(self._chunks[0])
        order = np.random.RandomState(_words(self._chunk_seed, number, 1)).permutation(len(self._chunks))
        return np.concatenate([within.permutation(self._chunks[i]) for i in order])


def _words(*numbers: int) -> list[int]:
    """Whole numbers as seeds of 32 bits each."""
    return [n >> shift & 0xFFFFFFFF for n in numbers for shift in (0, 32)]


@dataclass(frozen=True)
class Place:
    """Where the next batch begins.

    Attributes
    ----------
    number : int
        The pass.
    position : int
        How many records of the pass have been given.
    over : bool
        The epoch has ended, and the next one not begun.
    """

    number: int = 0
    position: int = 0
    over: bool = False


@dataclass(frozen=True)
class BatchPlan:
    """One batch.

    Attributes
    ----------
    records : tuple of (int, int)
        The pass and the record of each instance; as many as the batch holds, or less without `round_batch`.
    pad : int
        How many instances at the end are there only to fill the batch.
    after : Place
        Where the next batch begins.
    """

    records: tuple[tuple[int, int], ...]
    pad: int
    after: Place


def plan_batch(order: RecordOrder, place: Place, batch_size: int, round_batch: bool) -> BatchPlan:
    """The batch that begins at `place`, which must not be over.

    With `round_batch` the last batch of an epoch is filled with the records that the next pass begins with,
    and the next epoch begins after them: over two epochs, each record has its two turns.
    """
    records = order.of(place.number)
    end = min(place.position + batch_size, len(order))
    taken = [(place.number, int(r)) for r in records[place.position : end]]
    pad = batch_size - len(taken)
    if not pad and end < len(order):
        return BatchPlan(tuple(taken), 0, Place(place.number, end))
    number, position = place.number + 1, 0
    while round_batch and len(taken) < batch_size:
        if position == len(order):
            number, position = number + 1, 0
        end = min(position + batch_size - len(taken), len(order))
        taken.extend((number, int(r)) for r in order.of(number)[position:end])
        position = end
    if position == len(order):
        number, position = number + 1, 0
    return BatchPlan(tuple(taken), pad, Place(number, position, over=True))


def begun_again(place: Place) -> Place:
    """Where the next epoch begins, from a place at the end of one or within one."""
    if place.over or place.position == 0:
        return replace(place, over=False)
    return Place(place.number + 1)
