"""A server's rounds: the central idea of the parameter server.

A contribution is known by (rank, incarnation, key, piece, epoch, round). A round is complete when
every rank of the view has contributed to it; then it is applied, once, and whoever waits for it is
answered from the result. A repeat is answered and not added. So messages may be lost, repeated and
reordered, and the values stay the same bits.

The fate of a push or pull::

    checked      -- malformed, unknown key, ... ----> Error     nothing has changed
                 -- needs a rank that has ended ----> Dropped   nothing has changed
                 -- needs a rank that has left -----> Error     nothing has changed
    contributed  -- its rounds are applied ---------> Ack, Values
                 -- a rank it needs ends the epoch -> Dropped   its rounds are dropped, whole
                 -- a rank it needs leaves, is lost > Error

**Why a dropped round has not been applied anywhere.** A worker ends an epoch after all its operations
have been answered, so it has contributed to every piece of its last round and to no piece of the next.
The next round therefore misses that rank on all servers, and each of them drops it.

This file does no I/O and knows no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dmod.kvstore.actions import Action, Send
from dmod.kvstore.bundles import joined_values
from dmod.kvstore.fields import ENCODED
from dmod.kvstore.key_table import KeyTable, MakeUpdater
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import (
    Ack,
    Again,
    Dropped,
    EndEpoch,
    EpochDone,
    Error,
    Push,
    Resend,
    Same,
    Values,
)
from dmod.kvstore.rounds import Piece
from dmod.kvstore.rows import gathered, parsed_spans
from dmod.kvstore.server_requests import OpenRequests, Refused, Request, Roster, joined_arrays, payload_array
from dmod.kvstore.standing import Standing, StandingRequests
from dmod.kvstore.tree import Allocate
from dmod.kvstore.turns import Turns

__all__ = ["MAX_RECORD_NBYTES", "ServerRounds"]

MAX_RECORD_NBYTES = 4 << 20
"""Most bytes of a recovery record: iterator and random states, and auxiliary states, which are small."""


class ServerRounds:
    """The rounds of all pieces of one server, and the epochs that they are counted in.

    Parameters
    ----------
    member, make_updater, allocate, shared
        See `ServerState`.
    """

    def __init__(
        self,
        member: MemberState,
        make_updater: MakeUpdater,
        allocate: Allocate,
        shared: Callable[[np.ndarray], bool],
    ):
        self.epoch = 0
        self.records: dict[int, bytes] = {}
        self._roster = Roster()
        self._requests = OpenRequests()
        self._waiting: dict[Piece, list[Request]] = {}
        self._table = KeyTable(member, self._roster, self._requests, self._waiting, make_updater, allocate)
        self._standing = StandingRequests(shared)
        self._turns = Turns()
        self._ended: dict[int, int] = {}  # ranks that have ended the epoch -> rounds they did
        self._last_rounds: tuple[int, ...] = ()  # of the epoch before
        self._record_requests: dict[int, int] = {}

    # -- rounds

    def _push(self, request: Request) -> list[Action]:
        """Push and PushPull."""
        if (dropped := self._other_epoch(request)) is not None:
            return dropped
        self._find_pieces(request)
        if self._is_asynchronous(request):
            return self._push_alone(request)
        self._check_rounds(request, lowest=1, ahead=2)
        arrays = self._arrays(request)
        if (number := getattr(request.message, "standing", 0)) != 0:
            pieces, generation = tuple(request.rounds), self._table.generation
            turn = self._turns.of(pieces)
            request.standing = Standing(request.message, pieces, arrays, generation, turn)
            self._standing.add(request.rank, number, request.standing)
            for piece in pieces:
                if self._table.is_summed(piece.key):
                    piece.stay()  # workers may have made their arrays the place of the value
        return self._contribute(request, arrays)

    def _again(self, request: Request) -> list[Action]:
        """A standing PushPull once more."""
        message: Again = request.message
        standing = self._standing.find(request.rank, message.standing)
        if standing is None or not standing.means(message, self._table.generation):
            return [Send(request.peer, Resend((message.request,)))]
        request.standing = standing
        if (dropped := self._other_epoch(request)) is not None:
            return dropped
        request.rounds = dict.fromkeys(standing.pieces, message.round)
        self._check_rounds(request, lowest=1, ahead=2)
        return self._contribute(request, standing.arrays)

    def _contribute(self, request: Request, arrays: Sequence[np.ndarray]) -> list[Action]:
        if (dropped := self._impossible(request)) is not None:
            return dropped
        rank = request.rank
        for piece, round in request.rounds.items():
            if round > piece.applied + 1 and not piece.has(rank, round - 1):
                raise Refused(
                    "protocol", f"{request.what}: round {round} of {piece.key!r} before round {round - 1}"
                )
        # Nothing can go wrong from here on.
        self._keep_record(request)
        for (piece, round), array in zip(request.rounds.items(), arrays, strict=True):
            piece.contribute(rank, round, array)
        actions = self._wait(request)
        for piece in request.rounds:
            if piece.complete:
                actions += self._advance(piece)
        return actions

    def _pull(self, request: Request) -> list[Action]:
        if (dropped := self._other_epoch(request)) is not None:
            return dropped
        self._find_pieces(request)
        if self._is_asynchronous(request):
            return [self._answer_now(request)]
        self._check_rounds(request, lowest=0, ahead=1)
        for piece, round in request.rounds.items():
            if piece.value is None and not round:
                raise Refused(
                    "not_ready", f"{request.what}: nothing has been pushed to key {piece.key!r} yet"
                )
        dropped = self._impossible(request)
        return self._wait(request) if dropped is None else dropped

    def _pull_rows(self, request: Request) -> list[Action]:
        self._find_pieces(request)
        try:
            request.spans = parsed_spans(request.payloads[0], next(iter(request.rounds)).size)
        except ValueError as error:
            raise Refused("invalid", f"{request.what}: {error}") from None
        return self._pull(request)

    def _is_asynchronous(self, request: Request) -> bool:
        """Whether the keys are of mode 'async', in which nobody waits for anybody."""
        kinds = {piece.turns is not None for piece in request.rounds}
        if len(kinds) > 1:
            raise Refused("protocol", f"{request.what}: keys of mode 'async' among others")
        return kinds == {True}

    def _push_alone(self, request: Request) -> list[Action]:
        arrays = self._arrays(request)
        for piece, turn in request.rounds.items():
            assert piece.turns is not None
            if piece.updater is None:
                text = f"{request.what}: without rounds there is no sum: set_optimizer() comes first"
                raise Refused("not_ready", text)
            if not 1 <= turn <= piece.turns.get(request.rank, 0) + 1:
                raise Refused("protocol", f"{request.what}: push {turn} of {piece.key!r}, out of turn")
        self._keep_record(request)
        for (piece, turn), array in zip(request.rounds.items(), arrays, strict=True):
            try:
                piece.apply_alone(request.rank, turn, array)
            except Exception as error:  # an optimizer may raise anything
                refusal = _update_refusal(piece, error)
                return [
                    *self._table.fail_key(piece.key, refusal),
                    Send(request.peer, Error(request.message.request, refusal.code, refusal.text)),
                ]
        return [self._answer_now(request)]

    def _answer_now(self, request: Request) -> Send:
        """An answer with copies: the next update may come before it has left."""
        number = request.message.request
        if type(request.message) is Push:
            return Send(request.peer, Ack(number))
        values = [value.copy() for value in _values(request)]
        return Send(request.peer, Values(number, len(values)), values)

    def _advance(self, piece: Piece) -> list[Action]:
        """Apply every round of `piece` that is complete, and answer whoever has waited for it."""
        actions: list[Action] = []
        while piece.complete:  # and again, if the next round is complete as well
            try:
                piece.apply()
            except Exception as error:  # an optimizer may raise anything
                return actions + self._give_up(piece, error)
            still = []
            for request in self._waiting.pop(piece, ()):
                if request.closed:
                    continue
                if piece.applied < request.rounds[piece] - (type(request.message) is Push):
                    still.append(request)
                    continue
                request.unapplied -= 1
                if not request.unapplied:
                    actions.append(self._answer(request))
            if still:
                self._waiting[piece] = still
        return actions

    def _give_up(self, piece: Piece, error: Exception) -> list[Action]:
        """A round of `piece` could not be applied."""
        piece.begin_epoch()
        refusal = _update_refusal(piece, error)
        return [action for key in piece.keys for action in self._table.fail_key(key, refusal)]

    def _wait(self, request: Request) -> list[Action]:
        """Answer a request whose rounds have been applied; leave any other open."""
        self._requests.open(request)
        early = type(request.message) is Push  # see Request.needs
        for piece, round in request.rounds.items():
            if piece.applied < round - early:
                request.unapplied += 1
                self._waiting.setdefault(piece, []).append(request)
        return [] if request.unapplied else [self._answer(request)]

    def _answer(self, request: Request) -> Send:
        self._requests.close(request)
        message, standing = request.message, request.standing
        if type(message) is Push:
            return Send(request.peer, Ack(message.request))
        values, place = _values(request), 0
        if standing is not None:
            if type(message) is Again and (place := standing.place(values)):
                return Send(request.peer, Same(message.request, place))
            place = self._standing.place(standing, values)
        return Send(request.peer, Values(message.request, len(values), place), values)

    def _find_pieces(self, request: Request) -> None:
        refs = request.message.pieces
        bundles, ready, rounds = self._table.bundles, self._table.ready, request.rounds
        if request.message.joined:
            bundle = bundles.of(refs, len(self._roster.workers))
            if bundle is not None:
                rounds[bundle] = refs[0].round
                return
        for ref in refs:
            key, number, round = ref
            piece = ready.get((key, number))
            if piece is None:
                piece = self._table.piece(request, key, number)
            if piece.bundle is not None:
                bundles.take_apart(piece)
            rounds[piece] = round
        if not refs or len(request.rounds) < len(refs):
            raise Refused("protocol", f"{request.what}: no pieces, or one of them twice")

    def _check_rounds(self, request: Request, lowest: int, ahead: int) -> None:
        """No client is further ahead than that: it has one request per piece at a time."""
        for piece, round in request.rounds.items():
            if not lowest <= round <= piece.applied + ahead:
                text = f"{request.what}: round {round} of {piece.key!r}, after {piece.applied} applied"
                raise Refused("protocol", text)

    def _arrays(self, request: Request) -> list[np.ndarray]:
        message: Push = request.message
        if message.has_record and memoryview(request.payloads[-1]).nbytes > MAX_RECORD_NBYTES:  # type: ignore[arg-type]
            raise Refused("invalid", f"{request.what}: a record of more than {MAX_RECORD_NBYTES} bytes")
        if message.joined:
            return self._joined_arrays(request)
        arrays = []
        for piece, payload in zip(request.rounds, request.payloads, strict=False):
            if message.dtype not in piece.accepts:
                text = f"{request.what}: {message.dtype} for {piece.key!r}, initialised as {piece.dtype}"
                raise Refused("invalid", text)
            arrays.append(payload_array(payload, message.dtype, piece, request))
        return arrays

    def _joined_arrays(self, request: Request) -> list[np.ndarray]:
        pieces, dtype = list(request.rounds), request.message.dtype
        if dtype in ENCODED or any(dtype not in piece.accepts for piece in pieces):
            wrong = next((piece for piece in pieces if dtype not in piece.accepts), pieces[0])
            text = f"{request.what}: {dtype}, joined, for {wrong.key!r}, initialised as {wrong.dtype}"
            raise Refused("invalid", text)
        return joined_arrays(request.payloads[0], dtype, pieces, request)

    def _keep_record(self, request: Request) -> None:
        if type(request.message) is Again:
            return
        number = request.message.request
        if request.message.has_record and number > self._record_requests.get(request.rank, 0):
            self.records[request.rank] = bytes(request.payloads[-1])
            self._record_requests[request.rank] = number

    # -- epochs

    def _other_epoch(self, request: Request) -> list[Action] | None:
        """Dropped for a request of an epoch that is over, which can only be a late repeat."""
        epoch = request.message.epoch
        if epoch > self.epoch:
            raise Refused("protocol", f"{request.what}: epoch {epoch}, and {self.epoch} is not over")
        if epoch == self.epoch:
            return None
        return [Send(request.peer, Dropped(request.message.request, epoch, request.rank))]

    def _impossible(self, request: Request) -> list[Action] | None:
        """Dropped, or an error, for rounds which wait for a rank that will not contribute."""
        if not self._ended and not self._roster.gone:
            return None
        missing = {rank for piece, round in request.rounds.items() for rank in piece.missing(round)}
        for rank in sorted(missing & self._ended.keys()):
            return [Send(request.peer, Dropped(request.message.request, self.epoch, rank))]
        self._roster.check_present(request, missing)
        return None

    def _end_epoch(self, request: Request) -> list[Action]:
        message: EndEpoch = request.message
        if message.epoch == self.epoch - 1:
            return [Send(request.peer, EpochDone(message.request, message.epoch, self._last_rounds))]
        if message.epoch != self.epoch:
            raise Refused("protocol", f"{request.what}: epoch {message.epoch}, and this is {self.epoch}")
        self._roster.check_present(request, self._roster.others(self._ended))
        self._requests.open(request)
        actions = [] if request.rank in self._ended else self._drop_rounds_without(request.rank)
        self._ended.setdefault(request.rank, message.rounds)
        return actions if self._roster.others(self._ended) else actions + self._begin_epoch()

    def _drop_rounds_without(self, rank: int) -> list[Action]:
        dropped: dict[Request, None] = {}
        for piece in self._table.pieces():
            first = piece.drop_without(rank)
            for request in self._waiting.get(piece, ()):
                if first is not None and not request.closed and request.rounds[piece] >= first:
                    dropped[request] = None
        return self._requests.answer(dropped, lambda number: Dropped(number, self.epoch, rank))

    def _begin_epoch(self) -> list[Action]:
        ended, self.epoch = self.epoch, self.epoch + 1
        self._last_rounds = tuple(rounds for _, rounds in sorted(self._ended.items()))
        self._ended.clear()
        self._waiting.clear()
        for piece in self._table.pieces():
            piece.begin_epoch()
        done = self._requests.of(EndEpoch)
        return self._requests.answer(done, lambda number: EpochDone(number, ended, self._last_rounds))


def _values(request: Request) -> list[np.ndarray]:
    """The payloads of the answer to a request: the pieces' own arrays, unless it asks for parts of them."""
    if (request.message if request.standing is None else request.standing.message).joined:
        return [joined_values(list(request.rounds))]
    values = [piece.value for piece in request.rounds if piece.value is not None]
    return values if request.spans is None else [gathered(values[0], request.spans)]


def _update_refusal(piece: Piece, error: Exception) -> Refused:
    return Refused("failed", f"key {piece.key!r}: the update failed: {type(error).__name__}: {error}")
