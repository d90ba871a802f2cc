"""Operators that repeat elements or whole arrays: repeat, tile."""

from __future__ import annotations

import math

from dmod.base import InvalidArgument
from dmod.ops.axes import is_known, normal_axis
from dmod.ops.params import Param, integer, optional, shape
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register


def _broadcast(call: Call, old: Shape, new: Shape) -> Step:
    """Copy the input, seen as `old`, into the output, seen as `new`: lengths of 1 are repeated."""
    xp, source, target = call.xp, call.inputs[0].reshape(old), call.outputs[0].reshape(new)
    return lambda: xp.copyto(target, source)


def _summed(call: Call, old: Shape, new: Shape, axes: tuple[int, ...]) -> Step:
    """The gradient of `_broadcast`: a sum over the repeated axes."""
    xp, source, target = call.xp, call.out_grads[0].reshape(new), call.in_grads[0].reshape(old)
    return lambda: xp.sum(source, axis=axes, keepdims=True, out=target)


def _infer_repeat(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if attrs.repeats < 0:
        raise InvalidArgument(f"repeats is {attrs.repeats}, expected at least 0")
    if data is None:
        return [data], [None], []
    if attrs.axis is None:
        return [data], [(math.prod(data) * attrs.repeats if is_known(data) else -1,)], []
    axis = normal_axis(attrs.axis, data)
    length = data[axis] * attrs.repeats if data[axis] >= 0 else -1
    return [data], [(*data[:axis], length, *data[axis + 1 :])], []


def _repeat_dims(call: Call) -> tuple[Shape, Shape]:
    data, axis = call.inputs[0].shape, call.attrs.axis
    outer = inner = 1
    if axis is not None:
        axis %= len(data)
        outer, inner = math.prod(data[:axis]), math.prod(data[axis + 1 :])
    length = math.prod(data) if axis is None else data[axis]
    return (outer, length, 1, inner), (outer, length, call.attrs.repeats, inner)


def _repeat_grad(call: Call) -> Step:
    old, new = _repeat_dims(call)
    return _summed(call, old, new, (2,))


register(
    "repeat",
    params=[
        Param("repeats", integer, doc="How often each element is repeated."),
        Param("axis", optional(integer), None, "The axis; None: of the flattened array."),
    ],
    infer_shape=_infer_repeat,
    forward=lambda call: _broadcast(call, *_repeat_dims(call)),
    backward=_repeat_grad,
    doc="Repeat each element along an axis: [a, b] becomes [a, a, b, b].",
)


def _aligned(attrs: Attrs, data: Shape) -> list[tuple[int, int]]:
    """For each axis of the output: how often the input is repeated, and its length."""
    if any(n < 1 for n in attrs.reps):
        raise InvalidArgument(f"reps is {attrs.reps}, expected numbers of at least 1")
    ndim = max(len(data), len(attrs.reps))
    reps = (1,) * (ndim - len(attrs.reps)) + tuple(attrs.reps)
    dims = (1,) * (ndim - len(data)) + data
    return list(zip(reps, dims, strict=True))


def _infer_tile(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [None], [None], []
    return [data], [tuple(r * n if n >= 0 else -1 for r, n in _aligned(attrs, data))], []


def _tile_dims(call: Call) -> tuple[Shape, Shape]:
    pairs = _aligned(call.attrs, call.inputs[0].shape)
    return tuple(m for _, n in pairs for m in (1, n)), tuple(m for pair in pairs for m in pair)


def _tile_grad(call: Call) -> Step:
    old, new = _tile_dims(call)
    return _summed(call, old, new, tuple(range(0, len(new), 2)))


register(
    "tile",
    params=[Param("reps", shape, doc="How often the array is repeated along each axis, from the last on.")],
    infer_shape=_infer_tile,
    forward=lambda call: _broadcast(call, *_tile_dims(call)),
    backward=_tile_grad,
    doc="Repeat the whole array along each axis: [a, b] becomes [a, b, a, b].",
)
