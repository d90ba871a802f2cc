"""Operators that order elements along an axis: sort, argsort, topk. Equal elements keep their order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.axes import normal_axis
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, choice, dtype, integer, optional
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register, zero_gradient

_PLACES = np.dtype(np.int32)
"""The dtype of indices that users do not see."""


def _ordered(call: Call) -> tuple[Any, int]:
    """The input as (outer, axis, inner), and its axis' length."""
    x, axis = call.inputs[0], call.attrs.axis
    if axis is None:
        return x.reshape(1, x.size, 1), x.size
    axis %= x.ndim
    shape = x.shape
    return x.reshape(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])), shape[axis]


def _count(attrs: Attrs, length: int) -> int:
    """How many elements are kept."""
    k = getattr(attrs, "k", 0)
    if k > length >= 0:
        raise InvalidArgument(f"k is {k}, more than the {length} elements of the axis")
    return k if k > 0 else length


def _order(xp: Any, x: Any, ascending: bool) -> Any:
    """The stable order of (outer, axis, inner) along the middle axis."""
    if ascending:
        return xp.argsort(x, axis=1, kind="stable")
    # Not of -x: unsigned numbers and the least signed one have no negative.
    backwards = xp.argsort(x[:, ::-1], axis=1, kind="stable")
    return x.shape[1] - 1 - backwards[:, ::-1]


def _flat(xp: Any, places: Any, dims: tuple[int, int, int]) -> Any:
    """Where places along the middle axis lie in the flat array."""
    outer, length, inner = dims
    offsets = (xp.arange(outer) * (length * inner)).reshape(-1, 1, 1) + xp.arange(inner)
    return places.astype(np.int64) * inner + offsets


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    count = len(outputs)
    if data is None:
        return [None], [None] * count, []
    if attrs.axis is None:
        size = -1 if -1 in data else math.prod(data)
        out: Shape = (_count(attrs, size),)
    else:
        axis = normal_axis(attrs.axis, data)
        out = (*data[:axis], _count(attrs, data[axis]), *data[axis + 1 :])
    if getattr(attrs, "ret_typ", "") == "mask":
        out = data
    return [merge_shapes(data, inputs[0])], [out] * count, []


def _forward(call: Call, value: Any, places: Any, mask: Any = None) -> Step:
    """Write what is wanted of the values in order, their places, and a mask of those that are kept."""
    xp, ascending = call.xp, call.attrs.is_ascend
    x, length = _ordered(call)
    k = _count(call.attrs, length)
    dims, marks = x.shape, None if mask is None else mask.reshape(-1)
    values = None if value is None else value.reshape(dims[0], k, dims[2])
    numbers = None if places is None else places.reshape(dims[0], k, dims[2])

    def run() -> None:
        order = _order(xp, x, ascending)[:, :k]
        if values is not None:
            xp.copyto(values, xp.take_along_axis(x, order, axis=1))
        if numbers is not None:
            xp.copyto(numbers, order, casting="unsafe")
        if marks is not None:
            marks.fill(0)
            marks[_flat(xp, order, dims)] = 1

    return run


def _value_grad(call: Call) -> Step:
    """The gradient goes back to where the values came from."""
    xp, dy, places, (dx,) = call.xp, call.out_grads[0], call.outputs[1], call.in_grads
    x, length = _ordered(call)
    dims, k = x.shape, _count(call.attrs, length)
    target = dx.reshape(-1)
    source, numbers = dy.reshape(dims[0], k, dims[2]), places.reshape(dims[0], k, dims[2])

    def run() -> None:
        target.fill(0)
        target[_flat(xp, numbers, dims)] = source

    return run


_AXIS = Param("axis", optional(integer), -1, "The axis; None: of the flattened array.")
_DTYPE = Param("dtype", dtype, np.dtype(np.float32), "The dtype of the indices.")
register(
    "sort",
    params=[_AXIS, Param("is_ascend", boolean, True, "Whether the smallest comes first.")],
    outputs=["output0", "output1"],
    infer_shape=_infer,
    infer_type=lambda attrs, inputs: (list(inputs), [inputs[0], _PLACES], []),
    forward=lambda call: _forward(call, *call.outputs),
    backward=_value_grad,
    backward_reads=((), (1,)),
    doc="The elements in order along an axis.",
)
register(
    "argsort",
    params=[_AXIS, Param("is_ascend", boolean, True, "Whether the smallest comes first."), _DTYPE],
    infer_shape=_infer,
    infer_type=lambda attrs, inputs: (list(inputs), [attrs.dtype], []),
    forward=lambda call: _forward(call, None, call.outputs[0]),
    backward=zero_gradient,
    doc="The indices that put the elements in order along an axis.",
)


def _outputs(attrs: Attrs) -> list[str]:
    return ["output0", "output1"] if attrs.ret_typ in ("both", "value") else ["output"]


def _topk_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    data = inputs[0]
    outputs = {
        "indices": [attrs.dtype],
        "mask": [data],
        "value": [data, _PLACES],
        "both": [data, attrs.dtype],
    }
    return [data], outputs[attrs.ret_typ], []


def _topk(call: Call) -> Step:
    if call.attrs.ret_typ == "mask":
        return _forward(call, None, None, call.outputs[0])
    if call.attrs.ret_typ == "indices":
        return _forward(call, None, call.outputs[0])
    return _forward(call, *call.outputs)


def _topk_grad(call: Call) -> Step:
    return (_value_grad if call.attrs.ret_typ in ("both", "value") else zero_gradient)(call)


register(
    "topk",
    params=[
        _AXIS,
        Param("k", integer, 1, "How many elements; below 1: all."),
        Param(
            "ret_typ",
            choice(("both", "indices", "mask", "value")),
            "indices",
            "What is given: the values, their indices, both, or an array of ones where they are.",
        ),
        Param("is_ascend", boolean, False, "Whether the smallest elements are meant."),
        _DTYPE,
    ],
    outputs=_outputs,
    num_visible=lambda attrs: 2 if attrs.ret_typ == "both" else 1,
    infer_shape=_infer,
    infer_type=_topk_type,
    forward=_topk,
    backward=_topk_grad,
    backward_reads=lambda attrs: ((), (1,) if attrs.ret_typ in ("both", "value") else ()),
    doc="The k largest elements along an axis, in order.",
)
