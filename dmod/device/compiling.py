"""Saying that numba compiles kernels, since a first run waits for seconds, and how long that has taken.

Importing this file does not import numba.
"""

from __future__ import annotations

import time
from typing import Any

from dmod.log import logger

__all__ = ["seconds_compiling", "watch_compiler"]

_spent_s = 0.0
_watched = False


def seconds_compiling() -> float:
    """How long this process has compiled kernels so far; 0 where all were found on disk."""
    return _spent_s


def watch_compiler() -> None:
    """Take the time of what numba compiles, and say when it begins to; a second call does nothing."""
    global _watched
    if _watched:
        return
    _watched = True
    from numba.core import event

    class Watch(event.Listener):
        """Kernels that others call are compiled meanwhile, so that starts and ends are nested."""

        def __init__(self) -> None:
            self._depth, self._started = 0, 0.0

        def on_start(self, event: Any) -> None:
            if self._depth == 0:
                self._started = time.monotonic()
                dispatcher = event.data["dispatcher"]
                if dispatcher.py_func.__module__.startswith("dmod"):
                    _say_once(dispatcher)
            self._depth += 1

        def on_end(self, event: Any) -> None:
            global _spent_s
            self._depth -= 1
            if self._depth == 0:
                _spent_s += time.monotonic() - self._started

    event.register("numba:compile", Watch())


def _say_once(dispatcher: Any) -> None:
    global _said
    if not _said:
        _said = True
        place = getattr(dispatcher.stats, "cache_path", None)
        where = f"once; they are kept in {place}" if place else "in every process: they are not kept"
        logger.info("Compiling kernels for this machine, which takes seconds (%s)", where)


_said = False
