"""Pooling, sums, functions and changes of layout by oneDNN."""

from __future__ import annotations

import numpy as np

from dmod.device.onednn import Layout
from dmod.device.onednn.api import Arg
from dmod.device.onednn.layers import Addition, Function, Pooling
from dmod.ops.registry import Attrs, Call, Step, register_internal

__all__ = ["ADDITION", "FUNCTION", "POOLING", "REORDER"]


# ---- pooling


def _pooling_outputs(attrs: Attrs) -> list[str]:
    spec: Pooling = attrs.pooling
    return ["output"] if spec.workspace is None else ["output", "places"]


def _pooling_forward(call: Call) -> Step:
    spec: Pooling = call.attrs.pooling
    arrays = {Arg.SRC: (spec.source, call.inputs[0]), Arg.DST: (spec.target, call.outputs[0])}
    if spec.workspace is not None:
        arrays[Arg.WORKSPACE] = (spec.workspace, call.outputs[1])
    return spec.forward.bind(arrays, call.scratch)


def _pooling_backward(call: Call) -> Step:
    spec: Pooling = call.attrs.pooling
    arrays = {Arg.DIFF_SRC: (spec.source, call.in_grads[0]), Arg.DIFF_DST: (spec.target, call.out_grads[0])}
    if spec.workspace is not None:
        arrays[Arg.WORKSPACE] = (spec.workspace, call.outputs[1])
    return spec.backward.bind(arrays, call.scratch)


POOLING = register_internal(
    "_onednn_pooling",
    arguments=["data"],
    outputs=_pooling_outputs,
    forward=_pooling_forward,
    backward=_pooling_backward,
    backward_reads=lambda attrs: ((), tuple(range(1, len(_pooling_outputs(attrs))))),
    doc="Maxima or averages of windows; maxima note where they were found.",
)


# ---- element-wise


def _function_forward(call: Call) -> Step:
    spec: Function = call.attrs.function
    arrays = {Arg.SRC: (spec.layout, call.inputs[0]), Arg.DST: (spec.layout, call.outputs[0])}
    return spec.forward.bind(arrays, call.scratch)


def _function_backward(call: Call) -> Step:
    spec: Function = call.attrs.function
    arrays = {Arg.DST: call.outputs[0], Arg.DIFF_DST: call.out_grads[0], Arg.DIFF_SRC: call.in_grads[0]}
    return spec.backward.bind({k: (spec.layout, a) for k, a in arrays.items()}, call.scratch)


FUNCTION = register_internal(
    "_onednn_function",
    arguments=["data"],
    forward=_function_forward,
    backward=_function_backward,
    backward_reads=((), (0,)),
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    doc="Activation on an array in one of oneDNN's layouts.",
)


def _addition_forward(call: Call) -> Step:
    spec: Addition = call.attrs.addition
    arrays = {Arg.SRC: call.inputs[0], Arg.SRC_1: call.inputs[1], Arg.DST: call.outputs[0]}
    return spec.forward.bind({k: (spec.layout, a) for k, a in arrays.items()}, call.scratch)


def _addition_backward(call: Call) -> Step:
    """Both inputs get the output's gradient, which may share memory with the first one's."""
    spec: Addition = call.attrs.addition
    wanted = [g for g in call.in_grads if g is not None]
    source, first = call.out_grads[0], None
    if spec.function is not None:
        function = Function(spec.engine, spec.layout, spec.function, is_train=True)
        arrays = {Arg.DST: call.outputs[0], Arg.DIFF_DST: source, Arg.DIFF_SRC: wanted[0]}
        first = function.backward.bind({k: (spec.layout, a) for k, a in arrays.items()}, call.scratch)
        source = wanted[0]
    targets = [g for g in wanted if g.ctypes.data != source.ctypes.data]

    def run() -> None:
        if first is not None:
            first()
        for target in targets:
            np.copyto(target, source)

    return run


ADDITION = register_internal(
    "_onednn_addition",
    arguments=["lhs", "rhs"],
    forward=_addition_forward,
    backward=_addition_backward,
    backward_reads=lambda attrs: ((), (0,) if attrs.addition.function is not None else ()),
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    doc="The sum of two arrays in one of oneDNN's layouts, through a function.",
)


# ---- layouts


def _reorder(source: Layout, target: Layout, call: Call, old: np.ndarray, new: np.ndarray) -> Step:
    found = source.engine.reorder(source, target)
    return found.bind({Arg.SRC: (source, old), Arg.DST: (target, new)}, call.scratch)


REORDER = register_internal(
    "_onednn_reorder",
    arguments=["data"],
    forward=lambda call: _reorder(
        call.attrs.source, call.attrs.target, call, call.inputs[0], call.outputs[0]
    ),
    backward=lambda call: _reorder(
        call.attrs.target, call.attrs.source, call, call.out_grads[0], call.in_grads[0]
    ),
    doc="The same values in another layout.",
)
