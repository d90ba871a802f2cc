"""Sign and magnitude, and rounding: functions in pieces, exact for integers too."""

from __future__ import annotations

from typing import Any

from dmod.ops.elementwise import same_shape
from dmod.ops.integers import is_real, scalar_of
from dmod.ops.params import REQUIRED, Param, number
from dmod.ops.registry import Builder, Call, Step, register, zero_gradient


def _elementwise(
    name: str, forward: Builder, backward: Builder, doc: str, *, reads: str = "", params: Any = ()
) -> None:
    register(
        name,
        params=params,
        infer_shape=same_shape,
        forward=forward,
        backward=backward,
        backward_reads=((0,) if "x" in reads else (), ()),
        inplace=[(0, 0)],
        backward_inplace=[(0, 0)],
        doc=doc,
    )


def _named(function: str) -> Builder:
    def build(call: Call) -> Step:
        (x,), (y,), apply = call.inputs, call.outputs, getattr(call.xp, function)
        return lambda: apply(x, out=y)

    return build


def _sign_into(call: Call, x: Any, out: Any) -> Step:
    """Write -1, 0 or 1; 0 for what is not a number, as in MXNet."""
    xp, negative = call.xp, call.scratch(x.shape, out.dtype)

    def run() -> None:
        xp.less(x, 0, out=negative)
        xp.greater(x, 0, out=out)
        xp.subtract(out, negative, out=out)

    return run


def _sign(call: Call) -> Step:
    return _sign_into(call, call.inputs[0], call.outputs[0])


def _abs_gradient(call: Call) -> Step:
    xp, (x,), (dy,), (dx,) = call.xp, call.inputs, call.out_grads, call.in_grads
    sign = call.scratch(x.shape, x.dtype)
    find = _sign_into(call, x, sign)

    def run() -> None:
        find()
        xp.multiply(dy, sign, out=dx)

    return run


def _negative_gradient(call: Call) -> Step:
    xp, (dy,), (dx,) = call.xp, call.out_grads, call.in_grads
    return lambda: xp.negative(dy, out=dx)


def _square_gradient(call: Call) -> Step:
    xp, (x,), (dy,), (dx,) = call.xp, call.inputs, call.out_grads, call.in_grads
    two = scalar_of(x.dtype, 2)

    def run() -> None:
        xp.multiply(dy, two, out=dx)
        xp.multiply(dx, x, out=dx)

    return run


_elementwise("abs", _named("absolute"), _abs_gradient, "|data|", reads="x")
_elementwise("negative", _named("negative"), _negative_gradient, "-data")
_elementwise("square", _named("square"), _square_gradient, "data * data", reads="x")
_elementwise("sign", _sign, zero_gradient, "-1, 0 or 1.")
_elementwise("logical_not", _named("logical_not"), zero_gradient, "1 where data is 0, else 0.")


def _rounded(build: Builder) -> Builder:
    """`build` for numbers with fractions; integers are round already."""

    def builder(call: Call) -> Step:
        xp, (x,), (y,) = call.xp, call.inputs, call.outputs
        return build(call) if is_real(x) else lambda: xp.copyto(y, x)

    return builder


def _half_down(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    floor, up = call.scratch(x.shape, x.dtype), call.scratch(x.shape, bool)

    def run() -> None:
        xp.floor(x, out=floor)
        xp.subtract(x, floor, out=y)
        xp.greater(y, 0.5, out=up)
        xp.add(floor, up, out=y)

    return run


def _half_away(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    whole, rest = (call.scratch(x.shape, x.dtype) for _ in range(2))

    def run() -> None:
        xp.trunc(x, out=whole)
        xp.subtract(x, whole, out=rest)  # exact, unlike x + 0.5
        xp.absolute(rest, out=rest)
        xp.greater_equal(rest, 0.5, out=rest)
        xp.copysign(rest, x, out=rest)
        xp.add(whole, rest, out=y)

    return run


for _name, _build, _doc in (
    ("ceil", _named("ceil"), "The next whole number, upwards."),
    ("floor", _named("floor"), "The next whole number, downwards."),
    ("trunc", _named("trunc"), "The next whole number, towards 0."),
    ("fix", _named("trunc"), "The next whole number, towards 0."),
    ("rint", _half_down, "The nearest whole number; the lower one of two, as in MXNet."),
    ("round", _half_away, "The nearest whole number; the one farther from 0 of two."),
):
    _elementwise(_name, _rounded(_build), zero_gradient, _doc)


def _clip(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    low, high = scalar_of(x.dtype, call.attrs.a_min), scalar_of(x.dtype, call.attrs.a_max)
    if low > high:  # MXNet looks at a_max first; numpy's clip would always give a_max
        low, high = high, low
        above = call.scratch(x.shape, bool)

        def run_crossed() -> None:
            xp.greater(x, low, out=above)
            y.fill(high)
            xp.copyto(y, low, where=above)

        return run_crossed

    def run() -> None:
        xp.maximum(x, low, out=y)
        xp.minimum(y, high, out=y)

    return run


def _clip_gradient(call: Call) -> Step:
    """The gradient passes unless the element was clipped; what is not a number was not."""
    xp, (x,), (dy,), (dx,) = call.xp, call.inputs, call.out_grads, call.in_grads
    low, high = scalar_of(x.dtype, call.attrs.a_min), scalar_of(x.dtype, call.attrs.a_max)
    kept, above = call.scratch(x.shape, bool), call.scratch(x.shape, bool)

    def run() -> None:
        xp.less(x, low, out=kept)
        xp.greater(x, high, out=above)
        xp.logical_or(kept, above, out=kept)
        xp.logical_not(kept, out=kept)
        xp.multiply(dy, kept, out=dx)

    return run


_elementwise(
    "clip",
    _clip,
    _clip_gradient,
    "data, with what is below a_min raised to it and what is above a_max lowered to it.",
    reads="x",
    params=[
        Param("a_min", number, REQUIRED, "The least value."),
        Param("a_max", number, REQUIRED, "The greatest value."),
    ],
)


def _smooth_l1(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    square = call.attrs.scalar**2
    bound = 1 / square if square else float("inf")
    size = call.scratch(x.shape, x.dtype)

    def run() -> None:  # with m = min(|x|, bound), both pieces are square * m * (|x| - m / 2)
        xp.absolute(x, out=size)
        xp.minimum(size, bound, out=y)
        xp.multiply(y, -0.5, out=y)
        xp.add(size, y, out=size)
        xp.multiply(y, -2 * square, out=y)
        xp.multiply(y, size, out=y)

    return run


def _smooth_l1_gradient(call: Call) -> Step:
    xp, (x,), (dy,), (dx,) = call.xp, call.inputs, call.out_grads, call.in_grads
    square, tmp = call.attrs.scalar**2, call.scratch(x.shape, x.dtype)

    def run() -> None:
        xp.multiply(x, square, out=tmp)
        xp.clip(tmp, -1, 1, out=tmp)
        xp.multiply(dy, tmp, out=dx)

    return run


_elementwise(
    "smooth_l1",
    _smooth_l1,
    _smooth_l1_gradient,
    "(scalar * data)**2 / 2 where |data| < 1 / scalar**2, else |data| - 0.5 / scalar**2.",
    reads="x",
    params=[Param("scalar", number, 1.0, "Where the parabola ends: at 1 / scalar**2.")],
)
