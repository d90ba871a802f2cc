"""Regression outputs: the prediction in forward, the gradient of the loss in backward."""

from __future__ import annotations

import math
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.params import Param, number
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register


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


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    data, label = inputs
    return [data, label if label is not None else data], [data], []


def _identity(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    return lambda: xp.copyto(y, x)


def _sigmoid(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    one = x.dtype.type(1)

    def run() -> None:
        xp.negative(x, out=y)
        xp.exp(y, out=y)
        xp.add(y, one, out=y)
        xp.divide(one, y, out=y)

    return run


def _backward(call: Call, signs_only: bool = False) -> Step:
    xp, (dx, dlabel), y = call.xp, call.in_grads, call.outputs[0]
    label = call.inputs[1].reshape(y.shape)
    scale = y.dtype.type(call.attrs.grad_scale / max(1, math.prod(y.shape[1:])))

    def run() -> None:
        if dx is not None:
            xp.subtract(y, label, out=dx, casting="same_kind")
            if signs_only:
                xp.sign(dx, out=dx)
            xp.multiply(dx, scale, out=dx)
        if dlabel is not None:
            dlabel.fill(0)

    return run


def _register(name: str, forward: Any, backward: Any, doc: str) -> None:
    register(
        name,
        params=[Param("grad_scale", number, 1.0, "A factor for the gradient.")],
        arguments=["data", "label"],
        infer_shape=_infer,
        infer_type=_infer_type,
        forward=forward,
        backward=backward,
        backward_reads=((1,), (0,)),
        inplace=[(0, 0)],
        is_loss=True,
        doc=doc,
    )


_SHAPES = "data and label have one shape; for data (N, 1) the label may be (N,). The gradient is\n"

_register(
    "LinearRegressionOutput",
    _identity,
    _backward,
    "The prediction itself, with the gradient of the squared error towards label.\n\n"
    + _SHAPES
    + "``(data - label) * grad_scale`` over the number of outputs per sample.",
)
_register(
    "LogisticRegressionOutput",
    _sigmoid,
    _backward,
    "The sigmoid of the prediction, with the gradient of the cross-entropy towards label.\n\n"
    + _SHAPES
    + "``(sigmoid(data) - label) * grad_scale`` over the number of outputs per sample.",
)
_register(
    "MAERegressionOutput",
    _identity,
    lambda call: _backward(call, signs_only=True),
    "The prediction itself, with the gradient of the absolute error towards label.\n\n"
    + _SHAPES
    + "``sign(data - label) * grad_scale`` over the number of outputs per sample.",
)
