"""A server's keys and their optimizer: what all workers have to agree on before they train.

Every worker initialises every key, in the same order, and asks for the same optimizer. Each of these
is done when all have asked for it; where two of them differ nobody gets it, and each is told who
differs in what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from dmod.base import MXNetError
from dmod.kvstore.actions import Action, Send
from dmod.kvstore.bundles import Bundles
from dmod.kvstore.key_state import KeyState, bad_cuts, difference
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import (
    Ack,
    Error,
    Init,
    Key,
    SetOptimizer,
    SetStates,
    SetValues,
    States,
)
from dmod.kvstore.rounds import FreeBuffers, Piece, PieceUpdater
from dmod.kvstore.server_requests import OpenRequests, Refused, Request, Roster, payload_array
from dmod.kvstore.tree import Allocate
from dmod.ndarray.flat import Segment, aligned_empty

__all__ = ["KeyTable", "MakeUpdater"]


class MakeUpdater(Protocol):
    """Makes the optimizer of one piece: ``FlatUpdater(from_config(config), segments, size, dtype)``."""

    def __call__(
        self, config: dict[str, Any], segments: tuple[Segment, ...], size: int, dtype: str
    ) -> PieceUpdater: ...


class KeyTable:
    """The keys of one server.

    Parameters
    ----------
    member : MemberState
        For this server's rank and the number of servers.
    roster : Roster
    requests : OpenRequests
    waiting : dict
        The requests that wait for a round, by piece.
    make_updater : MakeUpdater
    allocate : callable
        Makes the buffers of values.
    """

    def __init__(
        self,
        member: MemberState,
        roster: Roster,
        requests: OpenRequests,
        waiting: dict[Piece, list[Request]],
        make_updater: MakeUpdater,
        allocate: Allocate = aligned_empty,
    ):
        self._member, self._roster, self._requests = member, roster, requests
        self._make_updater = make_updater
        self._free = FreeBuffers(allocate)
        self._keys: dict[Key, KeyState] = {}
        self.ready: dict[tuple[Key, int], Piece] = {}
        """The pieces that can be used, by key and number."""
        self.bundles = Bundles(self.ready, requests, waiting, self._joint_updater, self._free)
        self._orders: dict[int, Key] = {}
        self._failed = 0
        self._config: dict[str, Any] | None = None
        self._proposals: dict[int, dict[str, Any]] = {}
        self._decided = 0  # SetOptimizer requests of each worker that have been answered
        self._failures: dict[int, Refused] = {}
        self._states_set: dict[tuple[int, Piece], int] = {}  # newest SetStates request of each rank

    @property
    def generation(self) -> int:
        """As long as it is the same, what has been looked up here is the same."""
        return self.bundles.generation + self._failed

    @property
    def memory_text(self) -> str:
        """What to say when there is no memory left."""
        join, view = self._member.join, self._member.view
        name = "the server" if view is None else f"server {view.rank}"
        return (
            f"{name} (pid {join.pid} on {join.host}) is out of memory; it needs room for its share of the "
            "values, the optimizer's states, and what is on its way: use more servers, on hosts with more"
        )

    def pieces(self) -> list[Piece]:
        """All pieces on this server; those in bundles as one."""
        single = [p for state in self._keys.values() for p in state.pieces.values() if p.bundle is None]
        return [*single, *self.bundles.all()]

    def piece(self, request: Request, key: Key, number: int) -> Piece:
        """A piece that can be used."""
        state = self._keys.get(key)
        if state is not None and state.failure is not None:
            raise Refused(*state.failure)
        if state is None or not self._ready(state):
            text = f"{request.what}: key {key!r} is unknown here; every worker has to init() it first"
            raise Refused("unknown_key", text)
        if number not in state.pieces:
            raise Refused("protocol", f"{request.what}: piece {number} of {key!r} is not on this server")
        piece = state.pieces[number]
        self.bundles.take_apart(piece)
        return piece

    def missing(self, request: Request) -> set[int]:
        """The ranks that an open Init or SetOptimizer waits for."""
        if isinstance(request.message, SetOptimizer):
            return self._roster.others(self._proposals)
        state = self._keys[request.message.key]
        return self._roster.others(state.known) or (set() if state.has_values else {0})

    def _ready(self, state: KeyState) -> bool:
        return state.ready(len(self._roster.workers))

    # -- keys

    def init(self, request: Request) -> list[Action]:
        """A worker describes a key."""
        message: Init = request.message
        if why := bad_cuts(message, self._member.join.num_servers):
            raise Refused("protocol", f"{request.what}: {why}")
        state = self._keys.get(message.key)
        if state is None and message.order in self._orders:
            return self._disagree(request, self._keys[self._orders[message.order]])
        if state is not None and state.failure is not None:
            raise Refused(*state.failure)
        if state is not None and difference(message, state.init):
            return self._disagree(request, state)
        if state is not None and self._ready(state):
            return [Send(request.peer, Ack(message.request))]  # a repeat
        known = set() if state is None else state.known
        self._roster.check_present(request, self._roster.others(known, [request.rank]))
        if state is None:
            workers = len(self._roster.workers)
            state = KeyState.made_from(message, request.rank, self._member.rank, workers, self._free)
            self._keys[message.key], self._orders[message.order] = state, message.key
        state.known.add(request.rank)
        self._requests.open(request)
        return self._prepare(state) if self._ready(state) else []

    def _settle(self, state: KeyState) -> list[Action]:
        """All has been said about a key: answer those who wait for it."""
        return self._requests.acknowledge(
            [request for request in self._requests.of(Init) if request.message.key == state.key]
        )

    def is_summed(self, key: Key) -> bool:
        """Whether values of `key` are sums, with which workers go on by themselves."""
        return self._keys[key].init.mode == "sum"

    def set_values(self, request: Request) -> list[Action]:
        """Rank 0 gives the initial values of some pieces."""
        message: SetValues = request.message
        state = self._keys.get(message.key)
        if state is None or 0 not in state.known:
            return []  # it has overtaken the Init, and is asked for again
        if state.failure is not None:
            raise Refused(*state.failure)
        if request.rank != 0 or state.init.mode == "sum":
            raise Refused("protocol", f"{request.what}: values come from rank 0 only, for keys to be updated")
        if not state.pieces.keys() >= set(message.pieces):
            raise Refused("protocol", f"{request.what}: one of pieces {message.pieces} is not on this server")
        pieces = [state.pieces[number] for number in message.pieces]
        arrays = [
            payload_array(payload, piece.dtype.name, piece, request)
            for payload, piece in zip(request.payloads, pieces, strict=True)
        ]
        for piece, array in zip(pieces, arrays, strict=True):
            if piece.value is None:
                piece.value = self._free.allocate(piece.size, piece.dtype)
                piece.value[:] = array
        answer: list[Action] = [Send(request.peer, Ack(message.request))]
        return answer + self._prepare(state) if self._ready(state) else answer

    def _prepare(self, state: KeyState) -> list[Action]:
        if self._config is not None:
            try:
                self._install(self._config, [state])
            except Refused as refusal:
                return self.fail_key(state.key, refusal)
        self.ready.update({(state.key, number): piece for number, piece in state.pieces.items()})
        return self._settle(state)

    def fail_key(self, key: Key, refusal: Refused) -> list[Action]:
        """Nobody can use `key` any more."""
        state = self._keys.get(key)
        if state is None:
            return []
        state.failure = (refusal.code, refusal.text)
        self._failed += 1
        for number, piece in state.pieces.items():
            self.bundles.take_apart(piece)
            self.ready.pop((key, number), None)
            piece.begin_epoch()
        return self._requests.fail(self._requests.using(key), refusal)

    def _disagree(self, request: Request, state: KeyState) -> list[Action]:
        """Workers have initialised a key differently: nobody can use it, and everybody is told why."""
        message: Init = request.message
        if message.key == state.key:
            detail = f"{difference(message, state.init)} on worker {state.by}"
            text = f"{request.what}: on worker {request.rank}: {detail}; use the same on all workers"
        else:
            text = (
                f"{request.what}: it is number {message.order} on worker {request.rank}, where worker "
                f"{state.by} has {state.key!r}; initialise keys in the same order on all workers"
            )
        refusal = Refused("mismatch", text)
        if self._ready(state):
            raise refusal  # all had agreed: it is the newcomer that is wrong
        failed = self.fail_key(state.key, refusal)
        self._keys.setdefault(
            message.key, KeyState(message, request.rank, {}, failure=(refusal.code, refusal.text))
        )
        return [*failed, Send(request.peer, Error(message.request, refusal.code, refusal.text))]

    # -- the optimizer

    def set_optimizer(self, request: Request) -> list[Action]:
        """A worker asks for an optimizer."""
        message: SetOptimizer = request.message
        if message.number in self._failures:
            raise self._failures[message.number]
        if message.number <= self._decided:
            return [Send(request.peer, Ack(message.request))]
        if message.number != self._decided + 1:
            raise Refused("protocol", f"{request.what}: number {message.number} before its predecessor")
        self._roster.check_present(request, self._roster.others(self._proposals, [request.rank]))
        self._requests.open(request)
        self._proposals[request.rank] = message.config
        for rank, config in self._proposals.items():
            if config != message.config:
                text = _config_difference(request.rank, message.config, rank, config)
                return self._decide(Refused("mismatch", f"{request.what}: {text}"))
        if self._roster.others(self._proposals):
            return []
        try:
            self._install(message.config, [state for state in self._keys.values() if self._ready(state)])
        except Refused as refusal:
            return self._decide(refusal)
        self._config = message.config
        return self._decide(None)

    def _decide(self, refusal: Refused | None) -> list[Action]:
        self._decided += 1
        self._proposals.clear()
        waiting = self._requests.of(SetOptimizer)
        if refusal is None:
            return self._requests.acknowledge(waiting)
        self._failures[self._decided] = refusal
        return self._requests.fail(waiting, refusal)

    def _install(self, config: dict[str, Any], states: Iterable[KeyState]) -> None:
        """Give every piece that is to be updated an updater of its own; all of them or none."""
        updaters: list[tuple[Piece, PieceUpdater]] = []
        for state in states:
            for piece in state.pieces.values() if state.init.mode != "sum" else ():
                segments = state.init.layout.cut(piece.start, piece.stop)
                try:
                    updater = self._make_updater(config, segments, piece.size, piece.dtype.name)
                except MemoryError:
                    raise Refused("failed", f"set_optimizer(): {self.memory_text}") from None
                except Exception as error:  # the configuration came from a peer: it may hold anything
                    kind = "" if isinstance(error, MXNetError) else f"{type(error).__name__}: "
                    raise Refused("invalid", f"set_optimizer(): {kind}{error}") from None
                updaters.append((piece, updater))
        for piece, updater in updaters:
            self.bundles.take_apart(piece)
            piece.updater = updater

    def _joint_updater(self, pieces: Sequence[Piece]) -> PieceUpdater | None:
        """One updater over all these pieces, one after the other."""
        assert self._config is not None
        segments: list[Segment] = []
        start = 0
        for piece in pieces:
            layout = self._keys[piece.key].init.layout
            for s in layout.cut(piece.start, piece.stop):
                segments.append(Segment(s.index, s.name, start + s.start, start + s.stop, s.shape))
            start += piece.size
        return self._make_updater(self._config, tuple(segments), start, pieces[0].dtype.name)

    def get_states(self, request: Request) -> list[Action]:
        """A worker asks for the states of a piece."""
        _, updater = self._updater(request)
        arrays = updater.get_states()
        dtypes = tuple(array.dtype.name for array in arrays)
        return [Send(request.peer, States(request.message.request, updater.count, dtypes), arrays)]

    def set_states(self, request: Request) -> list[Action]:
        """A worker replaces the states of a piece."""
        message: SetStates = request.message
        piece, updater = self._updater(request)
        if message.request > self._states_set.get((request.rank, piece), 0):  # a repeat would undo updates
            arrays = [
                payload_array(payload, dtype, piece, request)
                for dtype, payload in zip(message.dtypes, request.payloads, strict=True)
            ]
            try:
                updater.set_states(arrays, message.count)
            except MXNetError as error:
                raise Refused("invalid", f"{request.what}: {error}") from None
            self._states_set[request.rank, piece] = message.request
        return [Send(request.peer, Ack(message.request))]

    def _updater(self, request: Request) -> tuple[Piece, PieceUpdater]:
        piece = self.piece(request, request.message.key, request.message.piece)
        if piece.updater is None:
            raise Refused("not_ready", f"{request.what}: no optimizer is set; call set_optimizer() first")
        return piece, piece.updater


def _config_difference(rank: int, ours: dict[str, Any], other: int, theirs: dict[str, Any]) -> str:
    ours, theirs = _flattened(ours), _flattened(theirs)
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name, "not given"), theirs.get(name, "not given")
        if a != b:
            batches = " (1 / the samples of a step, if you gave none: are the batches equally large?)"
            return (
                f"{name} is {a!r} on worker {rank}, but {b!r} on worker {other}"
                f"{batches if name.endswith('rescale_grad') else ''}; use the same on all workers"
            )
    return f"workers {rank} and {other} have different optimizers"


def _flattened(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        flat.update(_flattened(value, f"{path}.") if isinstance(value, dict) else {path: value})
    return flat
