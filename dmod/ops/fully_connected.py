"""FullyConnected: ``data @ weight.T + bias``."""

from __future__ import annotations

import math
from typing import Any

from dmod.base import InvalidArgument
from dmod.device.gemm import product
from dmod.device.kernels import kernels_for
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer
from dmod.ops.registry import Attrs, Call, Shapes, Step, in_order, register


def arguments(attrs: Attrs) -> list[str]:
    return ["data", "weight"] if attrs.no_bias else ["data", "weight", "bias"]


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    hidden = attrs.num_hidden
    if hidden < 1:
        raise InvalidArgument(f"num_hidden is {hidden}, expected at least 1")
    data, width, out = inputs[0], -1, None
    if data is not None:
        if not data:
            raise InvalidArgument("data has shape (), expected at least one axis")
        known = outputs[0]
        if known is not None and data[0] == -1:  # a recurrent network's first state learns its batch here
            data = (known[0], *data[1:])
        rest = data[1:] if attrs.flatten else data[-1:]
        width = -1 if -1 in rest else math.prod(rest)
        out = (data[0], hidden) if attrs.flatten else (*data[:-1], hidden)
    weight = merge_shapes((hidden, width), inputs[1], "weight")
    bias = [] if attrs.no_bias else [merge_shapes((hidden,), inputs[2], "bias")]
    return [data, weight, *bias], [out], []


def _rows(call: Call, array: Any) -> Any:
    """A batched array as a matrix, one sample (or with flatten=False one vector) per row."""
    return array.reshape(array.shape[0], -1) if call.attrs.flatten else array.reshape(-1, array.shape[-1])


def forward_products(call: Call) -> tuple[Any, Step]:
    """The output as a matrix, and the step that computes ``data @ weight.T`` into it."""
    x, w = _rows(call, call.inputs[0]), call.inputs[1]
    y = call.outputs[0].reshape(-1, call.attrs.num_hidden)
    return y, product(call.device, x, w.T, y)


def _forward(call: Call) -> Step:
    y, multiply = forward_products(call)
    if call.attrs.no_bias:
        return multiply
    b = call.inputs[2]
    kernels = kernels_for(y, b)
    if kernels is not None:
        add_bias = kernels.add_bias

        def fused() -> None:
            multiply()
            add_bias(y, b)

        return fused
    xp = call.xp

    def run() -> None:
        multiply()
        xp.add(y, b, out=y)

    return run


def backward_products(call: Call, dy: Any) -> list[Step]:
    """The steps that compute the gradients from that of the sum: a matrix of one row per sample."""
    x, w = _rows(call, call.inputs[0]), call.inputs[1]
    dx, dw = call.in_grads[:2]
    db = None if call.attrs.no_bias else call.in_grads[2]
    steps: list[Step] = []
    if dw is not None:
        steps.append(product(call.device, dy.T, x, dw))
    if db is not None:
        kernels, xp = kernels_for(dy, db), call.xp
        if kernels is not None:
            column_sums = kernels.column_sums
            steps.append(lambda: column_sums(dy, db))
        else:
            steps.append(lambda: xp.sum(dy, axis=0, out=db))
    if dx is not None:
        steps.append(product(call.device, dy, w, _rows(call, dx)))
    return steps


def _backward(call: Call) -> Step:
    return in_order(backward_products(call, call.out_grads[0].reshape(-1, call.attrs.num_hidden)))


register(
    "FullyConnected",
    params=[
        Param("num_hidden", integer, doc="The number of outputs per sample."),
        Param("no_bias", boolean, False, "Whether to leave the bias out."),
        Param(
            "flatten",
            boolean,
            True,
            "Whether to join all axes but the first; else only the last is multiplied.",
        ),
    ],
    arguments=arguments,
    infer_shape=_infer,
    forward=_forward,
    backward=_backward,
    backward_reads=((0, 1), ()),
    doc="""Multiply by a matrix and add a bias: ``data @ weight.T + bias``.

data (N, ...), weight (num_hidden, D), bias (num_hidden,); the output is (N, num_hidden), or with
``flatten=False`` (..., num_hidden).""",
)
