"""Kills processes of a job on purpose, so that one can see it recover."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["Saboteur"]

T = TypeVar("T")
_SHORTEST, _LONGEST = 0.3, 1.7
"""Of the mean time, which lies half-way."""


class Saboteur:
    """Decides when to kill which process: at most one in each start of a job.

    Parameters
    ----------
    mean_s : float
        The mean time from a start to the kill, in seconds.
    kills : int
        How many in all.
    seed : int, optional
        For the same choices again; default: others each time.
    """

    def __init__(self, mean_s: float, kills: int, seed: int | None = None):
        self._mean_s, self._left = mean_s, kills
        self._random = random.Random(seed)
        self._at: float | None = None

    def begin(self, now: float) -> None:
        """A job starts at a time, in seconds."""
        self._at = None
        if self._left > 0:
            self._at = now + self._mean_s * self._random.uniform(_SHORTEST, _LONGEST)

    def due_in(self, now: float) -> float | None:
        """Seconds until the kill; None if there is none to come."""
        return None if self._at is None else max(0.0, self._at - now)

    def choose(self, running: Sequence[T], name: Callable[[T], str]) -> T | None:
        """Whom to kill among those that run, each role as likely as the others; it is done once."""
        self._at = None
        if not running:
            return None
        self._left -= 1
        roles = sorted({name(process).partition(" ")[0] for process in running})
        role = self._random.choice(roles)
        return self._random.choice([p for p in running if name(p).partition(" ")[0] == role])
