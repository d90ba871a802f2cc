"""Operators that compute indices: ravel and unravel multi-indices, list the indices of an array."""

from __future__ import annotations

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.axes import is_known, normal_axis
from dmod.ops.indices import clipped
from dmod.ops.params import Param, optional, shape
from dmod.ops.registry import Attrs, Call, Shapes, Step, register, zero_gradient

_FAR = 2**62
_SHAPE = [Param("shape", shape, (), "The shape that the indices count in; its first axis may be -1.")]


def _need_shape(attrs: Attrs) -> int:
    if not attrs.shape or any(n < 1 for n in attrs.shape[1:]):
        raise InvalidArgument(f"shape is {attrs.shape}, expected lengths of axes")
    return len(attrs.shape)


def _infer_ravel(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, count = inputs[0], _need_shape(attrs)
    if data is None:
        return [None], [None], []
    if len(data) != 2 or data[0] not in (count, -1):
        raise InvalidArgument(f"data has shape {data}, expected ({count}, N) for indices of {attrs.shape}")
    return [(count, data[1])], [(data[1],)], []


def _ravel(call: Call) -> Step:
    xp, (data,), (out,), dims = call.xp, call.inputs, call.outputs, call.attrs.shape
    index, fill = clipped(call, data, -_FAR, _FAR)
    flat = call.scratch(out.shape, np.int64)
    rows = list(index)

    def run() -> None:
        fill()
        flat.fill(0)
        for row, n in zip(rows, dims, strict=True):
            xp.multiply(flat, n, out=flat)
            xp.add(flat, row, out=flat)
        xp.copyto(out, flat, casting="unsafe")

    return run


register(
    "_ravel_multi_index",
    aliases=["ravel_multi_index"],
    params=_SHAPE,
    infer_shape=_infer_ravel,
    forward=_ravel,
    backward=zero_gradient,
    doc="The flat indices of the columns of a matrix (M, N), which address an array of M axes.",
)


def _infer_unravel(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, count = inputs[0], _need_shape(attrs)
    return [data], [None if data is None else (count, *data)], []


def _unravel(call: Call) -> Step:
    xp, (data,), (out,), dims = call.xp, call.inputs, call.outputs, call.attrs.shape
    rest, fill = clipped(call, data, -_FAR, _FAR)
    part = call.scratch(data.shape, np.int64)

    def run() -> None:
        fill()
        for axis in range(len(dims) - 1, 0, -1):
            xp.remainder(rest, dims[axis], out=part)
            xp.copyto(out[axis], part, casting="unsafe")
            xp.floor_divide(rest, dims[axis], out=rest)
        xp.copyto(out[0], rest, casting="unsafe")

    return run


register(
    "_unravel_index",
    aliases=["unravel_index"],
    params=_SHAPE,
    infer_shape=_infer_unravel,
    forward=_unravel,
    backward=zero_gradient,
    doc="For each flat index the indices of all axes, along a new first axis.",
)


def _infer_array(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [None], [None], []
    axes = range(len(data)) if attrs.axes is None else [normal_axis(i, data, "axes") for i in attrs.axes]
    return [data], [(*data, len(axes))] if is_known(data) else [None], []


def _index_array(call: Call) -> Step:
    xp, (out,), shape = call.xp, call.outputs, call.inputs[0].shape
    axes = range(len(shape)) if call.attrs.axes is None else [i % len(shape) for i in call.attrs.axes]
    counts = [xp.arange(n).reshape((n,) + (1,) * (len(shape) - 1 - i)) for i, n in enumerate(shape)]
    pairs = [(out[..., k], counts[i]) for k, i in enumerate(axes)]

    def run() -> None:
        for target, count in pairs:
            xp.copyto(target, count)

    return run


register(
    "_contrib_index_array",
    params=[Param("axes", optional(shape), None, "The axes whose indices are listed; None: all.")],
    infer_shape=_infer_array,
    infer_type=lambda attrs, inputs: (list(inputs), [np.dtype(np.int64)], []),
    forward=_index_array,
    backward=zero_gradient,
    doc="The indices of each element, int64, along a new last axis.",
)
