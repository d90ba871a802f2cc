"""A thread that takes part in a server's sums and updates of large pieces, while workers wait for them.

It sleeps in between, and what it has not begun by the time the first thread is through is not waited for.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from dmod.base import MXNetError
from dmod.kvstore.tree import plain_add
from dmod.optimizer.flat import SHARED_NBYTES

__all__ = ["SecondThread"]

_SLICE = 131072
"""Elements that a thread adds at a time."""


class SecondThread:
    """``second(work)`` calls `work` in this thread and, on a host with an idle core, in another one at once.

    It returns when both calls have returned, and raises what one of them has raised. The other thread is
    started when it is needed first, and again in a process that was forked off. One caller at a time.

    Parameters
    ----------
    timeout_s : float
        How long the other thread may go on after this one is through.
    """

    def __init__(self, timeout_s: float = 60.0):
        self._timeout_s = timeout_s
        self._alone = _processors() < 2
        self._helper: _Helper | None = None

    def __call__(self, work: Callable[[], None]) -> None:
        helper = None if self._alone else self._started()
        if helper is None:
            work()
            return
        helper.offer(work)
        ended = False
        try:
            try:
                work()
            finally:
                ended = helper.take_back() or helper.wait(self._timeout_s)
        finally:
            if not ended:
                self._helper = None  # whatever it does, it is not asked again, and ends
                helper.offer(None)
        if not ended:
            raise MXNetError(
                f"the second thread of this server (pid {os.getpid()}) has not finished its part of a sum or "
                f"an update {self._timeout_s:g} s after the first; is the machine out of memory, or was the "
                "process stopped?"
            )
        if helper.error is not None:
            raise helper.error

    def _started(self) -> _Helper | None:
        if self._helper is None or self._helper.pid != os.getpid():
            try:
                self._helper = _Helper()
            except RuntimeError:  # no more threads may be started
                self._alone, self._helper = True, None
        return self._helper

    def add(self, left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
        """Write ``left + right``, taken in the dtype of `out`, into `out`."""
        if out.nbytes < SHARED_NBYTES:
            plain_add(left, right, out)
            return
        starts = iter(range(0, out.size, _SLICE))  # each thread takes the next one when it is ready for it

        def work() -> None:
            for start in starts:
                part = slice(start, start + _SLICE)
                plain_add(left[part], right[part], out[part])

        self(work)

    def close(self) -> None:
        """End the other thread; it is started again if it is needed."""
        helper, self._helper = self._helper, None
        if helper is not None and helper.pid == os.getpid():
            helper.end(self._timeout_s)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Helper:
    """The other thread, as seen by the first."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.error: BaseException | None = None
        self._offers: deque[Callable[[], None] | None] = deque()
        self._wake, self._done = threading.Lock(), threading.Lock()
        self._wake.acquire()
        self._done.acquire()
        self._thread = threading.Thread(target=self._run, name="dmod second thread", daemon=True)
        self._thread.start()

    def offer(self, work: Callable[[], None] | None) -> None:
        """Something to do; None ends the thread."""
        self.error = None
        self._offers.append(work)
        # It may not have woken up since the last offer, which was taken back: then it still will.
        if self._wake.locked():
            self._wake.release()

    def take_back(self) -> bool:
        """Whether the other thread has not begun, and will not."""
        try:
            self._offers.pop()
        except IndexError:
            return False
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait until what has begun has ended; False if it has not."""
        return self._done.acquire(timeout=timeout_s)

    def end(self, timeout_s: float) -> None:
        """End the thread, which has nothing to do."""
        self.offer(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            try:
                work = self._offers.pop()
            except IndexError:
                continue
            if work is None:
                return
            try:
                work()
            except BaseException as error:  # the caller raises it
                self.error = error
            work = None  # the arrays may be given back
            self._done.release()
