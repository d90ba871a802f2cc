"""Operators that give an array another shape and leave its memory alone: expand_dims, squeeze and kin."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.axes import is_known, normal_axis
from dmod.ops.elementwise import merge_shapes, same_shape
from dmod.ops.params import Param, choice, integer, optional, shape
from dmod.ops.registry import Attrs, Call, Dtypes, InferShape, Shape, Shapes, Step, register


def _forward(call: Call) -> Step:
    source, target = call.inputs[0].reshape(-1), call.outputs[0].reshape(-1)
    return lambda: call.xp.copyto(target, source)


def _backward(call: Call) -> Step:
    """Copy the gradient to the first input; inputs that only lend their shape get zeros."""
    xp, dy, (dx, *others) = call.xp, call.out_grads[0].reshape(-1), call.in_grads
    others = [grad for grad in others if grad is not None]
    target = None if dx is None else dx.reshape(-1)

    def run() -> None:
        if target is not None:
            xp.copyto(target, dy)
        for grad in others:
            grad.fill(0)

    return run


def _first_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return list(inputs), [inputs[0]], []


def _register(name: str, infer: InferShape, **rest: Any) -> None:
    register(
        name,
        infer_shape=infer,
        infer_type=_first_type,
        forward=_forward,
        backward=_backward,
        backward_inplace=[(0, 0)],
        view=True,
        **rest,
    )


def _infer_expand(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    (data,), (out,) = inputs, outputs
    if out is not None:
        axis = normal_axis(attrs.axis, out)
        data = merge_shapes((*out[:axis], *out[axis + 1 :]), data, "data")
    if data is None:
        return [None], [None], []
    axis = normal_axis(attrs.axis, data, ndim=len(data) + 1)
    return [data], [(*data[:axis], 1, *data[axis:])], []


def _squeezed(attrs: Attrs, data: Shape) -> Shape:
    axes = [i for i, n in enumerate(data) if n == 1]
    if attrs.axis is not None:
        axes = [normal_axis(i, data) for i in attrs.axis]
        if len(set(axes)) < len(axes):
            raise InvalidArgument(f"axis {attrs.axis} names an axis twice")
        for i in axes:
            if data[i] not in (1, -1):
                raise InvalidArgument(f"axis {i} of shape {data} has length {data[i]}, expected 1")
    left = tuple(n for i, n in enumerate(data) if i not in axes)
    return left or (1,)


def _infer_squeeze(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None or (attrs.axis is None and not is_known(data)):
        return [data], [None], []
    return [data], [_squeezed(attrs, data)], []


def _bounds(attrs: Attrs, side: str, dims: Shape) -> tuple[int, int]:
    begin, end = getattr(attrs, f"{side}_begin") or 0, getattr(attrs, f"{side}_end")
    end = len(dims) if end is None else end
    first, last = begin + len(dims) * (begin < 0), end + len(dims) * (end < 0)
    if not 0 <= first < last <= len(dims):
        raise InvalidArgument(
            f"{side}_begin={begin} and {side}_end={end} name no range of the {len(dims)} axes of {side}"
        )
    return first, last


def _infer_reshape_like(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    lhs, rhs = inputs
    if lhs is None or rhs is None or not is_known(lhs) or not is_known(rhs):
        return [lhs, rhs], [None], []
    out = rhs
    given = (attrs.lhs_begin, attrs.lhs_end, attrs.rhs_begin, attrs.rhs_end)
    if any(value is not None for value in given):
        first, last = _bounds(attrs, "lhs", lhs)
        begin, end = _bounds(attrs, "rhs", rhs)
        out = (*lhs[:first], *rhs[begin:end], *lhs[last:])
    if math.prod(out) != math.prod(lhs):
        raise InvalidArgument(
            f"lhs has shape {lhs}, {math.prod(lhs)} elements; the new shape {out} has {math.prod(out)}"
        )
    return [lhs, rhs], [out], []


def _infer_cast_storage(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if attrs.stype != "default":
        raise InvalidArgument(f"stype is {attrs.stype!r}; networks compute with dense arrays, 'default'")
    return same_shape(attrs, inputs, outputs)


_register(
    "expand_dims",
    _infer_expand,
    params=[Param("axis", integer, doc="Where the new axis stands in the output.")],
    doc="Insert an axis of length 1.",
)
_register(
    "squeeze",
    _infer_squeeze,
    params=[Param("axis", optional(shape), None, "The axes to drop; None: all of length 1.")],
    doc="Drop axes of length 1; at least one axis stays.",
)
_RANGE: Callable[[str, str], Param] = lambda name, doc: Param(name, optional(integer), None, doc)  # noqa: E731
_register(
    "reshape_like",
    _infer_reshape_like,
    arguments=["lhs", "rhs"],
    params=[
        _RANGE("lhs_begin", "The first axis of lhs that gets another shape."),
        _RANGE("lhs_end", "The axis after the last of them."),
        _RANGE("rhs_begin", "The first axis of rhs whose length is taken over."),
        _RANGE("rhs_end", "The axis after the last of them."),
    ],
    doc="Give lhs the shape of rhs, or a range of its axes the shape of a range of rhs's.",
)
_register(
    "_identity_with_attr_like_rhs",
    same_shape,
    arguments=["lhs", "rhs"],
    doc="lhs, which has the shape of rhs.",
)
_register(
    "cast_storage",
    _infer_cast_storage,
    params=[Param("stype", choice(("default", "row_sparse", "csr")), doc="The storage type.")],
    doc="Convert between storage types. In networks all arrays are dense.",
)
