"""SoftmaxOutput: softmax in forward, the gradient of the cross-entropy in backward.

The loss itself is never computed: its gradient with respect to the input is ``softmax - onehot(label)``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.device.kernels import kernels_for
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, choice, number
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, in_order, register


def _label_shapes(attrs: Attrs, data: Shape) -> list[Shape]:
    """The shapes a label may have, the usual one first; one like the data holds probabilities."""
    if attrs.multi_output:
        spatial = data[2:]
        usual = (data[0], math.prod(spatial))
        return [usual, (data[0], *spatial), (data[0], 1, *spatial), data]
    return [data[:-1], (data[0],), data]


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, label = inputs
    data = merge_shapes(data, outputs[0], "data")
    if data is None or -1 in data:
        return [data, label], [data], []
    if not data:
        raise InvalidArgument("data has shape (), expected at least one axis")
    allowed = _label_shapes(attrs, data)
    if label is None or -1 in label:
        label = merge_shapes(allowed[0], label, "label")
    elif label not in allowed:
        raise InvalidArgument(f"label: expected {allowed[0]} for data of shape {data}, got {label}")
    return [data, label], [data], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    data, label = inputs
    return [data, label if label is not None else data], [data], []


class _Rows:
    """The data as (rows, classes, places): the softmax runs over the middle axis."""

    def __init__(self, attrs: Attrs, shape: Shape):
        if attrs.multi_output:
            self.dims: tuple[int, ...] = (shape[0], shape[1] if len(shape) > 1 else 1, math.prod(shape[2:]))
        elif attrs.preserve_shape:
            self.dims = (math.prod(shape[:-1]), shape[-1], 1)
        else:
            self.dims = (shape[0], math.prod(shape[1:]), 1)
        if self.dims[2] == 1:  # two axes reduce faster than three
            self.dims = self.dims[:2]

    @property
    def places(self) -> int:
        return self.dims[2] if len(self.dims) == 3 else 1


def _forward(call: Call) -> Step:
    xp, rows = call.xp, _Rows(call.attrs, call.inputs[0].shape)
    x, y = call.inputs[0].reshape(rows.dims), call.outputs[0].reshape(rows.dims)
    kernels = kernels_for(x, y)
    if kernels is not None and len(rows.dims) == 2 and x.size:
        return lambda: kernels.softmax(x, y)
    per_row = call.scratch((rows.dims[0], 1, *rows.dims[2:]), x.dtype)

    def run() -> None:
        xp.max(x, axis=1, keepdims=True, out=per_row)
        xp.subtract(x, per_row, out=y)
        xp.exp(y, out=y)
        xp.sum(y, axis=1, keepdims=True, out=per_row)
        xp.divide(y, per_row, out=y)

    return run


def _backward(call: Call) -> Step:
    dx, dlabel = call.in_grads
    parts: list[Step] = []
    if dx is not None:
        same = call.inputs[1].shape == call.outputs[0].shape
        parts.append(_difference(call) if same else _cross_entropy_grad(call))
        if call.attrs.out_grad and call.out_grads[0] is not None:
            dy = call.out_grads[0]
            parts.append(lambda: call.xp.multiply(dx, dy, out=dx))
    if dlabel is not None:
        parts.append(lambda: dlabel.fill(0))
    return in_order(parts)


def _difference(call: Call) -> Step:
    """The gradient for labels that are probabilities."""
    xp, y, label, dx = call.xp, call.outputs[0], call.inputs[1], call.in_grads[0]
    scale = dx.dtype.type(call.attrs.grad_scale)

    def run() -> None:
        xp.subtract(y, label, out=dx)
        xp.multiply(dx, scale, out=dx)

    return run


def _cross_entropy_grad(call: Call) -> Step:
    """The gradient for labels that are classes; one that is out of range matches no class."""
    xp, attrs = call.xp, call.attrs
    rows = _Rows(attrs, call.inputs[0].shape)
    n, classes, places = rows.dims[0], rows.dims[1], rows.places
    y, dx, labels = call.outputs[0], call.in_grads[0], call.inputs[1].reshape(-1)
    used = labels[: n * places]
    kernels = kernels_for(y, dx, labels)
    plain = not attrs.use_ignore and not attrs.smooth_alpha and attrs.normalization != "valid"
    if kernels is not None and len(rows.dims) == 2 and plain:
        prob, grad, factor = y.reshape(rows.dims), dx.reshape(rows.dims), _scale(call, labels, places)()
        return lambda: kernels.softmax_cross_entropy_grad(prob, used, grad, factor)
    dtype = dx.dtype.type
    index = call.scratch((n * places,), np.int64)
    known = call.scratch((n * places,), bool)
    amount = call.scratch((n * places,), dx.dtype)
    start = xp.repeat(xp.arange(n) * classes * places, places) + xp.tile(xp.arange(places), n)
    flat = dx.reshape(-1)
    low = dtype(attrs.smooth_alpha / (classes - 1)) if attrs.smooth_alpha and classes > 1 else dtype(0)
    high = dtype(1) - dtype(attrs.smooth_alpha) - low
    scale = _scale(call, labels, places)
    ignore = _ignore_mask(call, rows) if attrs.use_ignore else None

    def run() -> None:
        xp.subtract(y, low, out=dx) if low else xp.copyto(dx, y)
        with np.errstate(invalid="ignore"):  # a label that is not a number is in no class
            xp.copyto(index, used, casting="unsafe")
        xp.less(index.view(np.uint64), np.uint64(classes), out=known)
        xp.multiply(known, high, out=amount)
        xp.multiply(index, known, out=index)
        xp.multiply(index, places, out=index)
        xp.add(index, start, out=index)
        flat[index] -= amount
        factor = scale()
        if factor != 1:
            xp.multiply(dx, factor, out=dx)
        if ignore is not None:
            ignore()

    return run


def _as_integers(call: Call, labels: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return labels.astype(np.int64)


def _scale(call: Call, labels: Any, places: int) -> Any:
    """A function that gives grad_scale over the normaliser of the current batch."""
    attrs, dtype = call.attrs, call.in_grads[0].dtype.type
    ignored = int(attrs.ignore_label)
    if attrs.normalization == "valid":

        def valid() -> Any:
            count = int((_as_integers(call, labels) != ignored).sum())
            return dtype(attrs.grad_scale / max(count, 1))

        return valid
    norm = labels.size if attrs.normalization == "batch" else places
    constant = dtype(attrs.grad_scale / norm)
    return lambda: constant


def _ignore_mask(call: Call, rows: _Rows) -> Step:
    xp, dx = call.xp, call.in_grads[0].reshape(rows.dims)
    labels = call.inputs[1].reshape(-1)[: rows.dims[0] * rows.places]
    shape = (rows.dims[0], 1, *rows.dims[2:])
    ignored = int(call.attrs.ignore_label)

    def run() -> None:
        keep = (_as_integers(call, labels) != ignored).reshape(shape)
        xp.multiply(dx, keep, out=dx)

    return run


register(
    "SoftmaxOutput",
    aliases=["Softmax"],
    params=[
        Param("grad_scale", number, 1.0, "A factor for the gradient."),
        Param("ignore_label", number, -1.0, "With use_ignore: samples of this class get no gradient."),
        Param("multi_output", boolean, False, "Classes lie along axis 1, with a label for each place."),
        Param("use_ignore", boolean, False, "Whether ignore_label counts."),
        Param("preserve_shape", boolean, False, "Softmax over the last axis instead of all but the first."),
        Param(
            "normalization", choice(("batch", "null", "valid")), "null", "What the gradient is divided by."
        ),
        Param("out_grad", boolean, False, "Multiply by the gradient of the output."),
        Param("smooth_alpha", number, 0.0, "Label smoothing: what the true class gives to the others."),
    ],
    arguments=["data", "label"],
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((1,), (0,)),
    inplace=[(0, 0)],
    is_loss=True,
    doc="""Softmax, with the gradient of the cross-entropy loss towards label.

data (N, K), label (N,) with classes as numbers, or (N, K) with probabilities. With ``multi_output``
data is (N, K, d1, d2, ...) and label (N, d1 * d2 * ...) or (N, d1, d2, ...).""",
)
