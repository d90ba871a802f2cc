"""Convolution by oneDNN, on data in its layouts; the function and the sum that follow it are part of it.

Weights and their gradients are plain: they are parameters. They are brought into the library's layout at
each step, into scratch memory, which costs a hundredth of the convolution or less.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.device.kernels import compiled_kernels
from dmod.device.onednn import Layout
from dmod.device.onednn.api import Arg, Query
from dmod.device.onednn.convolution import Convolution
from dmod.device.onednn.layers import Function
from dmod.ops.onednn_scatter import scattered_gradient
from dmod.ops.registry import Attrs, Call, Step, register_internal

__all__ = ["CONVOLUTION"]


def _arguments(attrs: Attrs) -> list[str]:
    """The attributes are one: the `Convolution`."""
    spec: Convolution = attrs.convolution
    names = ["data", "weight", "bias"] if spec.shapes.has_bias else ["data", "weight"]
    return [*names, "added"] if spec.is_added_to else names


def _memory(call: Call, layout: Layout) -> Any:
    return call.scratch((layout.nbytes,), np.uint8)


def _in_order(steps: list[Step]) -> Step:
    if len(steps) == 1:
        return steps[0]

    def run() -> None:
        for step in steps:
            step()

    return run


def _bring(call: Call, source: Layout, array: Any, target: Layout, steps: list[Step]) -> Any:
    """The values of `array` in another layout: in memory of their own if it is another, by one more step."""
    if source == target:
        return array
    memory = _memory(call, target)
    reorder = call.attrs.convolution.engine.reorder(source, target)
    steps.append(reorder.bind({Arg.SRC: (source, array), Arg.DST: (target, memory)}, call.scratch))
    return memory


def _forward(call: Call) -> Step:
    spec: Convolution = call.attrs.convolution
    steps: list[Step] = []
    wanted = spec.forward.layout(Query.WEIGHTS)
    weight = _bring(call, spec.plain_weight, call.inputs[1], wanted, steps)
    arrays = {
        Arg.SRC: (spec.source, call.inputs[0]),
        Arg.WEIGHTS: (wanted, weight),
        Arg.DST: (spec.target, call.outputs[0]),
    }
    if spec.bias is not None:
        arrays[Arg.BIAS] = (spec.bias, call.inputs[2])
    if spec.is_added_to:
        arrays[Arg.FIRST_POST_OP] = (spec.target, call.inputs[-1])
    steps.append(spec.forward.bind(arrays, call.scratch))
    return _in_order(steps)


def _backward(call: Call) -> Step:
    spec: Convolution = call.attrs.convolution
    steps: list[Step] = []
    dy = call.out_grads[0]
    if spec.function is not None:
        dy = _function_gradient(call, spec, steps)
    if spec.is_added_to and call.in_grads[-1] is not None:
        added = call.in_grads[-1]
        if added.ctypes.data != dy.ctypes.data:
            steps.append(lambda: np.copyto(added, dy.view(np.float32).reshape(added.shape)))
    bias = call.in_grads[2] if spec.bias is not None else None
    if call.in_grads[1] is not None or bias is not None:
        _weight_gradient(call, spec, dy, bias, steps)
    if call.in_grads[0] is not None:
        _data_gradient(call, spec, dy, steps)
    return _in_order(steps)


def _function_gradient(call: Call, spec: Convolution, steps: list[Step]) -> Any:
    function = Function(spec.engine, spec.target, str(spec.function), is_train=True)
    into = _memory(call, spec.target)
    arrays = {Arg.DST: call.outputs[0], Arg.DIFF_DST: call.out_grads[0], Arg.DIFF_SRC: into}
    given = {arg: (spec.target, array) for arg, array in arrays.items()}
    steps.append(function.backward.bind(given, call.scratch))
    return into


def _weight_gradient(call: Call, spec: Convolution, dy: Any, bias: Any, steps: list[Step]) -> None:
    found, dw = spec.backward_weight, call.in_grads[1]
    wanted = found.layout(Query.DIFF_WEIGHTS)
    into = dw if dw is not None and wanted == spec.plain_weight else _memory(call, wanted)
    arrays = {
        Arg.SRC: (spec.source, call.inputs[0]),
        Arg.DIFF_DST: (spec.target, dy),
        Arg.DIFF_WEIGHTS: (wanted, into),
    }
    if spec.bias is not None:
        unwanted = bias is None
        arrays[Arg.DIFF_BIAS] = (spec.bias, _memory(call, spec.bias) if unwanted else bias)
    steps.append(found.bind(arrays, call.scratch))
    if dw is not None and into is not dw:
        reorder = spec.engine.reorder(wanted, spec.plain_weight)
        given = {Arg.SRC: (wanted, into), Arg.DST: (spec.plain_weight, dw)}
        steps.append(reorder.bind(given, call.scratch))


def _data_gradient(call: Call, spec: Convolution, dy: Any, steps: list[Step]) -> None:
    if spec.is_scattered and compiled_kernels() is not None:
        steps.append(scattered_gradient(call, spec, dy))
        return
    found, dx = spec.backward_data, call.in_grads[0]
    weights, wanted = found.layout(Query.WEIGHTS), found.layout(Query.DIFF_SRC)
    weight = _bring(call, spec.plain_weight, call.inputs[1], weights, steps)
    into = dx if wanted == spec.source else _memory(call, wanted)
    arrays = {
        Arg.WEIGHTS: (weights, weight),
        Arg.DIFF_DST: (spec.target, dy),
        Arg.DIFF_SRC: (wanted, into),
    }
    steps.append(found.bind(arrays, call.scratch))
    if into is not dx:
        reorder = spec.engine.reorder(wanted, spec.source)
        steps.append(reorder.bind({Arg.SRC: (wanted, into), Arg.DST: (spec.source, dx)}, call.scratch))


def _backward_reads(attrs: Attrs) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (0, 1), (0,) if attrs.convolution.function is not None else ()


def _backward_inplace(attrs: Attrs) -> list[tuple[int, int]]:
    """The gradient of what is added is the output's own."""
    spec: Convolution = attrs.convolution
    if spec.is_added_to and spec.function is None:
        return [(0, len(_arguments(attrs)) - 1)]
    return []


CONVOLUTION = register_internal(
    "_onednn_convolution",
    arguments=_arguments,
    forward=_forward,
    backward=_backward,
    backward_reads=_backward_reads,
    backward_inplace=_backward_inplace,
    doc="Convolution, plus `added`, through a function; data and output are in oneDNN's layouts.",
)
