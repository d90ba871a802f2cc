"""Where an iterator stands, and how to get there again: for checkpoints, and for a process that takes over.

An iterator has `state_dict` and `load_state_dict`, or it is replayed (`Replayed`). States consist of None,
bool, int, float, str, bytes, lists and dicts of such, and numpy arrays; nothing in them is written to later.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.io.base import DataBatch, DataIter
from dmod.log import logger, show_progress

__all__ = [
    "Replayed",
    "declares",
    "has_state",
    "is_peekable",
    "numpy_random_state",
    "random_state",
    "resumable",
    "set_random_state",
]

_GIVES_BATCHES = ("next", "__next__", "iter_next", "reset", "getdata", "getlabel", "getpad")


def random_state() -> dict[str, Any]:
    """The states of the process's two global generators, of ``random`` and of ``numpy.random``.

    Returns
    -------
    dict
        For `set_random_state`.
    """
    _, words, gauss = random.getstate()
    return {"python": [np.array(words, np.uint32), gauss], **numpy_random_state()}


def numpy_random_state() -> dict[str, Any]:
    """The state of ``numpy.random``'s global generator alone, for `set_random_state`."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {"numpy": [str(kind), keys, int(position), int(has_gauss), float(gauss)]}


def set_random_state(state: dict[str, Any]) -> None:
    """Put the process's global generators where they were when `state` was taken."""
    if "python" in state:
        words, python_gauss = state["python"]
        random.setstate((3, tuple(np.asarray(words).tolist()), python_gauss))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, np.asarray(keys, np.uint32), position, has_gauss, gauss))


def has_state(iterator: Any) -> bool:
    """Whether `iterator` can say where it stands, with all that its class adds.

    A class that overrides how batches come about, but not `state_dict`, has none: what it adds may have a
    state that the inherited method knows nothing of.

    Examples
    --------
    >>> has_state(DataIter())
    False
    """
    return declares(iterator, "state_dict")


def declares(iterator: Any, name: str) -> bool:
    """Whether `iterator` has an attribute of that name from a class that knows how its batches come about."""
    if name in getattr(iterator, "__dict__", ()):
        return True
    for cls in type(iterator).__mro__:
        if cls is DataIter:
            return False
        if name in vars(cls):
            return True
        if any(method in vars(cls) for method in _GIVES_BATCHES):
            return False
    return False


def is_peekable(iterator: Any) -> bool:
    """Whether `iterator` says that it is ``peekable``, with all that its class adds, and can go back."""
    return declares(iterator, "peekable") and bool(iterator.peekable) and has_state(iterator)


def resumable(iterator: Any) -> Any:
    """`iterator` if it has a state, else a `Replayed` around it, to be used in its place from now on.

    Parameters
    ----------
    iterator : DataIter, or anything with `next` and `reset`
        At the beginning of an epoch.
    """
    return iterator if has_state(iterator) else Replayed(iterator)


class Replayed(DataIter):
    """An iterator without a state; to get where it stood, another one is drawn from as often.

    The other one must be as this one was when it was wrapped: made from the same data and seeds. All its
    epochs are drawn again, as what they leave behind (say, a generator that augments) may matter; and each
    with the global generators (``random``, ``numpy.random``) in the state in which it began then.

    Parameters
    ----------
    iterator : DataIter, or anything with `next` and `reset`

    Examples
    --------
    >>> class Squares(DataIter):
    ...     count = 0
    ...     def next(self):
    ...         self.count += 1
    ...         return self.count ** 2
    >>> it, other = Replayed(Squares()), Replayed(Squares())
    >>> [next(it) for _ in range(3)]
    [1, 4, 9]
    >>> other.load_state_dict(it.state_dict())
    >>> next(other)
    16
    """

    def __init__(self, iterator: Any):
        super().__init__(getattr(iterator, "batch_size", 0))
        self.iterator = iterator
        self._batches = [0]
        self._ended = [False]
        self._random = [random_state()]

    def __getattr__(self, name: str) -> Any:
        if name == "iterator":  # not there yet: copying, unpickling
            raise AttributeError(name)
        return getattr(self.iterator, name)

    def reset(self) -> None:
        """Begin the next epoch."""
        self._random.append(random_state())
        self._batches.append(0)
        self._ended.append(False)
        self.iterator.reset()

    def next(self) -> DataBatch:
        """The next batch; see `DataIter.next`."""
        try:
            batch: DataBatch = self.iterator.next() if hasattr(self.iterator, "next") else next(self.iterator)
        except StopIteration:
            self._ended[-1] = True  # it may leave something behind, such as what rolls over
            raise
        self._batches[-1] += 1
        return batch

    def iter_next(self) -> bool:
        """Move to the next batch; false if the epoch is over."""
        found = bool(self.iterator.iter_next())
        self._batches[-1] += found
        self._ended[-1] |= not found
        return found

    def getdata(self) -> Any:
        """The data of the current batch."""
        return self.iterator.getdata()

    def getlabel(self) -> Any:
        """The labels of the current batch."""
        return self.iterator.getlabel()

    def getindex(self) -> Any:
        """The numbers of the instances of the current batch, if the iterator keeps them."""
        return self.iterator.getindex()

    def getpad(self) -> Any:
        """How many instances of the current batch are there only to fill it."""
        return self.iterator.getpad()

    def state_dict(self) -> dict[str, Any]:
        """How many batches were drawn in each epoch, and the global generators then and now."""
        return {
            "batches": list(self._batches),
            "ended": list(self._ended),
            "random": list(self._random),
            "now": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Draw as many batches as the state says.

        Raises
        ------
        InvalidArgument
            The iterator was used already, or has fewer batches.
        """
        if self._batches != [0]:
            raise InvalidArgument(
                f"load_state_dict: {self._name()} has no state, so it must be new to be replayed; "
                f"{sum(self._batches)} batches were drawn from it"
            )
        if sum(state["batches"]) > 1000:
            show_progress()
            logger.info(
                "%s has no state_dict: drawing its first %d batches again",
                self._name(),
                sum(state["batches"]),
            )
        self._random = []
        epochs = zip(state["batches"], state["ended"], state["random"], strict=True)
        for epoch, (count, ended, generators) in enumerate(epochs):
            set_random_state(generators)
            self._random.append(generators)
            if epoch:
                self.iterator.reset()
                self._batches.append(0)
                self._ended.append(False)
            for number in range(count):
                try:
                    self.next()
                except StopIteration:
                    raise InvalidArgument(
                        f"load_state_dict: epoch {epoch} of {self._name()} has {number} batches, the state "
                        f"was taken after {count}; is it made from the same data?"
                    ) from None
            if ended:
                with suppress(StopIteration):
                    self.next()
        set_random_state(state["now"])

    def _name(self) -> str:
        return type(self.iterator).__name__
