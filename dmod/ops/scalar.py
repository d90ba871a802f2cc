"""Functions of each element and one number, such as ``data + scalar``.

The number takes the array's dtype first, so with integers 1.5 is 1, as in MXNet.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dmod.ops.binary import COMPARISONS
from dmod.ops.elementwise import same_shape
from dmod.ops.integers import scalar_of, through_float64
from dmod.ops.params import Param, boolean, number
from dmod.ops.registry import Builder, Call, Step, register, zero_gradient

Forward = Callable[[Any, Any, Any, Any], Any]
"""``(xp, x, scalar, out)`` writes the function's value."""
Slope = Callable[[Any, Any, Any, Any, Any], Any]
"""``(xp, x, y, scalar, out)`` returns the derivative: in `out`, or a number."""

_PARAMS = [
    Param("scalar", number, 1.0, "The number."),
    Param("is_int", boolean, True, "Ignored: whether the number was written as an integer."),
]


def _gradient(slope: Slope) -> Builder:
    def build(call: Call) -> Step:
        xp, (x,), (y,), (dy,), (dx,) = call.xp, call.inputs, call.outputs, call.out_grads, call.in_grads
        scalar = scalar_of(dy.dtype, call.attrs.scalar)
        tmp = call.scratch(dy.shape, dy.dtype)
        return lambda: xp.multiply(dy, slope(xp, x, y, scalar, tmp), out=dx)

    return through_float64(build)


def _scalar(
    name: str,
    old_name: str,
    forward: Forward,
    slope: Slope | None,
    doc: str,
    *,
    reads: str = "",
    is_whole: bool = True,
) -> None:
    """Register a function; `is_whole` if integers need no other arithmetic than other numbers."""

    def build(call: Call) -> Step:
        xp, (x,), (y,) = call.xp, call.inputs, call.outputs
        scalar = scalar_of(x.dtype, call.attrs.scalar)
        return lambda: forward(xp, x, scalar, y)

    register(
        name,
        params=_PARAMS,
        aliases=[old_name],
        infer_shape=same_shape,
        forward=build if is_whole else through_float64(build),
        backward=zero_gradient if slope is None else _gradient(slope),
        backward_reads=((0,) if "x" in reads else (), (0,) if "y" in reads else ()),
        inplace=[(0, 0)],
        backward_inplace=[(0, 0)],
        doc=doc,
    )


def _named(function: str) -> Forward:
    return lambda xp, x, scalar, out: getattr(xp, function)(x, scalar, out=out)


def _swapped(function: str) -> Forward:
    return lambda xp, x, scalar, out: getattr(xp, function)(scalar, x, out=out)


def _mod(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    return xp.mod(x, scalar, out=out) if scalar else out.fill(0)


def _rmod(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    zero = xp.equal(x, 0)
    xp.mod(scalar, x, out=out)
    xp.copyto(out, 0, where=zero)


def _rmod_slope(xp: Any, x: Any, y: Any, scalar: Any, out: Any) -> Any:
    xp.divide(scalar, x, out=out)
    xp.floor(out, out=out)
    return xp.negative(out, out=out)


def _rdiv_slope(xp: Any, x: Any, y: Any, scalar: Any, out: Any) -> Any:
    xp.multiply(x, x, out=out)
    return xp.divide(-scalar, out, out=out)


def _power(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    """The powers that networks have are products and roots, which are many times faster."""
    if scalar == 2:
        return xp.multiply(x, x, out=out)
    if scalar == 1:
        return xp.positive(x, out=out)
    if scalar == 0.5:
        return xp.sqrt(x, out=out)
    return xp.power(x, scalar, out=out)


def _power_slope(xp: Any, x: Any, y: Any, scalar: Any, out: Any) -> Any:
    _power(xp, x, scalar.dtype.type(scalar - 1), out)
    return xp.multiply(out, scalar, out=out)


def _rpower_slope(xp: Any, x: Any, y: Any, scalar: Any, out: Any) -> Any:
    log = math.log(scalar) if scalar > 0 else -math.inf if scalar == 0 else math.nan
    return xp.multiply(y, log, out=out)


def _where(comparison: str) -> Slope:
    """1 where the comparison holds, else 0."""
    return lambda xp, x, y, scalar, out: getattr(xp, comparison)(x, scalar, out=out)


_scalar("_plus_scalar", "_PlusScalar", _named("add"), lambda xp, x, y, s, out: 1, "data + scalar")
_scalar("_minus_scalar", "_MinusScalar", _named("subtract"), lambda xp, x, y, s, out: 1, "data - scalar")
_scalar("_rminus_scalar", "_RMinusScalar", _swapped("subtract"), lambda xp, x, y, s, out: -1, "scalar - data")
_scalar("_mul_scalar", "_MulScalar", _named("multiply"), lambda xp, x, y, s, out: s, "data * scalar")
_scalar(
    "_div_scalar",
    "_DivScalar",
    _named("divide"),
    lambda xp, x, y, s, out: s.dtype.type(1) / s,
    "data / scalar",
    is_whole=False,
)
_scalar(
    "_rdiv_scalar",
    "_RDivScalar",
    _swapped("divide"),
    _rdiv_slope,
    "scalar / data",
    reads="x",
    is_whole=False,
)
_scalar("_mod_scalar", "_ModScalar", _mod, lambda xp, x, y, s, out: 1, "data % scalar, with scalar's sign")
_scalar("_rmod_scalar", "_RModScalar", _rmod, _rmod_slope, "scalar % data, with data's sign", reads="x")
_scalar("_power_scalar", "_PowerScalar", _power, _power_slope, "data ** scalar", reads="x", is_whole=False)
_scalar(
    "_rpower_scalar",
    "_RPowerScalar",
    _swapped("power"),
    _rpower_slope,
    "scalar ** data",
    reads="y",
    is_whole=False,
)
_scalar(
    "_maximum_scalar",
    "_MaximumScalar",
    _named("maximum"),
    _where("greater_equal"),
    "The greater one of data and scalar.",
    reads="x",
)
_scalar(
    "_minimum_scalar",
    "_MinimumScalar",
    _named("minimum"),
    _where("less_equal"),
    "The lesser one of data and scalar.",
    reads="x",
)
_scalar(
    "_hypot_scalar",
    "_HypotScalar",
    _named("hypot"),
    lambda xp, x, y, s, out: xp.divide(x, y, out=out),
    "sqrt(data**2 + scalar**2)",
    reads="xy",
    is_whole=False,
)
for _name, _function in COMPARISONS.items():
    _scalar(
        f"_{_name}_scalar",
        f"_{_name.title().replace('_', '')}Scalar",
        _named(_function),
        None,
        f"1 where {_name.replace('_', ' ')} holds for data and scalar, else 0.",
    )
