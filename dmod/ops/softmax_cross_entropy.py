"""softmax_cross_entropy: the summed cross-entropy between a softmax and class numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register

# MXNet takes no logarithm of less than this: a class that the softmax excludes costs 18.4, not infinity.
LEAST = 1e-8


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, label = inputs
    if data is not None and len(data) != 2:
        raise InvalidArgument(f"data has shape {data}, expected (N, K)")
    if data is not None or label is not None:
        label = merge_shapes(data[:1] if data is not None else (-1,), label, "label")
    return [data, label], [(1,)], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    data, label = inputs
    return [data, label if label is not None else data], [data], []


def _softmax(call: Call, y: Any, per_row: Any) -> None:
    xp, x = call.xp, call.inputs[0]
    xp.max(x, axis=1, keepdims=True, out=per_row)
    xp.subtract(x, per_row, out=y)
    xp.exp(y, out=y)
    xp.sum(y, axis=1, keepdims=True, out=per_row)
    xp.divide(y, per_row, out=y)


class _Classes:
    """Where each row's class lies; a label outside of the classes is in none, as in SoftmaxOutput."""

    def __init__(self, call: Call):
        (n, self.count), self.xp, self.label = call.inputs[0].shape, call.xp, call.inputs[1]
        self.rows = call.xp.arange(n)
        self.index = call.scratch((n,), np.int64)
        self.known = call.scratch((n,), bool)

    def read(self) -> tuple[Any, Any]:
        """The places of the classes; `known` says which of them are real."""
        self.xp.copyto(self.index, self.label, casting="unsafe")
        self.xp.less(self.index.view(np.uint64), np.uint64(self.count), out=self.known)
        self.xp.multiply(self.index, self.known, out=self.index)
        return self.rows, self.index


def _forward(call: Call) -> Step:
    xp, x, out = call.xp, call.inputs[0], call.outputs[0]
    y, per_row = call.scratch(x.shape, x.dtype), call.scratch((x.shape[0], 1), x.dtype)
    classes, least = _Classes(call), x.dtype.type(LEAST)

    def run() -> None:
        _softmax(call, y, per_row)
        chosen = xp.log(xp.maximum(y[classes.read()], least))
        xp.multiply(chosen, classes.known, out=chosen)
        xp.negative(chosen.sum(keepdims=True), out=out)

    return run


def _backward(call: Call) -> Step:
    xp, x, dy, (dx, dlabel) = call.xp, call.inputs[0], call.out_grads[0], call.in_grads
    per_row, classes = call.scratch((x.shape[0], 1), x.dtype), _Classes(call)

    def run() -> None:
        if dx is not None:
            _softmax(call, dx, per_row)
            dx[classes.read()] -= classes.known
            xp.multiply(dx, dy, out=dx)
        if dlabel is not None:
            dlabel.fill(0)

    return run


register(
    "softmax_cross_entropy",
    arguments=["data", "label"],
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((0, 1), ()),
    doc="""The cross-entropy of ``softmax(data)`` towards label, summed over the rows, of shape (1,).

data (N, K), label (N,) with classes as numbers.""",
)
