"""`ExecutorGroup`: one executor per device over a common parameter set, for one set of input shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, NotReadyError
from dmod.context import Context
from dmod.device import backend, copy
from dmod.device.random import SlotStream
from dmod.executor.executor import Executor, Handle
from dmod.executor.memory import Pool, Workspace
from dmod.executor.storage import clear_rows, csr_inputs, empty_csr
from dmod.io import DataDesc
from dmod.ndarray import NDArray, concatenate
from dmod.symbol import Symbol
from dmod.worker.ahead import Ahead, InputSet, Target, Turns
from dmod.worker.parameters import ParameterSet
from dmod.worker.slicing import batch_axis, batch_size_of, load_slices, on_device, part_of, split_batch

__all__ = ["DeviceState", "ExecutorGroup", "Stops", "infer_parameters"]

Stops = Sequence[tuple[int, Callable[[], None]]]
"""What to call after so many steps of a backward pass."""


class DeviceState:
    """What all executor groups of a module share per device: memory to work in, and random streams.

    Buckets share inputs and outputs too (`pools`), as only those of the last forward pass are asked for.
    """

    def __init__(self, contexts: Sequence[Context]):
        self.contexts = list(contexts)
        self.workspaces = [Workspace(backend(ctx)) for ctx in contexts]
        self.streams = [SlotStream(i) for i in range(len(contexts))]
        self.pools: list[Pool | None] = [None for _ in contexts]
        self.turns = Turns([backend(ctx) for ctx in contexts])

    def share_heads(self) -> None:
        """Let executors have inputs and outputs in common, from now on."""
        self.pools = [Pool(backend(ctx)) for ctx in self.contexts]

    @property
    def nbytes(self) -> int:
        """The bytes of what is shared."""
        pools = (pool.nbytes for pool in self.pools if pool is not None)
        return sum(workspace.nbytes for workspace in self.workspaces) + sum(pools)

    def set_first_slot(self, first: int) -> None:
        """Number the devices among those of all workers."""
        for i, stream in enumerate(self.streams):
            stream.slot = first + i


def infer_parameters(
    symbol: Symbol, inputs: Sequence[DataDesc], input_names: Sequence[str], work_load: Sequence[float]
) -> tuple[list[tuple[str, Any, Any]], list[tuple[str, Any, Any]]]:
    """Names, shapes and dtypes of a symbol's parameters and auxiliary states, from those of a batch.

    Parameters
    ----------
    symbol : Symbol
    inputs : list of DataDesc
        The shapes of the whole batch; what a device sees of it counts.
    input_names : list of str
        Arguments that are no parameters.
    work_load : list of float
        The devices' shares of the batch.

    Raises
    ------
    InvalidArgument
        They do not follow from the inputs.
    """
    arg_names, aux_names = symbol.list_arguments(), symbol.list_auxiliary_states()
    inputs = [d for d in inputs if d.name in arg_names]
    inputs = on_device(inputs, split_batch(batch_size_of(inputs), work_load), 0)
    arg_shapes, _, aux_shapes = symbol._infer_shape(**{d.name: d.shape for d in inputs})
    arg_types, _, aux_types = symbol.infer_type(**{d.name: d.dtype for d in inputs})
    arg_types = arg_types or [np.float32] * len(arg_names)
    aux_types = aux_types or [np.float32] * len(aux_names)
    given = {d.name for d in inputs}
    unknown = [
        name
        for name, shape in zip([*arg_names, *aux_names], [*arg_shapes, *aux_shapes], strict=True)
        if (shape is None or -1 in shape) and not (name in input_names and name not in given)
    ]
    if unknown:
        raise InvalidArgument(
            f"bind: the shapes of {', '.join(repr(d.name) for d in inputs)} do not determine those of "
            f"{', '.join(map(repr, unknown))}; are all inputs named in data_names and label_names?"
        )
    params = [e for e in zip(arg_names, arg_shapes, arg_types, strict=True) if e[0] not in input_names]
    return params, list(zip(aux_names, aux_shapes, aux_types, strict=True))


class ExecutorGroup:
    """Executors on all devices of a module for one set of shapes.

    Parameters
    ----------
    symbol : Symbol
    work_load : list of float
        Each device's share of the batch.
    data_shapes, label_shapes, state_shapes : list of DataDesc
    params : ParameterSet
    devices : DeviceState
    reqs : dict of str to str
        ``grad_req`` of every argument.
    label_names : list of str
        Inputs that may be left out when there are no labels.
    """

    def __init__(
        self,
        symbol: Symbol,
        work_load: Sequence[float],
        data_shapes: list[DataDesc],
        label_shapes: list[DataDesc],
        state_names: Sequence[str],
        params: ParameterSet,
        devices: DeviceState,
        reqs: Mapping[str, str],
    ):
        self.symbol = symbol
        self.contexts = params.contexts
        self.data_shapes, self.label_shapes = data_shapes, label_shapes
        self.state_names = list(state_names)
        self.batch_size = batch_size_of([*data_shapes, *label_shapes])
        self.slices = split_batch(self.batch_size, work_load)
        self.params = params
        self._reqs = reqs
        self._devices = devices
        self.execs = [self._bind(i, devices) for i in range(len(self.contexts))]
        self._unused = [params.unused_gradients(i, reqs) for i in range(len(self.contexts))]
        self.output_names = symbol.list_outputs()
        self._inputs = self._input_set(0, self.execs)
        self._ahead: Ahead | None = None
        self._label_names = [d.name for d in label_shapes]
        self._label_axes = [batch_axis(d) for d in label_shapes]
        self._output_axes = self._batch_axes_of_outputs()
        self.overlap: Any = None  # what `overlap.overlap_of` has found out

    def _bind(self, device: int, devices: DeviceState) -> Executor:
        """The executor of one device: parameters from the set, inputs of its own."""
        ctx, memory = self.contexts[device], backend(self.contexts[device])
        inputs = on_device([*self.data_shapes, *self.label_shapes], self.slices, device)
        shapes = {d.name: d.shape for d in inputs}
        dtypes = {d.name: d.dtype for d in inputs}
        names = self.symbol.list_arguments()
        known = {n: a.shape for n, a in self.params.arg_arrays[device].items() if n in names}
        arg_shapes, _, _ = self.symbol.infer_shape(
            **{**known, **{n: s for n, s in shapes.items() if n in names}}
        )
        if arg_shapes is None:
            raise InvalidArgument(f"bind: shapes {shapes} do not determine those of all inputs")
        pool, sparse = devices.pools[device], csr_inputs(self.symbol)
        args: dict[str, NDArray] = {}
        grads: dict[str, NDArray] = {}
        for name, shape in zip(names, arg_shapes, strict=True):
            if name in self.params.arg_arrays[device]:
                args[name] = self.params.arg_arrays[device][name]
                if name in self.params.grad_arrays[device]:
                    grads[name] = self.params.grad_arrays[device][name]
            else:
                dtype = dtypes.get(name) or np.float32
                if name in sparse:
                    args[name] = empty_csr(shape, dtype, ctx)
                elif pool is None or name in self.state_names:  # states stay each executor's own
                    args[name] = NDArray(memory.zeros(shape, dtype), ctx)
                else:
                    args[name] = NDArray(pool.lend(name, shape, dtype), ctx)
                if self._reqs.get(name, "null") != "null":
                    grads[name] = NDArray(memory.zeros(shape, dtype), ctx)
        aux_names = self.symbol.list_auxiliary_states()
        aux = {name: self.params.aux_arrays[device][name] for name in aux_names}
        handle = Handle(args, grads, aux, devices.workspaces[device], devices.streams[device], pool)
        return Executor(handle, self.symbol, ctx, self._reqs, self.params.group2ctxs[device])

    def _input_set(self, turn: int, execs: list[Executor]) -> InputSet:
        """The inputs that some executors read."""

        def targets(descs: Sequence[DataDesc]) -> list[Target]:
            return [(d.name, batch_axis(d), [e.arg_dict[d.name] for e in execs]) for d in descs]

        labels = [d for d in self.label_shapes if d.name in execs[0].arg_dict]
        return InputSet(turn, execs, targets(self.data_shapes), targets(labels))

    def _second_inputs(self) -> InputSet:
        """Executors for a second set of inputs."""
        execs = []
        for device, executor in enumerate(self.execs):
            memory, pool = backend(self.contexts[device]), self._devices.pools[device]
            own = {}
            for name, _, arrays in [*self._inputs.data, *self._inputs.labels]:
                shape, dtype = arrays[device].shape, arrays[device].dtype
                made = memory.zeros(shape, dtype) if pool is None else pool.lend(f"{name} 2", shape, dtype)
                own[name] = NDArray(made, self.contexts[device])
            execs.append(executor.over(own))
        return self._input_set(1, execs)

    @cached_property
    def can_copy_ahead(self) -> bool:
        """Whether the next batch can be copied to the devices while they compute this one.

        Not to the host itself; and not where a second set of inputs would show: csr inputs, an output that is
        an input, operators with a state of their own (Custom), parameters of groups on other devices.
        """
        if not all(memory.copies_ahead for memory in self._devices.turns.backends):
            return False
        inputs = [*self._inputs.data, *self._inputs.labels]
        if any(array.stype != "default" for _, _, arrays in inputs for array in arrays):
            return False
        names = {name for name, _, _ in inputs}
        if any(head.node.op is None and head.node.name in names for head in self.symbol._heads):
            return False
        custom = any(node.op is not None and node.op.name == "Custom" for node in self.symbol._order())
        return not custom and not any(self.params.group2ctxs)

    def _batch_axes_of_outputs(self) -> list[int]:
        """The axis along which each output is joined: where the batch size stands (`__layout__` or 0)."""
        axes = []
        for entry in self.symbol._heads:
            layout = entry.node.raw.get("__layout__")
            axes.append(DataDesc.get_batch_axis(layout) if layout else 0)
        return axes

    # ---- running

    def load(self, batch: Any) -> None:
        """Copy a batch's data, and its labels if it has any, into the executors."""
        self._load("data", batch.data, self._inputs.data)
        labels = getattr(batch, "label", None)
        if labels and self._inputs.labels:
            self._load("label", labels, self._inputs.labels)

    def _load(self, what: str, arrays: Sequence[Any], targets: list[Target]) -> None:
        if len(arrays) != len(targets) and not (what == "label" and len(arrays) > len(targets)):
            names = ", ".join(name for name, _, _ in targets)
            raise InvalidArgument(
                f"forward: the batch has {len(arrays)} {what} arrays, expected {len(targets)}: {names}"
            )
        for source, (name, axis, dest) in zip(arrays, targets, strict=False):
            load_slices(source, dest, self.slices, axis, name)

    def forward(self, batch: Any, is_train: bool) -> None:
        """Load a batch and compute the outputs on every device."""
        turns = self._devices.turns
        if turns.wanted and self._ahead is None and self.can_copy_ahead:  # now, as no device is busy
            self._ahead = Ahead(self._inputs, self._second_inputs(), turns, self.slices)
        if not (turns.wanted and self._take_staged(batch)):
            self.load(batch)
        turns.begin(self._inputs.turn)
        for executor in self.execs:
            executor.forward(is_train)

    def stage(self, batch: Any) -> None:
        """Begin to copy the batch of the next `forward`, if it can be done; see `can_copy_ahead`."""
        if self._ahead is not None:
            self._ahead.stage(batch, lack_labels=self._devices.pools[0] is None)

    def _take_staged(self, batch: Any) -> bool:
        """Go on with the inputs into which a batch was copied ahead; false if it was not."""
        staged = self._devices.turns.take()
        if staged is None or self._ahead is None or not self._ahead.knows(staged.inputs):
            return False
        if not staged.is_of(batch):
            return False
        if not staged.has_labels:  # the last ones stay
            pairs = zip(staged.inputs.labels, self._inputs.labels, strict=True)
            for (_, _, into), (_, _, out_of) in pairs:
                for new, old in zip(into, out_of, strict=True):
                    if new is not old:
                        copy(new._data, old._data)
        self._inputs = staged.inputs
        self.execs = staged.inputs.execs
        return True

    @property
    def writes_all_gradients(self) -> bool:
        """Whether a backward pass writes the gradients of all parameters anew, and by itself."""
        reqs = {self._reqs.get(name, "null") for name in self.params.trained}
        return reqs == {"write"} and not any(self._unused)

    def backward(self, out_grads: Any = None, stops: Stops = ()) -> None:
        """Compute the gradients on every device from those of the whole batch's outputs.

        With `stops`, see `Executor.backward`, there is one device.
        """
        if isinstance(out_grads, NDArray):
            out_grads = [out_grads]
        for unused in self._unused:
            for grad in unused:
                if grad.stype == "default":
                    grad._data.fill(0)
                else:
                    clear_rows(grad)
        for executor, part in zip(self.execs, self.slices, strict=True):
            if out_grads is None:
                executor.backward(stops=stops)
                continue
            parts = [
                g if g is None or len(self.execs) == 1 else NDArray(part_of(g._data, axis, part), g.context)
                for g, axis in zip(out_grads, self._output_axes, strict=False)
            ]
            executor.backward(parts)

    # ---- results

    def output_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the outputs for the whole batch."""
        shapes = []
        for i, name in enumerate(self.output_names):
            parts = [e.outputs[i].shape for e in self.execs]
            axis = self._output_axes[i]
            shape = list(parts[0])
            if len(parts) > 1 and 0 <= axis < len(shape):
                shape[axis] = sum(p[axis] for p in parts)
            shapes.append((name, tuple(shape)))
        return shapes

    def get_outputs(self, merge: bool = True) -> list[Any]:
        """The outputs: joined over devices, or a list per output of one array per device."""
        parts = [[e.outputs[i] for e in self.execs] for i in range(len(self.output_names))]
        return self._merge(parts, self._output_axes) if merge else parts

    def get_input_grads(self, merge: bool = True) -> list[Any]:
        """The gradients of the data, likewise."""
        parts: list[list[Any]] = []
        axes: list[int] = []
        for desc in self.data_shapes:
            grads = [e.grad_dict.get(desc.name) for e in self.execs]
            if any(g is None for g in grads):
                raise NotReadyError("get_input_grads: call bind(..., inputs_need_grad=True) first")
            parts.append(grads)
            axes.append(batch_axis(desc))
        return self._merge(parts, axes) if merge else parts

    def get_states(self, merge: bool = True) -> list[Any]:
        """The arrays of the state inputs, likewise."""
        parts = [[e.arg_dict[name] for e in self.execs] for name in self.state_names]
        return self._merge(parts, [0] * len(parts)) if merge else parts

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Copy arrays, a list per state of one per device, or a number into the state inputs."""
        if (states is None) == (value is None):
            raise InvalidArgument("set_states: give either states or value")
        for k, name in enumerate(self.state_names):
            for d, executor in enumerate(self.execs):
                if states is None:
                    executor.arg_dict[name][:] = value
                else:
                    states[k][d].copyto(executor.arg_dict[name])

    @staticmethod
    def _merge(parts: list[list[NDArray]], axes: list[int]) -> list[NDArray]:
        merged = []
        for arrays, axis in zip(parts, axes, strict=True):
            joined = len(arrays) > 1 and 0 <= axis < arrays[0].ndim
            merged.append(concatenate(arrays, axis) if joined else arrays[0])
        return merged

    def update_metric(self, metric: Any, labels: Any, pre_sliced: bool = False) -> None:
        """Feed a metric with each device's outputs and its part of the labels."""
        names, axes = self._label_names, self._label_axes
        if not names:
            names, axes = [f"label{i}" for i in range(len(labels))], [0] * len(labels)
        if len(self.execs) == 1 and not pre_sliced:
            outputs = dict(zip(self.output_names, self.execs[0].outputs, strict=True))
            metric.update_dict(dict(zip(names, labels, strict=False)), outputs)
            return
        for device, (executor, part) in enumerate(zip(self.execs, self.slices, strict=True)):
            if pre_sliced:
                mine = labels[device]
            else:
                mine = [
                    NDArray(part_of(_array(x), axis, part)) for x, axis in zip(labels, axes, strict=False)
                ]
            outputs = dict(zip(self.output_names, executor.outputs, strict=True))
            metric.update_dict(dict(zip(names, mine, strict=False)), outputs)

    def install_monitor(self, monitor: Any) -> None:
        """Let a monitor watch every executor."""
        for executor in self.execs:
            monitor.install(executor)


def _array(value: Any) -> Any:
    return value._dense()._data if isinstance(value, NDArray) else np.asarray(value)
