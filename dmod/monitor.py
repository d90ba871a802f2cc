"""``mx.mon.Monitor``: looks at outputs, weights and gradients while a network runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.log import logger, show_progress
from dmod.ndarray import NDArray

__all__ = ["Monitor"]


def _mean_size(x: NDArray) -> NDArray:
    """The root mean square of an array."""
    return x.norm() / np.sqrt(x.size)


class Monitor:
    """Collects a statistic of arrays, every `interval` batches.

    Arrays are the outputs of operators while they run, and parameters and auxiliary states at `toc`.

    Parameters
    ----------
    interval : int
        Batches between two collections.
    stat_func : callable, optional
        From an NDArray to an NDArray, a number, or a list of such; default: the root mean square.
    pattern : str
        A regular expression, matched from the beginning of names; only these arrays are looked at.
    sort : bool
        Sort by name.
    monitor_all : bool
        Look at the inputs of operators too.

    Examples
    --------
    >>> monitor = Monitor(100, pattern='.*weight')  # module.fit(..., monitor=monitor)
    """

    def __init__(
        self,
        interval: int,
        stat_func: Callable[[NDArray], Any] | None = None,
        pattern: str = ".*",
        sort: bool = False,
        monitor_all: bool = False,
    ):
        self.interval = interval
        self.stat_func = _mean_size if stat_func is None else stat_func
        self.re_prog = re.compile(pattern)
        self.sort = sort
        self.monitor_all = monitor_all
        self.activated = False
        self.step = 0
        self.exes: list[Any] = []
        self.queue: list[tuple[int, str, Any]] = []

    def stat_helper(self, name: str, array: NDArray) -> None:
        """Keep the statistic of an array that an executor has just computed."""
        if self.activated and self.re_prog.match(name):
            self.queue.append((self.step, name, self.stat_func(array)))

    def install(self, exe: Any) -> None:
        """Watch an executor too."""
        exe.set_monitor_callback(self.stat_helper, self.monitor_all)
        self.exes.append(exe)

    def tic(self) -> None:
        """Begin a batch; call it before `forward`."""
        if self.step % self.interval == 0:
            self.queue = []
            self.activated = True
        self.step += 1

    def toc(self) -> list[tuple[int, str, str]]:
        """End a batch.

        Returns
        -------
        list of (step, name, statistics as text)
            Empty if this batch is not one of those looked at.
        """
        if not self.activated:
            return []
        for exe in self.exes:
            for name, array in [*exe.arg_dict.items(), *exe.aux_dict.items()]:
                self.stat_helper(name, array)
        self.activated = False
        rows = [(step, name, _text(value)) for step, name, value in self.queue]
        self.queue = []
        return sorted(rows, key=lambda row: row[1]) if self.sort else rows

    def toc_print(self) -> None:
        """End a batch and log what was collected."""
        for step, name, text in self.toc():
            show_progress()
            logger.info("Batch: %7d %30s %s", step, name, text)


def _text(values: Any) -> str:
    """Statistics as text: each followed by a tab, as MXNet gives them."""
    parts = values if isinstance(values, (list, tuple)) else [values]
    return "".join(str(_value(part)) + "\t" for part in parts)  # a format would widen float32 to 17 digits


def _value(part: Any) -> Any:
    if isinstance(part, NDArray):
        return part.asscalar() if part.shape == (1,) else part.asnumpy()
    return part
