"""Operators that choose one element of each row: pick, batch_take, fill_element_0index; and one_hot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.axes import normal_axis
from dmod.ops.elementwise import merge_shapes
from dmod.ops.indices import clipped, data_type, flat_positions, take_rows, wrapped
from dmod.ops.params import Param, boolean, choice, dtype, integer, number, optional
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register, zero_gradient


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, index = inputs
    if attrs.axis is None:
        raise InvalidArgument("axis is None, expected a number")
    if data is None:
        return [data, index], [None], []
    axis = normal_axis(attrs.axis, data)
    short, kept = (*data[:axis], *data[axis + 1 :]), (*data[:axis], 1, *data[axis + 1 :])
    index = merge_shapes(kept if index is not None and len(index) == len(kept) else short, index, "index")
    return [data, index], [kept if attrs.keepdims else short], []


def _dims(call: Call) -> tuple[int, int, int]:
    """The data's shape as (outer, picked axis, inner)."""
    shape = call.inputs[0].shape
    axis = call.attrs.axis % len(shape)
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def _picked(call: Call) -> tuple[Any, Step]:
    """Where the picked elements lie in the flat data, and the step that finds them."""
    outer, length, inner = dims = _dims(call)
    if call.attrs.mode == "wrap":
        index, fill = wrapped(call, call.inputs[1], length)
    else:
        index, fill = clipped(call, call.inputs[1], 0, length - 1)
    positions, locate = flat_positions(call, index.reshape(outer, 1, inner), dims)

    def run() -> None:
        fill()
        locate()

    return positions.reshape(-1), run


def _forward(call: Call) -> Step:
    positions, locate = _picked(call)
    look_up = take_rows(call, call.inputs[0].reshape(-1), positions, 0, call.outputs[0].reshape(-1))

    def run() -> None:
        locate()
        look_up()

    return run


def _backward(call: Call) -> Step:
    data_grad, index_grad = call.in_grads
    positions, locate = _picked(call)
    dy = call.out_grads[0].reshape(-1)
    target = None if data_grad is None else data_grad.reshape(-1)

    def run() -> None:
        if target is not None:
            locate()
            target.fill(0)
            target[positions] = dy
        if index_grad is not None:
            index_grad.fill(0)

    return run


register(
    "pick",
    aliases=["choose_element_0index"],
    arguments=["data", "index"],
    params=[
        Param("axis", optional(integer), -1, "The axis from which one element is picked."),
        Param("keepdims", boolean, False, "Keep that axis, with length 1."),
        Param(
            "mode",
            choice(("clip", "wrap")),
            "clip",
            "What an index out of bounds means: the nearest one, or one counted round.",
        ),
    ],
    infer_shape=_infer,
    infer_type=data_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((1,), ()),
    doc="One element along an axis, at the place that index says; index has data's other axes.",
)


def _infer_batch_take(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a, indices = inputs
    if a is None:
        return [a, indices], [indices], []
    if len(a) != 2:
        raise InvalidArgument(f"a has shape {a}, expected two axes")
    indices = merge_shapes(a[:1], indices, "indices")
    return [a, indices], [indices], []


def _int_indices(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    kind = np.dtype(np.int32)
    if inputs[1] not in (None, kind):
        raise InvalidArgument(f"indices has dtype {inputs[1]}, expected int32")
    return [inputs[0], kind], [inputs[0]], []


def _batch_take(call: Call) -> Step:
    (a, indices), (out,) = call.inputs, call.outputs
    index, fill = clipped(call, indices, 0, a.shape[1] - 1)
    positions, locate = flat_positions(call, index.reshape(-1, 1, 1), (*a.shape, 1))
    look_up = take_rows(call, a.reshape(-1), positions.reshape(-1), 0, out)

    def run() -> None:
        fill()
        locate()
        look_up()

    return run


register(
    "batch_take",
    arguments=["a", "indices"],
    infer_shape=_infer_batch_take,
    infer_type=_int_indices,
    forward=_batch_take,
    backward=None,
    doc="``a[i, indices[i]]`` for each row i of a matrix; `indices` is int32.",
)


def _infer_fill(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    lhs = merge_shapes(inputs[0], outputs[0], "output")
    if lhs is None:
        return list(inputs), [None], []
    if len(lhs) != 2:
        raise InvalidArgument(f"lhs has shape {lhs}, expected two axes")
    mhs, rhs = merge_shapes(lhs[:1], inputs[1], "mhs"), merge_shapes(lhs[:1], inputs[2], "rhs")
    return [lhs, mhs, rhs], [lhs], []


def _fill(call: Call) -> Step:
    xp, (lhs, values, places), (out,) = call.xp, call.inputs, call.outputs
    index, fill = clipped(call, places, 0, lhs.shape[1] - 1)
    positions, locate = flat_positions(call, index.reshape(-1, 1, 1), (*lhs.shape, 1))
    where, target = positions.reshape(-1), out.reshape(-1)

    def run() -> None:
        fill()
        locate()
        xp.copyto(out, lhs)
        target[where] = values

    return run


register(
    "fill_element_0index",
    arguments=["lhs", "mhs", "rhs"],
    infer_shape=_infer_fill,
    infer_type=data_type,
    forward=_fill,
    backward=None,
    doc="lhs with ``mhs[i]`` in the place of element ``rhs[i]`` of each row i.",
)


def _infer_one_hot(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    indices: Shape | None = inputs[0]
    if attrs.depth < 1:
        raise InvalidArgument(f"depth is {attrs.depth}, expected at least 1")
    if indices is None and outputs[0] is not None:
        indices = outputs[0][:-1]
    return [indices], [(*indices, attrs.depth) if indices is not None else None], []


def _one_hot(call: Call) -> Step:
    xp, attrs, (indices,), (out,) = call.xp, call.attrs, call.inputs, call.outputs
    index, fill = clipped(call, indices, -1, attrs.depth)
    hot = call.scratch(out.shape, bool)
    classes, places = xp.arange(attrs.depth), index.reshape(*index.shape, 1)
    on_value, off_value = (np.asarray(v).astype(out.dtype)[()] for v in (attrs.on_value, attrs.off_value))

    def run() -> None:
        fill()
        xp.equal(places, classes, out=hot)
        out.fill(off_value)
        xp.copyto(out, on_value, where=hot)

    return run


register(
    "one_hot",
    arguments=["indices"],
    params=[
        Param("depth", integer, doc="The number of classes."),
        Param("on_value", number, 1.0, "The value at the index."),
        Param("off_value", number, 0.0, "The value elsewhere."),
        Param("dtype", dtype, np.dtype(np.float32), "The output's dtype."),
    ],
    infer_shape=_infer_one_hot,
    infer_type=lambda attrs, inputs: (list(inputs), [attrs.dtype], []),
    forward=_one_hot,
    backward=zero_gradient,
    doc="A new last axis of `depth` elements: `on_value` at the index, `off_value` elsewhere.",
)
