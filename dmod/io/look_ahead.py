"""`LookAhead`: the next batch of an iterator can be looked at before it is taken.

A device copies it while it computes the present one. To all others, the iterator stands where it would
without: its state is that of before the batch which was looked at, and an error comes when it is taken.
"""

from __future__ import annotations

from typing import Any

from dmod.io.base import DataBatch, DataIter
from dmod.io.resume import is_peekable, random_state, set_random_state
from dmod.io.wrapping import PrefetchingIter

__all__ = ["LookAhead", "look_ahead"]


def look_ahead(iterator: Any) -> Any:
    """A `LookAhead` around `iterator` if that allows it, else `iterator` itself.

    It does if it `is_peekable`, or is a `PrefetchingIter`, which has the batch already.
    """
    fetched = type(iterator) is PrefetchingIter
    return LookAhead(iterator, fetched) if fetched or is_peekable(iterator) else iterator


class LookAhead(DataIter):
    """An iterator whose next batch can be looked at.

    Parameters
    ----------
    iterator : DataIter
    fetched : bool
        Whether it has the next batch already, and shows it by a `peek` of its own.
    """

    def __init__(self, iterator: Any, fetched: bool):
        super().__init__(getattr(iterator, "batch_size", 0))
        self.iterator = iterator
        self._fetched = fetched
        self._held: Any = None  # what was looked at: a batch, or what the iterator raised
        self._before: dict[str, Any] = {}  # the iterator's state before that

    def __getattr__(self, name: str) -> Any:
        if name == "iterator":  # not there yet: copying, unpickling
            raise AttributeError(name)
        return getattr(self.iterator, name)

    def peek(self) -> DataBatch | None:
        """The batch that `next` gives next; None if it raises."""
        if self._fetched:
            batch: DataBatch | None = self.iterator.peek()
            return batch
        if self._held is None:
            self._before = self.iterator.state_dict()
            try:
                self._held = self.iterator.next()
            except Exception as error:
                self._held = error
        return None if isinstance(self._held, Exception) else self._held

    def next(self) -> DataBatch:
        """The next batch; see `DataIter.next`."""
        held, self._held = self._held, None
        if held is None:
            held = self.iterator.next()
        elif isinstance(held, Exception):
            raise held
        batch: DataBatch = held
        return batch

    def put_back(self) -> None:
        """Go back before what was looked at and not taken."""
        if self._held is not None:
            self._held = None
            generators = random_state()  # which are not to go back: others have drawn from them
            self.iterator.load_state_dict(self._before)
            set_random_state(generators)

    def reset(self) -> None:
        """Begin the next epoch."""
        self.put_back()
        self.iterator.reset()

    def state_dict(self) -> dict[str, Any]:
        """That of the iterator, before what was looked at."""
        state: dict[str, Any] = self.iterator.state_dict() if self._held is None else self._before
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`."""
        self._held = None
        self.iterator.load_state_dict(state)
