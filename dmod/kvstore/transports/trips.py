"""A worker's way to its servers and back, when it asks for what they know already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmod.kvstore.lanes import ALL
from dmod.kvstore.messages import Again
from dmod.kvstore.transports.links import Link, head_of_one
from dmod.kvstore.wire import encode

__all__ = ["Trip"]


class Trip:
    """Several `Again` that leave at once, and the `Same` that answer them: two compiled calls.

    Parameters
    ----------
    loops : module
        `compiled_links`.
    asks : sequence of (Link, int)
        Whom, and for which standing request.
    files : callable
        Gives the files that end the wait, the links' among them.
    is_idle : callable
        Whether nothing has been read that nobody has seen.
    spin_s : float
        How long to wait awake.

    Attributes
    ----------
    places : list of int
        What each has been answered with, in the order of `asks`; 0 for nothing.
    sent : list of bool
        Which of them have left.
    """

    def __init__(
        self,
        loops: Any,
        asks: Sequence[tuple[Link, int]],
        files: Callable[[], np.ndarray],
        is_idle: Callable[[], bool],
        spin_s: float,
    ):
        self._loops, self._files, self._is_idle, self._spin_ns = loops, files, is_idle, int(spin_s * 1e9)
        self._links = list(dict.fromkeys(link for link, _ in asks))
        self._fds = np.array([link.fileno() for link in self._links], np.int64)
        numbers = [self._links.index(link) for link, _ in asks]
        self._order = sorted(range(len(asks)), key=numbers.__getitem__)  # those to one peer leave together
        self._starts = np.cumsum([0, *(numbers.count(i) for i in range(len(self._links)))], dtype=np.int64)
        packets = [_packet(asks[i][1]) for i in self._order]
        self._packets = np.frombuffer(b"".join(packets), np.uint8).reshape(len(asks), -1).copy()
        self._rounds, self._places = np.zeros((2, len(asks)), np.int64)
        self.places, self.sent = [0] * len(asks), [True] * len(asks)

    @property
    def ended(self) -> bool:
        """Whether it cannot be made again."""
        return any(link.closed for link in self._links)

    def is_ready(self) -> bool:
        """Whether it can be made now."""
        return self._is_idle() and all(link.is_idle for link in self._links)

    def depart(self, first: int, epoch: int, rounds: Sequence[int]) -> bool:
        """Ask for these rounds; whether all has been sent.

        Ask number ``k`` has request number ``numbers(first)[k]``.
        """
        self._first = first
        self._places[:] = 0
        self._rounds[:] = [rounds[i] for i in self._order]
        self.places = [0] * len(rounds)
        left = int(
            self._loops.send_agains(self._fds, self._starts, self._packets, self._rounds, first, epoch)
        )
        self.sent = [True] * len(rounds)
        if left == len(self._links):
            return True
        if left < 0:  # no more than a part of a packet has gone
            left = -1 - left
            self._links[left].close()
        for unsent in self._order[self._starts[left] :]:
            self.sent[unsent] = False
        return False

    def numbers(self, first: int) -> list[int]:
        """The requests' numbers, in the order of `asks`, if the first one that leaves is `first`."""
        numbers = [0] * len(self._order)
        for k, i in enumerate(self._order):
            numbers[i] = first + k
        return numbers

    def arrive(self, timeout_s: float) -> bool:
        """Wait until all have been answered, or something else has happened; whether all have."""
        timeout_ns = max(0, int(timeout_s * 1e9))
        loops, places = self._loops, self._places
        outcome = loops.await_sames(self._files(), self._fds, self._first, places, self._spin_ns, timeout_ns)
        for i, place in zip(self._order, places.tolist(), strict=True):
            self.places[i] = place
        return bool(outcome == ALL)


def _packet(standing: int) -> bytes:
    (frame,) = encode(Again(0, standing, 0, 0))
    return head_of_one(len(frame)) + bytes(frame)
