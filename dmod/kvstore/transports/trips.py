"""A worker's way to its servers and back, when it asks for what they know already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

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
    sent : bool
        Whether all has left.
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
        whose = [self._links.index(link) for link, _ in asks]
        order = sorted(range(len(asks)), key=whose.__getitem__)  # those to one peer leave together
        self._order = np.array(order, np.int64)
        self._starts = np.cumsum([0, *(whose.count(i) for i in range(len(self._links)))], dtype=np.int64)
        packets = b"".join([_packet(asks[i][1]) for i in order])
        self._packets = np.frombuffer(packets, np.uint8).reshape(len(asks), -1).copy()
        self._whose = np.array(whose, np.int64)
        self._rounds, self._places = np.zeros((2, len(asks)), np.int64)
        self._first, self.sent = 0, False

    @property
    def ended(self) -> bool:
        """Whether it cannot be made again."""
        return any(link.closed for link in self._links)

    @property
    def places(self) -> list[int]:
        """What each has been answered with, in the order of `asks`; 0 for nothing."""
        places: list[int] = self._places.tolist()
        return places

    def is_ready(self) -> bool:
        """Whether it can be made now; then nothing of the last time is left."""
        self.sent = False
        self._places[:] = 0
        return self._is_idle() and all(link.is_idle for link in self._links)

    def send(self, first: int, epoch: int, rounds: Sequence[int]) -> bool:
        """Ask for these rounds, by request numbers from `first` on; whether all has been sent."""
        self._first = first
        self._rounds[:] = rounds
        order, starts, packets = self._order, self._starts, self._packets
        left = int(self._loops.send_agains(self._fds, starts, order, packets, self._rounds, first, epoch))
        if left < 0:
            self._links[-1 - left].cut()  # no more than a part of a packet has gone
        self.sent = left == len(self._links)
        return self.sent

    def await_answers(self, timeout_s: float) -> bool:
        """Wait until all have been answered, or something else has happened; whether all have."""
        timeout_ns, loops = max(0, int(timeout_s * 1e9)), self._loops
        whose, places = self._whose, self._places
        outcome = loops.await_sames(
            self._files(), self._fds, self._first, whose, places, self._spin_ns, timeout_ns
        )
        return bool(outcome == loops.ALL)


def _packet(standing: int) -> bytes:
    (frame,) = encode(Again(0, standing, 0, 0))
    return head_of_one(len(frame)) + bytes(frame)
