"""Makes the optimizers of a server, which does not fall silent while kernels are compiled for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.kvstore.tree import LastSum
from dmod.ndarray.flat import Segment, aligned_empty, aligned_zeros
from dmod.optimizer import FlatUpdater, from_config

__all__ = ["PatientMaker"]

log = logging.getLogger("dmod.kvstore")


def make_updater(config: dict[str, Any], segments: tuple[Segment, ...], size: int, dtype: str) -> FlatUpdater:
    """The optimizer of one piece, from what a worker has sent."""
    return FlatUpdater(from_config(config), segments, size, dtype)


class PatientMaker:
    """`make_updater`, which shows signs of life while an optimizer's kernels are compiled.

    That is done for the first array that an optimizer is for, on a machine which has no kernels yet, and
    may take longer than a server may be silent, if the machine is busy.

    Parameters
    ----------
    show_life : callable
    every_s : float
    """

    def __init__(self, show_life: Callable[[], None], every_s: float):
        self._show_life, self._every_s = show_life, every_s
        self._ready: set[str] = set()

    def __call__(
        self, config: dict[str, Any], segments: tuple[Segment, ...], size: int, dtype: str
    ) -> FlatUpdater:
        updater = make_updater(config, segments, size, dtype)
        name = f"{config} {dtype}"
        if name not in self._ready:
            self._ready.add(name)
            self._try_out(config, dtype)
        return updater

    def _try_out(self, config: dict[str, Any], dtype: str) -> None:
        """Update a few elements, which compiles what real updates will call."""
        failures: list[Exception] = []

        def update() -> None:
            segment, size = Segment(0, "warm", 0, 16, (16,)), 16
            weight, given = aligned_zeros(size, dtype), aligned_zeros(size, dtype)
            given.flags.writeable = False  # as what workers send is, when there is only one of them
            last = LastSum(given, given, np.dtype(dtype), aligned_empty)
            try:
                for grad in (given, last):
                    make_updater(config, (segment,), size, dtype).update(weight, grad)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=update, name="dmod compiles kernels", daemon=True)
        thread.start()
        thread.join(self._every_s)
        while thread.is_alive():
            self._show_life()
            thread.join(self._every_s)
        if failures:  # real updates will say so to those who ask for them
            log.debug("trying out %s on %s: %s", config.get("name"), dtype, failures[0])
