"""How a module updates its parameters: one strategy object, chosen once when the optimizer is installed.

- `LocalUpdate`: no store; one device updates itself.
- `StoreUpdate`: the store sums the gradients and runs the optimizer.
- `SummedUpdate`: the store sums the gradients, every worker runs the optimizer on the sum.

All of them go over whole flat buffers; `WithSparse` adds the parameters whose gradients are row_sparse. An
optimizer that only knows single arrays is applied array by array in the workers.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from dmod.base import InvalidArgument
from dmod.device import backend, to_host
from dmod.kvstore.base import KVStore
from dmod.kvstore.transports.windows import open_window, weights_buffer
from dmod.ndarray import NDArray
from dmod.optimizer import (
    FlatUpdater,
    NotSerializable,
    Optimizer,
    OptimizerStates,
    StateEntry,
    Updater,
    get_updater,
    supports_flat,
)
from dmod.optimizer.states import join_flat, split_flat
from dmod.worker.parameters import FlatGroup, ParameterSet, divide
from dmod.worker.sparse import SparseUpdate, WithSparse

__all__ = ["LocalUpdate", "StoreUpdate", "SummedUpdate", "UpdateStrategy", "choose_strategy"]

_log = logging.getLogger("dmod")


class UpdateStrategy(Protocol):
    """What a module asks of a strategy.

    Attributes
    ----------
    in_store : bool
        Whether the optimizer runs in the store, which then knows it as it was when it was installed.
    """

    in_store: bool

    def update(self) -> None:
        """Update the parameters on all devices from the gradients there."""

    def end_epoch(self) -> None:
        """End the epoch together with all workers, and bring auxiliary states to their common mean."""

    def rebind(self, params: ParameterSet) -> None:
        """Go on with another parameter set of the same layout."""

    def get_states(self, copy: bool = True) -> OptimizerStates:
        """The optimizer's states, by parameter index; not all are copied if they need not be."""

    def set_states(self, states: OptimizerStates) -> None:
        """Take over such states."""


class _Applier:
    """Runs an optimizer in this process, over the flat buffers of one device."""

    def __init__(self, optimizer: Optimizer, params: ParameterSet):
        self.optimizer = optimizer
        self.params = params
        self.flat = supports_flat(optimizer)
        self._flats = [
            FlatUpdater(optimizer, g.layout.segments, g.layout.size, g.layout.dtype, backend(g.contexts[0]))
            for g in params.groups
            if self.flat
        ]
        self._updater: Updater | None = None if self.flat else get_updater(optimizer)

    def apply(self, grads: list[np.ndarray]) -> None:
        """Update the first device's weights by one flat gradient per group."""
        if self._updater is None:
            for updater, group, grad in zip(self._flats, self.params.groups, grads, strict=True):
                updater.update(group.values[0], grad)
            return
        for group, grad in zip(self.params.groups, grads, strict=True):
            ctx = group.contexts[0]
            gradients, weights = group.layout.views(grad), group.layout.views(group.values[0])
            for s in group.layout.segments:
                self._updater(s.index, NDArray(gradients[s.name], ctx), NDArray(weights[s.name], ctx))

    def get_states(self, copy: bool = True) -> OptimizerStates:
        """States by index; each in its parameter's shape."""
        if self._updater is not None:
            return self._updater.to_states()
        entries: dict[int | str, StateEntry] = {}
        for updater, group in zip(self._flats, self.params.groups, strict=True):
            arrays = [to_host(a) for a in updater.get_states()]
            entries.update(split_flat(group.layout.segments, arrays, updater.count, copy))
        return OptimizerStates(_config(self.optimizer), entries)

    def set_states(self, states: OptimizerStates) -> None:
        """Take over states by index.

        Raises
        ------
        InvalidArgument
            A parameter's states are missing, or of another shape; nothing is changed.
        """
        if self._updater is not None:
            self._updater.from_states(OptimizerStates(None, states.entries))
            return
        loaded = [
            (updater, join_flat(g.layout.segments, g.layout.size, updater.state_dtypes, states.entries))
            for updater, g in zip(self._flats, self.params.groups, strict=True)
        ]
        for updater, (arrays, count) in loaded:
            updater.set_states(arrays, count)


def _config(optimizer: Optimizer) -> dict[str, Any] | None:
    try:
        return optimizer.to_config()
    except NotSerializable:
        return None


class LocalUpdate:
    """One device, no store."""

    in_store = False

    def __init__(self, optimizer: Optimizer, params: ParameterSet):
        self._applier = _Applier(optimizer, params)

    def update(self) -> None:
        """Apply the device's gradients to its weights."""
        self._applier.apply([g.grads[0] for g in self._applier.params.groups])

    def end_epoch(self) -> None:
        """Nothing to agree on."""

    def rebind(self, params: ParameterSet) -> None:
        """See `UpdateStrategy`."""
        self._applier.params = params

    def get_states(self, copy: bool = True) -> OptimizerStates:
        """See `UpdateStrategy`."""
        return self._applier.get_states(copy)

    def set_states(self, states: OptimizerStates) -> None:
        """See `UpdateStrategy`."""
        self._applier.set_states(states)


class _WithStore:
    """What strategies with a store share: registered flat buffers, and the mean of auxiliary states."""

    in_store = False

    def __init__(self, store: KVStore, params: ParameterSet, digest: str, mode: str):
        self.store, self.params = store, params
        number = store.next_user("module")  # several modules may share a store
        self._names = _names(f"module{number}", params.groups)
        self._aux_names = _names(f"module{number}:aux", params.aux_groups)
        for name, group in zip(self._names, params.groups, strict=True):
            store.init_flat(name, group.layout, group.values, digest=digest, mode=mode)
            if mode == "sum":
                self._same_start(name, group)
        for name, group in zip(self._aux_names, params.aux_groups, strict=True):
            store.init_flat(name, group.layout, group.values, digest=digest, mode="sum")
            self._same_start(name, group)

    def _open_windows(self) -> None:
        """Let what comes back be read where a server writes it, if that is before nobody reads it any more.

        A server writes when all workers have pushed; those that push while their backward pass goes on
        still read the weights.
        """
        for name, _, outs in self.exchanged():
            for out in outs:
                open_window(out, None if self.store.prefers_overlap else name)

    def _same_start(self, name: str, group: FlatGroup) -> None:
        """Give every slot the values of slot 0: the sum of its own and zeros from all others."""
        given = [backend(ctx).zeros(group.values[0].shape, group.layout.dtype) for ctx in group.contexts]
        if self.store.rank == 0:
            given[0] = group.values[0].copy()
        self.store.pushpull_flat(name, given, group.values, exact=True)

    def _groups(self) -> Iterator[tuple[str, FlatGroup]]:
        return zip(self._names, self.params.groups, strict=True)

    def end_epoch(self) -> None:
        """End the epoch with all workers; then set the auxiliary states to their mean over all slots.

        Not where workers do not wait for each other: there each keeps its own.
        """
        if self.store.asynchronous:
            return
        self.store.end_epoch()
        slots = self.store.num_slots(len(self.params.contexts))
        for name, group in zip(self._aux_names, self.params.aux_groups, strict=True):
            if slots > 1:
                self.store.pushpull_flat(name, group.values, group.values, exact=True)
                for array in group.values:
                    divide(array, slots, out=array)

    def rebind(self, params: ParameterSet) -> None:
        """See `UpdateStrategy`."""
        self.params = params
        self._open_windows()

    def exchanged(self) -> list[tuple[str, FlatGroup, list[Any]]]:
        """What `update` pushes by which names, and where it has the answers written."""
        raise NotImplementedError


def _names(prefix: str, groups: list[FlatGroup]) -> list[str]:
    """The keys of flat buffers: the dtype, and a number if ``group2ctxs`` makes several of one dtype."""
    names: list[str] = []
    for group in groups:
        name = f"{prefix}:{group.layout.dtype}"
        count = sum(other.partition("#")[0] == name for other in names)
        names.append(f"{name}#{count}" if count else name)
    return names


class StoreUpdate(_WithStore):
    """The store sums over all devices and workers, and runs the optimizer."""

    in_store = True

    def __init__(self, store: KVStore, params: ParameterSet, optimizer: Optimizer, digest: str = ""):
        super().__init__(store, params, digest, "update")
        self._optimizer, self._installed = optimizer, _adjustable(optimizer)
        self._open_windows()

    def update(self) -> None:
        """Push the gradients, get the new weights."""
        for name, group, outs in self.exchanged():
            self.store.pushpull_flat(name, group.grads, outs)

    def end_epoch(self) -> None:
        """See `_WithStore.end_epoch`; says so if the optimizer has been changed, which servers do not see."""
        now = _adjustable(self._optimizer)
        if self.store.keeps_weights and now != self._installed:
            changed = ", ".join(
                f"{k} {self._installed[k]} -> {now[k]}" for k in now if now[k] != self._installed[k]
            )
            self._installed = now
            _log.warning(
                "The optimizer has been changed in this worker (%s), and the servers go on with the one that "
                "was installed: use an lr_scheduler, init_optimizer(kvstore=..., force_init=True) by all "
                "workers, or DMOD_UPDATE_ON_KVSTORE=0",
                changed,
            )
        super().end_epoch()

    def exchanged(self) -> list[tuple[str, FlatGroup, list[Any]]]:
        return [(name, group, group.values) for name, group in self._groups()]

    def get_states(self, copy: bool = True) -> OptimizerStates:
        """See `UpdateStrategy`."""
        return self.store.get_optimizer_states(names=self._names, copy=copy)

    def set_states(self, states: OptimizerStates) -> None:
        """See `UpdateStrategy`."""
        self.store.set_optimizer_states(states, names=self._names)


class SummedUpdate(_WithStore):
    """The store sums over all devices and workers; the optimizer runs here, alike in every worker."""

    def __init__(self, store: KVStore, params: ParameterSet, optimizer: Optimizer, digest: str = ""):
        super().__init__(store, params, digest, "sum")
        self._applier = _Applier(optimizer, params)
        self._sums = [_sum_buffer(group) for group in params.groups]
        self._open_windows()

    def update(self) -> None:
        """Push the gradients, get their sum, update one device and copy to the others."""
        for name, group, outs in self.exchanged():
            self.store.pushpull_flat(name, group.grads, outs)
        self._applier.apply(self._sums)
        self.params.broadcast_weights()

    def exchanged(self) -> list[tuple[str, FlatGroup, list[Any]]]:
        return [
            (name, group, [total]) for (name, group), total in zip(self._groups(), self._sums, strict=True)
        ]

    def rebind(self, params: ParameterSet) -> None:
        """See `UpdateStrategy`."""
        super().rebind(params)
        self._applier.params = params

    def get_states(self, copy: bool = True) -> OptimizerStates:
        """See `UpdateStrategy`."""
        return self._applier.get_states(copy)

    def set_states(self, states: OptimizerStates) -> None:
        """See `UpdateStrategy`."""
        self._applier.set_states(states)


def _adjustable(optimizer: Optimizer) -> dict[str, Any]:
    """What training loops change by hand."""
    names = ("lr", "wd", "lr_mult", "wd_mult", "rescale_grad", "clip_gradient")
    return {name: copy.copy(getattr(optimizer, name, None)) for name in names}


def _sum_buffer(group: FlatGroup) -> Any:
    memory = backend(group.contexts[0])
    size, dtype = group.layout.size, group.layout.dtype
    return weights_buffer(size, dtype) if memory.is_host else memory.zeros((size,), dtype)


def choose_strategy(
    store: KVStore | None, optimizer: Optimizer, params: ParameterSet, digest: str, update_on_kvstore: bool
) -> UpdateStrategy:
    """The strategy for a store, or for none.

    Parameters
    ----------
    store : KVStore or None
    optimizer : Optimizer
    params : ParameterSet
    digest : str
        What must be equal on all workers: the symbol's digest.
    update_on_kvstore : bool
        Whether the store runs the optimizer, if it can.
    """
    dense = _dense_strategy(store, optimizer, params, digest, update_on_kvstore)
    if not params.sparse:
        return dense
    return WithSparse(dense, SparseUpdate(params, optimizer, store, digest))


def _dense_strategy(
    store: KVStore | None, optimizer: Optimizer, params: ParameterSet, digest: str, update_on_kvstore: bool
) -> UpdateStrategy:
    """The strategy for the parameters in flat buffers."""
    if store is None:
        return LocalUpdate(optimizer, params)
    if store.asynchronous and not update_on_kvstore:
        raise InvalidArgument(
            f"init_optimizer: in a {store.type!r} store the servers run the optimizer; "
            "DMOD_UPDATE_ON_KVSTORE=0 goes with 'dist_sync'"
        )
    if update_on_kvstore and supports_flat(optimizer):
        try:
            store.set_optimizer(optimizer)
        except NotSerializable as error:
            _log.info("The optimizer runs in the workers: %s", error)
        else:
            return StoreUpdate(store, params, optimizer, digest)
    if store.asynchronous:
        raise InvalidArgument(
            f"init_optimizer: in a {store.type!r} store the servers run the optimizer, and they cannot run "
            f"{type(optimizer).__name__}; use 'dist_sync', or an optimizer that works element by element"
        )
    return SummedUpdate(store, params, optimizer, digest)
