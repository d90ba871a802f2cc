"""SVMOutput: the scores in forward, the gradient of a hinge loss in backward."""

from __future__ import annotations

import math

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, number
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, label = inputs
    data = merge_shapes(data, outputs[0], "data")
    if data is not None:
        if len(data) < 1:
            raise InvalidArgument(f"data has shape {data}, expected (N, K)")
        label = merge_shapes(data[:1], label, "label")
    return [data, label], [data], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    data, label = inputs
    return [data, label if label is not None else data], [data], []


def _forward(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    return lambda: xp.copyto(y, x)


def _backward(call: Call) -> Step:
    """One against all: the own class should score above the margin, each other one below minus the margin."""
    xp, attrs, (dx, dlabel) = call.xp, call.attrs, call.in_grads
    y, label = call.outputs[0], call.inputs[1]
    n, classes = y.shape[0], math.prod(y.shape[1:])
    y2, kind = y.reshape(n, classes), y.dtype.type
    side, own = call.scratch((n, classes), y.dtype), call.scratch((n, classes), bool)
    number_of = xp.arange(classes).reshape(1, classes)
    margin, factor = kind(attrs.margin), kind(attrs.regularization_coefficient)
    grad = None if dx is None else dx.reshape(n, classes)

    def run() -> None:
        if grad is not None:
            xp.equal(number_of, label.reshape(n, 1).astype(np.int64), out=own)
            xp.multiply(own, kind(-2), out=side, casting="unsafe")
            xp.add(side, kind(1), out=side)  # -1 for the own class, 1 for the others
            xp.multiply(side, y2, out=grad)
            xp.add(grad, margin, out=grad)  # how far the score is on the wrong side
            if attrs.use_linear:
                xp.greater(grad, kind(0), out=own)
                xp.multiply(own, factor, out=grad, casting="unsafe")
            else:
                xp.maximum(grad, kind(0), out=grad)
                xp.multiply(grad, kind(2) * factor, out=grad)
            xp.multiply(grad, side, out=grad)
        if dlabel is not None:
            dlabel.fill(0)

    return run


register(
    "SVMOutput",
    params=[
        Param("margin", number, 1.0, "Scores beyond the margin cost nothing."),
        Param("regularization_coefficient", number, 1.0, "A factor for the gradient."),
        Param("use_linear", boolean, False, "The hinge loss itself instead of its square."),
    ],
    arguments=["data", "label"],
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((1,), (0,)),
    inplace=[(0, 0)],
    is_loss=True,
    doc="""The scores themselves, with the gradient of the (squared) hinge loss towards label.

data (N, K), label (N,) with classes as numbers.""",
)
