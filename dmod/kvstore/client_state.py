"""A worker's operations: the requests that they become, and how each of them ends.

An operation is one call of the user. It is cut into requests, one for each server and unit of data,
and ends exactly once, `Done` or `Failed`, when the last of them has been answered (or the job is
lost). `Outstanding` knows which requests may leave and when to ask again; `MemberState` knows whether
the job lives. `Dropped` means that another worker has ended the epoch: the operation fails with
`EpochEnded`, and so do all further contributions to this epoch, here and without asking.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
    server_peer,
)
from dmod.kvstore.member_state import LEAVE_REQUEST, MemberState, Phase
from dmod.kvstore.messages import (
    Ack,
    Barrier,
    Cut,
    Dropped,
    EndEpoch,
    EpochDone,
    Error,
    GetStates,
    Hello,
    Init,
    Key,
    Leave,
    Message,
    Pending,
    PieceRef,
    Pull,
    Push,
    PushPull,
    Resend,
    SetOptimizer,
    SetStates,
    SetValues,
    States,
    Values,
    View,
)
from dmod.kvstore.outstanding import Build, ClientPiece, Operation, Outstanding, Request
from dmod.kvstore.sharding import Sharder
from dmod.kvstore.tree import sum_dtype
from dmod.ndarray.flat import FlatLayout

__all__ = ["ClientState", "PieceStates"]

_MAX_PIECES = 1024
"""Most pieces of one message: small keys travel together, but not so many that a reply takes long."""

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

Started = tuple[int, list[Action]]


@dataclass
class PieceStates:
    """The optimizer's states of one piece of a key: elements ``[start, stop)`` of its buffer."""

    key: Key
    piece: int
    start: int
    stop: int
    count: int
    arrays: list[np.ndarray]


@dataclass(eq=False)
class _Key:
    key: Key
    layout: FlatLayout
    mode: str
    pieces: list[ClientPiece]


@dataclass(eq=False)
class _Part:
    """One piece's share of a push or pull: views of the user's arrays."""

    piece: ClientPiece
    dtype: str  # the key's
    array: np.ndarray | None = None
    outs: list[np.ndarray] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        one = self.array if self.array is not None else self.outs[0]
        return one.nbytes


class ClientState:
    """One worker: its membership (`member`) and its operations on the servers.

    A method that begins an operation returns ``(number, actions)``; in the actions, then or of a later
    event, comes `Done(number, result)` or `Failed(number, error)`, exactly once. Misuse that can be seen
    at once raises, and changes nothing. Arrays stay as they are, and alive, until their operation ends.

    Parameters
    ----------
    member : MemberState
    unit_bytes : int
        The size of the pieces that keys are cut into, and of the messages that small ones share.
    timeout_s : float
        After so many silent seconds a server counts as unreachable, though the scheduler hears from it.
    wait_s : float
        The longest that an operation may take while everyone is alive, such as behind a slow worker.

    Attributes
    ----------
    ready : bool
        Whether the servers know this worker: operations may begin.
    epoch : int
        The epoch that this worker is in.
    error : MXNetError or None
        Why the job is lost.
    """

    def __init__(
        self,
        member: MemberState,
        *,
        unit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
        wait_s: float = 600.0,
    ):
        self.member = member
        self.ready = False
        self.epoch = 0
        self.violations = 0
        self._unit_bytes, self._timeout_s, self._wait_s = unit_bytes, timeout_s, wait_s
        self._num_servers = member.join.num_servers
        self._sharder = Sharder(self._num_servers, unit_bytes)
        self._keys: dict[Key, _Key] = {}
        self._outstanding = Outstanding(timeout_s / 3)
        self._operations: dict[int, Operation] = {}  # begun, and not ended
        self._backlog: deque[Operation] = deque()  # not begun: a fence is in the way
        self._last_operation = 0
        self._barriers: dict[str, int] = {}
        self._optimizers = 0
        self._ended_by: int | None = None  # the rank that has ended this epoch before us
        self._leaving: Operation | None = None
        self._leave_error = ""
        self._leave_deadline: float | None = None
        self._out: list[Action] = []  # what the present event has led to so far

    @property
    def error(self) -> MXNetError | None:
        """Why the job is lost."""
        return self.member.error

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
        """A connection has been closed at its other end; that of a server is the scheduler's affair."""
        if peer == SCHEDULER:
            self._follow(self.member.on_disconnect(now), now)
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
        times = [self.member.next_timer(), self._leave_deadline]
        if self.member.phase in (Phase.MEMBER, Phase.LEAVING):
            times.append(self._outstanding.next_check())
        return min((time for time in times if time is not None), default=None)

    # -- operations

    def init(
        self,
        key: Key,
        layout: FlatLayout,
        values: np.ndarray | None,
        now: float,
        *,
        mode: str = "update",
        digest: str = "",
        uncut: bool = False,
    ) -> Started:
        """Register `key`; done when every worker has, and rank 0's values are with the servers.

        Parameters
        ----------
        key : int or str
        layout : FlatLayout
        values : ndarray of shape (layout.size,), or None
            Needed on rank 0 only, and with mode 'sum' nowhere.
        mode : 'update' or 'sum'
            Whether an optimizer, once set, applies to the key. Without one, and with 'sum' always, a
            round's sum becomes the value.
        digest : str
            What the key belongs to, such as a symbol's digest: must be equal on all workers.
        uncut : bool
            Keep arrays whole, for an optimizer that needs them so.

        Notes
        -----
        A second init of a key is done at once and changes nothing, as in MXNet.
        """
        what = f"init({key!r})"
        self._check_ready(what)
        if (known := self._keys.get(key)) is not None:
            if (known.layout, known.mode) != (layout, mode):
                raise InvalidArgument(
                    f"{what}: the key has been initialised already, with other arrays or mode"
                )
            return self._begin(Operation(0, what), now)
        initial = values if mode == "update" and self.member.rank == 0 and layout.size else None
        if mode == "update" and self.member.rank == 0:
            _check_array(what, key, values, layout, (layout.dtype,))
        order, cuts = self._sharder.place(layout, uncut=uncut)
        pieces = [ClientPiece(key, i, cut.start, cut.stop, cut.server) for i, cut in enumerate(cuts)]
        self._keys[key] = _Key(key, layout, mode, pieces)
        operation = Operation(0, what)

        def begin() -> None:
            for server in range(self._num_servers):
                build = _init_builder(key, order, layout, cuts, mode, digest)
                mine = [piece for piece in pieces if piece.server == server]
                self._add(operation, server, build, pieces=mine)
                for unit in () if initial is None else _units(mine, self._unit_bytes, initial):
                    self._add(operation, server, _values_builder(key, unit))

        operation.begin = begin
        return self._begin(operation, now)

    def set_optimizer(self, config: dict[str, Any], now: float) -> Started:
        """Install the optimizer on all servers; done when every worker has asked for the same."""
        self._check_ready("set_optimizer()")
        SetOptimizer(0, 0, config)  # what cannot be sent raises here
        self._optimizers += 1
        number = self._optimizers
        return self._ask_all(
            "set_optimizer()", lambda request: (SetOptimizer(request, number, config), ()), now
        )

    def push(
        self,
        arrays: Sequence[tuple[Key, np.ndarray]],
        now: float,
        *,
        priority: int = 0,
        record: bytes | None = None,
    ) -> Started:
        """Contribute an array to the next round of each key.

        Done when the servers have the contributions, which may be before the rounds are applied, but at
        most one round before.

        Parameters
        ----------
        arrays : sequence of (key, ndarray)
            One-dimensional, contiguous, of the key's dtype, or that in which it is summed.
        priority : int
            Higher ones leave first.
        record : bytes, optional
            What a process that takes this one's place would need to go on.
        """
        return self._exchange("push", [(key, array, ()) for key, array in arrays], now, priority, record)

    def pull(
        self, outs: Sequence[tuple[Key, Sequence[np.ndarray]]], now: float, *, priority: int = 0
    ) -> Started:
        """Read the values that follow from all rounds which this worker has pushed to.

        Parameters
        ----------
        outs : sequence of (key, sequence of ndarray)
            Every array is written, and is one-dimensional, contiguous, and of the key's dtype.
        """
        return self._exchange("pull", [(key, None, arrays) for key, arrays in outs], now, priority, None)

    def pushpull(
        self,
        arrays: Sequence[tuple[Key, np.ndarray, Sequence[np.ndarray]]],
        now: float,
        *,
        priority: int = 0,
        record: bytes | None = None,
    ) -> Started:
        """Contribute ``(key, array, outs)`` and read the values after the round; see `push` and `pull`.

        An out may be the array itself.
        """
        return self._exchange("pushpull", arrays, now, priority, record)

    def end_epoch(self, now: float) -> Started:
        """Take part in no more rounds of this epoch.

        Done when every worker has ended it; the result is how many rounds each rank began, dropped ones
        among them.
        """
        self._check_ready("end_epoch()")
        rounds: list[tuple[int, ...]] = []
        operation = Operation(0, "end_epoch()", fence=True)

        def begin() -> None:
            done = max((piece.round for key in self._keys.values() for piece in key.pieces), default=0)
            epoch = self.epoch
            for server in range(self._num_servers):
                self._add(
                    operation,
                    server,
                    lambda request: (EndEpoch(request, epoch, done), ()),
                    lambda message, _: rounds.append(message.rounds),  # type: ignore[attr-defined]
                )

        def result() -> tuple[int, ...]:
            self.epoch, self._ended_by = self.epoch + 1, None
            for key in self._keys.values():
                for piece in key.pieces:
                    piece.round = 0
            return rounds[0]

        operation.begin, operation.result = begin, result
        return self._begin(operation, now)

    def barrier(self, now: float, name: str = "") -> Started:
        """Wait until every worker has called this, after all its earlier operations."""
        self._check_ready("barrier()")
        self._barriers[name] = number = self._barriers.get(name, 0) + 1
        operation = Operation(0, f"barrier({name!r})" if name else "barrier()", fence=True)
        build: Build = lambda request: (Barrier(request, name, number), ())  # noqa: E731
        operation.begin = lambda: self._outstanding.add(Request(operation, SCHEDULER, build))
        return self._begin(operation, now)

    def get_states(self, keys: Sequence[Key], now: float) -> Started:
        """Read the optimizer's states; the result is a list of `PieceStates`, by key and piece."""
        what = _named("get_states", keys)
        self._check_ready(what)
        pieces = [(self._key(what, key), piece) for key in keys for piece in self._key(what, key).pieces]
        states: dict[ClientPiece, PieceStates] = {}
        operation = Operation(0, what)

        def begin() -> None:
            for _, piece in pieces:
                build, take = _states_getter(piece, states)
                self._add(operation, piece.server, build, take, [piece])

        operation.begin = begin
        operation.result = lambda: [states[piece] for _, piece in pieces]
        return self._begin(operation, now)

    def set_states(self, states: Sequence[PieceStates], now: float) -> Started:
        """Replace optimizer's states; one worker does so, while no others are training."""
        what = _named("set_states", [state.key for state in states])
        self._check_ready(what)
        found = []
        for state in states:
            pieces = self._key(what, state.key).pieces
            if state.piece >= len(pieces) or (pieces[state.piece].start, pieces[state.piece].stop) != (
                state.start,
                state.stop,
            ):
                raise InvalidArgument(f"{what}: {state.key!r} has no piece [{state.start}, {state.stop})")
            found.append((pieces[state.piece], _states_setter(state)))
        operation = Operation(0, what)

        def begin() -> None:
            for piece, build in found:
                self._add(operation, piece.server, build, pieces=[piece])

        operation.begin = begin
        return self._begin(operation, now)

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

    def _key(self, what: str, key: Key) -> _Key:
        if key not in self._keys:
            raise UnknownKeyError(f"{what}: key {key!r} is unknown; init() it first, on every worker")
        return self._keys[key]

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
        take: Callable[[Message, Sequence[Payload]], None] | None = None,
        pieces: Sequence[ClientPiece] = (),
        priority: int = 0,
    ) -> None:
        self._outstanding.add(Request(operation, server_peer(server), build, take, pieces, priority))

    def _ask_all(self, what: str, build: Build, now: float) -> Started:
        operation = Operation(0, what, fence=True)

        def begin() -> None:
            for server in range(self._num_servers):
                self._add(operation, server, build)

        operation.begin = begin
        return self._begin(operation, now)

    def _exchange(
        self,
        call: str,
        entries: Sequence[tuple[Key, np.ndarray | None, Sequence[np.ndarray]]],
        now: float,
        priority: int,
        record: bytes | None,
    ) -> Started:
        what = _named(call, [key for key, _, _ in entries])
        self._check_ready(what)
        parts: dict[tuple[int, str], list[_Part]] = {}
        for key, array, outs in entries:
            known = self._key(what, key)
            _check_entry(what, call, known, array, outs)
            for piece in known.pieces:
                cut = slice(piece.start, piece.stop)
                part = _Part(piece, known.layout.dtype, None if array is None else array[cut])
                part.outs = [out[cut] for out in outs]
                dtype = known.layout.dtype if array is None else array.dtype.name
                parts.setdefault((piece.server, dtype), []).append(part)
        if len({entry[0] for entry in entries}) < len(entries):
            raise InvalidArgument(f"{what}: a key is given twice; add the arrays up first")
        operation = Operation(0, what)

        def begin() -> None:
            if call != "pull" and self._ended_by is not None:
                operation.dropped_by = self._ended_by
                return
            nonlocal record
            for (server, dtype), group in parts.items():
                for unit in _joined(group, self._unit_bytes):
                    build, take = self._exchange_request(call, dtype, unit, record), _taker(unit)
                    self._add(operation, server, build, take, [part.piece for part in unit], priority)
                    record = None  # it travels once

        operation.begin = begin
        return self._begin(operation, now)

    def _exchange_request(self, call: str, dtype: str, unit: list[_Part], record: bytes | None) -> Build:
        def build(request: int) -> tuple[Message, Sequence[Payload]]:
            for part in unit:
                part.piece.round += part.array is not None
            pieces = tuple(PieceRef(part.piece.key, part.piece.number, part.piece.round) for part in unit)
            if call == "pull":
                return Pull(request, self.epoch, pieces), ()
            payloads: list[Payload] = [part.array for part in unit if part.array is not None]
            payloads += [] if record is None else [record]
            kind = Push if call == "push" else PushPull
            return kind(request, self.epoch, dtype, pieces, record is not None), payloads

        return build

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
                self._fail(operation, _ERRORS[message.code](message.text))
        elif isinstance(message, Dropped):
            if message.epoch == self.epoch:
                self._ended_by = operation.dropped_by = message.ended_by
        elif not isinstance(message, _expected(request.message)):
            self.violations += 1
            return
        elif request.take is not None and not operation.closed:
            try:
                request.take(message, payloads)
            except ValueError as error:
                self._fail(operation, ProtocolError(f"{operation.what}: {peer} answered nonsense: {error}"))
        self._outstanding.answered(request)
        self._end_if_done(operation)

    def _resend(self, peer: Peer, message: Resend, now: float) -> None:
        for number in message.requests:
            request = self._outstanding.unanswered.get(number)
            if request is not None and request.peer == peer:
                self._out.append(self._outstanding.send(request, now))

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
                self._fail(operation, error)
        self._backlog.clear()

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
            if (
                request.asked is not None
                and request.peer != SCHEDULER
                and now - request.asked >= self._timeout_s
            ):
                text = (
                    f"{operation.what}: {self._peer_text(request.peer)} has not answered for "
                    f"{now - request.sent:.1f} s, though the scheduler has not lost it: can it be reached "
                    "from here?"
                )
                self._fail(operation, DeadlineError(text))
            elif now - request.sent >= self._wait_s:
                self._fail(operation, DeadlineError(self._waiting_text(request, now)))

    def _waiting_text(self, request: Request, now: float) -> str:
        rounds = sorted(
            {ref.round for ref in getattr(request.message, "pieces", ()) if isinstance(ref, PieceRef)}
        )
        which = f" in round {rounds[-1]}" if rounds else ""
        whom = f" for {', '.join(request.missing)}" if request.missing else ""
        return (
            f"{request.operation.what}: after {now - request.sent:.1f} s {self._peer_text(request.peer)} "
            f"still waits{whom}{which}"
        )

    def _peer_text(self, peer: Peer) -> str:
        for member in self.member.view.members if self.member.view else ():
            if member.role == "server" and server_peer(member.rank) == peer:
                return f"server {member.rank} (pid {member.pid} on {member.host})"
        return f"the {peer}"

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


_EXPECTED: dict[type[Message], type[Message]] = {
    **dict.fromkeys((Hello, Init, SetValues, SetOptimizer, Push, SetStates, Barrier, Leave), Ack),
    PushPull: Values,
    Pull: Values,
    EndEpoch: EpochDone,
    GetStates: States,
}


def _expected(message: Message | None) -> type[Message]:
    assert message is not None
    return _EXPECTED[type(message)]


def _named(call: str, keys: Sequence[Key]) -> str:
    return f"{call}({keys[0]!r}{', ...' if len(keys) > 1 else ''})" if keys else f"{call}()"


def _check_array(
    what: str, key: Key, array: np.ndarray | None, layout: FlatLayout, dtypes: tuple[str, ...]
) -> None:
    if array is None:
        raise InvalidArgument(f"{what}: rank 0 has to give values")
    if array.shape != (layout.size,) or array.dtype.name not in dtypes:
        raise InvalidArgument(
            f"{what}: {array.dtype} {array.shape} for {key!r}, initialised as {layout.dtype} ({layout.size},)"
        )
    if not array.flags.c_contiguous:
        raise InvalidArgument(f"{what}: the array for {key!r} is not contiguous")


def _check_entry(
    what: str, call: str, known: _Key, array: np.ndarray | None, outs: Sequence[np.ndarray]
) -> None:
    dtype = known.layout.dtype
    if call != "pull":
        _check_array(what, known.key, array, known.layout, (dtype, sum_dtype(dtype).name))
    for out in outs:
        _check_array(what, known.key, out, known.layout, (dtype,))
        if not out.flags.writeable:
            raise InvalidArgument(f"{what}: the array for {known.key!r} cannot be written to")
    if call != "push" and not outs:
        raise InvalidArgument(f"{what}: no array to write {known.key!r} to")


def _joined(parts: list[_Part], unit_bytes: int) -> list[list[_Part]]:
    """Parts that travel together, in order: about `unit_bytes` of them."""
    units: list[list[_Part]] = []
    nbytes = 0
    for part in parts:
        if not units or nbytes + part.nbytes > unit_bytes or len(units[-1]) >= _MAX_PIECES:
            units.append([])
            nbytes = 0
        units[-1].append(part)
        nbytes += part.nbytes
    return units


def _units(pieces: list[ClientPiece], unit_bytes: int, values: np.ndarray) -> list[list[_Part]]:
    parts = [_Part(piece, values.dtype.name, values[piece.start : piece.stop]) for piece in pieces]
    return _joined(parts, unit_bytes)


def _taker(unit: list[_Part]) -> Callable[[Message, Sequence[Payload]], None]:
    def take(message: Message, payloads: Sequence[Payload]) -> None:
        if isinstance(message, Ack):
            return
        for part, payload in zip(unit, payloads, strict=True):
            value = np.frombuffer(payload, part.dtype)
            if value.size != part.piece.stop - part.piece.start:
                raise ValueError(f"{value.size} elements for piece {part.piece.number} of {part.piece.key!r}")
            for out in part.outs:
                out[...] = value

    return take


def _init_builder(
    key: Key, order: int, layout: FlatLayout, cuts: tuple[Cut, ...], mode: str, digest: str
) -> Build:
    return lambda request: (Init(request, key, order, layout, cuts, mode, digest), ())


def _values_builder(key: Key, unit: list[_Part]) -> Build:
    numbers = tuple(part.piece.number for part in unit)
    payloads: list[Payload] = [part.array for part in unit if part.array is not None]
    return lambda request: (SetValues(request, key, numbers), payloads)


def _states_getter(
    piece: ClientPiece, states: dict[ClientPiece, PieceStates]
) -> tuple[Build, Callable[[Message, Sequence[Payload]], None]]:
    def take(message: Message, payloads: Sequence[Payload]) -> None:
        assert isinstance(message, States)
        arrays = [np.frombuffer(p, d).copy() for p, d in zip(payloads, message.dtypes, strict=True)]
        states[piece] = PieceStates(piece.key, piece.number, piece.start, piece.stop, message.count, arrays)

    return lambda request: (GetStates(request, piece.key, piece.number), ()), take


def _states_setter(state: PieceStates) -> Build:
    dtypes = tuple(array.dtype.name for array in state.arrays)
    arrays = [np.ascontiguousarray(array) for array in state.arrays]
    SetStates(0, state.key, state.piece, state.count, dtypes)  # what cannot be sent raises here
    return lambda request: (SetStates(request, state.key, state.piece, state.count, dtypes), arrays)
