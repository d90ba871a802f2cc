"""Rounds that all workers ask for by standing requests, one after the other: nearly all that training does.

For these a server neither opens requests nor looks who waits for which piece: who has come is written down
in a `Turn`, and when all have, the pieces are applied and all are answered. As soon as anything else happens
to the server's pieces, what has come in turns is made into requests (`ServerRounds._adopt_turns`), and all
goes on as it always does.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeAlias

from dmod.kvstore.actions import Peer
from dmod.kvstore.messages import Again
from dmod.kvstore.rounds import Piece

if TYPE_CHECKING:
    from dmod.kvstore.standing import Standing

__all__ = ["Arrival", "Turn", "Turns"]

Arrival: TypeAlias = "tuple[Peer, int, Again, Standing]"
"""Who has asked for a round: with rank, message, and what that repeats."""


class Turn:
    """The current round of pieces that workers ask for together.

    Parameters
    ----------
    pieces : tuple of Piece

    Attributes
    ----------
    arrived : list of Arrival
        All of them have contributed.
    times, disturbances : int
        How often it has ended since so many disturbances; see `lanes`.
    """

    __slots__ = ("__weakref__", "arrived", "disturbances", "pieces", "times")

    def __init__(self, pieces: tuple[Piece, ...]):
        self.pieces = pieces
        self.arrived: list[Arrival] = []
        self.times = self.disturbances = 0

    def takes(self, rank: int, round: int) -> bool:
        """Whether all pieces are at `round`, and nobody but those who arrived has contributed."""
        count = len(self.arrived)
        for piece in self.pieces:
            slots = piece.current.slots
            if piece.applied + 1 != round or len(slots) != count or rank in slots:
                return False
        return True


class Turns:
    """The turns of one server."""

    def __init__(self) -> None:
        self._by_pieces: weakref.WeakValueDictionary[tuple[Piece, ...], Turn] = weakref.WeakValueDictionary()
        self.open: dict[Turn, None] = {}
        """Those that some have arrived for."""

    def of(self, pieces: tuple[Piece, ...]) -> Turn:
        """The one of these pieces; it is there as long as somebody knows it."""
        turn = self._by_pieces.get(pieces)
        if turn is None:
            turn = self._by_pieces[pieces] = Turn(pieces)
        return turn
