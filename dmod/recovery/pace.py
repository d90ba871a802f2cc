"""How often checkpoints are taken: not so often that they take more than their share of the time."""

from __future__ import annotations

import math
import time

__all__ = ["Pace"]

_MOST_PASSED = 1000
_TRUSTED = 0.75
"""How much of what is expected of the time ahead is relied on."""


class Pace:
    """When the next checkpoint may be taken.

    Parameters
    ----------
    max_overhead : float or None
        The share of the time that they may take; None: all of it.
    """

    def __init__(self, max_overhead: float | None):
        self._max_overhead = max_overhead
        self._begun_s, self._chances = time.monotonic(), 0
        self._taken_s, self._cost_s = -math.inf, 0.0

    def begin(self) -> None:
        """Training begins now."""
        self._begun_s, self._chances = time.monotonic(), 0

    def chance(self) -> None:
        """A checkpoint might be taken now."""
        self._chances += 1

    def taken(self, started_s: float) -> None:
        """One was taken, and held up training since `started_s`."""
        self._taken_s = time.monotonic()
        self._cost_s = self._taken_s - started_s

    def early_s(self, writing_s: float) -> float:
        """By how much the next one is too early now; `writing_s` is what writing the last one took."""
        if self._max_overhead is None:
            return 0.0
        share_s = (self._cost_s + writing_s) / self._max_overhead
        return max(0.0, share_s - self.since_s)

    @property
    def since_s(self) -> float:
        """Seconds since the last one was taken."""
        return time.monotonic() - self._taken_s

    def chances_within(self, seconds: float) -> int:
        """How many chances no worker need ask about, if there is nothing to do for some seconds.

        Fewer than there would be if all went on as before: they may come to take longer.
        """
        per_second = self._chances / max(time.monotonic() - self._begun_s, 1e-6)
        return min(int(seconds * per_second * _TRUSTED), _MOST_PASSED)
