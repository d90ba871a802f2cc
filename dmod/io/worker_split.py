"""`worker_split`: which part of the data a worker reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ndarray.ndarray import NDArray

__all__ = ["WorkerSplit", "worker_split"]


class WorkerSplit(Mapping[str, int]):
    """One worker's part of the data: a mapping of ``num_parts`` and ``part_index``, which iterators take.

    Parameters
    ----------
    num_parts, part_index : int
    """

    def __init__(self, num_parts: int, part_index: int):
        if not 0 <= part_index < num_parts:
            raise InvalidArgument(f"WorkerSplit: part {part_index} of {num_parts}")
        self.num_parts, self.part_index = num_parts, part_index

    def __getitem__(self, name: str) -> int:
        return {"num_parts": self.num_parts, "part_index": self.part_index}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("num_parts", "part_index"))

    def __len__(self) -> int:
        return 2

    def __repr__(self) -> str:
        return f"WorkerSplit(num_parts={self.num_parts}, part_index={self.part_index})"

    def rows(self, count: int, equal: bool = False) -> slice:
        """The worker's part of `count` instances: consecutive ones.

        Parameters
        ----------
        count : int
        equal : bool
            Whether all workers get as many, and up to ``num_parts - 1`` instances are left out; else the
            parts together are everything, and differ by one at most.

        Raises
        ------
        InvalidArgument
            There are fewer instances than workers.
        """
        if count < self.num_parts:
            raise InvalidArgument(f"worker_split: {count} instances for {self.num_parts} workers")
        if equal:
            count -= count % self.num_parts
        begin, end = (count * part // self.num_parts for part in (self.part_index, self.part_index + 1))
        return slice(begin, end)

    def arrays(self, data: Any, label: Any = None, equal: bool = False) -> dict[str, Any]:
        """The worker's part of arrays, as `NDArrayIter` takes them.

        Parameters
        ----------
        data, label : NDArray, numpy.ndarray, or list or dict of such
            All of the same length.
        equal : bool
            See `rows`.

        Returns
        -------
        dict
            ``data`` and ``label``; the arrays are views.

        Raises
        ------
        InvalidArgument
            The arrays have different lengths, or there are fewer instances than workers.
        """
        lengths = {len(array) for given in (data, label) for array in _arrays_of(given)}
        if len(lengths) != 1:
            raise InvalidArgument(f"worker_split: arrays of different lengths, or none: {sorted(lengths)}")
        rows = self.rows(lengths.pop(), equal)
        return {"data": _part(data, rows), "label": _part(label, rows)}


def worker_split(kv: Any = None) -> WorkerSplit:
    """Which part of the data this worker reads.

    Parameters
    ----------
    kv : KVStore, optional
        Anything with `rank` and `num_workers`. Without one, the part is everything.

    Examples
    --------
    >>> import numpy as np
    >>> from dmod.io import NDArrayIter
    >>> split = worker_split()
    >>> dict(split)
    {'num_parts': 1, 'part_index': 0}
    >>> it = NDArrayIter(**split.arrays(np.zeros((8, 2)), np.zeros(8)), batch_size=4)

    ``CSVIter(data_csv='data.csv', ..., **worker_split(kv))`` reads the worker's lines.
    """
    return WorkerSplit(1, 0) if kv is None else WorkerSplit(int(kv.num_workers), int(kv.rank))


def _arrays_of(given: Any) -> list[Any]:
    if given is None:
        return []
    if isinstance(given, Mapping):
        return list(given.values())
    if isinstance(given, (list, tuple)) and given and isinstance(given[0], (NDArray, np.ndarray)):
        return list(given)
    return [given]


def _part(given: Any, rows: slice) -> Any:
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {name: array[rows] for name, array in given.items()}
    if isinstance(given, (list, tuple)) and given and isinstance(given[0], (NDArray, np.ndarray)):
        return [array[rows] for array in given]
    return given[rows]
