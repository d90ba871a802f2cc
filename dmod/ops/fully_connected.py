"""FullyConnected: ``data @ weight.T + bias``."""

from __future__ import annotations

import math

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer
from dmod.ops.registry import Attrs, Call, Shapes, Step, register


def _arguments(attrs: Attrs) -> list[str]:
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


def _rows(call: Call, array):  # type: ignore[no-untyped-def]
    """A batched array as a matrix, one sample (or with flatten=False one vector) per row."""
    return array.reshape(array.shape[0], -1) if call.attrs.flatten else array.reshape(-1, array.shape[-1])


def _forward(call: Call) -> Step:
    xp, x, w = call.xp, _rows(call, call.inputs[0]), call.inputs[1].T
    y = call.outputs[0].reshape(-1, call.attrs.num_hidden)
    if call.attrs.no_bias:
        return lambda: xp.dot(x, w, out=y)
    b = call.inputs[2]

    def run() -> None:
        xp.dot(x, w, out=y)
        xp.add(y, b, out=y)

    return run


def _backward(call: Call) -> Step:
    xp, x, w = call.xp, _rows(call, call.inputs[0]), call.inputs[1]
    dy = call.out_grads[0].reshape(-1, call.attrs.num_hidden)
    dx, dw = call.in_grads[:2]
    db = None if call.attrs.no_bias else call.in_grads[2]
    dx = None if dx is None else _rows(call, dx)
    dy_t = dy.T

    def run() -> None:
        if dw is not None:
            xp.dot(dy_t, x, out=dw)
        if db is not None:
            xp.sum(dy, axis=0, out=db)
        if dx is not None:
            xp.dot(dy, w, out=dx)

    return run


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
    arguments=_arguments,
    infer_shape=_infer,
    forward=_forward,
    backward=_backward,
    backward_reads=((0, 1), ()),
    doc="""Multiply by a matrix and add a bias: ``data @ weight.T + bias``.

data (N, ...), weight (num_hidden, D), bias (num_hidden,); the output is (N, num_hidden), or with
``flatten=False`` (..., num_hidden).""",
)
