"""L2Normalization: divide samples, channels or positions by their Euclidean norm."""

from __future__ import annotations

import math
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.columns import work_dtype
from dmod.ops.convolution import float_type
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, choice, number
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register

__all__: list[str] = []


def _dims(attrs: Attrs, data: Shape) -> tuple[Shape, int]:
    """The data as (N, channels, positions), and the axis of the norm."""
    if attrs.mode == "instance":
        return (data[0], 1, math.prod(data[1:])), 2
    return (data[0], data[1], math.prod(data[2:])), 1 if attrs.mode == "channel" else 2


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = merge_shapes(inputs[0], outputs[0], "data")
    least = 1 if attrs.mode == "instance" else 3
    if data is not None and len(data) < least:
        raise InvalidArgument(f"data: expected at least {least} axes for mode {attrs.mode!r}, got {data}")
    if data is None or -1 in data:
        return [data], [data, None], []
    dims, axis = _dims(attrs, data)
    return [data], [data, tuple(1 if i == axis else n for i, n in enumerate(dims))], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    arguments, outputs, aux = float_type(attrs, inputs)
    return arguments, list(outputs) * 2, aux


def _forward(call: Call) -> Step:
    xp, (dims, axis) = call.xp, _dims(call.attrs, call.inputs[0].shape)
    x, y, norm_out = call.inputs[0].reshape(dims), call.outputs[0].reshape(dims), call.outputs[1]
    dtype = work_dtype(x.dtype)
    squares, norm = call.scratch(dims, dtype), call.scratch(norm_out.shape, dtype)
    norm_sum: Any = norm.squeeze(axis)
    eps = dtype.type(call.attrs.eps)

    def run() -> None:
        xp.multiply(x, x, out=squares, dtype=dtype)
        xp.sum(squares, axis=axis, out=norm_sum)
        xp.add(norm, eps, out=norm)
        xp.sqrt(norm, out=norm)
        xp.copyto(norm_out, norm, casting="same_kind")
        xp.divide(x, norm, out=y, casting="same_kind")

    return run


def _backward(call: Call) -> Step:
    """``dx = (dy - y * sum(dy * y)) / norm``."""
    xp, (dims, axis) = call.xp, _dims(call.attrs, call.outputs[0].shape)
    y, norm = call.outputs[0].reshape(dims), call.outputs[1]
    dy, dx = call.out_grads[0].reshape(dims), call.in_grads[0].reshape(dims)
    product, part = call.scratch(dims, y.dtype), call.scratch(norm.shape, y.dtype)
    part_sum: Any = part.squeeze(axis)

    def run() -> None:
        xp.multiply(dy, y, out=product)
        xp.sum(product, axis=axis, out=part_sum)
        xp.multiply(y, part, out=product)
        xp.subtract(dy, product, out=product)
        xp.divide(product, norm, out=dx)

    return run


register(
    "L2Normalization",
    params=[
        Param("eps", number, 1e-10, "Added to the sum of squares."),
        Param(
            "mode",
            choice(("channel", "instance", "spatial")),
            "instance",
            "What has norm 1: a sample, the channels at a position, or a channel's positions.",
        ),
    ],
    outputs=["output", "norm"],
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((), (0, 1)),
    doc="Divide by ``sqrt(sum(data**2) + eps)``; data is (N, ...), for 'channel' and 'spatial' (N, C, ...).",
)
