"""Regression outputs: the prediction in forward, the gradient of the loss in backward."""

from __future__ import annotations

import math

from dmod.base import InvalidArgument
from dmod.ops.params import Param, number
from dmod.ops.registry import Attrs, Call, Shapes, Step, register


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, label = inputs
    data = data if data is not None else outputs[0]
    if data is None or -1 in data:
        return [data, label], [data], []
    column = len(data) == 2 and data[1] == 1
    if label is None:
        label = data
    elif label != data and not (column and label == data[:1]):
        raise InvalidArgument(f"label: expected {data}, the shape of data, got {label}")
    return [data, label], [data], []


def _forward(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    return lambda: xp.copyto(y, x)


def _backward(call: Call) -> Step:
    xp, (dx, dlabel), y = call.xp, call.in_grads, call.outputs[0]
    label = call.inputs[1].reshape(y.shape)
    scale = y.dtype.type(call.attrs.grad_scale / max(1, math.prod(y.shape[1:])))

    def run() -> None:
        if dx is not None:
            xp.subtract(y, label, out=dx)
            xp.multiply(dx, scale, out=dx)
        if dlabel is not None:
            dlabel.fill(0)

    return run


register(
    "LinearRegressionOutput",
    params=[Param("grad_scale", number, 1.0, "A factor for the gradient.")],
    arguments=["data", "label"],
    infer_shape=_infer,
    forward=_forward,
    backward=_backward,
    backward_reads=((1,), (0,)),
    inplace=[(0, 0)],
    is_loss=True,
    doc="""The prediction itself, with the gradient of the squared error towards label.

data and label have one shape; for data (N, 1) the label may be (N,). The gradient is
``(data - label) * grad_scale`` over the number of outputs per sample.""",
)
