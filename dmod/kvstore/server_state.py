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

This file does no I/O and knows no clock; time is only handed through to the membership.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dmod.kvstore.actions import SCHEDULER, Action, Joined, Lost, Payload, Peer, Send
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
    GetStates,
    Hello,
    Init,
    Leave,
    Message,
    Pending,
    Poll,
    Pull,
    PullRows,
    Push,
    PushPull,
    Resend,
    Same,
    SetOptimizer,
    SetStates,
    SetValues,
    Values,
)
from dmod.kvstore.rounds import Piece
from dmod.kvstore.rows import gathered, parsed_spans
from dmod.kvstore.server_requests import OpenRequests, Refused, Request, Roster, joined_arrays, payload_array
from dmod.kvstore.standing import Standing, StandingRequests
from dmod.kvstore.tree import Allocate
from dmod.ndarray.flat import aligned_empty

__all__ = ["MAX_RECORD_NBYTES", "MakeUpdater", "ServerState"]

MAX_RECORD_NBYTES = 4 << 20
"""Most bytes of a recovery record: iterator and random states, and auxiliary states, which are small."""


class ServerState:
    """One server: its membership, and the pieces that it keeps.

    Messages from the scheduler come in with the peer `SCHEDULER`, those of workers with whatever
    hashable name the transport has for their connection.

    Parameters
    ----------
    member : MemberState
    make_updater : MakeUpdater
    allocate : callable
        ``allocate(size, dtype)`` makes the buffers of values: where workers can read them, if memory
        is shared.
    shared : callable
        Whether workers can read an array of values where it lies. Default: none.

    Attributes
    ----------
    epoch : int
        The epoch that rounds are counted in.
    records : dict of int to bytes
        The newest recovery record of each rank.
    violations : int
        Messages that the protocol does not allow where they came.
    """

    def __init__(
        self,
        member: MemberState,
        make_updater: MakeUpdater,
        allocate: Allocate = aligned_empty,
        shared: Callable[[np.ndarray], bool] = lambda array: False,
    ):
        self.member = member
        self.epoch = 0
        self.records: dict[int, bytes] = {}
        self.violations = 0
        self._ranks: dict[Peer, int] = {}  # who has said Hello
        self._early_hellos: dict[Peer, Hello] = {}  # before there was a view
        self._roster = Roster()
        self._requests = OpenRequests()
        self._waiting: dict[Piece, list[Request]] = {}
        self._table = KeyTable(member, self._roster, self._requests, self._waiting, make_updater, allocate)
        self._standing = StandingRequests(shared)
        self._ended: dict[int, int] = {}  # ranks that have ended the epoch -> rounds they did
        self._last_rounds: tuple[int, ...] = ()  # of the epoch before
        self._record_requests: dict[int, int] = {}

    # -- events

    def start(self, now: float) -> list[Action]:
        """Ask the scheduler to join."""
        return self._follow(self.member.start(now), now)

    def on_message(
        self, peer: Peer, message: Message, payloads: Sequence[Payload], now: float
    ) -> list[Action]:
        """`peer` has sent `message`.

        The payloads of a PushPull are read until it has been answered; those of a plain Push until its
        round has been applied, so a transport hands over memory that nobody else changes.
        """
        if peer == SCHEDULER:
            return self._follow(self.member.on_message(message, now), now)
        if isinstance(message, Hello):
            return self._hello(peer, message)
        handler, rank = _HANDLERS.get(type(message)), self._ranks.get(peer)
        if handler is None or rank is None:
            return self._violation(peer, message, "Hello comes first" if handler else "not for a server")
        number = getattr(message, "request", 0)
        if (known := self._requests.find(rank, number)) is not None:
            return [self._pending(known)]
        request = Request(peer, rank, message, payloads)
        try:
            if self.member.error is not None:
                raise Refused("peer_lost", str(self.member.error))
            if rank in self._roster.gone and not isinstance(message, Leave):
                raise Refused("protocol", f"worker {rank} has left: {self._roster.gone[rank]}")
            return handler(self, request)
        except Refused as refusal:
            return [Send(peer, Error(number, refusal.code, refusal.text))]
        except MemoryError:
            return self._out_of_memory(request)

    def _out_of_memory(self, request: Request) -> list[Action]:
        """Give up the keys of a request, of which any part may have been done; all others stay of use."""
        refusal = Refused("failed", f"{request.what}: {self._table.memory_text}")
        message = request.message if request.standing is None else request.standing.message
        keys = dict.fromkeys(getattr(ref, "key", None) for ref in getattr(message, "pieces", ()))
        keys |= dict.fromkeys([getattr(request.message, "key", None)])
        actions = [action for key in keys if key is not None for action in self._table.fail_key(key, refusal)]
        if not request.closed:
            self._requests.close(request)
            actions.append(Send(request.peer, Error(request.message.request, refusal.code, refusal.text)))
        return actions

    def on_disconnect(self, peer: Peer, now: float) -> list[Action]:
        """A connection has been closed at its other end; that of a worker is the scheduler's affair."""
        return self._follow(self.member.on_disconnect(now), now) if peer == SCHEDULER else []

    def on_timer(self, now: float) -> list[Action]:
        """See `MemberState.on_timer`."""
        return self._follow(self.member.on_timer(now), now)

    def next_timer(self) -> float | None:
        """See `MemberState.next_timer`."""
        return self.member.next_timer()

    def leave(self, error: str, now: float) -> list[Action]:
        """This server has to end, because of `error` or on request: the scheduler is told."""
        return self.member.leave(error, now)

    def _follow(self, actions: list[Action], now: float) -> list[Action]:
        """Act on what has become of the membership."""
        for action in tuple(actions):
            if isinstance(action, Joined):
                self._roster.workers = {m.rank: m for m in action.view.members if m.role == "worker"}
                for peer, hello in self._early_hellos.items():
                    actions = [*actions, *self._hello(peer, hello)]
                self._early_hellos.clear()
            elif isinstance(action, Lost):
                refusal = Refused("peer_lost", str(action.error))
                failed = self._requests.fail(self._requests.all(), refusal)
                actions = [*actions, *failed, *self.member.leave(str(action.error), now)]
        return actions

    def _hello(self, peer: Peer, message: Hello) -> list[Action]:
        if self.member.view is None:
            self._early_hellos[peer] = message
            return []
        member = self._roster.workers.get(message.rank)
        if message.job != self.member.join.job or member is None:
            ours = f"job {self.member.join.job!r} with {len(self._roster.workers)} workers"
            text = f"worker {message.rank} of job {message.job!r} is not one of {ours}"
        elif member.incarnation != message.incarnation:
            text = f"worker {message.rank} is another process now (pid {member.pid} on {member.host})"
        else:
            self._ranks[peer] = message.rank
            return [Send(peer, Ack(message.request))]
        return [Send(peer, Error(message.request, "fenced", text))]

    def _violation(self, peer: Peer, message: Message, why: str) -> list[Action]:
        self.violations += 1
        text = f"{type(message).__name__}: {why}"
        return [Send(peer, Error(getattr(message, "request", 0), "protocol", text))]

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
            request.standing = Standing(request.message, pieces, arrays, generation)
            self._standing.add(request.rank, number, request.standing)
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
                piece.begin_epoch()
                refusal = _update_refusal(piece, error)
                return actions + [a for key in piece.keys for a in self._table.fail_key(key, refusal)]
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

    # -- whom requests wait for

    def _poll(self, request: Request) -> list[Action]:
        numbers = request.message.requests
        known = [self._requests.find(request.rank, number) for number in numbers]
        actions: list[Action] = [self._pending(r) for r in known if r is not None]
        unknown = tuple(n for n, r in zip(numbers, known, strict=True) if r is None)
        return [*actions, Send(request.peer, Resend(unknown))] if unknown else actions

    def _leave(self, request: Request) -> list[Action]:
        """A worker leaves; whoever waits for it is told so."""
        self._roster.gone.setdefault(request.rank, request.message.error or "it had finished")
        self._standing.forget(request.rank)
        actions: list[Action] = []
        for waiting in self._requests.all():
            if waiting.rank == request.rank:
                self._requests.close(waiting)
            elif request.rank in self._missing(waiting):
                actions += self._requests.fail([waiting], self._roster.gone_refusal(waiting, request.rank))
        return [*actions, Send(request.peer, Ack(request.message.request))]

    def _missing(self, request: Request) -> set[int]:
        """The ranks that `request`, which is open, waits for."""
        if isinstance(request.message, Init | SetOptimizer):
            return self._table.missing(request)
        if isinstance(request.message, EndEpoch):
            return self._roster.others(self._ended)
        pieces = [piece for piece in request.rounds if request.awaits(piece)]
        return {rank for piece in pieces for rank in piece.missing(request.needs(piece))}

    def _pending(self, request: Request) -> Send:
        missing = tuple(f"worker {rank}" for rank in sorted(self._missing(request)))
        return Send(request.peer, Pending(request.message.request, missing[:64]))

    def check_invariants(self) -> None:
        """Raise AssertionError where this state contradicts itself."""
        self.member.check_invariants()
        ranks = set(self._roster.workers)
        for piece in self._table.pieces():
            piece.check_invariants()
            waited_for = piece.missing(piece.applied + 1)
            # The invariant of epochs: no round that has begun waits for a rank that has ended the epoch.
            assert waited_for == ranks or not waited_for & self._ended.keys(), f"{piece.key!r}: endless round"
        for request in self._requests.all():
            missing = self._missing(request)
            assert missing, f"{request.what} of worker {request.rank} waits for nobody"
            assert not missing & self._roster.gone.keys(), f"{request.what} waits for one who has left"
        assert not ranks or self._roster.others(self._ended), "all have ended the epoch, and it goes on"


def _values(request: Request) -> list[np.ndarray]:
    """The payloads of the answer to a request: the pieces' own arrays, unless it asks for parts of them."""
    if (request.message if request.standing is None else request.standing.message).joined:
        return [joined_values(list(request.rounds))]
    values = [piece.value for piece in request.rounds if piece.value is not None]
    return values if request.spans is None else [gathered(values[0], request.spans)]


def _update_refusal(piece: Piece, error: Exception) -> Refused:
    return Refused("failed", f"key {piece.key!r}: the update failed: {type(error).__name__}: {error}")


_HANDLERS: dict[type[Message], Callable[[ServerState, Request], list[Action]]] = {
    Init: lambda server, request: server._table.init(request),
    SetValues: lambda server, request: server._table.set_values(request),
    SetOptimizer: lambda server, request: server._table.set_optimizer(request),
    GetStates: lambda server, request: server._table.get_states(request),
    SetStates: lambda server, request: server._table.set_states(request),
    Push: ServerState._push,
    PushPull: ServerState._push,
    Again: ServerState._again,
    Pull: ServerState._pull,
    PullRows: ServerState._pull_rows,
    EndEpoch: ServerState._end_epoch,
    Poll: ServerState._poll,
    Leave: ServerState._leave,
}
"""What a worker may send once it has said Hello; everything else is a violation."""
