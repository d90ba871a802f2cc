"""What a stand-in GPU does while the host goes on: streams, each a thread that does its work in order.

Tests and benchmarks watch them: who watches is told when a piece of work begins and ends, on the stream's own
thread, and may hold it up there.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

from dmod.base import DeadlineError

__all__ = ["StandInEvent", "StandInStream", "Watch"]

Watch = Callable[[str, str, str], None]
"""Called with the stream, the work, and 'begin' or 'end'."""

_DEADLINE_S = 60.0


class StandInEvent:
    """A moment of a stream's work."""

    def __init__(self, name: str):
        self._name = name
        self._come = threading.Event()

    def set(self) -> None:
        """It has come."""
        self._come.set()

    def synchronize(self) -> None:
        """Wait until it has come.

        Raises
        ------
        DeadlineError
            It has not after a minute.
        """
        if not self._come.wait(_DEADLINE_S):
            raise DeadlineError(f"{self._name}: work is not done after {_DEADLINE_S:.0f} s")


class StandInStream:
    """Work in a thread.

    Parameters
    ----------
    name : str
    watch : callable
    """

    def __init__(self, name: str, watch: Watch):
        self.name, self._watch = name, watch
        self._work: queue.SimpleQueue[tuple[str, Callable[[], None]] | None] = queue.SimpleQueue()
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(
            target=_run, args=(name, watch, self._work, self._errors), name=name, daemon=True
        )
        self._thread.start()
        self._ender = weakref.finalize(self, self._work.put, None)

    def start(self, what: str, work: Callable[[], None]) -> None:
        """Have some work done after all before it."""
        self._work.put((what, work))

    def mark(self) -> StandInEvent:
        """The moment when all work that was started so far is done."""
        event = StandInEvent(self.name)
        self._work.put(("", event.set))
        return event

    def settle(self) -> None:
        """Wait until all work is done; in the stream's own thread there is nothing to wait for.

        Raises
        ------
        Exception
            What the work raised.
        """
        if threading.current_thread() is self._thread:
            return
        self.mark().synchronize()
        if self._errors:
            raise self._errors.pop()

    def close(self) -> None:
        """End the thread after its work."""
        self._ender()
        self._thread.join(_DEADLINE_S)


def _run(name: str, watch: Watch, queued: Any, errors: list[BaseException]) -> None:
    while (item := queued.get()) is not None:
        what, work = item
        try:
            if what:
                watch(name, what, "begin")
            work()
            if what:
                watch(name, what, "end")
        except BaseException as error:
            errors.append(error)
