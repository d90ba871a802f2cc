"""`Fetcher`: a thread that keeps the next item of an iterator ready."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from typing import Any

from dmod.io.resume import resumable

__all__ = ["Fetcher", "end_all"]


class Fetcher:
    """A thread that keeps one batch of an iterator (or whatever else its `next` gives) ready.

    It answers each order with a batch, StopIteration or an error, and touches the iterator only while an
    order is open: `reset` waits for that one, and then has the iterator to itself, so that what it draws
    from global random generators is drawn in the caller's order. `state` is that of the iterator before the
    open order, so before what the caller has not seen.
    """

    def __init__(self, iterator: Any):
        self.iterator = resumable(iterator)
        self._start()
        self.state = self.iterator.state_dict()

    def _start(self) -> None:
        self.pid = os.getpid()
        self.orders: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: the next batch; False: end
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.thread = threading.Thread(
            target=_fetch, args=(self.iterator, self.orders, self.answers), name="dmod-prefetch", daemon=True
        )
        self.thread.start()
        self.is_ahead = False  # the first order waits until it is known that no state is to be loaded

    def _forget_parent(self) -> None:
        """In a forked process: it has none of its parent's threads, so nobody answers what was ordered."""
        if self.pid != os.getpid():
            was_ahead = self.is_ahead
            self._start()
            if was_ahead:
                self.iterator.load_state_dict(self.state)

    def _order(self) -> None:
        self.state = self.iterator.state_dict()
        self.is_ahead = True
        self.orders.put(True)

    def _drop(self) -> None:
        """Let the open order come to its end."""
        if self.is_ahead:
            self.is_ahead = False
            self.answers.get()

    def take(self) -> Any:
        """The next item, or what its making raised; the one after it is ordered."""
        self._forget_parent()
        if not self.is_ahead:
            self._order()
        answer = self.answers.get()
        if isinstance(answer, BaseException):
            self.answers.put(answer)  # the epoch stays over until a reset
        else:
            self._order()
        return answer

    def peek(self) -> Any:
        """What `take` gives next; nothing is ordered but that."""
        self._forget_parent()
        if not self.is_ahead:
            self._order()
        self.wait()
        answer = self.answers.get()
        self.answers.put(answer)
        return answer

    def reset(self) -> None:
        """Begin the next epoch.

        Its first batch is not ordered yet: who goes on with the iterator itself, as after a fit, finds all
        batches.
        """
        self._forget_parent()
        self._drop()
        self.iterator.reset()
        self.state = self.iterator.state_dict()

    def load_state(self, state: dict[str, Any], is_ahead: bool) -> None:
        """Go where `state` was taken; the batch that is ready is thrown away."""
        self._forget_parent()
        self._drop()
        self.iterator.load_state_dict(state)
        self.state = state
        if is_ahead:
            self._order()

    def wait(self) -> None:
        """Until the open order is answered."""
        self._forget_parent()
        if self.is_ahead:
            self.answers.put(self.answers.get())


def _fetch(iterator: Any, orders: Any, answers: Any) -> None:
    while orders.get():
        try:
            answers.put(iterator.next())
        except BaseException as error:
            answers.put(error)


def end_all(fetchers: Sequence[Fetcher]) -> None:
    """End the threads, and wait for a moment until they have."""
    for fetcher in fetchers:
        fetcher.orders.put(False)
    for fetcher in fetchers:
        if fetcher.thread is not threading.current_thread():
            fetcher.thread.join(5)
