"""Batches that threads fill ahead of time.

A batch's instances are shared out to the threads in small runs; who fills which makes no difference to what
is in it. It knows nothing of pictures: the iterator gives the function that fills an instance.
"""

from __future__ import annotations

import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from dmod.base import DeadlineError
from dmod.io.record_order import BatchPlan

__all__ = ["BatchJob", "Pipeline", "usable_cpus"]

_RUN = 8  # instances that a thread takes at a time
_DEADLINE_S = 120.0  # of one batch: a network disk may be slow, but is not silent for so long


def usable_cpus() -> int:
    """How many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class BatchJob:
    """A batch that is being filled.

    Attributes
    ----------
    plan : BatchPlan
    data, label : numpy.ndarray
    index : numpy.ndarray of uint64
        The numbers of the pictures, as their records say.
    """

    plan: BatchPlan
    data: np.ndarray
    label: np.ndarray
    index: np.ndarray
    futures: list[Future[None]] = field(default_factory=list)

    def wait(self, name: str) -> None:
        """Until the batch is filled.

        Raises
        ------
        DeadlineError
            It was not in time.
        Exception
            What a thread raised; the same again at each call.
        """
        deadline = time.monotonic() + _DEADLINE_S
        for future in self.futures:
            try:
                future.result(max(deadline - time.monotonic(), 0))
            except TimeoutError:
                if future.done():
                    raise
                raise DeadlineError(
                    f"{name}: no batch after {_DEADLINE_S:.0f} s of waiting for the threads that read "
                    "and decode; "
                    "does the disk answer?"
                ) from None


class Pipeline:
    """Threads, and the batches that they work on, in order.

    Parameters
    ----------
    fill : callable
        ``fill(job, i)`` fills instance `i`; called in any thread, for several at once. A method: its object
        is held weakly, so that an iterator which is dropped takes its threads with it.
    threads : int
    name : str
        For messages and the threads' names.
    """

    def __init__(self, fill: Callable[[BatchJob, int], None], threads: int, name: str):
        self._fill = weakref.WeakMethod(fill)
        self._name = name
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0
        self.jobs: deque[BatchJob] = deque()

    def submit(self, job: BatchJob) -> None:
        """Have a batch filled after those before it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self._name)
            self._pid = os.getpid()
        count = len(job.plan.records)
        # Every thread should have work in each batch, also in a small one.
        run = max(1, min(_RUN, -(-count // self._threads)))
        job.futures = [
            self._pool.submit(self._fill_run, job, i, min(i + run, count)) for i in range(0, count, run)
        ]
        self.jobs.append(job)

    def _fill_run(self, job: BatchJob, start: int, stop: int) -> None:
        fill = self._fill()
        if fill is not None:
            for i in range(start, stop):
                fill(job, i)

    def forget_parent(self) -> None:
        """In a forked process: it has none of its parent's threads, so nobody fills what they had begun."""
        if self._pid != os.getpid():
            self.jobs.clear()
            self._pool = None

    def next(self) -> BatchJob:
        """The first batch, filled. If a thread failed on it, it stays the first."""
        self.jobs[0].wait(self._name)
        return self.jobs.popleft()

    def clear(self) -> None:
        """Drop all batches; those being filled keep their buffers until the threads have left them."""
        self.forget_parent()
        for job in self.jobs:
            for future in job.futures:
                future.cancel()
        self.jobs.clear()

    def close(self) -> None:
        """Drop all batches and let the threads end."""
        self.clear()
        if self._pool is not None and self._pid == os.getpid():
            self._pool.shutdown(wait=False)
        self._pool = None
