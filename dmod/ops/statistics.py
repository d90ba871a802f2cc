"""Norms, moments, positions of extrema, running sums, and what says whether numbers are finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import same_shape
from dmod.ops.integers import through_float64
from dmod.ops.params import Param, boolean, choice, integer, optional, shape
from dmod.ops.reduce import AXIS, KEEPDIMS, reduction_of
from dmod.ops.reduction import Reduction, normal_axes, one_axis, reduced_shape, sum_dtype
from dmod.ops.registry import Attrs, Builder, Call, Dtypes, Shapes, Step, register, zero_gradient

_OUT_DTYPES = choice(("None", "float16", "float32", "float64", "int32", "int64", "int8"))


def _chosen_dtype(name: str) -> Callable[[Attrs, Dtypes], tuple[Dtypes, Dtypes, Dtypes]]:
    """The dtype rule of an operator with a parameter for the output's dtype."""

    def infer(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        chosen = getattr(attrs, name)
        return list(inputs), [inputs[0] if chosen in (None, "None") else np.dtype(chosen)], []

    return infer


# ---- norm


def _infer_norm(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if attrs.ord not in (1, 2):
        raise InvalidArgument(f"ord: expected 1 or 2, got {attrs.ord}")
    data = inputs[0]
    if data is None:
        return [data], [None], []
    return [data], [reduced_shape(data, normal_axes(attrs.axis, len(data)), attrs.keepdims)], []


def _norm(call: Call) -> Step:
    xp, (x,), (y,), is_first = call.xp, call.inputs, call.outputs, call.attrs.ord == 1
    wide = sum_dtype(x.dtype)
    sizes, total = call.scratch(x.shape, wide), call.scratch(y.shape, wide)
    add_up = reduction_of(call).sum(xp, sizes, total)

    def run() -> None:
        if is_first:
            xp.absolute(x, out=sizes)
            add_up()
        else:
            xp.multiply(x, x, out=sizes, dtype=wide)
            add_up()
            xp.sqrt(total, out=total)
        xp.copyto(y, total, casting="unsafe")

    return run


def _norm_gradient(call: Call) -> Step:
    xp, red = call.xp, reduction_of(call)
    x, y = call.inputs[0].reshape(red.full), call.outputs[0].reshape(red.kept)
    dy, dx = call.out_grads[0].reshape(red.kept), call.in_grads[0].reshape(red.full)
    is_first = call.attrs.ord == 1
    slope = call.scratch(dx.shape if is_first else dy.shape, sum_dtype(dx.dtype))

    def run() -> None:
        if is_first:
            xp.sign(x, out=slope)
            xp.multiply(slope, dy, out=dx, casting="same_kind")
        else:
            xp.divide(dy, y, out=slope, casting="same_kind")
            xp.multiply(slope, x, out=dx, casting="same_kind")

    return run


register(
    "norm",
    params=[
        Param("ord", integer, 2, "1: the sum of sizes; 2: the root of the sum of squares."),
        AXIS,
        Param("out_dtype", _OUT_DTYPES, "None", "The output's dtype; the input's by default."),
        KEEPDIMS,
    ],
    infer_shape=_infer_norm,
    infer_type=_chosen_dtype("out_dtype"),
    forward=through_float64(_norm),
    backward=through_float64(_norm_gradient),
    backward_reads=lambda attrs: ((0,), () if attrs.ord == 1 else (0,)),
    doc="The norm over axes; over several, that of all their elements together.",
)


# ---- moments


def _infer_moments(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if not attrs.axes:
        raise InvalidArgument("axes: expected the axes to take moments over, got none")
    data = inputs[0]
    if data is None:
        return [data], [None, None], []
    found = reduced_shape(data, normal_axes(attrs.axes, len(data), name="axes"), attrs.keepdims)
    return [data], [found, found], []


def _moments_reduction(call: Call) -> Reduction:
    x = call.inputs[0]
    return Reduction(x.shape, normal_axes(call.attrs.axes, x.ndim))


def _moments(call: Call) -> Step:
    xp, red, (x,), (mean, var) = call.xp, _moments_reduction(call), call.inputs, call.outputs
    wide, count = sum_dtype(x.dtype), red.count
    centred = call.scratch(red.full, wide)
    middle, spread = (call.scratch(red.kept, wide) for _ in range(2))
    sum_x, sum_squares = red.sum(xp, x, middle), red.sum(xp, centred, spread)
    x, mean, var = x.reshape(red.full), mean.reshape(red.kept), var.reshape(red.kept)

    def run() -> None:
        sum_x()
        xp.divide(middle, count, out=middle)
        xp.subtract(x, middle, out=centred)
        xp.multiply(centred, centred, out=centred)
        sum_squares()
        xp.divide(spread, count, out=var, casting="same_kind")
        xp.copyto(mean, middle, casting="same_kind")

    return run


def _moments_gradient(call: Call) -> Step:
    xp, red = call.xp, _moments_reduction(call)
    x, mean = call.inputs[0].reshape(red.full), call.outputs[0].reshape(red.kept)
    dmean, dvar = (g.reshape(red.kept) for g in call.out_grads)
    dx, share = call.in_grads[0].reshape(red.full), 1 / max(1, red.count)
    scale = call.scratch(red.kept, dx.dtype)

    def run() -> None:
        xp.subtract(x, mean, out=dx)
        xp.multiply(dvar, 2 * share, out=scale)
        xp.multiply(dx, scale, out=dx)
        xp.multiply(dmean, share, out=scale)
        xp.add(dx, scale, out=dx)

    return run


register(
    "moments",
    params=[Param("axes", optional(shape), None, "The axes to take moments over."), KEEPDIMS],
    outputs=["output0", "output1"],
    num_visible=2,
    infer_shape=_infer_moments,
    infer_type=lambda attrs, inputs: (list(inputs), [inputs[0], inputs[0]], []),
    forward=through_float64(_moments),
    backward=through_float64(_moments_gradient),
    backward_reads=((0,), (0,)),
    doc="The mean and the variance over axes.",
)


# ---- argmax, argmin


def _infer_position(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [data], [None], []
    axes = normal_axes(None if attrs.axis is None else (attrs.axis,), len(data))
    if any(data[i] == 0 for i in axes):
        raise InvalidArgument(f"data: expected at least one element to search, got shape {data}")
    return [data], [reduced_shape(data, axes, attrs.keepdims)], []


def _position(function: str, axis_of: Callable[[Attrs], int | None]) -> Builder:
    def build(call: Call) -> Step:
        xp, (x,), (y,), axis = call.xp, call.inputs, call.outputs, axis_of(call.attrs)
        x = x.reshape(-1) if axis is None else x
        axis = 0 if axis is None else axis % x.ndim
        found = call.scratch(x.shape[:axis] + x.shape[axis + 1 :], np.int64)
        y, apply = y.reshape(found.shape), getattr(xp, function)

        def run() -> None:
            apply(x, axis=axis, out=found)
            xp.copyto(y, found, casting="unsafe")

        return run

    return build


for _name, _word in (("argmax", "greatest"), ("argmin", "least")):
    register(
        _name,
        params=[Param("axis", optional(integer), None, "The axis to search; all by default."), KEEPDIMS],
        infer_shape=_infer_position,
        forward=_position(_name, lambda attrs: attrs.axis),
        backward=zero_gradient,
        doc=f"The position of the {_word} element along an axis, the first of several, in the input's dtype.",
    )


def _infer_channel(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [data], [None], []
    if len(data) < 2:
        raise InvalidArgument(f"data: expected at least 2 axes, got shape {data}")
    return [data], [reduced_shape(data, (1,), False)], []


register(
    "argmax_channel",
    infer_shape=_infer_channel,
    forward=_position("argmax", lambda attrs: 1),
    backward=None,
    doc="The position of the greatest element along axis 1, in the input's dtype.",
)


# ---- cumsum


def _infer_cumsum(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if attrs.axis is not None:
        if data is not None:
            one_axis(attrs.axis, len(data), "a")
        return same_shape(attrs, inputs, outputs)
    if data is None or -1 in data:
        return [data], [None], []
    return [data], [(math.prod(data),)], []


def _cumsum(call: Call) -> Step:
    xp, (x,), (y,), axis = call.xp, call.inputs, call.outputs, call.attrs.axis
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    return lambda: xp.cumsum(x, axis=axis, dtype=y.dtype, out=y)


def _cumsum_gradient(call: Call) -> Step:
    """The running sum from the other end."""
    xp, (dy,), (dx,), axis = call.xp, call.out_grads, call.in_grads, call.attrs.axis
    dx, axis = (dx.reshape(-1), 0) if axis is None else (dx, axis % dx.ndim)
    back = (slice(None),) * axis + (slice(None, None, -1),)
    total = dx if dx.dtype == dy.dtype else call.scratch(dy.shape, dy.dtype)
    source, target = dy[back], total[back]

    def run() -> None:
        xp.cumsum(source, axis=axis, dtype=target.dtype, out=target)
        if total is not dx:
            xp.copyto(dx, total, casting="unsafe")

    return run


register(
    "_np_cumsum",
    aliases=["cumsum"],
    params=[
        Param("axis", optional(integer), None, "The axis to add along; over all elements by default."),
        Param("dtype", _OUT_DTYPES, "None", "The output's dtype; the input's by default."),
    ],
    arguments=["a"],
    infer_shape=_infer_cumsum,
    infer_type=_chosen_dtype("dtype"),
    forward=_cumsum,
    backward=_cumsum_gradient,
    doc="Running sums along an axis, or over all elements in one row.",
)


# ---- shapes as arrays


def _int64(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return list(inputs), [np.dtype(np.int64)], []


def _constant(values: Callable[[Any], list[int]]) -> Builder:
    def build(call: Call) -> Step:
        y, numbers = call.outputs[0], values(call.inputs[0])

        def run() -> None:
            for i, n in enumerate(numbers):
                y[i : i + 1].fill(n)

        return run

    return build


def _infer_shape_array(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    return list(inputs), [None if inputs[0] is None else (len(inputs[0]),)], []


register(
    "shape_array",
    infer_shape=_infer_shape_array,
    infer_type=_int64,
    forward=_constant(lambda x: list(x.shape)),
    backward=zero_gradient,
    doc="The input's shape as an int64 array.",
)
register(
    "size_array",
    infer_shape=lambda attrs, inputs, outputs: (list(inputs), [(1,)], []),
    infer_type=_int64,
    forward=_constant(lambda x: [x.size]),
    backward=zero_gradient,
    doc="The number of the input's elements as an int64 array of one.",
)


# ---- over several arrays


def _float32(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    for i, t in enumerate(inputs):
        if t is not None and t.kind != "f":
            raise InvalidArgument(f"input {i}: expected a dtype with fractions, got {t}")
    return list(inputs), [np.dtype(np.float32)], []


def _any_shapes(length: Callable[[Attrs], int]) -> Callable[..., Any]:
    return lambda attrs, inputs, outputs: (list(inputs), [(length(attrs),)], [])


def _all_finite(call: Call) -> Step:
    xp, (y,), inputs, restart = call.xp, call.outputs, call.inputs, call.attrs.init_output
    finite = [call.scratch(x.shape, bool) for x in inputs]
    found = [call.scratch((1,) * x.ndim, bool) for x in inputs]

    def run() -> None:
        if restart:
            y.fill(1)
        for x, each, all_of_it in zip(inputs, finite, found, strict=True):
            xp.isfinite(x, out=each)
            xp.all(each, out=all_of_it, keepdims=True)
            xp.multiply(y, all_of_it.reshape(1), out=y)

    return run


def _multi_sum_sq(call: Call) -> Step:
    xp, (y,) = call.xp, call.outputs
    squares = [call.scratch(x.shape, np.float32) for x in call.inputs]
    sums = [
        Reduction(x.shape, tuple(range(x.ndim))).sum(xp, squares[i], y[i : i + 1])
        for i, x in enumerate(call.inputs)
    ]

    def run() -> None:
        for x, square, add_up in zip(call.inputs, squares, sums, strict=True):
            xp.multiply(x, x, out=square, casting="same_kind", dtype=square.dtype)
            add_up()

    return run


_INIT = Param("init_output", boolean, True, "Start from 1, not from what the output holds.")
_NUM_ARRAYS = "num_arrays"
register(
    "all_finite",
    params=[_INIT],
    infer_shape=_any_shapes(lambda attrs: 1),
    infer_type=_float32,
    forward=_all_finite,
    backward=None,
    doc="1 if all numbers are finite, else 0; float32 of shape (1,).",
)
register(
    "multi_all_finite",
    params=[Param(_NUM_ARRAYS, integer, 1, "The number of inputs."), _INIT],
    variadic=_NUM_ARRAYS,
    arguments=lambda attrs: [f"array_{i}" for i in range(attrs.num_arrays)],
    infer_shape=_any_shapes(lambda attrs: 1),
    infer_type=_float32,
    forward=_all_finite,
    backward=None,
    doc="1 if all numbers of all inputs are finite, else 0; float32 of shape (1,).",
)
register(
    "multi_sum_sq",
    params=[Param(_NUM_ARRAYS, integer, doc="The number of inputs.")],
    variadic=_NUM_ARRAYS,
    arguments=lambda attrs: [f"array_{i}" for i in range(attrs.num_arrays)],
    infer_shape=_any_shapes(lambda attrs: attrs.num_arrays),
    infer_type=_float32,
    forward=_multi_sum_sq,
    backward=None,
    doc="The sum of squares of each input; float32 of shape (num_arrays,).",
)
