"""Small pieces that travel together, kept as one on their server.

To look up, check, add and update a thousand arrays of a kilobyte takes a hundred times as long as to do
so with one array of a megabyte. So pieces that a worker asks for joined, and that stand at the same round,
are put into a `Bundle`: a piece whose buffers hold all of theirs, one after the other. Rounds, sums and
updates are the bundle's. When anybody asks for one of the pieces otherwise, it is taken apart again, in
whatever state it is, and nothing can be told from the outside but the time that it takes. Every element is
computed from itself alone, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from dmod.kvstore.messages import Key, PieceRef
from dmod.kvstore.rounds import FreeBuffers, Piece, PieceUpdater
from dmod.kvstore.server_requests import OpenRequests, Request

__all__ = ["Bundle", "Bundles", "joined_values"]

MAX_DISSOLVED = 8
"""Pieces that have been taken apart so often, after few rounds, are asked for in too many ways."""
FEW_ROUNDS = 32


class Bundle(Piece):
    """Pieces as one.

    Parameters
    ----------
    members : sequence of Piece
        Of one dtype, in the order in which they lie in the buffers; all stand at the same round.
    num_workers : int
    free : FreeBuffers
    updater : PieceUpdater or None
        One over all members, if they have updaters: it takes over their states.
    """

    def __init__(
        self, members: Sequence[Piece], num_workers: int, free: FreeBuffers, updater: PieceUpdater | None
    ):
        first = members[0]
        ends = list(accumulate([piece.size for piece in members], initial=0))
        super().__init__(first.key, first.number, 0, ends[-1], first.dtype.name, num_workers, free)
        self.members = tuple(members)
        self.parts = [slice(*ends[i : i + 2]) for i in range(len(members))]
        self.applied = self.version = self.made_at = first.applied
        if first.value is not None:
            self.value = free.allocate(self.size, self.dtype)
            self._kept = [piece.value for piece in members if piece.value is not None]
            np.concatenate(self._kept, out=self.value)
        if updater is not None:
            states = [piece.updater.get_states() for piece in members]  # type: ignore[union-attr]
            joined = [np.concatenate(arrays) for arrays in zip(*states, strict=True)]
            updater.set_states(joined, first.updater.count)  # type: ignore[union-attr]
            self.updater = updater
        for piece, part in zip(members, self.parts, strict=True):
            piece.enter(self, part)

    @property
    def keys(self) -> list[Key]:
        """The members' keys."""
        return list(dict.fromkeys([piece.key for piece in self.members]))

    def take_apart(self) -> None:
        """Let the members go on from here by themselves."""
        states = [] if self.updater is None else self.updater.get_states()
        for piece, part in zip(self.members, self.parts, strict=True):
            piece.go_on_from(self, part, self.version - self.made_at)
            if self.updater is not None:
                assert piece.updater is not None
                piece.updater.set_states([array[part] for array in states], self.updater.count)


class Bundles:
    """The bundles of one server.

    Parameters
    ----------
    ready : dict
        The server's pieces, by key and number.
    requests : OpenRequests
    waiting : dict
        The requests that wait for a round, by piece.
    make_updater : callable
        ``make_updater(pieces)`` makes an updater over all of them; None if they need none.
    free : FreeBuffers
    """

    def __init__(
        self,
        ready: dict[tuple[Key, int], Piece],
        requests: OpenRequests,
        waiting: dict[Piece, list[Request]],
        make_updater: Callable[[Sequence[Piece]], PieceUpdater | None],
        free: FreeBuffers,
    ):
        self._ready, self._requests, self._waiting = ready, requests, waiting
        self._make_updater, self._free = make_updater, free
        self._bundles: dict[tuple[tuple[Key, int], ...], Bundle] = {}
        self.generation = 0
        """How often a piece has entered or left a bundle."""

    def all(self) -> list[Bundle]:
        """The bundles that there are."""
        return list(self._bundles.values())

    def of(self, refs: Sequence[PieceRef], num_workers: int) -> Bundle | None:
        """The bundle of these pieces, made if need be; None where they cannot be one."""
        round = refs[0].round if refs else 0
        if any(ref.round != round for ref in refs):
            return None
        names = tuple([ref[:2] for ref in refs])
        known = self._bundles.get(names)
        return self._make(names, num_workers) if known is None else known

    def _make(self, names: tuple[tuple[Key, int], ...], num_workers: int) -> Bundle | None:
        members = [self._ready.get(name) for name in names]
        if None in members or len(set(names)) < max(2, len(names)):
            return None
        pieces: list[Piece] = members  # type: ignore[assignment]
        for piece in pieces:
            self.take_apart(piece)
        if len({piece.common for piece in pieces}) > 1 or pieces[0].turns is not None:
            return None
        if any(not piece.idle or piece.dissolved >= MAX_DISSOLVED or not piece.version for piece in pieces):
            return None
        if any(self._waiting.get(piece) for piece in pieces):
            return None
        updater = None if pieces[0].updater is None else self._make_updater(pieces)
        self.generation += 1
        self._bundles[names] = bundle = Bundle(pieces, num_workers, self._free, updater)
        return bundle

    def take_apart(self, piece: Piece) -> None:
        """Take the bundle of a piece apart, if it is in one; who waits for it waits for its members then."""
        bundle = piece.bundle
        if bundle is None:
            return
        assert isinstance(bundle, Bundle)
        self.generation += 1
        del self._bundles[tuple([(member.key, member.number) for member in bundle.members])]
        bundle.take_apart()
        for member in bundle.members:
            member.dissolved += bundle.version - bundle.made_at < FEW_ROUNDS
        self._waiting.pop(bundle, None)
        for request in self._requests.all():
            round = request.rounds.get(bundle)
            if round is None:
                continue
            awaited = request.awaits(bundle)
            request.rounds = dict.fromkeys(bundle.members, round)
            request.unapplied = len(bundle.members) if awaited else 0
            for member in bundle.members if awaited else ():
                self._waiting.setdefault(member, []).append(request)


def joined_values(pieces: Sequence[Piece]) -> np.ndarray:
    """The values of pieces in one array: a bundle's own, or a copy."""
    values = [piece.value for piece in pieces if piece.value is not None]
    return values[0] if len(values) == 1 else np.concatenate(values)
