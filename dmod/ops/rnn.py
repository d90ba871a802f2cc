"""RNN: layers of recurrent cells over whole sequences, with all weights in one vector.

A hidden output, `reserve`, takes what forward leaves for backward: gates and states of all steps, inputs of
the upper layers and dropout's masks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops import rnn_lstm_compiled
from dmod.ops.convolution import float_type
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, choice, integer, number, optional
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register
from dmod.ops.rnn_cells import Cell, Direction
from dmod.ops.rnn_gru import Gru
from dmod.ops.rnn_layout import GATES, packed_arrays, packed_size
from dmod.ops.rnn_lstm import Lstm
from dmod.ops.rnn_plain import Plain, PlainRelu

__all__: list[str] = []

CELLS: dict[str, type[Cell]] = {"rnn_relu": PlainRelu, "rnn_tanh": Plain, "lstm": Lstm, "gru": Gru}
"""The cell of each mode."""


def _arguments(attrs: Attrs) -> list[str]:
    names = ["data", "parameters", "state"]
    if attrs.mode == "lstm":
        names.append("state_cell")
    return [*names, "sequence_length"] if attrs.use_sequence_length else names


def _outputs(attrs: Attrs) -> list[str]:
    states = ["state_output", "statecell_output"][: 1 + (attrs.mode == "lstm")]
    return ["output", *(states if attrs.state_outputs else []), "reserve"]


def _directions(attrs: Attrs) -> int:
    return 2 if attrs.bidirectional else 1


def _out_size(attrs: Attrs) -> int:
    """The width of a state: that of the projection if there is one."""
    return attrs.projection_size or attrs.state_size


def _check(attrs: Attrs) -> None:
    for name in ("state_size", "num_layers"):
        if getattr(attrs, name) < 1:
            raise InvalidArgument(f"{name}: expected at least 1, got {getattr(attrs, name)}")
    if not 0 <= attrs.p < 1:
        raise InvalidArgument(f"p: expected 0 <= p < 1, got {attrs.p}")
    if attrs.projection_size is not None and (attrs.mode != "lstm" or attrs.projection_size < 1):
        raise InvalidArgument(
            f"projection_size: expected a positive number, with mode 'lstm', "
            f"got {attrs.projection_size} with {attrs.mode!r}"
        )
    if (attrs.lstm_state_clip_min is None) != (attrs.lstm_state_clip_max is None):
        raise InvalidArgument("lstm_state_clip_min, lstm_state_clip_max: expected both or neither")


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    _check(attrs)
    data = inputs[0]
    if data is not None and len(data) != 3:
        raise InvalidArgument(f"data: expected 3 axes (TNC), got shape {data}")
    steps, samples, width = data or (-1, -1, -1)
    rows = attrs.num_layers * _directions(attrs)
    size = -1 if width == -1 else packed_size(*_packing(attrs, width))
    expected: dict[str, Shape] = {
        "data": (steps, samples, width),
        "parameters": (size,),
        "state": (rows, samples, _out_size(attrs)),
        "state_cell": (rows, samples, attrs.state_size),
        "sequence_length": (samples,),
    }
    names = _arguments(attrs)
    found = [data, *(merge_shapes(expected[n], s, n) for n, s in zip(names[1:], inputs[1:], strict=True))]
    states = [expected["state"], expected["state_cell"]][: len(_outputs(attrs)) - 2]
    reserve = None
    if -1 not in (steps, samples, width):
        reserve = (sum(math.prod(dims) for dims in _reserve_shapes(attrs, steps, samples).values()),)
    return found, [(steps, samples, _directions(attrs) * _out_size(attrs)), *states, reserve], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    names = _arguments(attrs)
    count = len(names) - attrs.use_sequence_length
    arguments, (out, *_), aux = float_type(attrs, inputs[:count])
    lengths = [inputs[-1] or out] if attrs.use_sequence_length else []
    return [*arguments, *lengths], [out] * len(_outputs(attrs)), aux


def _packing(attrs: Attrs, width: int) -> tuple[Any, ...]:
    return (
        attrs.mode,
        attrs.num_layers,
        attrs.bidirectional,
        width,
        attrs.state_size,
        attrs.projection_size,
    )


def _reserve_shapes(attrs: Attrs, steps: int, samples: int) -> dict[tuple[int, int, str], Shape]:
    """What the reserve holds, by (layer, direction, name)."""
    cell, directions, out = CELLS[attrs.mode], _directions(attrs), _out_size(attrs)
    found: dict[tuple[int, int, str], Shape] = {}
    for layer in range(attrs.num_layers):
        if layer:
            found[layer, 0, "input"] = (steps, samples, directions * out)
        if layer and attrs.p:
            found[layer, 0, "mask"] = (steps, samples, directions * out)
        for direction in range(directions):
            kept = cell.kept_shapes(steps, samples, attrs.state_size, out)
            found.update({(layer, direction, name): dims for name, dims in kept.items()})
    return found


class _Network:
    """The cells of a call over its arrays."""

    def __init__(self, call: Call):
        self.call, self.attrs = call, call.attrs
        self.arguments = dict(zip(_arguments(call.attrs), call.inputs, strict=True))
        self.data = self.arguments["data"]
        self.steps, self.samples, self.width = self.data.shape
        self.reserve = self._cut_reserve()
        self.directions, self.out = _directions(call.attrs), _out_size(call.attrs)
        self.beyond = self.within = None
        if "sequence_length" in self.arguments:
            mask = (self.steps, self.samples, 1)
            self.beyond, self.within = call.scratch(mask, bool), call.scratch(mask, self.data.dtype)

    def _cut_reserve(self) -> dict[tuple[int, int, str], Any]:
        found, start = {}, 0
        vector = self.call.outputs[-1]
        for key, dims in _reserve_shapes(self.attrs, self.steps, self.samples).items():
            stop = start + math.prod(dims)
            found[key], start = vector[start:stop].reshape(dims), stop
        return found

    def mask_step(self) -> Step:
        """The step that notes where sequences have ended."""
        if self.beyond is None:
            return lambda: None
        xp, lengths = self.call.xp, self.arguments["sequence_length"].reshape(1, -1, 1)
        times = self.call.device.from_host(np.arange(self.steps, dtype=np.float32).reshape(-1, 1, 1))
        beyond, within = self.beyond, self.within

        def run() -> None:
            xp.greater_equal(times, lengths, out=beyond)
            xp.logical_not(beyond, out=within)

        return run

    def packed(self, vector: Any) -> dict[tuple[int, int], dict[str, Any]]:
        """The weights of each (layer, direction) within a vector of parameters."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for array in packed_arrays(*_packing(self.attrs, self.width)):
            view = vector[array.start : array.stop].reshape(array.shape)
            found.setdefault((array.layer, array.direction), {})[array.kind] = view
        return found

    def layer_input(self, layer: int) -> Any:
        return self.data if layer == 0 else self.reserve[layer, 0, "input"]

    def side(self, array: Any, direction: int) -> Any:
        """The part of (T, N, directions * S) that belongs to one direction."""
        return array[:, :, direction * self.out : (direction + 1) * self.out]

    def cell(self, layer: int, direction: int, weights: dict[str, Any]) -> Cell:
        """The cell of one direction of one layer, which writes into the next layer's input."""
        last = layer == self.attrs.num_layers - 1
        target = self.call.outputs[0] if last else self.reserve[layer + 1, 0, "input"]
        kept = {k[2]: a for k, a in self.reserve.items() if k[:2] == (layer, direction)}
        row = layer * self.directions + direction
        cells = self.arguments.get("state_cell")
        part = Direction(
            call=self.call,
            x=self.layer_input(layer),
            y=self.side(target, direction),
            weights=weights,
            first=self.arguments["state"][row],
            first_cell=None if cells is None else cells[row],
            kept=kept,
            is_reverse=direction == 1,
            beyond=self.beyond,
            within=self.within,
        )
        if self.attrs.mode == "lstm" and rnn_lstm_compiled.is_for(part):
            return rnn_lstm_compiled.CompiledLstm(part)
        return CELLS[self.attrs.mode](part)

    def cells(self) -> dict[tuple[int, int], Cell]:
        """All cells, from the first layer up."""
        packed = self.packed(self.arguments["parameters"])
        return {key: self.cell(*key, weights) for key, weights in sorted(packed.items())}


def _drop(net: _Network) -> dict[int, Step]:
    """For each layer but the first, in training: the step that drops elements of its input."""
    call, attrs = net.call, net.attrs
    if not attrs.p or not call.is_train or attrs.num_layers == 1:
        for (_, _, name), mask in net.reserve.items():
            if name == "mask":
                mask.fill(1)
        return {}
    xp, keep = call.xp, 1.0 - attrs.p
    masks = [net.reserve[layer, 0, "mask"] for layer in range(1, attrs.num_layers)]
    draws = call.scratch((len(masks), *masks[0].shape), np.float32)
    scale, device, stream, node = masks[0].dtype.type(1 / keep), call.device, call.stream, call.node
    threshold = np.float32(keep)

    def step_for(layer: int) -> Step:
        mask, own, x = masks[layer - 1], draws[layer - 1], net.layer_input(layer)

        def run() -> None:
            if layer == 1:  # a node has one stream per step, so all masks are drawn at once
                device.uniform(draws, stream, node)
            xp.less(own, threshold, out=mask, casting="unsafe")
            xp.multiply(mask, scale, out=mask)
            xp.multiply(x, mask, out=x)

        return run

    return {layer: step_for(layer) for layer in range(1, attrs.num_layers)}


def _forward(call: Call) -> Step:
    net, xp = _Network(call), call.xp
    drop, steps = _drop(net), [net.mask_step()]
    states = call.outputs[1:-1]
    ends = []
    for (layer, direction), cell in net.cells().items():
        if direction == 0 and layer in drop:
            steps.append(drop[layer])
        steps.append(cell.forward())
        row, last = layer * net.directions + direction, cell.d.ends[1]
        for target, name in zip(states, ("states", "cells"), strict=False):
            ends.append((target[row], cell.kept[name][last]))

    def run() -> None:
        for step in steps:
            step()
        for target, source in ends:
            xp.copyto(target, source)

    return run


def _backward(call: Call) -> Step:
    net, xp = _Network(call), call.xp
    names = _arguments(call.attrs)
    wanted = dict(zip(names, call.in_grads, strict=True))
    grads = {} if wanted["parameters"] is None else net.packed(wanted["parameters"])
    cells = net.cells()
    d_states = _running_states(net, wanted)
    steps, dy = [net.mask_step(), _start(call, wanted, d_states)], call.out_grads[0]
    for layer in range(call.attrs.num_layers - 1, -1, -1):
        x = net.layer_input(layer)
        dx = wanted["data"] if layer == 0 else call.scratch(x.shape, x.dtype)
        if dx is not None:
            steps.append(_fill(dx))
        for direction in range(net.directions):
            row = layer * net.directions + direction
            dh, dc = (None if a is None else a[row] for a in d_states)
            cell = cells[layer, direction]
            steps.append(
                cell.backward(net.side(dy, direction), dh, dc, grads.get((layer, direction), {}), dx)
            )
        if (layer, 0, "mask") in net.reserve:
            steps.append(_multiply(xp, dx, net.reserve[layer, 0, "mask"]))
        dy = dx

    def run() -> None:
        for step in steps:
            step()

    return run


def _fill(array: Any) -> Step:
    return lambda: array.fill(0)


def _multiply(xp: Any, array: Any, factor: Any) -> Step:
    return lambda: xp.multiply(array, factor, out=array)


def _running_states(net: _Network, wanted: dict[str, Any]) -> tuple[Any, Any]:
    """The states' gradients, which run from the last step to the first: in their arrays if wanted."""

    def memory(name: str) -> Any:
        if name not in net.arguments:
            return None
        state = net.arguments[name]
        return net.call.scratch(state.shape, state.dtype) if wanted.get(name) is None else wanted[name]

    return memory("state"), memory("state_cell")


def _start(call: Call, wanted: dict[str, Any], d_states: tuple[Any, Any]) -> Step:
    """The step that starts the states' gradients from those of the state outputs."""
    xp, given = call.xp, [*call.out_grads[1:-1], None, None]
    lengths = wanted.get("sequence_length")

    def run() -> None:
        for state, source in zip(d_states, given, strict=False):
            if state is not None and source is not None:
                xp.copyto(state, source)
            elif state is not None:
                state.fill(0)
        if lengths is not None:
            lengths.fill(0)

    return run


def _backward_reads(attrs: Attrs) -> tuple[list[int], list[int]]:
    return list(range(len(_arguments(attrs)))), [len(_outputs(attrs)) - 1]


register(
    "RNN",
    params=[
        Param("state_size", integer, doc="The width H of a layer's states."),
        Param("num_layers", integer, doc="The number of layers L."),
        Param("bidirectional", boolean, False, "Whether each layer runs in both directions of time."),
        Param("mode", choice(tuple(sorted(GATES))), doc="The kind of cell."),
        Param("p", number, 0.0, "The share of elements between layers that are dropped in training."),
        Param("state_outputs", boolean, False, "Also output the states after the last step."),
        Param(
            "projection_size", optional(integer), None, "The width of an LSTM's states after a projection."
        ),
        Param("lstm_state_clip_min", optional(number), None, "The least value of an LSTM's cell state."),
        Param("lstm_state_clip_max", optional(number), None, "The greatest value of an LSTM's cell state."),
        Param("lstm_state_clip_nan", boolean, False, "Ignored: whether clipping removes NaN."),
        Param("use_sequence_length", boolean, False, "Whether samples end after sequence_length steps."),
    ],
    arguments=_arguments,
    slots=("data", "parameters", "state", "state_cell", "sequence_length"),
    outputs=_outputs,
    num_visible=lambda attrs: len(_outputs(attrs)) - 1,
    json_outputs=lambda attrs: len(_outputs(attrs)) - 1,
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=_backward_reads,
    doc="""Run layers of recurrent cells over sequences.

data is (T, N, C), state and state_cell (layers * directions, N, H), parameters one vector (see
`dmod.ops.rnn_layout`), sequence_length (N,). The output is (T, N, directions * H); with `state_outputs` the
last states follow. Cells: 'rnn_relu', 'rnn_tanh'; 'lstm' with gates i, f, g, o; 'gru' with gates r, z, n.
With `use_sequence_length` outputs after a sample's end are 0, and its states stay as they are there.""",
)
