"""A worker's side of the parameter server: what its user can ask for.

Each method turns a call into requests: an operation, whose beginning, answers and end `operations` sees
to. `Dropped` means that another worker has ended the epoch: the operation fails with `EpochEnded`, and
so do all further contributions to this epoch, here and without asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, UnknownKeyError
from dmod.kvstore.actions import SCHEDULER, Outgoing, Payload
from dmod.kvstore.compression import Compressor
from dmod.kvstore.exchange import Entry, Exchange, SharedMemory, Unit, plan_units
from dmod.kvstore.express import ExpressOperations, RepeatedCall
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import (
    Barrier,
    EndEpoch,
    Key,
    Message,
    PieceRef,
    PullRows,
    SetOptimizer,
)
from dmod.kvstore.operations import Started
from dmod.kvstore.outstanding import Build, ClientPiece, Operation, Request
from dmod.kvstore.parts import (
    ClientKey,
    PieceStates,
    check_array,
    check_entry,
    init_builder,
    states_getter,
    states_setter,
    values_builders,
)
from dmod.kvstore.rows import spans_of_rows
from dmod.kvstore.sharding import Sharder
from dmod.kvstore.standing import Repeat
from dmod.ndarray.flat import FlatLayout

__all__ = ["ClientState", "PieceStates"]

IN_PLACE_NBYTES = 32 << 20
"""What travels together where nothing is copied on either side: 102 MB take 14 ms instead of 15 to 20."""
MAX_PLANS = 256
"""So many different calls are remembered; who makes more of them does not make the same ones again."""
MAX_CALLS = 1024
"""The same for calls with the same arrays; `repeated` keeps as many."""


class ClientState(ExpressOperations):
    """One worker: its membership (`member`) and its operations on the servers.

    A method that begins an operation returns ``(number, actions)``; in the actions, then or of a later
    event, comes `Done(number, result)` or `Failed(number, error)`, exactly once. Misuse that can be seen
    at once raises, and changes nothing. Arrays stay as they are, and alive, until their operation ends.

    Parameters
    ----------
    member : MemberState
    unit_bytes : int
        The size of the pieces that keys are cut into, and of the messages that small ones share.
    timeout_s, wait_s : float
        See `Operations`.
    """

    def __init__(
        self,
        member: MemberState,
        *,
        unit_bytes: int = 4 << 20,
        timeout_s: float = 10.0,
        wait_s: float = 600.0,
    ):
        super().__init__(member, timeout_s=timeout_s, wait_s=wait_s)
        self._unit_bytes = unit_bytes
        self._sharder = Sharder(self._num_servers, unit_bytes)
        self._keys: dict[Key, ClientKey] = {}
        self._plans: dict[tuple[Any, ...], list[Unit]] = {}
        self._calls: dict[tuple[int, Key], RepeatedCall] = {}
        self._standing = self._pushes = 0
        self._shared: dict[int, SharedMemory] = {}
        self._barriers: dict[str, int] = {}
        self._optimizers = 0

    def share_memory(self, server: int, memory: SharedMemory) -> None:
        """From now on server number `server` can read arrays in `memory`."""
        self._shared[server] = memory

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
        mode : 'update', 'sum' or 'async'
            Whether an optimizer, once set, applies to the key. Without one, and with 'sum' always, a
            round's sum becomes the value. With 'async' there are no rounds of all workers: a push is
            applied when it arrives.
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
        initial = values if mode != "sum" and self.member.rank == 0 and layout.size else None
        fresh = ClientKey(key, layout, mode, [])
        if mode != "sum" and self.member.rank == 0:
            check_array(what, fresh, values, fresh.dtype.char)
        order, cuts = self._sharder.place(layout, uncut=uncut)
        pieces = [ClientPiece(key, i, cut.start, cut.stop, cut.server) for i, cut in enumerate(cuts)]
        fresh.pieces += pieces
        self._keys[key] = fresh
        operation = Operation(0, what)

        def begin() -> None:
            for server in range(self._num_servers):
                build = init_builder(key, order, layout, cuts, mode, digest)
                mine = [piece for piece in pieces if piece.server == server]
                self._add(operation, server, build, pieces=mine)
                if initial is not None:
                    for build in values_builders(key, mine, initial, self._unit_bytes):
                        self._add(operation, server, build)

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
        compressor: Compressor | None = None,
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
        compressor : Compressor, optional
            What makes the arrays smaller on their way, once, when they leave.
        """
        entries = [(key, array, ()) for key, array in arrays]
        return self._exchange("push", entries, now, priority, record, compressor)

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
        compressor: Compressor | None = None,
        unit: int | None = None,
    ) -> Started:
        """Contribute ``(key, array, outs)`` and read the values after the round; see `push` and `pull`.

        An out may be the array itself. A tuple that is passed again is not checked again. With `unit` only
        that of the `units` takes part; all others have to follow before anything else is done with the keys.
        """
        return self._exchange("pushpull", arrays, now, priority, record, compressor, unit)

    def pull_rows(
        self, key: Key, rows: np.ndarray, width: int, out: np.ndarray, now: float, *, priority: int = 0
    ) -> Started:
        """Read some rows of a value as `pull` reads the whole; only they travel.

        Parameters
        ----------
        key : int or str
        rows : ndarray of int64
            Ascending, each once.
        width : int
            Elements of a row.
        out : ndarray of shape (len(rows) * width,)
            Of the key's dtype.
        """
        what = f"row_sparse_pull({key!r})"
        self._check_ready(what)
        known = self._key(what, key)
        if out.dtype != known.dtype or out.shape != (len(rows) * width,):
            raise InvalidArgument(f"{what}: {out.dtype} {out.shape} for {len(rows)} rows of {known.dtype}")
        operation = Operation(0, what)

        def ask(piece: ClientPiece, spans: np.ndarray, part: slice) -> None:
            def build(request: int) -> tuple[Message, Sequence[Outgoing]]:
                ref = PieceRef(piece.key, piece.number, piece.round)
                return PullRows(request, self._begins(0), (ref,)), [spans]

            def take(message: Message, payloads: Sequence[Payload]) -> None:
                (payload,) = payloads
                values = np.frombuffer(payload, known.dtype)
                if values.size != part.stop - part.start:
                    raise ValueError(f"{values.size} elements for {part.stop - part.start}")
                out[part] = values

            self._add(operation, piece.server, build, take, [piece], priority)

        def begin() -> None:
            for piece in known.pieces:
                for spans, part in spans_of_rows(rows, width, piece.start, piece.stop):
                    ask(piece, spans, part)

        operation.begin = begin
        return self._begin(operation, now)

    def units(self, key: Key) -> list[list[slice]]:
        """In which parts a whole array that is pushed to `key` travels."""
        known = self._key("units", key)
        entry: Entry = (known, np.empty(0, known.dtype), ())
        return [[cut for _, cut in unit.places] for unit in self._units(f"units({key!r})", [entry])]

    def end_epoch(self, now: float) -> Started:
        """Take part in no more rounds of this epoch.

        Done when every worker has ended it; the result is how many rounds each rank began, dropped ones
        among them.
        """
        self._check_ready("end_epoch()")
        rounds: list[tuple[int, ...]] = []
        operation = Operation(0, "end_epoch()", fence=True)

        def begin() -> None:
            done = self._rounds
            epoch = self.epoch
            for server in range(self._num_servers):
                self._add(
                    operation,
                    server,
                    lambda request: (EndEpoch(request, epoch, done), ()),
                    lambda message, _: rounds.append(message.rounds),  # type: ignore[attr-defined]
                )

        def result() -> tuple[int, ...]:
            self.epoch, self._rounds, self._ended_by = self.epoch + 1, 0, None
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
                build, take = states_getter(piece, states)
                self._add(operation, piece.server, build, take, [piece])

        operation.begin = begin
        operation.result = lambda: [states[piece] for _, piece in pieces]
        return self._begin(operation, now)

    def cuts(self, key: Key) -> list[tuple[int, int, int]]:
        """How a key's array is cut: number, start and stop of each piece."""
        return [(piece.number, piece.start, piece.stop) for piece in self._key("cuts", key).pieces]

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
            found.append((pieces[state.piece], states_setter(state)))
        operation = Operation(0, what)

        def begin() -> None:
            for piece, build in found:
                self._add(operation, piece.server, build, pieces=[piece])

        operation.begin = begin
        return self._begin(operation, now)

    def _key(self, what: str, key: Key) -> ClientKey:
        if key not in self._keys:
            raise UnknownKeyError(f"{what}: key {key!r} is unknown; init() it first, on every worker")
        return self._keys[key]

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
        compressor: Compressor | None = None,
        unit: int | None = None,
    ) -> Started:
        repeated = self.repeated(entries) if call == "pushpull" and compressor is None else None
        whole = repeated is not None and record is None and unit is None
        if whole and (lean := self._express(repeated, now)) is not None:
            return lean
        what = _named(call, entries)
        self._check_ready(what)
        if repeated is not None:
            checked, units = repeated.checked, repeated.units
        else:
            checked, units = self._checked(what, call, entries, compressor)
            if call == "pushpull" and compressor is None and isinstance(entries, tuple):
                repeated = self._remember(what, entries, checked, units)
        exchange = Exchange(call, checked, self._begins, self._shared, record, compressor)
        operation = Operation(0, what)

        def begin() -> None:
            if call != "pull" and self._ended_by is not None:
                operation.dropped_by = self._ended_by
                return
            if call == "push":
                self._pushes += 1  # they take turns between two slots, and standing requests name one
            repeats: Sequence[Repeat | None] = [None] * len(units)
            if repeated is not None and repeated.shared and not record and repeated.pushes == self._pushes:
                repeats = repeated.repeats
            for number in range(len(units)) if unit is None else (unit,):
                leaving, repeat = units[number], repeats[number]
                build, take = exchange.request(leaving, repeat)
                in_full = None if repeat is None else partial(exchange.again_in_full, leaving, repeat)
                self._add(operation, leaving.server, build, take, leaving.pieces, priority, in_full)

        operation.begin = begin
        return self._begin(operation, now)

    def repeated(self, entries: Sequence[Any]) -> RepeatedCall | None:
        """What is known of a pushpull that is made again with the same tuple: nothing in it has changed."""
        known = self._calls.get(_call_name(entries)) if entries else None
        if known is None or known.entries is not entries or known.pushes != self._pushes:
            return None
        return known

    def _remember(
        self, what: str, entries: tuple[Any, ...], checked: list[Entry], units: list[Unit]
    ) -> RepeatedCall:
        name = _call_name(entries)
        before = self._calls.pop(name, None)
        while len(self._calls) >= MAX_CALLS:
            del self._calls[next(iter(self._calls))]
        # A number that may still be under way keeps its meaning.
        idle = not self._operations and not self._backlog and not self._outstanding.unanswered
        numbers = [repeat.number for repeat in before.repeats] if before is not None and idle else []
        while len(numbers) < len(units):
            self._standing += 1
            numbers.append(self._standing)
        repeats = [Repeat(number) for number, _ in zip(numbers, units, strict=False)]
        exchange = Exchange("pushpull", checked, self._begins, self._shared)
        shared = all(unit.server in self._shared for unit in units)
        call = RepeatedCall(what, entries, checked, units, repeats, self._pushes, exchange, shared)
        self._calls[name] = call
        return call

    def _checked(
        self,
        what: str,
        call: str,
        entries: Sequence[tuple[Key, np.ndarray | None, Sequence[np.ndarray]]],
        compressor: Compressor | None,
    ) -> tuple[list[Entry], list[Unit]]:
        checked = [(self._key(what, key), array, outs) for key, array, outs in entries]
        for known, array, outs in checked:
            check_entry(what, call, known, array, outs)
            if compressor is not None:
                compressor.compression.check(what, known.key, known.dtype)
        return checked, self._units(what, checked)

    def _begins(self, round: int) -> int:
        """A request of `round`, or a pull with 0, leaves: in which epoch."""
        self._rounds = max(self._rounds, round)
        return self.epoch

    def _units(self, what: str, entries: Sequence[Entry]) -> list[Unit]:
        """How the entries travel; remembered, since a training step asks for the same ones every time."""
        in_place = len(entries) == 1 and self._is_in_place(*entries[0])
        signature = (
            in_place,
            *[(key.key, "" if array is None else array.dtype.char) for key, array, _ in entries],
        )
        units = self._plans.get(signature)
        if units is None:
            if len({key.key for key, _, _ in entries}) < len(entries):
                raise InvalidArgument(f"{what}: a key is given twice; add the arrays up first")
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            together = max(self._unit_bytes, IN_PLACE_NBYTES) if in_place else self._unit_bytes
            units = self._plans[signature] = plan_units(entries, together, joins=not in_place)
        return units

    def _is_in_place(self, key: ClientKey, array: np.ndarray | None, outs: Sequence[np.ndarray]) -> bool:
        """Whether nothing is going to be copied: then large messages take no longer than small ones."""
        memories = [self._shared.get(piece.server) for piece in key.pieces]
        return (
            array is not None
            and bool(outs)
            and all(
                memory is not None and memory.owns(array) and all(memory.shows(key.key, out) for out in outs)
                for memory in dict.fromkeys(memories)
            )
        )


def _call_name(entries: Sequence[Any]) -> tuple[int, Key]:
    """What a repeated call is known by: another one of that name takes its place, so that few are kept."""
    return (len(entries), entries[0][0])


def _named(call: str, keys: Sequence[Any]) -> str:
    """The call as it is named in errors, by its first key; `keys` may be tuples that begin with them."""
    if not keys:
        return f"{call}()"
    first = keys[0][0] if isinstance(keys[0], tuple) else keys[0]
    return f"{call}({first!r}{', ...' if len(keys) > 1 else ''})"
