"""Operators that pass their input on and mean something else: gradients, losses, dtypes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import same_shape
from dmod.ops.params import Param, boolean, choice, dtype, integer, number
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register, zero_gradient


def _copy(call: Call) -> Step:
    xp, pairs = call.xp, list(zip(call.inputs, call.outputs, strict=False))

    def run() -> None:
        for x, y in pairs:
            xp.copyto(y, x, casting="unsafe")

    return run


def _copy_gradient(call: Call) -> Step:
    xp, pairs = call.xp, [p for p in zip(call.out_grads, call.in_grads, strict=True) if p[1] is not None]

    def run() -> None:
        for dy, dx in pairs:
            if dy is None:
                dx.fill(0)
            else:
                xp.copyto(dx, dy, casting="unsafe")

    return run


def _filled(value: int) -> Callable[[Call], Step]:
    def build(call: Call) -> Step:
        y = call.outputs[0]
        return lambda: y.fill(value)

    return build


def _ones_gradient(call: Call) -> Step:
    dx = call.in_grads[0]
    return lambda: dx.fill(1)


register(
    "_copy",
    aliases=["identity"],
    infer_shape=same_shape,
    forward=_copy,
    backward=_copy_gradient,
    backward_inplace=[(0, 0)],
    view=True,
    doc="The input itself.",
)
register(
    "BlockGrad",
    aliases=["stop_gradient"],
    infer_shape=same_shape,
    forward=_copy,
    backward=zero_gradient,
    inplace=[(0, 0)],
    doc="The input itself; its gradient is 0, so nothing below it learns from what is above.",
)
register(
    "make_loss",
    infer_shape=same_shape,
    forward=_copy,
    backward=_ones_gradient,
    outputs=["loss"],
    inplace=[(0, 0)],
    is_loss=True,
    doc="The input as a loss to be minimised: its gradient is 1 whatever comes after.",
)
for _name, _value in (("zeros_like", 0), ("ones_like", 1)):
    register(
        _name,
        infer_shape=same_shape,
        forward=_filled(_value),
        backward=zero_gradient,
        doc=f"An array of {_value}s with the input's shape and dtype.",
    )


# ---- MakeLoss


def _make_loss_gradient(call: Call) -> Step:
    xp, (x,), (dx,), attrs = call.xp, call.inputs, call.in_grads, call.attrs
    scale = attrs.grad_scale / (x.shape[0] if attrs.normalization == "batch" and x.shape[0] else 1)
    if attrs.normalization != "valid":
        return lambda: dx.fill(scale)
    valid = call.scratch(x.shape, bool)
    count = call.scratch((1,) * x.ndim, np.float32)

    def run() -> None:
        xp.greater(x, attrs.valid_thresh, out=valid)
        xp.sum(valid, dtype=np.float32, out=count, keepdims=True)
        xp.maximum(count, 1, out=count)
        xp.divide(scale, count, out=count)
        xp.copyto(dx, count, casting="same_kind")

    return run


register(
    "MakeLoss",
    params=[
        Param("grad_scale", number, 1.0, "The gradient."),
        Param("valid_thresh", number, 0.0, "With normalization='valid': what is greater counts."),
        Param(
            "normalization",
            choice(("null", "batch", "valid")),
            "null",
            "What the gradient is divided by: 1, the batch size, or the number of valid elements.",
        ),
    ],
    infer_shape=same_shape,
    forward=_copy,
    backward=_make_loss_gradient,
    backward_reads=lambda attrs: ((0,) if attrs.normalization == "valid" else (), ()),
    inplace=[(0, 0)],
    is_loss=True,
    doc="The input as a loss to be minimised: its gradient is grad_scale whatever comes after.",
)


# ---- IdentityAttachKLSparseReg


def _infer_sparse(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    shapes, outs, _ = same_shape(attrs, inputs, outputs)
    data = shapes[0]
    if data is not None and len(data) < 2:
        raise InvalidArgument(f"data: expected at least 2 axes (batch, unit, ...), got shape {data}")
    return shapes, outs, [None if data is None else (data[1],)]


def _sparse_gradient(call: Call) -> Step:
    xp, (x,), (dy,), (dx,), (average,), attrs = (
        call.xp,
        call.inputs,
        call.out_grads,
        call.in_grads,
        call.aux,
        call.attrs,
    )
    dims = (x.shape[0], x.shape[1], math.prod(x.shape[2:]))
    x, dy, dx = (array.reshape(dims) for array in (x, dy, dx))
    target, momentum = attrs.sparseness_target, attrs.momentum
    share = (1 - momentum) / max(1, dims[0] * dims[2])
    mean, slope = (call.scratch(average.shape, average.dtype) for _ in range(2))
    column = slope.reshape(1, -1, 1)

    def run() -> None:
        xp.sum(x, axis=(0, 2), out=mean)
        xp.multiply(mean, share, out=mean)
        xp.multiply(average, momentum, out=average)
        xp.add(average, mean, out=average)
        xp.divide(-target, average, out=slope)
        xp.subtract(1, average, out=mean)
        xp.divide(1 - target, mean, out=mean)
        xp.add(slope, mean, out=slope)
        xp.multiply(slope, attrs.penalty, out=slope)
        xp.add(dy, column, out=dx)

    return run


register(
    "IdentityAttachKLSparseReg",
    params=[
        Param("sparseness_target", number, 0.1, "The mean activation to aim at, between 0 and 1."),
        Param("penalty", number, 0.001, "The weight of the penalty."),
        Param("momentum", number, 0.9, "The share of the old value in the moving average."),
    ],
    infer_shape=_infer_sparse,
    infer_type=lambda attrs, inputs: (list(inputs), [inputs[0]], [inputs[0]]),
    aux=["moving_avg"],
    aux_init={"moving_avg": '["zero", {}]'},
    forward=_copy,
    backward=_sparse_gradient,
    backward_reads=((0,), ()),
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    doc="""The input itself; its gradient also draws each unit's mean activation towards a target.

The penalty is the Kullback-Leibler divergence between the target and the moving average of the unit's
activation, which has to be between 0 and 1, as after a sigmoid. data is (N, D, ...), moving_avg (D,).""",
)


# ---- casts


def _infer_cast(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return list(inputs), [attrs.dtype], []


def _is_low(kind: Any) -> bool:
    """Whether automatic mixed precision casts this dtype."""
    return kind in (np.float16, np.float32)


def _infer_amp_cast(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return list(inputs), [attrs.dtype if inputs[0] is None or _is_low(inputs[0]) else inputs[0]], []


def _infer_multicast(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    low = [t for t in inputs if t is not None and _is_low(t)]
    common = (min if attrs.cast_narrow else max)(low, key=lambda t: t.itemsize, default=None)
    return list(inputs), [common if t is None or _is_low(t) else t for t in inputs], []


def _each_shape(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    pairs = [same_shape(attrs, [i], [o])[0][0] for i, o in zip(inputs, outputs, strict=True)]
    return pairs, pairs, []


register(
    "Cast",
    aliases=["cast"],
    params=[Param("dtype", dtype, doc="The output's dtype.")],
    infer_shape=same_shape,
    infer_type=_infer_cast,
    forward=_copy,
    backward=_copy_gradient,
    doc="The input in another dtype; fractions are cut off for integers.",
)
register(
    "amp_cast",
    params=[Param("dtype", dtype, doc="The output's dtype.")],
    infer_shape=same_shape,
    infer_type=_infer_amp_cast,
    forward=_copy,
    backward=_copy_gradient,
    doc="The input in another dtype if it is float16 or float32, else as it is.",
)
register(
    "amp_multicast",
    params=[
        Param("num_outputs", integer, doc="The number of inputs."),
        Param("cast_narrow", boolean, False, "Cast to the narrowest dtype, not to the widest."),
    ],
    variadic="num_outputs",
    arguments=lambda attrs: [f"data_{i}" for i in range(attrs.num_outputs)],
    outputs=lambda attrs: [f"output{i}" for i in range(attrs.num_outputs)],
    num_visible=lambda attrs: attrs.num_outputs,
    infer_shape=_each_shape,
    infer_type=_infer_multicast,
    forward=_copy,
    backward=_copy_gradient,
    doc="The float16 and float32 ones among the inputs in their common dtype.",
)
