"""'local' and 'device': a store between the devices of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, NotReadyError, UnknownKeyError
from dmod.device import Backend, backend_of, copy, to_host
from dmod.kvstore.base import KVStore, KVStoreType
from dmod.kvstore.checks import Pairs, add_states, check_buffers, check_new_flat, check_out, check_value
from dmod.kvstore.compression import Compression, Compressor
from dmod.kvstore.messages import Key
from dmod.kvstore.reduce import DeviceSum
from dmod.ndarray.flat import FlatLayout
from dmod.ndarray.ndarray import NDArray
from dmod.optimizer import FlatUpdater, NotSerializable, Optimizer, OptimizerStates, Updater, supports_flat
from dmod.optimizer.states import join_flat, split_flat

__all__ = ["LocalStore"]

UpdaterFunction = Callable[[Any, NDArray, NDArray], None]


@dataclass
class _Flat:
    """A flat buffer: how to sum its gradients, and what updates its weights, if the store does."""

    layout: FlatLayout
    mode: str
    total: DeviceSum
    device: Backend
    updater: FlatUpdater | None = None


class LocalStore(KVStore):
    """A store within one process; see `dmod.kvstore.create`.

    With one device nothing is copied on the way to the optimizer. Flat weights stay with the caller:
    the first of `outs` is updated in place.
    """

    def __init__(self, kind: KVStoreType):
        super().__init__(kind)
        self._values: dict[Key, NDArray] = {}
        self._sums: dict[tuple[Key, int], DeviceSum] = {}
        self._flats: dict[str, _Flat] = {}
        self._optimizer: Optimizer | None = None
        self._updater: UpdaterFunction | None = None
        self._compressor: Compressor | None = None

    # ---- arrays by key

    def _init(self, pairs: list[tuple[Key, NDArray]]) -> None:
        for key, _ in pairs:
            if key in self._values:
                raise InvalidArgument(f"init({key!r}): the key has been initialised already")
        for key, value in pairs:
            self._values[key] = NDArray(value._data.copy(), value.context)

    def _stored(self, call: str, key: Key) -> NDArray:
        value = self._values.get(key)
        if value is None:
            raise UnknownKeyError(f"{call}({key!r}): unknown key: init({key!r}, value) comes first")
        return value

    def _push(self, pairs: Pairs, priority: int, call: str = "push") -> None:
        for key, values in pairs:
            stored = self._stored(call, key)
            for value in values:
                check_value(f"{call}({key!r})", value, stored.shape, stored.dtype)
            if self._compressor is not None:
                self._compressor.compression.check(f"{call}({key!r})", key, stored.dtype)
        for key, values in pairs:
            stored, merged = self._values[key], self._merged(key, values)
            if self._updater is not None:
                self._updater(key, merged, stored)
            else:
                copy(stored._data, merged._data)

    def _merged(self, key: Key, values: list[NDArray]) -> NDArray:
        first = values[0]
        if self._compressor is not None:
            arrays = self._compressed(self._compressor, key, [v._data.reshape(-1) for v in values])
            values = [NDArray(a.reshape(v.shape), v.context) for a, v in zip(arrays, values, strict=True)]
        if len(values) == 1:
            return values[0]
        total = self._sums.get((key, len(values)))
        if total is None:
            total = self._sums[key, len(values)] = DeviceSum(len(values), first.size, first.dtype)
        merged = total([v._data.reshape(-1) for v in values]).reshape(first.shape)
        return NDArray(merged.astype(first.dtype, copy=False), self._values[key].context)

    @staticmethod
    def _compressed(compressor: Compressor, key: Key, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What is left of each device's contribution, where that device is."""
        left: list[np.ndarray] = []
        for device, array in enumerate(arrays):
            values = compressor.rounded((key, device), np.ascontiguousarray(to_host(array)))
            there = backend_of(array).empty(values.shape, values.dtype)
            copy(there, values)
            left.append(there)
        return left

    def set_gradient_compression(self, compression_params: dict[str, Any]) -> None:
        if not self._kind.on_device:
            super().set_gradient_compression(compression_params)
        self._compressor = Compressor(Compression.parse(compression_params))

    def get_worker_state(self) -> dict[str, Any]:
        left = {} if self._compressor is None else self._compressor.get_residuals()
        return {"residuals": [[name, array] for name, array in left.items()]} if left else {}

    def set_worker_state(self, state: Mapping[str, Any]) -> None:
        if self._compressor is not None:
            self._compressor.set_residuals(dict(state.get("residuals", ())))

    def _pull(self, pairs: Pairs, priority: int, call: str = "pull") -> None:
        for key, outs in pairs:
            stored = self._stored(call, key)
            for out in outs:
                check_out(f"{call}({key!r})", out, stored.shape)
        for key, outs in pairs:
            for out in outs:
                copy(out._data, self._values[key]._data)

    def _pushpull(self, values: Pairs, outs: Pairs, priority: int) -> None:
        self._push(values, priority, "pushpull")
        self._pull(outs, priority, "pushpull")

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
        check_new_flat(name, mode, self._flats, layout, weights)
        total = DeviceSum(len(weights), layout.size, layout.dtype)
        flat = _Flat(layout, mode, total, backend_of(weights[0]))
        self._flats[name] = flat
        self._attach_updater(flat)
        if mode == "update":
            for weight in weights[1:]:
                copy(weight, weights[0])

    def pushpull_flat(
        self, name: str, grads: Sequence[np.ndarray], outs: Sequence[np.ndarray], *, exact: bool = False
    ) -> None:
        flat = self._flats.get(name)
        if flat is None:
            raise UnknownKeyError(f"pushpull_flat({name!r}): unknown name: init_flat() comes first")
        check_buffers(f"pushpull_flat({name!r})", grads, flat.layout, len(flat.total))
        if self._compressor is not None and not exact:
            self._compressor.compression.check(f"pushpull_flat({name!r})", name, flat.layout.dtype)
            grads = self._compressed(self._compressor, name, grads)
        total = flat.total(grads)
        if flat.mode == "update" and self._updater is not None:
            self._update_flat(flat, outs[0], total)
        elif outs[0] is not total:
            copy(outs[0], total)
        for out in outs[1:]:
            copy(out, outs[0])

    def _update_flat(self, flat: _Flat, weight: np.ndarray, total: np.ndarray) -> None:
        if flat.updater is not None:
            flat.updater.update(weight, total)
            return
        assert self._updater is not None
        total = total.astype(weight.dtype, copy=False)
        for s in flat.layout.segments:  # an updater of the user's, or an optimizer that needs whole arrays
            parts = (NDArray(array[s.start : s.stop].reshape(s.shape)) for array in (total, weight))
            self._updater(s.index, *parts)

    # ---- the optimizer

    def set_updater(self, updater: UpdaterFunction) -> None:
        if not callable(updater):
            raise InvalidArgument(f"set_updater: expected a function, got {type(updater).__name__}")
        self._updater = updater
        self._optimizer = updater.optimizer if isinstance(updater, Updater) else None
        for flat in self._flats.values():
            self._attach_updater(flat)

    def set_optimizer(self, optimizer: Optimizer) -> None:
        check_optimizer(optimizer)
        self.set_updater(Updater(optimizer))

    def _attach_updater(self, flat: _Flat) -> None:
        flat.updater = None
        if flat.mode == "update" and self._optimizer is not None and supports_flat(self._optimizer):
            layout = flat.layout
            flat.updater = FlatUpdater(
                self._optimizer, layout.segments, layout.size, layout.dtype, flat.device
            )

    def get_optimizer_states(
        self, dump_optimizer: bool = False, names: Sequence[str] | None = None, copy: bool = True
    ) -> OptimizerStates:
        updater = self._own_updater("get_optimizer_states")
        states = updater.to_states() if names is None else OptimizerStates(None)
        for name, flat in self._flats.items():
            if flat.updater is not None and (names is None or name in names):
                arrays = [to_host(a) for a in flat.updater.get_states()]
                entries = split_flat(flat.layout.segments, arrays, flat.updater.count, copy)
                add_states(states, entries, name)
        if dump_optimizer:
            try:
                states.config = updater.optimizer.to_config()
            except NotSerializable:
                states.config = None  # the states are of use without it
        return states

    def set_optimizer_states(self, states: OptimizerStates, names: Sequence[str] | None = None) -> None:
        updater = self._own_updater("set_optimizer_states")
        flat_updaters = [
            (flat, flat.updater)
            for name, flat in self._flats.items()
            if flat.updater is not None and (names is None or name in names)
        ]
        loaded = [
            (u, join_flat(f.layout.segments, f.layout.size, u.state_dtypes, states.entries))
            for f, u in flat_updaters
        ]
        inside = {s.index for f, _ in flat_updaters for s in f.layout.segments}
        if names is None:
            outside = {index: entry for index, entry in states.entries.items() if index not in inside}
            updater.from_states(OptimizerStates(states.config, outside))
        for flat_updater, (arrays, count) in loaded:
            flat_updater.optimizer = self._optimizer = updater.optimizer
            flat_updater.set_states(arrays, count)

    def _own_updater(self, call: str) -> Updater:
        if not isinstance(self._updater, Updater):
            raise NotReadyError(f"{call}: no optimizer in this store: set_optimizer() comes first")
        return self._updater


def check_optimizer(optimizer: Any) -> None:
    """Raise `InvalidArgument` unless `optimizer` is one."""
    if not isinstance(optimizer, Optimizer):
        raise InvalidArgument(
            f"set_optimizer: expected an Optimizer, such as optimizer.create('sgd'), "
            f"got {type(optimizer).__name__}"
        )
