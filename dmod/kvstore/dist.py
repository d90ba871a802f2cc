"""'dist_sync' and its kin: a store between worker processes, kept by servers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmod.base import ClusterError, EpochEnded, InvalidArgument, KVStoreError, NotReadyError, UnknownKeyError
from dmod.config import settings
from dmod.device import copy, to_host
from dmod.kvstore.base import KVStore, KVStoreType
from dmod.kvstore.checks import Pairs, add_states, check_buffers, check_new_flat, check_out, check_value
from dmod.kvstore.client import Client
from dmod.kvstore.client_state import PieceStates
from dmod.kvstore.compression import Compression, Compressor
from dmod.kvstore.local import check_optimizer
from dmod.kvstore.messages import Key
from dmod.kvstore.reduce import DeviceSum
from dmod.kvstore.repeated import RepeatedCalls
from dmod.ndarray.flat import FlatLayout, Segment
from dmod.ndarray.ndarray import NDArray
from dmod.optimizer import NotSerializable, Optimizer, OptimizerStates, from_config, supports_flat
from dmod.optimizer.states import join_flat, split_flat

__all__ = ["DistStore"]

log = logging.getLogger("dmod.kvstore")
_NODE_GROUPS = {"scheduler": 1, "server": 2, "worker": 4}
"""How ps-lite numbers groups of processes, which MXNet's programs ask by."""


@dataclass
class _Entry:
    """A key, or a flat buffer: its layout, and how to sum the local devices' contributions."""

    layout: FlatLayout
    shape: tuple[int, ...]
    mode: str = "update"
    sums: dict[int, DeviceSum] = field(default_factory=dict)
    dtype: np.dtype[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.dtype = np.dtype(self.layout.dtype)

    def total(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        n = len(arrays)
        if n == 1:
            return arrays[0]
        if n not in self.sums:
            self.sums[n] = DeviceSum(n, self.layout.size, self.layout.dtype)
        return self.sums[n](arrays)


class DistStore(KVStore):
    """A store shared by the workers of a job; see `dmod.kvstore.create`.

    Every worker initialises the same keys in the same order. A push contributes to a *round*, which is
    applied when every worker has contributed to it.

    Parameters
    ----------
    kind : KVStoreType
    client : Client, optional
        The connection to the job; default: joins the one that the environment names, which takes until
        all its processes are there.
    """

    _open: DistStore | None = None

    def __init__(self, kind: KVStoreType, client: Client | None = None):
        super().__init__(kind)
        self._entries: dict[Key, _Entry] = {}
        self._flats: set[Key] = set()
        self._config: dict[str, Any] | None = None
        self._said_unequal = False
        self._compressor: Compressor | None = None
        self._begun: dict[Key, dict[int, int]] = {}  # units that left early, and their operations
        self._repeated = RepeatedCalls()
        self._client = _join(kind) if client is None else client
        if client is None:
            DistStore._open = self

    @classmethod
    def open(cls, kind: KVStoreType) -> DistStore:
        """This process's store: a process is one worker, so asking again gives the same one.

        Raises
        ------
        InvalidArgument
            The process has a store of another kind.
        """
        if cls._open is None:
            return cls(kind)
        if cls._open.type != kind.name:
            raise InvalidArgument(
                f"kvstore.create({kind.name!r}): this process is a worker with a {cls._open.type!r} store "
                "already; close() that one first"
            )
        return cls._open

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""
        return self._client.rank

    @property
    def num_workers(self) -> int:
        """The number of worker processes."""
        return self._client.member.join.num_workers

    # ---- arrays by key

    def _init(self, pairs: list[tuple[Key, NDArray]]) -> None:
        for key, _ in pairs:
            if key in self._entries:
                raise InvalidArgument(f"init({key!r}): the key has been initialised already")
        begun = []
        for key, value in pairs:
            index = key if isinstance(key, int) and 0 <= key < 1 << 31 else len(self._entries)
            # One array needs no padding: what users give is pushed and pulled where it lies.
            segment = Segment(index, str(key), 0, value.size, value.shape)
            layout = FlatLayout(np.dtype(value.dtype).name, (segment,), value.size)
            self._entries[key] = _Entry(layout, value.shape)
            flat = np.ascontiguousarray(to_host(value._data)).reshape(-1)
            mode = "async" if self.asynchronous else "update"
            begun.append(self._client.begin(self._client.state.init, key, layout, flat, mode=mode))
        self._client.wait(begun)

    def _entry(self, call: str, key: Key) -> _Entry:
        entry = self._entries.get(key)
        if entry is None or key in self._flats:
            raise UnknownKeyError(f"{call}({key!r}): unknown key: init({key!r}, value) comes first")
        return entry

    def _contributions(self, call: str, pairs: Pairs) -> list[tuple[Key, np.ndarray]]:
        checked = []
        for key, values in pairs:
            entry = self._entry(call, key)
            arrays = [value._data for value in values]
            for array in arrays:
                if array.shape != entry.shape or array.dtype != entry.dtype:
                    check_value(f"{call}({key!r})", array, entry.shape, entry.dtype)
            checked.append((key, entry, arrays))
        return [
            (key, entry.total([to_host(a).reshape(-1) for a in arrays])) for key, entry, arrays in checked
        ]

    def _push(self, pairs: Pairs, priority: int) -> None:
        contributions = self._contributions("push", pairs)
        self._send(self._client.state.push, contributions, self._compressor, priority)

    def _destinations(self, call: str, pairs: Pairs) -> list[tuple[Key, list[np.ndarray]]]:
        found = []
        for key, outs in pairs:
            entry = self._entry(call, key)
            arrays = [out._data for out in outs]
            for out, array in zip(outs, arrays, strict=True):
                if array.shape != entry.shape:
                    check_out(f"{call}({key!r})", out, entry.shape)
            found.append((key, [_flat(array, entry.dtype) for array in arrays]))
        return found

    @staticmethod
    def _deliver(pairs: Pairs, arrived: list[tuple[Key, list[np.ndarray]]]) -> None:
        """Copy what has arrived elsewhere than in the user's own arrays."""
        for (_, outs), (_, flats) in zip(pairs, arrived, strict=True):
            for out, flat in zip(outs, flats, strict=True):
                if flat.base is None:
                    copy(out._data, flat.reshape(out.shape))

    def _pull(self, pairs: Pairs, priority: int) -> None:
        client, arrived = self._client, self._destinations("pull", pairs)
        client.call(client.state.pull, arrived, priority=priority)
        self._deliver(pairs, arrived)

    def _pull_rows(self, key: Key, out: NDArray, rows: np.ndarray, priority: int) -> np.ndarray:
        entry, client = self._entry("row_sparse_pull", key), self._client
        call = f"row_sparse_pull({key!r})"
        check_out(call, out, entry.shape)
        check_value(call, out, entry.shape, entry.dtype)
        values: np.ndarray = np.empty((len(rows), *entry.shape[1:]), entry.dtype)
        width = entry.layout.size // max(1, entry.shape[0])
        client.call(client.state.pull_rows, key, rows, width, values.reshape(-1), priority=priority)
        return values

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        entries = self._repeated.entries(key, value, out)
        if entries is None:
            super().pushpull(key, value, out, priority)
        else:
            self._send(self._client.state.pushpull, entries, self._compressor, priority)

    def _pushpull(self, values: Pairs, outs: Pairs, priority: int) -> None:
        if [key for key, _ in values] != [key for key, _ in outs]:
            super()._pushpull(values, outs, priority)
            return
        arrived = self._destinations("pushpull", outs)
        contributions = self._contributions("pushpull", values)
        exchange = tuple(
            [(key, array, to) for (key, array), (_, to) in zip(contributions, arrived, strict=True)]
        )
        self._send(self._client.state.pushpull, exchange, self._compressor, priority)
        self._deliver(outs, arrived)
        self._repeated.keep(values, outs, exchange)

    def set_gradient_compression(self, compression_params: dict[str, Any]) -> None:
        self._compressor = Compressor(Compression.parse(compression_params))

    def _send(
        self, operation: Callable[..., Any], entries: Any, compressor: Compressor | None, priority: int = 0
    ) -> None:
        """Push; of a round that is dropped, what it took from what was left over is there again."""
        if compressor is None:
            self._client.call(operation, entries, priority=priority)
            return
        compressor.begin()
        try:
            self._client.call(operation, entries, priority=priority, compressor=compressor)
        except EpochEnded:
            compressor.take_back()
            raise

    def get_worker_state(self) -> dict[str, Any]:
        left = {} if self._compressor is None else self._compressor.get_residuals()
        whole = []  # as another number of servers cuts keys into other pieces
        for key in self._entries if left else ():
            numbers = [number for number, _, _ in self._client.state.cuts(key)]
            if all((key, number) in left for number in numbers):
                whole.append([key, np.concatenate([left[key, number] for number in numbers])])
        return {"residuals": whole} if whole else {}

    def set_worker_state(self, state: Mapping[str, Any]) -> None:
        if self._compressor is None:
            return
        residuals: dict[Hashable, np.ndarray] = {}
        for key, array in state.get("residuals", ()):
            if key in self._entries and array.size == self._entries[key].layout.size:
                for number, start, stop in self._client.state.cuts(key):
                    residuals[key, number] = array[start:stop]
        self._compressor.set_residuals(residuals)

    # ---- flat buffers

    def init_flat(
        self,
        name: str,
        layout: FlatLayout,
        weights: Sequence[np.ndarray],
        *,
        digest: str = "",
        mode: str = "update",
    ) -> None:
        check_new_flat(name, mode, self._entries, layout, weights)
        client = self._client
        values = to_host(weights[0]) if mode == "update" else None
        kind = "async" if self.asynchronous and mode == "update" else mode
        client.call(client.state.init, name, layout, values, mode=kind, digest=digest)
        self._entries[name] = _Entry(layout, (layout.size,), mode)
        self._flats.add(name)
        if mode == "update":
            arrived: np.ndarray = np.empty(layout.size, layout.dtype)
            client.call(client.state.pull, [(name, [arrived])])
            for weight in weights:
                copy(weight, arrived)

    def pushpull_flat(
        self, name: str, grads: Sequence[np.ndarray], outs: Sequence[np.ndarray], *, exact: bool = False
    ) -> None:
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownKeyError(f"pushpull_flat({name!r}): unknown name: init_flat() comes first")
        push, compressor = self._client.state.pushpull, None if exact else self._compressor
        known = self._repeated.flat(name, grads, outs)
        if known is None:
            check_buffers(f"pushpull_flat({name!r})", grads, entry.layout)
            known = self._repeated.keep_flat(name, grads, outs)
        entries = known.entries(entry.total(grads))
        total = entries[0][1]
        if name in self._begun:
            self._complete(name, entries[0])
            return
        if compressor is None and self._client.repeat(entries):
            return
        if isinstance(total, np.ndarray) and all(isinstance(out, np.ndarray) for out in outs):
            self._send(push, entries, compressor)
            return
        arrived: np.ndarray = np.empty(entry.layout.size, entry.layout.dtype)
        self._send(push, [(name, to_host(total), [arrived])], compressor)
        for out in outs:
            copy(out, arrived)

    def flat_units(self, name: str) -> list[list[slice]]:
        if self.asynchronous or self._compressor is not None:
            return []
        return self._client.state.units(name)

    def begin_unit(
        self, name: str, unit: int, grads: Sequence[np.ndarray], outs: Sequence[np.ndarray]
    ) -> None:
        self._begin_unit(unit, (name, grads[0], outs), self._begun.setdefault(name, {}))

    def _begin_unit(self, unit: int, entry: Any, begun: dict[int, int]) -> None:
        # The first layers' weights are the first that the next step reads.
        client = self._client
        begun[unit] = client.begin(client.state.pushpull, [entry], priority=-unit, unit=unit)

    def _complete(self, name: str, entry: Any) -> None:
        """Push the units that have not left yet, and wait for all of them."""
        begun = self._begun[name]
        for unit in range(len(self._client.state.units(name))):
            if unit not in begun:
                self._begin_unit(unit, entry, begun)
        del self._begun[name]
        self._client.wait(list(begun.values()))

    @property
    def keeps_weights(self) -> bool:
        return True

    @property
    def prefers_overlap(self) -> bool:
        wanted = settings().overlap
        if wanted is not None:
            return wanted
        host = self._client.member.join.host
        return any(member.role == "server" and member.host != host for member in self._client.view.members)

    def settle(self) -> None:
        if self._begun:
            name, begun = next(iter(self._begun.items()))
            raise NotReadyError(
                f"pushpull_flat({name!r}): a step was interrupted when {len(begun)} of "
                f"{len(self._client.state.units(name))} units of its gradients had left; it can neither be "
                "completed nor repeated: start this job again from a checkpoint (with DMOD_OVERLAP=0 a "
                "backward pass can be interrupted)"
            )
        if self._client.unsettled:
            self._client.settle()

    def end_epoch(self) -> tuple[int, ...]:
        if self.asynchronous:
            return ()  # nobody waits for anybody
        rounds: tuple[int, ...] = tuple(self._client.call(self._client.state.end_epoch))
        if len(set(rounds)) > 1 and not self._said_unequal:
            self._said_unequal = True  # once, not every epoch
            longer = [str(rank) for rank, count in enumerate(rounds) if count > min(rounds)]
            log.warning(
                "the epoch has ended after %d batches, when worker %d had no batch left; more, which worker "
                "%s had, are dropped in every epoch: give all workers the same number of batches",
                min(rounds),
                rounds.index(min(rounds)),
                " and ".join(longer),
            )
        return rounds

    # ---- the optimizer

    def set_optimizer(self, optimizer: Optimizer) -> None:
        """Let the servers run `optimizer`; called by all workers alike.

        Raises
        ------
        NotSerializable
            The servers cannot run it: it is not registered, or needs whole arrays. It has to run in the
            workers, which `Module` sees to.
        """
        check_optimizer(optimizer)
        config = optimizer.to_config()
        if not supports_flat(optimizer):
            raise NotSerializable(
                f"optimizer {type(optimizer).__name__}: does not run on flat buffers, and so not on servers"
            )
        self._set_config(config)

    def _set_config(self, config: dict[str, Any]) -> None:
        self._client.call(self._client.state.set_optimizer, config)
        self._config = config

    def set_updater(self, updater: Callable[[Any, NDArray, NDArray], None]) -> None:
        raise KVStoreError(
            f"set_updater: servers run no functions of {self.type!r} workers; set_optimizer() sends an "
            "optimizer to them"
        )

    def get_optimizer_states(
        self, dump_optimizer: bool = False, names: Sequence[str] | None = None, copy: bool = True
    ) -> OptimizerStates:
        states = OptimizerStates(self._config if dump_optimizer else None)
        for key, pieces in self._piece_states("get_optimizer_states", names).items():
            layout = self._entries[key].layout
            whole = [np.zeros(layout.size, a.dtype) for a in pieces[0].arrays]
            for piece in pieces:
                for array, out in zip(piece.arrays, whole, strict=True):
                    out[piece.start : piece.stop] = array
            entries = split_flat(layout.segments, whole, max(p.count for p in pieces), copy=False)
            if key in self._flats:
                add_states(states, entries, str(key))
            else:
                states.entries[key] = entries[layout.segments[0].index]
        return states

    def set_optimizer_states(self, states: OptimizerStates, names: Sequence[str] | None = None) -> None:
        if states.config is not None:
            from_config(states.config)  # complain here, rather than on the servers
            self._set_config(states.config)
        fresh: list[PieceStates] = []
        for key, pieces in self._piece_states("set_optimizer_states", names).items():
            layout, dtypes = self._entries[key].layout, [a.dtype for a in pieces[0].arrays]
            entries = states.entries
            if key not in self._flats and key in entries:
                entries = {layout.segments[0].index: entries[key]}
            whole, count = join_flat(layout.segments, layout.size, dtypes, entries)
            for p in pieces:
                arrays = [array[p.start : p.stop] for array in whole]
                fresh.append(PieceStates(p.key, p.piece, p.start, p.stop, count, arrays))
        self.barrier()  # nobody reads or updates the states while they are replaced
        if self.rank == 0:
            self._client.call(self._client.state.set_states, fresh)
        self.barrier()

    def _piece_states(self, call: str, names: Sequence[str] | None) -> dict[Key, list[PieceStates]]:
        if self._config is None:
            raise NotReadyError(f"{call}: no optimizer on the servers: set_optimizer() comes first")
        keys = [
            key
            for key, entry in self._entries.items()
            if entry.mode == "update" and (names is None or key in names)
        ]
        pieces: dict[Key, list[PieceStates]] = {key: [] for key in keys}
        for piece in self._client.call(self._client.state.get_states, keys):
            pieces[piece.key].append(piece)
        return {key: found for key, found in pieces.items() if found}

    # ---- the other workers

    def barrier(self) -> None:
        """Wait until all workers have called this."""
        self._client.call(self._client.state.barrier)

    def get_num_dead_node(self, node_id: int, timeout: float = 60) -> int:
        lost = self._client.member.lost
        return int(lost is not None and bool(node_id & _NODE_GROUPS[lost.role]))

    def close(self) -> None:
        """Leave the job; when all workers have left, the servers and the scheduler end."""
        self._client.close()
        if DistStore._open is self:
            DistStore._open = None


def _flat(array: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """Where a pull may write an array's values to: a 1-D view of it, or a new array, which has no base."""
    if isinstance(array, np.ndarray) and array.dtype == dtype:
        flags = array.flags
        if flags.c_contiguous and flags.writeable:
            return array.reshape(-1)
    return np.empty(array.size, dtype)


def _join(kind: KVStoreType) -> Client:
    config = settings()
    if config.role != "worker":
        raise ClusterError(
            f"kvstore.create({kind.name!r}): this process belongs to no cluster: DMLC_ROLE is not set. Start "
            "it with: dmod-launch -n WORKERS -s SERVERS -- python SCRIPT"
        )
    return Client(config)
