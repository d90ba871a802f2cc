"""Exchanges that repeat: what a training step asks for again and again, in a few bytes.

A step pushes the same arrays to the same pieces, and reads the values into the same arrays, thousands of
times. Where worker and server share memory, nothing of that changes but the round. So a worker announces a
`PushPull` as a standing one, by a number of its own, and asks for it again by `Again`; the server remembers
the pieces and where the payloads lie, and answers by `Same`, once it has told where the values lie.
What is remembered may be forgotten at any time: the server then asks for the whole request by `Resend`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dmod.kvstore.actions import Outgoing, Staged

if TYPE_CHECKING:
    from dmod.kvstore.exchange import Shown
    from dmod.kvstore.messages import Again, PushPull
    from dmod.kvstore.rounds import Piece
    from dmod.kvstore.turns import Turn

__all__ = ["Repeat", "Standing", "StandingRequests"]

MAX_STANDING = 4096
"""So many of each worker are remembered: the oldest gives way. A model is a few, or one per 4 MB."""
MAX_SHOWN = 4
"""So often a worker's arrays become a place of the server; then they are left alone."""
MAX_PLACES = 64
"""Sums change places with the buffers of other pieces; so many are remembered of each standing request."""


@dataclass(eq=False)
class Repeat:
    """A worker's side: one unit of a call that is made again with the same arrays.

    Attributes
    ----------
    number : int
        What it is announced by.
    known : bool
        Whether the server has it.
    payloads : sequence
        What was pushed when it was announced.
    values : dict of int to list of ndarray
        What answers have said, by place.
    place : int
        Of the last answer.
    shown : list of Shown
        The user's arrays, if they are that place.
    """

    number: int
    known: bool = False
    payloads: Sequence[Outgoing] = ()
    values: dict[int, list[np.ndarray]] = field(default_factory=dict)
    place: int = 0
    shown: list[Shown] = field(default_factory=list)
    _tries: int = 0

    def stays_at(self, place: int) -> bool:
        """Whether values are where they were before, so that it pays to show them there."""
        stays, self.place = place == self.place, place
        self._tries += stays
        return stays and self._tries <= MAX_SHOWN

    def refresh(self) -> None:
        """Give up what the user has written to arrays that are shown."""
        for shown in self.shown:
            shown.refresh()

    def hide(self) -> None:
        """Let the user's arrays be their own memory."""
        while self.shown:
            self.shown.pop().hide()

    def staged(self) -> list[Staged]:
        """What of the payloads has to be copied, for another round, to where the server reads it."""
        return [Staged(p.slot, p.source) for p in self.payloads if type(p) is Staged]

    def in_full(self, staged: Sequence[Outgoing]) -> list[Outgoing]:
        """All payloads of a round, of which some are those that `staged` made for it."""
        copies = iter(staged)
        return [next(copies) if type(p) is Staged else p for p in self.payloads]

    def remember(self, place: int, values: list[np.ndarray]) -> None:
        """An answer has come in full."""
        if place:
            self.known = True
            if len(self.values) >= 2 * MAX_PLACES:
                self.values.clear()
            self.values[place] = values


class Standing:
    """A server's side: what a PushPull was about.

    Parameters
    ----------
    message : PushPull
    pieces : tuple of Piece
        In the message's order, or the bundle that they are.
    arrays : sequence of ndarray
        The contributions: where the worker writes them.
    generation : int
        Of the key table: in another one the pieces may be others.
    turn : Turn
        In which all workers ask for these pieces.
    """

    def __init__(
        self,
        message: PushPull,
        pieces: tuple[Piece, ...],
        arrays: Sequence[np.ndarray],
        generation: int,
        turn: Turn,
    ):
        self.message, self.pieces, self.arrays, self.generation = message, pieces, arrays, generation
        self.turn = turn
        self._places: dict[tuple[int, ...], int] = {}
        self._kept: list[Sequence[np.ndarray]] = []  # so that no other array gets the same id

    def means(self, again: Again, generation: int) -> bool:
        """Whether this is what `again` repeats: it came later, and the pieces are still the same."""
        return generation == self.generation and again.request >= self.message.request

    def place(self, values: Sequence[np.ndarray]) -> int:
        """The place of these arrays, if it has a number; else 0."""
        return self._places.get(tuple([id(value) for value in values]), 0)

    def new_place(self, values: Sequence[np.ndarray], place: int) -> bool:
        """Give the place of these arrays a number; False if there are too many."""
        if len(self._places) >= MAX_PLACES:
            return False
        self._kept.append(values)
        self._places[tuple([id(value) for value in values])] = place
        return True


class StandingRequests:
    """The standing requests of all workers, by rank and number.

    Parameters
    ----------
    shared : callable
        Whether workers can read an array where it lies.
    """

    def __init__(self, shared: Callable[[np.ndarray], bool]) -> None:
        self._of: dict[int, dict[int, Standing]] = {}
        self._shared = shared
        self._last_place = 0  # no number is given twice: what has been forgotten here is not forgotten there

    def find(self, rank: int, number: int) -> Standing | None:
        """The one that worker `rank` calls `number`."""
        of_rank = self._of.get(rank)
        return None if of_rank is None else of_rank.get(number)

    def add(self, rank: int, number: int, standing: Standing) -> None:
        """Remember one; the oldest of the same worker may have to go.

        A number is used again for the same keys with other arrays: of two requests the later one counts.
        """
        of_rank = self._of.setdefault(rank, {})
        known = of_rank.get(number)
        if known is not None and known.message.request > standing.message.request:
            return
        of_rank.pop(number, None)
        while len(of_rank) >= MAX_STANDING:
            del of_rank[next(iter(of_rank))]
        of_rank[number] = standing

    def place(self, standing: Standing, values: Sequence[np.ndarray]) -> int:
        """The number of the place where these values lie; 0 if it is not to be remembered."""
        known = standing.place(values)
        if known or not all(self._shared(value) for value in values):
            return known
        self._last_place += 1
        return self._last_place if standing.new_place(values, self._last_place) else 0

    def forget(self, rank: int) -> None:
        """The worker has left."""
        self._of.pop(rank, None)
