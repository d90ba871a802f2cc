"""A server: who talks to it, which of their messages it takes, and whom their requests wait for.

What pushes, pulls and epochs do is in `server_rounds`, what has to be agreed on before in `key_table`, and
the server's membership of its job in `member_state`. Nothing here does I/O or knows a clock; time is only
handed through to the membership.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dmod.kvstore.actions import SCHEDULER, Action, Joined, Lost, Payload, Peer, Send
from dmod.kvstore.key_table import MakeUpdater
from dmod.kvstore.lanes import Lanes
from dmod.kvstore.member_state import MemberState, Phase
from dmod.kvstore.messages import (
    Ack,
    Again,
    EndEpoch,
    Error,
    GetStates,
    Hello,
    Init,
    Leave,
    LinkEnded,
    Message,
    Pending,
    Poll,
    Pull,
    PullRows,
    Push,
    PushPull,
    Resend,
    SetOptimizer,
    SetStates,
    SetValues,
)
from dmod.kvstore.server_requests import Refused, Request
from dmod.kvstore.server_turns import ServerTurns
from dmod.kvstore.tree import Allocate
from dmod.ndarray.flat import aligned_empty

__all__ = ["MakeUpdater", "ServerState"]


class ServerState(ServerTurns):
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
        super().__init__(member, make_updater, allocate, shared)
        self.member = member
        self.violations = 0
        self._ranks: dict[Peer, int] = {}  # who has said Hello
        self.lanes = Lanes(self._ranks)
        self._early_hellos: dict[Peer, Hello] = {}  # before there was a view

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
        if type(message) is Again and self.member.error is None:
            actions = self._again_in_turn(peer, rank, message)
            if actions is not None:
                return actions
        return self._adopt_turns() + self._take(Request(peer, rank, message, payloads), handler)

    def _take(self, request: Request, handler: Handler) -> list[Action]:
        peer, rank, message = request.peer, request.rank, request.message
        number = getattr(message, "request", 0)
        if (known := self._requests.find(rank, number)) is not None:
            return [self._pending(known)]
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

    def on_disconnect(self, peer: Peer, now: float) -> list[Action]:
        """The link to a worker has ended: unless it has left, the scheduler looks whether it is alive."""
        rank = self._ranks.pop(peer, None)
        self.lanes.peers_changed()
        if rank is None or rank in self._roster.gone or self.member.phase is not Phase.MEMBER:
            return []
        return [Send(SCHEDULER, LinkEnded("worker", rank, self._roster.workers[rank].incarnation))]

    def on_timer(self, now: float) -> list[Action]:
        """See `MemberState.on_timer`."""
        return self._follow(self.member.on_timer(now), now)

    def next_timer(self) -> float | None:
        """See `MemberState.next_timer`."""
        return self.member.next_timer()

    def name_of(self, peer: Peer) -> str:
        """Who is at the other end of a connection, for people."""
        worker = self._roster.workers.get(self._ranks.get(peer, -1))
        if worker is None:
            return "the scheduler" if peer == SCHEDULER else "one who has not said who it is"
        return f"worker {worker.rank} (pid {worker.pid} on {worker.host})"

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
                failed = self._adopt_turns() + self._requests.fail(self._requests.all(), refusal)
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
            self.lanes.peers_changed()
            return [Send(peer, Ack(message.request))]
        return [Send(peer, Error(message.request, "fenced", text))]

    def _violation(self, peer: Peer, message: Message, why: str) -> list[Action]:
        self.violations += 1
        text = f"{type(message).__name__}: {why}"
        return [Send(peer, Error(getattr(message, "request", 0), "protocol", text))]

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
        for turn in self._turns.open:
            assert len(turn.arrived) < len(ranks), "a turn that has ended is still open"
            assert all(piece.current.slots == {r for _, r, _, _ in turn.arrived} for piece in turn.pieces)
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


Handler = Callable[[ServerState, Request], list[Action]]

_HANDLERS: dict[type[Message], Handler] = {
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
