"""LeakyReLU: functions that are the identity above zero, and something smaller below.

leaky: Maas et al., 2013; prelu: He et al., 2015; elu: Clevert et al., 2015; selu: Klambauer et al., 2017;
gelu: Hendrycks and Gimpel, 2016; rrelu: Xu et al., 2015.

The gradient of selu is that of its output; MXNet 1.9.1's is not (it scales once too often).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.convolution import float_type
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, choice, number
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register
from dmod.ops.special import erf

__all__: list[str] = []

_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = merge_shapes(inputs[0], outputs[0], "data")
    extra = [data] * (len(outputs) - 1)
    if attrs.act_type != "prelu":
        return [data], [data, *extra], []
    gamma = inputs[1]
    if data is not None:
        if len(data) < 2:
            raise InvalidArgument(f"data: expected at least 2 axes for 'prelu', got shape {data}")
        if gamma is None or -1 in gamma:
            gamma = merge_shapes((data[1],), gamma, "gamma")
        elif gamma != (1,) and -1 not in data and gamma != (data[1],):
            raise InvalidArgument(f"gamma: expected ({data[1]},) or (1,), got {gamma}")
    return [data, gamma], [data], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    arguments, outputs, aux = float_type(attrs, inputs)
    return arguments, list(outputs) * (2 if attrs.act_type == "rrelu" else 1), aux


def _column(call: Call) -> Any:
    """prelu's gamma, to be multiplied with the data."""
    gamma = call.inputs[1]
    return gamma.reshape(gamma.size, *(1,) * (call.inputs[0].ndim - 2))


def _scaled_below(call: Call, slope: Any) -> Step:
    """``x`` above zero, ``slope * x`` below."""
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    below, zero = call.scratch(x.shape, x.dtype), x.dtype.type(0)

    def run() -> None:
        xp.minimum(x, zero, out=below)
        xp.multiply(below, slope, out=below)
        xp.maximum(x, zero, out=y)
        xp.add(y, below, out=y)

    return run


def _scaled_below_grad(call: Call, slope: Any) -> Step:
    xp, x, dy, dx = call.xp, call.inputs[0], call.out_grads[0], call.in_grads[0]
    factor, above = call.scratch(x.shape, x.dtype), call.scratch(x.shape, bool)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    rest = call.scratch(getattr(slope, "shape", ()), x.dtype)

    def run() -> None:
        xp.subtract(one, slope, out=rest)
        xp.greater(x, zero, out=above)
        xp.multiply(above, rest, out=factor)  # three times as fast as a copy where `above`
        xp.add(factor, slope, out=factor)
        xp.multiply(dy, factor, out=dx)

    return run


def _leaky(call: Call) -> Step:
    return _scaled_below(call, call.inputs[0].dtype.type(call.attrs.slope))


def _leaky_grad(call: Call) -> Step:
    return _scaled_below_grad(call, call.inputs[0].dtype.type(call.attrs.slope))


def _prelu(call: Call) -> Step:
    return _scaled_below(call, _column(call))


def _prelu_grad(call: Call) -> Step:
    xp, x, gamma, dy, (dx, dgamma) = call.xp, *call.inputs, call.out_grads[0], call.in_grads
    data_step = None if dx is None else _scaled_below_grad(call, _column(call))
    below, zero = call.scratch(x.shape, x.dtype), x.dtype.type(0)
    axes = tuple(i for i in range(x.ndim) if i != 1 or gamma.size == 1)
    total = None if dgamma is None else dgamma.reshape(() if gamma.size == 1 else gamma.shape)

    def run() -> None:
        if total is not None:
            xp.minimum(x, zero, out=below)
            xp.multiply(below, dy, out=below)
            xp.sum(below, axis=axes, out=total)
        if data_step is not None:
            data_step()

    return run


def _exponential(scale: float, alpha: float) -> Callable[[Call], Step]:
    """``scale * x`` above zero, ``scale * alpha * (exp(x) - 1)`` below."""

    def build(call: Call) -> Step:
        xp, x, y = call.xp, call.inputs[0], call.outputs[0]
        below, zero = call.scratch(x.shape, x.dtype), x.dtype.type(0)
        a, s = x.dtype.type(scale * alpha), x.dtype.type(scale)

        def run() -> None:
            xp.minimum(x, zero, out=below)
            xp.expm1(below, out=below)
            xp.multiply(below, a, out=below)
            xp.maximum(x, zero, out=y)
            xp.multiply(y, s, out=y)
            xp.add(y, below, out=y)

        return run

    return build


def _exponential_grad(scale: float, alpha: float) -> Callable[[Call], Step]:
    def build(call: Call) -> Step:
        xp, x, y, dy, dx = call.xp, call.inputs[0], call.outputs[0], call.out_grads[0], call.in_grads[0]
        factor, below = call.scratch(x.shape, x.dtype), call.scratch(x.shape, bool)
        zero, s = x.dtype.type(0), x.dtype.type(scale)
        change = x.dtype.type(scale * alpha - scale)

        def run() -> None:
            xp.less_equal(x, zero, out=below)
            xp.add(y, change, out=factor)  # below zero, y + scale * alpha is scale * alpha * exp(x)
            xp.multiply(factor, below, out=factor)
            xp.add(factor, s, out=factor)
            xp.multiply(dy, factor, out=dx)

        return run

    return build


def _cumulative(call: Call) -> tuple[Any, Step]:
    """Memory for the normal distribution's cumulative function of the data, and the step that computes it."""
    xp, x = call.xp, call.inputs[0]
    value = call.scratch(x.shape, x.dtype)
    root, half, one = (x.dtype.type(c) for c in (math.sqrt(0.5), 0.5, 1))
    if x.dtype == np.float64:

        def exact() -> None:
            xp.add(erf(xp, x * root), one, out=value)
            xp.multiply(value, half, out=value)

        return value, exact
    # Abramowitz and Stegun 7.1.26, right to 1.5e-7, which is float32's own precision here.
    t, sign = (call.scratch(x.shape, x.dtype) for _ in range(2))
    p = x.dtype.type(0.3275911 * math.sqrt(0.5))
    last, *others = (
        x.dtype.type(c / 2) for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
    )
    minus_half = x.dtype.type(-0.5)

    def run() -> None:
        xp.absolute(x, out=t)
        xp.multiply(t, p, out=t)
        xp.add(t, one, out=t)
        xp.divide(one, t, out=t)
        xp.multiply(t, last, out=value)
        for c in others:
            xp.add(value, c, out=value)
            xp.multiply(value, t, out=value)
        xp.multiply(x, x, out=t)
        xp.multiply(t, minus_half, out=t)
        xp.exp(t, out=t)
        xp.multiply(value, t, out=value)
        xp.subtract(half, value, out=value)  # the part between 0 and |x|
        xp.copysign(one, x, out=sign)
        xp.multiply(value, sign, out=value)
        xp.add(value, half, out=value)

    return value, run


def _gelu(call: Call) -> Step:
    """``x`` times the normal distribution's cumulative function."""
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    cumulative, measure = _cumulative(call)

    def run() -> None:
        measure()
        xp.multiply(x, cumulative, out=y)

    return run


def _gelu_grad(call: Call) -> Step:
    xp, x, dy, dx = call.xp, call.inputs[0], call.out_grads[0], call.in_grads[0]
    cumulative, measure = _cumulative(call)
    tmp = call.scratch(x.shape, x.dtype)
    minus_half, density = x.dtype.type(-0.5), x.dtype.type(1 / math.sqrt(2 * math.pi))

    def run() -> None:
        measure()
        xp.multiply(x, x, out=tmp)
        xp.multiply(tmp, minus_half, out=tmp)
        xp.exp(tmp, out=tmp)
        xp.multiply(tmp, x, out=tmp)
        xp.multiply(tmp, density, out=tmp)
        xp.add(tmp, cumulative, out=tmp)
        xp.multiply(dy, tmp, out=dx)

    return run


def _rrelu(call: Call) -> Step:
    """The slopes are drawn in training, one per element; they are the second output."""
    xp, attrs, slopes = call.xp, call.attrs, call.outputs[1]
    low, high = attrs.lower_bound, attrs.upper_bound
    apply = _scaled_below(call, slopes)
    if not call.is_train:
        slopes_value = slopes.dtype.type((low + high) / 2)

        def run() -> None:
            slopes.fill(slopes_value)
            apply()

        return run
    device, stream, node = call.device, call.stream, call.node
    draws = slopes if slopes.dtype == np.float32 else call.scratch(slopes.shape, np.float32)
    width, start = slopes.dtype.type(high - low), slopes.dtype.type(low)

    def run_training() -> None:
        device.uniform(draws, stream, node)
        xp.multiply(draws, width, out=slopes, casting="same_kind")
        xp.add(slopes, start, out=slopes)
        apply()

    return run_training


_KINDS: dict[str, tuple[Callable[[Call], Step], Callable[[Call], Step]]] = {
    "elu": (
        lambda call: _exponential(1.0, call.attrs.slope)(call),
        lambda call: _exponential_grad(1.0, call.attrs.slope)(call),
    ),
    "gelu": (_gelu, _gelu_grad),
    "leaky": (_leaky, _leaky_grad),
    "prelu": (_prelu, _prelu_grad),
    "rrelu": (_rrelu, lambda call: _scaled_below_grad(call, call.outputs[1])),
    "selu": (_exponential(_SELU_SCALE, _SELU_ALPHA), _exponential_grad(_SELU_SCALE, _SELU_ALPHA)),
}


def _backward_reads(attrs: Attrs) -> tuple[tuple[int, ...], tuple[int, ...]]:
    inputs = (0, 1) if attrs.act_type == "prelu" else (0,)
    return inputs, {"elu": (0,), "selu": (0,), "rrelu": (1,)}.get(attrs.act_type, ())


register(
    "LeakyReLU",
    params=[
        Param("act_type", choice(tuple(_KINDS)), "leaky", "The function."),
        Param("slope", number, 0.25, "leaky: the slope below zero; elu: the limit, with a minus."),
        Param("lower_bound", number, 0.125, "rrelu: the least slope."),
        Param("upper_bound", number, 0.334, "rrelu: the greatest slope."),
    ],
    arguments=lambda attrs: ["data", "gamma"] if attrs.act_type == "prelu" else ["data"],
    slots=("data", "gamma"),
    outputs=lambda attrs: ["output", "mask"] if attrs.act_type == "rrelu" else ["output"],
    num_visible=lambda attrs: 2 if attrs.act_type == "rrelu" else 1,
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=lambda call: _KINDS[call.attrs.act_type][0](call),
    backward=lambda call: _KINDS[call.attrs.act_type][1](call),
    backward_reads=_backward_reads,
    backward_inplace=lambda attrs: () if attrs.act_type == "prelu" else [(0, 0)],
    doc="""A function of each element that is the element itself, or a multiple of it, above zero.

Below zero: 'leaky' slope * x; 'prelu' gamma * x with gamma (C,) or (1,) learnt; 'elu' slope * (exp(x) - 1);
'selu' the same with fixed scale and slope; 'rrelu' a slope drawn for each element in training, their mean in
inference, with the slopes as second output. 'gelu' is x times the normal cumulative distribution.""",
)
