"""How a client's operations begin and end.

An operation is one call of the user. It is made of requests, one for each server and unit of data, and
ends exactly once, `Done` or `Failed`, when the last of them has been answered, or when the job is lost.
Some operations are fences: they begin when all earlier ones have ended, and hold up all later ones.

`Outstanding` knows which requests may leave and when to ask again, `MemberState` whether the job lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from dmod.base import (
    ClusterError,
    DeadlineError,
    EpochEnded,
    InvalidArgument,
    JoinRefusedError,
    MXNetError,
    NotReadyError,
    PeerLostError,
    ProtocolError,
    RemoteError,
    UnknownKeyError,
)
from dmod.kvstore.actions import (
    SCHEDULER,
    Action,
    Connect,
    Done,
    Exit,
    Failed,
    Joined,
    Lost,
    Payload,
    Peer,
    Send,
    server_peer,
)
from dmod.kvstore.member_state import LEAVE_REQUEST, MemberState, Phase
from dmod.kvstore.messages import (
    Ack,
    Again,
    Barrier,
    Dropped,
    EndEpoch,
    EpochDone,
    Error,
    GetStates,
    Hello,
    Init,
    Leave,
    LinkEnded,
    Member,
    Message,
    Pending,
    Pull,
    PullRows,
    Push,
    PushPull,
    Resend,
    Same,
    SetOptimizer,
    SetStates,
    SetValues,
    States,
    Values,
    View,
)
from dmod.kvstore.outstanding import Build, ClientPiece, InFull, Operation, Outstanding, Request, Take

__all__ = ["Operations", "Started", "earlier"]

_ERRORS: dict[str, type[MXNetError]] = {
    "unknown_key": UnknownKeyError,
    "invalid": InvalidArgument,
    "mismatch": InvalidArgument,
    "not_ready": NotReadyError,
    "peer_lost": PeerLostError,
    "fenced": JoinRefusedError,
    "protocol": ProtocolError,
    "failed": RemoteError,
}

_EXPECTED: dict[type[Message], tuple[type[Message], ...]] = {
    **dict.fromkeys((Hello, Init, SetValues, SetOptimizer, Push, SetStates, Barrier, Leave), (Ack,)),
    PushPull: (Values,),
    Again: (Same, Values),
    Pull: (Values,),
    PullRows: (Values,),
    EndEpoch: (EpochDone,),
    GetStates: (States,),
}
"""The answers to each request, if all goes well."""

Started = tuple[int, list[Action]]
"""The number of an operation, and what its beginning has led to."""


class Operations:
    """The operations of one worker, and its membership.

    Parameters
    ----------
    member : MemberState
    timeout_s : float
        When a server has been silent for twice as long, it counts as unreachable, though the scheduler
        hears from it.
    wait_s : float
        The longest that an operation may take while everyone is alive, such as behind a slow worker.

    Attributes
    ----------
    ready : bool
        Whether the servers know this worker: operations may begin.
    epoch : int
        The epoch that this worker is in.
    """

    def __init__(self, member: MemberState, *, timeout_s: float, wait_s: float):
        self.member = member
        self.ready = False
        self.epoch = 0
        self.violations = 0
        self._timeout_s, self._wait_s = timeout_s, wait_s
        self._num_servers = member.join.num_servers
        self._outstanding = Outstanding(min(timeout_s / 10, wait_s / 4))
        self._operations: dict[int, Operation] = {}  # begun, and not ended
        self._backlog: deque[Operation] = deque()  # not begun: a fence is in the way
        self._last_operation = 0
        self._rounds = 0  # the highest round that we have begun in this epoch
        self._ended_by: int | None = None  # the rank that has ended this epoch before us
        self._leaving: Operation | None = None
        self._leave_error = ""
        self._leave_deadline: float | None = None
        self._out: list[Action] = []  # what the present event has led to so far

    @property
    def error(self) -> MXNetError | None:
        """Why the job is lost."""
        return self.member.error

    @property
    def lingering(self) -> bool:
        """Whether a server may still read arrays of an operation that has failed."""
        return self._outstanding.lingering

    # -- events

    def start(self, now: float) -> list[Action]:
        """Ask the scheduler to join. `Joined`, `Connect` for each server, and then `Done(0)` follow."""
        self._operations[0] = Operation(0, "join()", unanswered=1)
        self._follow(self.member.start(now), now)
        return self._finish(now)

    def on_message(
        self, peer: Peer, message: Message, payloads: Sequence[Payload], now: float
    ) -> list[Action]:
        """`peer`, SCHEDULER or server_peer(rank), has sent `message`.

        The payloads are copied from before this returns.
        """
        number = getattr(message, "request", LEAVE_REQUEST)
        if peer == SCHEDULER:
            if not isinstance(message, Ack | Pending | Error) or number == LEAVE_REQUEST:
                self._follow(self.member.on_message(message, now), now)
                return self._finish(now)
            self.member.heard(now)
        self._outstanding.heard(peer)
        if isinstance(message, Resend):
            self._resend(peer, message, now)
        else:
            self._answer(peer, number, message, payloads, now)
        return self._finish(now)

    def on_disconnect(self, peer: Peer, now: float) -> list[Action]:
        """The link to a server has ended: the scheduler looks whether it is alive."""
        server = self._server(peer)
        if server is not None and self.member.phase is Phase.MEMBER:
            self._out.append(Send(SCHEDULER, LinkEnded(server.role, server.rank, server.incarnation)))
        return self._finish(now)

    def on_timer(self, now: float) -> list[Action]:
        """See `MemberState.on_timer`."""
        self._follow(self.member.on_timer(now), now)
        if self.member.phase in (Phase.MEMBER, Phase.LEAVING):
            self._check_deadlines(now)
            self._out += self._outstanding.checks(now)
        if self._leave_deadline is not None and now >= self._leave_deadline:
            self._leave_scheduler(now)
        return self._finish(now)

    def next_timer(self) -> float | None:
        """See `MemberState.next_timer`."""
        timer = self.member.next_timer()
        if self.member.phase is Phase.MEMBER or self.member.phase is Phase.LEAVING:
            timer = earlier(timer, self._outstanding.next_check())
        return earlier(timer, self._leave_deadline)

    def leave(self, error: str, now: float) -> Started:
        """Leave the job: after all earlier operations if `error` is '', else at once, with what went wrong.

        Never fails; `Exit` follows `Done`.
        """
        self._last_operation += 1
        operation = Operation(self._last_operation, "leave()", fence=True)
        self._leave_error = error
        if self._leaving is not None:
            return self._last_operation, []
        self._leaving = operation
        if not self.ready or self.error is not None or error:
            left = ClusterError(f"this worker has left the job: {error or 'leave() was called'}")
            self._fail_all(self.error or left)
        self._backlog.append(operation)
        operation.begin = lambda: self._leave_servers(operation, now)
        return operation.number, self._finish(now)

    # -- how operations begin

    def _check_ready(self, what: str) -> None:
        if self.error is not None:
            raise type(self.error)(*self.error.args)
        if self._leaving is not None:
            raise NotReadyError(f"{what}: this worker has left the job")
        if not self.ready:
            raise NotReadyError(f"{what}: this worker has not joined its job yet")

    def _begin(self, operation: Operation, now: float) -> Started:
        self._last_operation += 1
        operation.number = self._last_operation
        self._backlog.append(operation)
        return operation.number, self._finish(now)

    def _begin_operations(self) -> None:
        """Begin what may begin: a fence when nothing else goes on, and nothing beside a fence."""
        while self._backlog:
            fenced = any(operation.fence for operation in self._operations.values())
            if fenced or (self._backlog[0].fence and self._operations):
                return
            operation = self._backlog.popleft()
            self._operations[operation.number] = operation
            if operation.begin is not None:
                operation.begin()
            self._end_if_done(operation)

    def _add(
        self,
        operation: Operation,
        server: int,
        build: Build,
        take: Take | None = None,
        pieces: Sequence[ClientPiece] = (),
        priority: int = 0,
        in_full: InFull | None = None,
    ) -> None:
        request = Request(operation, server_peer(server), build, take, pieces, priority, in_full)
        self._outstanding.add(request)

    # -- how operations end

    def _answer(
        self, peer: Peer, number: int, message: Message, payloads: Sequence[Payload], now: float
    ) -> None:
        request = self._outstanding.unanswered.get(number)
        if request is None or request.peer != peer:
            return  # a late answer to what has been answered, or to a repeat
        if isinstance(message, Pending):
            request.missing = message.missing
            return
        operation = request.operation
        if isinstance(message, Error):
            if operation is not self._leaving:
                error = _ERRORS[message.code](message.text)
                lost = isinstance(error, PeerLostError)
                self._fail(operation, self._with_round(operation, error) if lost else error)
        elif isinstance(message, Dropped):
            if message.epoch == self.epoch:
                self._ended_by = operation.dropped_by = message.ended_by
                for piece, round in zip(request.pieces, request.rounds, strict=False):
                    piece.round = min(piece.round, round - 1)  # what a pull should wait for now
        elif not isinstance(message, _expected(request.message)):
            self.violations += 1
            return
        elif request.take is not None and not operation.closed:
            try:
                if request.take(message, payloads) is False:
                    self._out.append(self._outstanding.send_in_full(request, now))
                    return
            except ValueError as error:
                self._fail(operation, ProtocolError(f"{operation.what}: {peer} answered nonsense: {error}"))
        self._outstanding.answered(request)
        self._end_if_done(operation)

    def _resend(self, peer: Peer, message: Resend, now: float) -> None:
        for number in message.requests:
            request = self._outstanding.unanswered.get(number)
            if request is not None and request.peer == peer:
                self._out.append(self._outstanding.send_in_full(request, now))

    def _end_if_done(self, operation: Operation) -> None:
        if operation.unanswered or operation.closed or operation is self._leaving:
            return
        if operation.dropped_by is not None:
            self._fail(operation, EpochEnded(self._epoch_text(operation)))
            return
        self._close(operation)
        result = operation.result() if operation.result is not None else None
        self._out.append(Done(operation.number, result))

    def _epoch_text(self, operation: Operation) -> str:
        return (
            f"{operation.what}: worker {operation.dropped_by} has ended epoch {self.epoch} (it has had fewer "
            "batches): this round was dropped on all workers; call end_epoch()"
        )

    def _fail(self, operation: Operation, error: MXNetError) -> None:
        if operation.closed:
            return
        self._close(operation)
        self._outstanding.withdraw(operation)
        self._out.append(Failed(operation.number, error))

    def _fail_all(self, error: MXNetError) -> None:
        for operation in [*self._operations.values(), *self._backlog]:
            if operation is not self._leaving:
                self._fail(operation, self._with_round(operation, error))
        self._backlog.clear()

    def _with_round(self, operation: Operation, error: MXNetError) -> MXNetError:
        """The error, and what this worker was waiting for when it came."""
        rounds = [round for request in operation.requests for round in request.rounds]
        if not rounds:
            return error
        where = f"{operation.what} was waiting in round {max(rounds)} of epoch {self.epoch}"
        return type(error)(f"{error}; {where}")

    def _close(self, operation: Operation) -> None:
        operation.closed = True
        self._operations.pop(operation.number, None)

    def _finish(self, now: float) -> list[Action]:
        """Begin and send what may be begun and sent now; everything that the event has led to."""
        self._begin_operations()
        if self.member.phase in (Phase.MEMBER, Phase.LEAVING):
            self._out += self._outstanding.sends(now)
        if self._leaving is not None and self._leave_deadline is not None and not self._leaving.unanswered:
            self._leave_scheduler(now)
        actions, self._out = self._out, []
        return actions

    # -- joining, leaving, losing

    def _follow(self, actions: list[Action], now: float) -> None:
        """Act on what has become of the membership."""
        for action in actions:
            if isinstance(action, Exit) and self._leaving is not None and not self._leaving.closed:
                self._close(self._leaving)
                self._out.append(Done(self._leaving.number))
            if isinstance(action, Lost):
                self._fail_all(action.error)
            self._out.append(action)
            if isinstance(action, Joined):
                self._greet(action.view)
            if isinstance(action, Lost) and self._leaving is not None:
                self._leave_scheduler(now)

    def _greet(self, view: View) -> None:
        """Say Hello to every server; the operation 0 ends when all have answered."""
        joining, me = self._operations[0], self.member.join
        hello: Build = lambda request: (Hello(request, me.job, view.rank, me.incarnation), ())  # noqa: E731
        for member in view.members:
            if member.role == "server":
                self._out.append(Connect(server_peer(member.rank), member))
                self._add(joining, member.rank, hello)
        joining.unanswered -= 1

        def result() -> int:
            self.ready = True
            return view.rank

        joining.result = result

    def _leave_servers(self, operation: Operation, now: float) -> None:
        self._leave_deadline = now + self._timeout_s
        if self.member.phase is not Phase.MEMBER:
            return
        message = self._leave_error[:4096]
        for server in range(self._num_servers):
            self._add(operation, server, lambda request: (Leave(request, message), ()))

    def _leave_scheduler(self, now: float) -> None:
        self._leave_deadline = None
        self._follow(self.member.leave(self._leave_error, now), now)

    # -- deadlines

    def _check_deadlines(self, now: float) -> None:
        for request in list(self._outstanding.unanswered.values()):
            operation = request.operation
            if operation is self._leaving or operation.closed:
                continue
            silent_s = 0.0 if request.asked is None or request.peer == SCHEDULER else now - request.asked
            # Twice the timeout: of a server that is dead the scheduler speaks first.
            if silent_s >= 2 * self._timeout_s:
                who = self._peer_text(request.peer)
                text = (
                    f"{operation.what}: {who} has not answered for {silent_s:.1f} s, though the scheduler "
                    "has not lost it: can it be reached from here?"
                )
                self._fail(operation, DeadlineError(text))
            elif now - request.sent >= self._wait_s:
                self._fail(operation, DeadlineError(self._waiting_text(request, now)))

    def waits(self, now: float, since_s: float) -> list[str]:
        """What has not been answered for so many seconds, and whom that waits for."""
        return [
            self._waiting_text(request, now)
            for request in self._outstanding.unanswered.values()
            if now - request.sent >= since_s and not request.operation.closed
        ]

    def _waiting_text(self, request: Request, now: float) -> str:
        rounds = request.rounds
        which = f" in round {max(rounds)}" if rounds else ""
        whom = f" for {', '.join(request.missing)}" if request.missing else ""
        return (
            f"{request.operation.what}: after {now - request.sent:.1f} s {self._peer_text(request.peer)} "
            f"still waits{whom}{which}"
        )

    def _peer_text(self, peer: Peer) -> str:
        server = self._server(peer)
        return f"the {peer}" if server is None else f"{peer} (pid {server.pid} on {server.host})"

    def _server(self, peer: Peer) -> Member | None:
        members = self.member.view.members if self.member.view else ()
        return next((m for m in members if m.role == "server" and server_peer(m.rank) == peer), None)

    def check_invariants(self) -> None:
        """Raise AssertionError where this state contradicts itself."""
        self.member.check_invariants()
        self._outstanding.check_invariants()
        assert not self._out
        fences = [operation for operation in self._operations.values() if operation.fence]
        assert not fences or len(self._operations) == 1, "something goes on beside a fence"
        for operation in self._operations.values():
            assert not operation.closed
            assert operation is self._leaving or operation.unanswered > 0, (
                f"{operation.what} waits for nothing"
            )
        if self.error is not None:
            assert not self._operations or self._leaving is not None


def earlier(a: float | None, b: float | None) -> float | None:
    """The first of two times, either of which there may not be."""
    if a is None or b is None:
        return b if a is None else a
    return a if a < b else b


def _expected(message: Message | None) -> tuple[type[Message], ...]:
    assert message is not None
    return _EXPECTED[type(message)]
