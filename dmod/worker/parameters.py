"""`ParameterSet`: the parameters of a module on all its devices, in flat buffers.

Per dtype and device all weights that are trained are views into one buffer, and so are their gradients
and the auxiliary states. An update is then one kernel over a buffer, and a push one contiguous view.
Executors address parameters through the views. Buckets, reshaped and inference executors share the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context
from dmod.device import backend, copy, module_of, to_host
from dmod.executor.storage import empty_rows
from dmod.kvstore.reduce import DeviceSum
from dmod.kvstore.transports.segments import gradient_buffer
from dmod.kvstore.transports.windows import weights_buffer
from dmod.ndarray import NDArray
from dmod.ndarray.flat import FlatLayout

__all__ = ["FlatGroup", "ParameterSet"]


@dataclass(frozen=True)
class FlatGroup:
    """Arrays of one dtype, flat, on every device.

    Attributes
    ----------
    layout : FlatLayout
    contexts : list of Context
        Where the arrays lie for every device of the module: there, unless ``group2ctxs`` moves them.
    values, grads : list of 1-D array
        One per device; `grads` is empty for arrays without gradients.
    """

    layout: FlatLayout
    contexts: list[Context]
    values: list[np.ndarray]
    grads: list[np.ndarray] = field(default_factory=list)


class ParameterSet:
    """Parameters and auxiliary states on one or more devices.

    Parameters
    ----------
    contexts : list of Context
    params : list of (name, shape, dtype)
        In the order of the symbol's arguments; the position is the parameter's index.
    aux : list of (name, shape, dtype)
    trained : set of str
        The parameters that get gradients and updates.
    group2ctxs : list of dict of str to Context, optional
        For each device, where the nodes of a ``ctx_group`` are computed instead.
    groups_of : dict of str to str, optional
        The ``ctx_group`` of the parameters that have one.
    row_sparse : set of str, optional
        The parameters whose gradients are row_sparse: they lie outside of the flat buffers.

    Attributes
    ----------
    sparse : list of (index, name, shape, dtype)
        Of those of `row_sparse` that are trained.
    """

    def __init__(
        self,
        contexts: Sequence[Context],
        params: Sequence[tuple[str, tuple[int, ...], Any]],
        aux: Sequence[tuple[str, tuple[int, ...], Any]],
        trained: Iterable[str],
        group2ctxs: Sequence[Mapping[str, Context]] | None = None,
        groups_of: Mapping[str, str] | None = None,
        row_sparse: Iterable[str] = (),
    ):
        self.contexts = list(contexts)
        self.group2ctxs = list(group2ctxs or [{} for _ in contexts])
        self._groups_of = groups_of or {}
        self.accumulated: set[str] = set()
        """The parameters with ``grad_req='add'``: the user decides when their gradients become zero."""
        self.param_names = [name for name, _, _ in params]
        self.aux_names = [name for name, _, _ in aux]
        self.trained = set(trained)
        self.arg_arrays: list[dict[str, NDArray]] = [{} for _ in contexts]
        self.grad_arrays: list[dict[str, NDArray]] = [{} for _ in contexts]
        self.aux_arrays: list[dict[str, NDArray]] = [{} for _ in contexts]
        self.groups: list[FlatGroup] = []
        self.aux_groups: list[FlatGroup] = []
        self._remembered: list[list[Any]] = []
        self._remembered_grads: list[dict[str, NDArray]] = []
        indexed = [(i, *entry) for i, entry in enumerate(params)]
        outside = self.trained & set(row_sparse)
        self.sparse = [e for e in indexed if e[1] in outside]
        self._build_sparse()
        self._build(
            [e for e in indexed if e[1] in self.trained - outside], self.arg_arrays, self.groups, True
        )
        self._build([e for e in indexed if e[1] not in self.trained], self.arg_arrays, [], False)
        self._build([(i, *entry) for i, entry in enumerate(aux)], self.aux_arrays, self.aux_groups, False)

    def _build(
        self,
        entries: list[tuple[int, str, tuple[int, ...], Any]],
        arrays: list[dict[str, NDArray]],
        groups: list[FlatGroup],
        with_grads: bool,
    ) -> None:
        """Lay `entries` out per dtype, and register the views of every device."""
        kinds: dict[tuple[str, tuple[Context, ...]], list[tuple[int, str, tuple[int, ...]]]] = {}
        for i, name, shape, dtype in entries:
            kinds.setdefault((np.dtype(dtype).name, self._contexts_of(name)), []).append((i, name, shape))
        for (dtype, contexts), chosen in sorted(kinds.items(), key=lambda kind: (kind[0][0], kind[1][0][0])):
            layout = FlatLayout.plan(chosen, dtype)
            group = FlatGroup(layout, list(contexts), [], [])
            for device, ctx in enumerate(contexts):
                memory = backend(ctx)
                group.values.append(
                    weights_buffer(layout.size, dtype)
                    if with_grads and memory.is_host
                    else memory.zeros((layout.size,), dtype)
                )
                for name, view in layout.views(group.values[device]).items():
                    arrays[device][name] = NDArray(view, ctx)
                if with_grads:
                    shared = memory.is_host and len(contexts) == 1
                    group.grads.append(
                        gradient_buffer(layout.size, dtype) if shared else memory.zeros((layout.size,), dtype)
                    )
                    for name, view in layout.views(group.grads[device]).items():
                        self.grad_arrays[device][name] = NDArray(view, ctx)
            groups.append(group)

    def _build_sparse(self) -> None:
        """Make arrays of their own for the parameters with row_sparse gradients."""
        for _, name, shape, dtype in self.sparse:
            for device, ctx in enumerate(self._contexts_of(name)):
                self.arg_arrays[device][name] = NDArray(backend(ctx).zeros(shape, dtype), ctx)
                self.grad_arrays[device][name] = empty_rows(shape, dtype, ctx)

    def _contexts_of(self, name: str) -> tuple[Context, ...]:
        """Where a parameter lies for each device: where the nodes of its ``ctx_group`` are computed."""
        group = self._groups_of.get(name, "")
        return tuple(g.get(group, ctx) for g, ctx in zip(self.group2ctxs, self.contexts, strict=True))

    def same_layout(self, other: ParameterSet) -> bool:
        """Whether both have the same arrays, trained alike, on the same devices."""
        return (
            self.contexts == other.contexts
            and self.param_names == other.param_names
            and self.sparse == other.sparse
            and self.group2ctxs == other.group2ctxs
            and [g.layout for g in self.groups] == [g.layout for g in other.groups]
            and [g.layout for g in self.aux_groups] == [g.layout for g in other.aux_groups]
        )

    def check_covers(self, params: Sequence[tuple[str, tuple[int, ...], Any]], what: str) -> None:
        """Raise `InvalidArgument` unless every array of `params` is in the set, in its shape."""
        have = {**self.arg_arrays[0], **self.aux_arrays[0]}
        lacking = [name for name, _, _ in params if name not in have]
        if lacking:
            raise InvalidArgument(
                f"{what}: the shared module has no parameter {', '.join(map(repr, lacking))}; it must have "
                "all that those that share with it have (of buckets, the default one)"
            )
        for name, shape, _ in params:
            if have[name].shape != tuple(shape):
                raise InvalidArgument(
                    f"{what}: {name!r} has shape {shape}, in the shared module {have[name].shape}"
                )

    def unused_gradients(self, device: int, reqs: Mapping[str, str]) -> list[NDArray]:
        """The gradients on a device that a backward pass with `reqs` does not write, though it should.

        All gradients are updated from and pushed together, so those of the parameters that a bucket does
        not use must say 'none': they are zero in its steps.
        """
        return [
            grad
            for name, grad in self.grad_arrays[device].items()
            if reqs.get(name, "null") == "null" and name not in self.accumulated
        ]

    # ---- values in and out

    def write(self, arg_params: Mapping[str, NDArray], aux_params: Mapping[str, NDArray]) -> None:
        """Copy values to all devices; names that the set does not have are left out."""
        for device in range(len(self.contexts)):
            for targets, values in ((self.arg_arrays, arg_params), (self.aux_arrays, aux_params)):
                for name, target in targets[device].items():
                    if name in values:
                        values[name].copyto(target)

    def read(self, arg_params: Mapping[str, NDArray], aux_params: Mapping[str, NDArray]) -> None:
        """Copy values out: weights of the first device, the mean of the auxiliary states over devices."""
        for name, target in arg_params.items():
            self.arg_arrays[0][name].copyto(target)
        means = {name: mean for group in self.aux_groups for name, mean in self._means(group).items()}
        for name, target in aux_params.items():
            copy(target._data, means[name])

    def _means(self, group: FlatGroup) -> dict[str, np.ndarray]:
        count = len(group.values)
        if count == 1:
            return group.layout.views(group.values[0])
        total = DeviceSum(count, group.layout.size, group.layout.dtype)([to_host(v) for v in group.values])
        return group.layout.views(divide(total, count))

    def host_arrays(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """New arrays on the host for all parameters and auxiliary states, zero."""
        host = Context("cpu", 0)

        def empty(arrays: dict[str, NDArray], names: list[str]) -> dict[str, NDArray]:
            return {n: NDArray(np.zeros(arrays[n].shape, arrays[n].dtype), host) for n in names}

        return empty(self.arg_arrays[0], self.param_names), empty(self.aux_arrays[0], self.aux_names)

    def remember_aux(self) -> None:
        """Keep the auxiliary states, and gradients that add up, as they are now, for `restore_aux`."""
        self._remembered_grads = [
            {name: grads[name].copy() for name in self.accumulated} for grads in self.grad_arrays
        ]
        if not self._remembered:
            self._remembered = [[v.copy() for v in g.values] for g in self.aux_groups]
            return
        for group, kept in zip(self.aux_groups, self._remembered, strict=True):
            for value, array in zip(group.values, kept, strict=True):
                copy(array, value)

    def restore_aux(self) -> None:
        """Take the auxiliary states, and gradients that add up, back to what `remember_aux` kept."""
        for grads, kept_grads in zip(self.grad_arrays, self._remembered_grads, strict=False):
            for name, kept_grad in kept_grads.items():
                kept_grad.copyto(grads[name])
        for group, kept in zip(self.aux_groups, self._remembered, strict=True):
            for value, array in zip(group.values, kept, strict=True):
                copy(value, array)

    def broadcast_weights(self) -> None:
        """Copy the first device's trained weights to the others."""
        for group in self.groups:
            for target in group.values[1:]:
                copy(target, group.values[0])


def divide(total: Any, count: int, out: Any = None) -> Any:
    """The mean from a sum over `count` slots: one rounding, the same on devices and over workers."""
    return module_of(total).divide(total, total.dtype.type(count), out=out)
