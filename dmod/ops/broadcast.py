"""Operators that repeat an array along axes of length 1: broadcast_to, broadcast_axis, broadcast_like."""

from __future__ import annotations

from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.params import Param, optional, shape
from dmod.ops.reduction import Reduction, one_axis
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register


def _widen(data: Shape, lengths: dict[int, int], argument: str) -> Shape:
    """`data` with new lengths for some of its axes, which must have length 1 or that length."""
    for axis, n in lengths.items():
        if data[axis] not in (1, n, -1) and n != -1:
            raise InvalidArgument(
                f"{argument}: expected length 1 on axis {axis} to broadcast it to {n}, got shape {data}"
            )
    return tuple(lengths.get(axis, n) for axis, n in enumerate(data))


def _forward(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    spread = Reduction.to_shape(y.shape, x.shape)
    x, y = x.reshape(spread.kept), y.reshape(spread.full)
    return lambda: xp.copyto(y, x)


def _backward(call: Call) -> Step:
    """The first input's gradient is a sum; a second one only lent its shape."""
    dy, dx, *others = call.out_grads[0], *call.in_grads
    unused = [grad for grad in others if grad is not None]
    add_up = None if dx is None else Reduction.to_shape(dy.shape, dx.shape).sum(call.xp, dy, dx)

    def run() -> None:
        for grad in unused:
            grad.fill(0)
        if add_up is not None:
            add_up()

    return run


def _infer_to(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [data], [None], []
    if len(data) != len(attrs.shape):
        raise InvalidArgument(f"data: expected {len(attrs.shape)} axes for shape={attrs.shape}, got {data}")
    return [data], [_widen(data, {i: n for i, n in enumerate(attrs.shape) if n != 0}, "data")], []


def _infer_axis(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if len(attrs.axis) != len(attrs.size):
        raise InvalidArgument(f"size: expected a length for each of axis={attrs.axis}, got {attrs.size}")
    if data is None:
        return [data], [None], []
    lengths = {one_axis(axis, len(data)): size for axis, size in zip(attrs.axis, attrs.size, strict=True)}
    return [data], [_widen(data, lengths, "data")], []


def _infer_like(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    left, right = inputs
    if left is None or right is None:
        return [left, right], [None], []
    lhs_axes, rhs_axes = attrs.lhs_axes, attrs.rhs_axes
    if (lhs_axes is None) != (rhs_axes is None) or len(lhs_axes or ()) != len(rhs_axes or ()):
        raise InvalidArgument(f"rhs_axes: expected one for each of lhs_axes={lhs_axes}, got {rhs_axes}")
    if lhs_axes is None:
        if len(left) != len(right):
            raise InvalidArgument(f"lhs: expected {len(right)} axes as rhs has, got {left}; rhs is {right}")
        pairs = list(enumerate(range(len(right))))
    else:
        pairs = [
            (one_axis(a, len(left), "lhs"), one_axis(b, len(right), "rhs"))
            for a, b in zip(lhs_axes, rhs_axes, strict=True)
        ]
    return [left, right], [_widen(left, {a: right[b] for a, b in pairs}, "lhs")], []


def _register(name: str, infer: Any, params: list[Param], doc: str, **options: Any) -> None:
    register(name, params=params, infer_shape=infer, forward=_forward, backward=_backward, doc=doc, **options)


_register(
    "broadcast_to",
    _infer_to,
    [Param("shape", shape, (), "The output's shape; 0 keeps an axis.")],
    "Repeat the array along axes of length 1 until it has the given shape.",
)
_register(
    "broadcast_axis",
    _infer_axis,
    [
        Param("axis", shape, (), "The axes to repeat along, of length 1."),
        Param("size", shape, (), "Their lengths in the output."),
    ],
    "Repeat the array along some axes of length 1.",
    aliases=["broadcast_axes"],
)
_register(
    "broadcast_like",
    _infer_like,
    [
        Param("lhs_axes", optional(shape), None, "The axes of lhs to repeat along; all by default."),
        Param("rhs_axes", optional(shape), None, "The axes of rhs that have their lengths."),
    ],
    "Repeat lhs along axes of length 1 until it has the shape of rhs.",
    arguments=["lhs", "rhs"],
)
