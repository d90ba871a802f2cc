"""Functions of one number, applied to each element: roots, exponentials, logarithms, trigonometry.

A row of the table is the function and its slope. Nothing here allocates while it runs; the functions
that need longer formulas are in `special`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from dmod.ops.activation import KINDS
from dmod.ops.elementwise import same_shape
from dmod.ops.integers import through_float64
from dmod.ops.params import Param, number
from dmod.ops.registry import Builder, Call, Step, register

__all__ = ["function_of_one", "register_unary"]

Forward = Callable[[Any, Any, Any], Any]
"""``(xp, x, out)`` writes the function's value."""
Slope = Callable[[Any, Any, Any, Any], Any]
"""``(xp, x, y, out)`` returns the derivative: in `out`, or y itself, which is the function's value."""


def register_unary(
    name: str, forward: Builder, backward: Builder, reads: str, doc: str, params: Sequence[Param] = ()
) -> None:
    """Register an operator whose output has its input's shape and dtype.

    Parameters
    ----------
    name : str
    forward, backward : callable
        Builders of steps.
    reads : str
        What backward reads: 'x', 'y', both or neither.
    doc : str
    params : list of Param
    """
    register(
        name,
        params=params,
        infer_shape=same_shape,
        forward=through_float64(forward),
        backward=through_float64(backward),
        backward_reads=((0,) if "x" in reads else (), (0,) if "y" in reads else ()),
        inplace=[(0, 0)],
        backward_inplace=[(0, 0)],
        doc=doc,
    )


def function_of_one(name: str, forward: Forward, slope: Slope, reads: str, doc: str) -> None:
    """Register a function by its value and its slope."""

    def build(call: Call) -> Step:
        xp, (x,), (y,) = call.xp, call.inputs, call.outputs
        return lambda: forward(xp, x, y)

    def build_gradient(call: Call) -> Step:
        xp, (x,), (y,), (dy,), (dx,) = call.xp, call.inputs, call.outputs, call.out_grads, call.in_grads
        tmp = call.scratch(dy.shape, dy.dtype)

        def run() -> None:
            xp.multiply(dy, slope(xp, x, y, tmp), out=dx)

        return run

    register_unary(name, build, build_gradient, reads, doc)


def _named(function: str) -> Forward:
    return lambda xp, x, out: getattr(xp, function)(x, out=out)


def _one_minus_square(xp: Any, x: Any, out: Any) -> Any:
    return xp.subtract(1, xp.multiply(x, x, out=out), out=out)


def _one_plus_square(xp: Any, x: Any, out: Any) -> Any:
    return xp.add(xp.multiply(x, x, out=out), 1, out=out)


def _inverse_root(xp: Any, out: Any) -> Any:
    return xp.reciprocal(xp.sqrt(out, out=out), out=out)


def _square_minus_one(xp: Any, x: Any, out: Any) -> Any:
    return xp.subtract(xp.multiply(x, x, out=out), 1, out=out)


_FUNCTIONS: dict[str, tuple[Forward, Slope, str, str]] = {
    "sqrt": (_named("sqrt"), lambda xp, x, y, out: xp.divide(0.5, y, out=out), "y", "The square root."),
    "rsqrt": (
        lambda xp, x, out: xp.reciprocal(xp.sqrt(x, out=out), out=out),
        lambda xp, x, y, out: xp.divide(-0.5, xp.multiply(xp.sqrt(x, out=out), x, out=out), out=out),
        "x",
        "1 / sqrt(data)",
    ),
    "cbrt": (
        _named("cbrt"),
        lambda xp, x, y, out: xp.divide(1 / 3, xp.multiply(y, y, out=out), out=out),
        "y",
        "The cube root.",
    ),
    "rcbrt": (
        lambda xp, x, out: xp.reciprocal(xp.cbrt(x, out=out), out=out),
        lambda xp, x, y, out: xp.divide(-1 / 3, xp.multiply(xp.cbrt(x, out=out), x, out=out), out=out),
        "x",
        "1 / cbrt(data)",
    ),
    "reciprocal": (
        _named("reciprocal"),
        lambda xp, x, y, out: xp.divide(-1, xp.multiply(x, x, out=out), out=out),
        "x",
        "1 / data",
    ),
    "exp": (_named("exp"), lambda xp, x, y, out: y, "y", "e to the power of data."),
    "expm1": (_named("expm1"), lambda xp, x, y, out: xp.exp(x, out=out), "x", "exp(data) - 1, exact near 0."),
    "log": (
        _named("log"),
        lambda xp, x, y, out: xp.reciprocal(x, out=out),
        "x",
        "The natural logarithm.",
    ),
    "log10": (
        _named("log10"),
        lambda xp, x, y, out: xp.divide(1 / math.log(10), x, out=out),
        "x",
        "The logarithm to base 10.",
    ),
    "log2": (
        _named("log2"),
        lambda xp, x, y, out: xp.divide(1 / math.log(2), x, out=out),
        "x",
        "The logarithm to base 2.",
    ),
    "log1p": (
        _named("log1p"),
        lambda xp, x, y, out: xp.reciprocal(xp.add(x, 1, out=out), out=out),
        "x",
        "log(1 + data), exact near 0.",
    ),
    "sin": (_named("sin"), lambda xp, x, y, out: xp.cos(x, out=out), "x", "The sine of radians."),
    "cos": (
        _named("cos"),
        lambda xp, x, y, out: xp.negative(xp.sin(x, out=out), out=out),
        "x",
        "The cosine of radians.",
    ),
    "tan": (
        _named("tan"),
        lambda xp, x, y, out: _one_plus_square(xp, y, out),
        "y",
        "The tangent of radians.",
    ),
    "arcsin": (
        _named("arcsin"),
        lambda xp, x, y, out: _inverse_root(xp, _one_minus_square(xp, x, out)),
        "x",
        "The inverse sine, in [-pi/2, pi/2].",
    ),
    "arccos": (
        _named("arccos"),
        lambda xp, x, y, out: xp.negative(_inverse_root(xp, _one_minus_square(xp, x, out)), out=out),
        "x",
        "The inverse cosine, in [0, pi].",
    ),
    "arctan": (
        _named("arctan"),
        lambda xp, x, y, out: xp.reciprocal(_one_plus_square(xp, x, out), out=out),
        "x",
        "The inverse tangent, in (-pi/2, pi/2).",
    ),
    "sinh": (_named("sinh"), lambda xp, x, y, out: xp.cosh(x, out=out), "x", "The hyperbolic sine."),
    "cosh": (_named("cosh"), lambda xp, x, y, out: xp.sinh(x, out=out), "x", "The hyperbolic cosine."),
    "tanh": (
        _named("tanh"),
        lambda xp, x, y, out: _one_minus_square(xp, y, out),
        "y",
        "The hyperbolic tangent.",
    ),
    "arcsinh": (
        _named("arcsinh"),
        lambda xp, x, y, out: _inverse_root(xp, _one_plus_square(xp, x, out)),
        "x",
        "The inverse hyperbolic sine.",
    ),
    "arccosh": (
        _named("arccosh"),
        lambda xp, x, y, out: _inverse_root(xp, _square_minus_one(xp, x, out)),
        "x",
        "The inverse hyperbolic cosine.",
    ),
    "arctanh": (
        _named("arctanh"),
        lambda xp, x, y, out: xp.reciprocal(_one_minus_square(xp, x, out), out=out),
        "x",
        "The inverse hyperbolic tangent.",
    ),
}

for _name, _row in _FUNCTIONS.items():
    function_of_one(_name, *_row)


def _scaled(name: str, factor: float, doc: str) -> None:
    """Register ``factor * data``."""

    def build(call: Call) -> Step:
        xp, (x,), (y,) = call.xp, call.inputs, call.outputs
        return lambda: xp.multiply(x, factor, out=y)

    def build_gradient(call: Call) -> Step:
        xp, (dy,), (dx,) = call.xp, call.out_grads, call.in_grads
        return lambda: xp.multiply(dy, factor, out=dx)

    register_unary(name, build, build_gradient, "", doc)


_scaled("degrees", 180 / math.pi, "Radians to degrees.")
_scaled("radians", math.pi / 180, "Degrees to radians.")

for _name, _doc in {
    "relu": "max(data, 0)",
    "sigmoid": "1 / (1 + exp(-data))",
    "softsign": "data / (1 + |data|)",
}.items():
    register_unary(_name, *KINDS[_name], "y", _doc)


def _hard_sigmoid(call: Call) -> Step:
    xp, (x,), (y,), attrs = call.xp, call.inputs, call.outputs, call.attrs

    def run() -> None:
        xp.multiply(x, attrs.alpha, out=y)
        xp.add(y, attrs.beta, out=y)
        xp.clip(y, 0, 1, out=y)

    return run


def _hard_sigmoid_gradient(call: Call) -> Step:
    xp, (y,), (dy,), (dx,) = call.xp, call.outputs, call.out_grads, call.in_grads
    inside, below = call.scratch(y.shape, bool), call.scratch(y.shape, bool)
    alpha = call.attrs.alpha

    def run() -> None:
        xp.greater(y, 0, out=inside)
        xp.less(y, 1, out=below)
        xp.logical_and(inside, below, out=inside)
        xp.multiply(dy, inside, out=dx)
        xp.multiply(dx, alpha, out=dx)

    return run


register_unary(
    "hard_sigmoid",
    _hard_sigmoid,
    _hard_sigmoid_gradient,
    "y",
    "max(0, min(1, alpha * data + beta))",
    [Param("alpha", number, 0.2, "The slope."), Param("beta", number, 0.5, "The value at 0.")],
)
