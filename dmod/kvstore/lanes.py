"""What a server expects of its workers, as numbers that compiled code goes by.

When turns have come round undisturbed, what will come next is known to the last bit: from each worker an
`Again` of a certain standing request, epoch and round. `Lanes` writes that down, and whoever reads the
sockets takes such messages without a look at anything else (`transports.compiled_links.await_turn`). Before
anything else happens to the server's pieces all lanes are closed, and what has come in them goes back to
its turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dmod.kvstore.actions import Peer
from dmod.kvstore.messages import Again
from dmod.kvstore.rounds import Piece
from dmod.kvstore.standing import MAX_STANDING, Standing
from dmod.kvstore.turns import Arrival, Turn

__all__ = ["OTHER", "TAKEN", "TIMED_OUT", "WANTED_AFTER", "Expected", "Lanes"]

TIMED_OUT, OTHER, TAKEN = -1, -2, -3
"""What compiled loops say: that it has not happened in time; that others have to see to something; that it
was only a part."""

QUIET_TURNS = 2
"""A turn that has ended more often than so, and nothing else has happened, gets a lane."""
SUMMED_LATE = 1 << 18
"""Elements of a turn of more than two workers; a larger one gets no lane. What comes by a lane is added up
only when all have come, and sums that take long had better be begun while the others are waited for."""
WANTED_AFTER = 16
"""So many turns may end before anything is done for lanes: many a job is over by then."""


TakeAgain = Callable[..., int]
"""`compiled_links.take`."""


class Expected(NamedTuple):
    """What `take` goes by.

    Attributes
    ----------
    rows : ndarray, shape (workers, MAX_STANDING)
        Of each rank and (number of a standing request % MAX_STANDING) the row of what follows, or -1.
    numbers, turns, since : ndarray
        Of each row the standing request's number, its turn, and the first request that may mean it.
    rounds : ndarray, shape (turns, 2)
        The epoch and the round that come next.
    arrived : ndarray, shape (turns, workers)
        The requests that have come for it, or 0.
    counts : ndarray
        How many have.
    """

    rows: np.ndarray
    numbers: np.ndarray
    turns: np.ndarray
    since: np.ndarray
    rounds: np.ndarray
    arrived: np.ndarray
    counts: np.ndarray


class Lanes:
    """The lanes of one server.

    Attributes
    ----------
    take : callable, optional
        `compiled_links.take`; as long as there is none, no lane is opened.
    is_open : bool
        Whether any is.
    peers : dict of Peer to int
        The ranks of those who may use them.
    version : int
        Another one when `peers` have changed.
    expected : Expected, optional
        There if a lane is open.
    """

    def __init__(self, peers: dict[Peer, int]) -> None:
        self.take: TakeAgain | None = None
        self.is_open = False
        self.peers, self.version = peers, 0
        self.expected: Expected | None = None
        self.turns: list[Turn] = []
        self._standing: list[list[tuple[Peer, int, Standing]]] = []
        self._owners: dict[Piece, Turn] = {}
        self._ended = self._disturbances = 0

    def peers_changed(self) -> None:
        """To be called when they have."""
        self.version += 1

    @property
    def wanted(self) -> bool:
        """Whether it is time to have a `take`."""
        return self._ended > WANTED_AFTER and self.take is None

    def uses(self, turn: Turn) -> bool:
        """Whether a lane is about any of a turn's pieces."""
        return any(piece in self._owners for piece in turn.pieces)

    def turn_ended(self, turn: Turn, arrived: list[Arrival], epoch: int, round: int) -> None:
        """All have come for a turn, otherwise than by a lane: it may get one."""
        self._ended += 1
        turn.times = turn.times + 1 if turn.disturbances == self._disturbances else 1
        turn.disturbances = self._disturbances
        if turn.times <= QUIET_TURNS or self.take is None or self.uses(turn):
            return
        if len(arrived) <= 2 or sum(piece.size for piece in turn.pieces) <= SUMMED_LATE:
            self._open(turn, arrived, epoch, round + 1)

    def _open(self, turn: Turn, arrived: list[Arrival], epoch: int, round: int) -> None:
        number, workers = len(self.turns), len(arrived)
        expected = self._with_room(number, workers)
        for k, (_, rank, message, standing) in enumerate(arrived):
            row = number * workers + k
            expected.rows[rank, message.standing % MAX_STANDING] = row
            expected.numbers[row], expected.turns[row] = message.standing, number
            expected.since[row] = standing.message.request
        expected.rounds[number], expected.arrived[number], expected.counts[number] = (epoch, round), 0, 0
        self.turns.append(turn)
        self._standing.append(sorted([(p, r, s) for p, r, _, s in arrived], key=lambda of: of[1]))
        self._owners.update(dict.fromkeys(turn.pieces, turn))
        self.is_open = True

    def _with_room(self, turns: int, workers: int) -> Expected:
        """Arrays for more than so many turns."""
        before = self.expected
        if before is not None and turns < len(before.counts):
            return before
        room = max(64, 2 * turns)
        numbers, of_turns, since = np.zeros((3, room * workers), np.int64)
        self.expected = expected = Expected(
            np.full((workers, MAX_STANDING), -1, np.int64),
            numbers,
            of_turns,
            since,
            np.zeros((room, 2), np.int64),
            np.zeros((room, workers), np.int64),
            np.zeros(room, np.int64),
        )
        for new, old in zip(expected, before or (), strict=False):
            new[: len(old)] = old
        return expected

    def taken(self, rank: int, message: Again) -> int:
        """What `take` makes of a message that somebody else has read."""
        assert self.take is not None
        fields = message.request, message.standing, message.epoch, message.round
        return int(self.take(rank, *fields, self.expected))

    def arrivals(self, number: int) -> list[Arrival]:
        """Who has come for turn `number`; the next round may begin."""
        assert self.expected is not None
        rounds, requests, counts = self.expected[4:]
        epoch, round = rounds[number].tolist()
        arrived: list[Arrival] = []
        for (peer, rank, standing), request in zip(
            self._standing[number], requests[number].tolist(), strict=True
        ):
            if request:
                again = Again(request, standing.message.standing, epoch, round)
                arrived.append((peer, rank, again, standing))
        requests[number], counts[number] = 0, 0
        rounds[number, 1] = round + 1
        return arrived

    def close(self) -> list[tuple[Turn, list[Arrival]]]:
        """Expect nothing any more: turns that somebody has come for, and who has."""
        self._disturbances += 1
        if not self.is_open or self.expected is None:
            return []
        begun = np.flatnonzero(self.expected.counts[: len(self.turns)]).tolist()
        left = [(self.turns[number], self.arrivals(number)) for number in begun]
        self.is_open = False
        self.expected.rows.fill(-1)
        self.turns.clear()
        self._standing.clear()
        self._owners.clear()
        return left
