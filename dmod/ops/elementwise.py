"""Element-wise arithmetic among arrays of one shape, and of an array with a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.params import Param, number
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register

__all__ = ["merge_shapes"]


def merge_shapes(first: Shape | None, second: Shape | None, what: str = "") -> Shape | None:
    """What two partly known shapes say together; -1 is an unknown length.

    Raises
    ------
    InvalidArgument
        They contradict each other.
    """
    if first is None or second is None:
        return second if first is None else first
    fits = len(first) == len(second)
    if not fits or any(a != b and -1 not in (a, b) for a, b in zip(first, second, strict=True)):
        raise InvalidArgument(f"{what or 'shapes'}: expected {first}, got {second}")
    return tuple(b if a == -1 else a for a, b in zip(first, second, strict=True))


def same_shape(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    """All inputs and outputs have one shape."""
    shape = None
    for i, dims in enumerate([*inputs, *outputs]):
        shape = merge_shapes(shape, dims, f"input {i}" if i < len(inputs) else "output")
    return [shape] * len(inputs), [shape] * len(outputs), []


def _power_grads(call: Call) -> Step:
    xp = call.xp
    (a, b), (dy,), (da, db) = call.inputs, call.out_grads, call.in_grads
    tmp = call.scratch(a.shape, a.dtype)

    def run() -> None:
        if da is not None or db is not None:
            xp.subtract(b, 1, out=tmp)
            xp.power(a, tmp, out=tmp)  # a**(b-1); times a it is the output
        if db is not None:
            log_a = xp.log(a)
            xp.multiply(log_a, xp.power(a, b), out=log_a)
            xp.multiply(log_a, dy, out=db)
        if da is not None:
            xp.multiply(tmp, b, out=tmp)
            xp.multiply(tmp, dy, out=da)

    return run


def _add_grads(call: Call) -> Step:
    xp, dy, grads = call.xp, call.out_grads[0], [g for g in call.in_grads if g is not None]

    def run() -> None:
        for grad in grads:
            if grad is not dy:
                xp.copyto(grad, dy)

    return run


def _sub_grads(call: Call) -> Step:
    xp, dy, (da, db) = call.xp, call.out_grads[0], call.in_grads

    def run() -> None:
        if db is not None:
            xp.negative(dy, out=db)
        if da is not None:
            xp.copyto(da, dy)

    return run


def _mul_grads(call: Call) -> Step:
    xp, (a, b), dy, (da, db) = call.xp, call.inputs, call.out_grads[0], call.in_grads

    def run() -> None:
        if da is not None:
            xp.multiply(dy, b, out=da)
        if db is not None:
            xp.multiply(dy, a, out=db)

    return run


def _div_grads(call: Call) -> Step:
    xp, (a, b), dy, (da, db) = call.xp, call.inputs, call.out_grads[0], call.in_grads
    tmp = call.scratch(a.shape, a.dtype)

    def run() -> None:
        xp.divide(dy, b, out=tmp)
        if da is not None:
            xp.copyto(da, tmp)
        if db is not None:
            xp.multiply(tmp, a, out=tmp)
            xp.divide(tmp, b, out=tmp)
            xp.negative(tmp, out=db)

    return run


def _mod_grads(call: Call) -> Step:
    xp, (a, b), dy, (da, db) = call.xp, call.inputs, call.out_grads[0], call.in_grads

    def run() -> None:
        if db is not None:
            xp.negative(dy * xp.floor(a / b), out=db)
        if da is not None:
            xp.copyto(da, dy)

    return run


def _binary(
    name: str, function: str, grads: Callable[[Call], Step], reads: Any, aliases: list[str], doc: str
) -> None:
    def forward(call: Call) -> Step:
        (a, b), (out,), apply = call.inputs, call.outputs, getattr(call.xp, function)
        return lambda: apply(a, b, out=out)

    register(
        name,
        arguments=["lhs", "rhs"],
        aliases=aliases,
        infer_shape=same_shape,
        forward=forward,
        backward=grads,
        backward_reads=(reads, ()),
        inplace=[(0, 0), (1, 0)],
        doc=doc,
    )


_binary("elemwise_add", "add", _add_grads, (), ["_plus", "_Plus", "_add"], "lhs + rhs")
_binary("elemwise_sub", "subtract", _sub_grads, (), ["_minus", "_Minus", "_sub"], "lhs - rhs")
_binary("elemwise_mul", "multiply", _mul_grads, (0, 1), ["_mul", "_Mul"], "lhs * rhs")
_binary("elemwise_div", "divide", _div_grads, (0, 1), ["_div", "_Div"], "lhs / rhs")
_binary("_power", "power", _power_grads, (0, 1), ["_Power"], "lhs ** rhs")
_binary("_mod", "mod", _mod_grads, (0, 1), ["_Mod"], "lhs % rhs")


def _scalar(
    name: str,
    function: str,
    slope: Callable[[Any, Any, float, Any], Any],
    *,
    swap: bool = False,
    reads: Any = (),
    aliases: list[str],
    doc: str,
) -> None:
    """Register data-with-number; ``slope(xp, x, scalar, out)`` writes the derivative, or returns a number."""

    def forward(call: Call) -> Step:
        (x,), (out,), apply = call.inputs, call.outputs, getattr(call.xp, function)
        scalar = x.dtype.type(call.attrs.scalar)
        return (lambda: apply(scalar, x, out=out)) if swap else (lambda: apply(x, scalar, out=out))

    def backward(call: Call) -> Step:
        xp, (x,), (dy,), (dx,) = call.xp, call.inputs, call.out_grads, call.in_grads
        scalar = dy.dtype.type(call.attrs.scalar)
        tmp = call.scratch(dy.shape, dy.dtype)

        def run() -> None:
            xp.multiply(dy, slope(xp, x, scalar, tmp), out=dx)

        return run

    register(
        name,
        params=[Param("scalar", number, 1.0, "The number.")],
        aliases=aliases,
        infer_shape=same_shape,
        forward=forward,
        backward=backward,
        backward_reads=(reads, ()),
        inplace=[(0, 0)],
        backward_inplace=[(0, 0)],
        doc=doc,
    )


def _rdiv_slope(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    xp.multiply(x, x, out=out)
    return xp.divide(-scalar, out, out=out)


def _power_slope(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    xp.power(x, x.dtype.type(scalar - 1), out=out)
    return xp.multiply(out, scalar, out=out)


def _rpower_slope(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    xp.power(scalar, x, out=out)
    return xp.multiply(out, xp.log(scalar), out=out)


def _rmod_slope(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    xp.divide(scalar, x, out=out)
    xp.floor(out, out=out)
    return xp.negative(out, out=out)


def _one(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    return scalar.dtype.type(1)


def _minus_one(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    return scalar.dtype.type(-1)


def _by_scalar(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    return scalar


def _over_scalar(xp: Any, x: Any, scalar: Any, out: Any) -> Any:
    return scalar.dtype.type(1) / scalar


_scalar("_plus_scalar", "add", _one, aliases=["_PlusScalar"], doc="data + scalar")
_scalar("_minus_scalar", "subtract", _one, aliases=["_MinusScalar"], doc="data - scalar")
_scalar("_rminus_scalar", "subtract", _minus_one, swap=True, aliases=["_RMinusScalar"], doc="scalar - data")
_scalar("_mul_scalar", "multiply", _by_scalar, aliases=["_MulScalar"], doc="data * scalar")
_scalar("_div_scalar", "divide", _over_scalar, aliases=["_DivScalar"], doc="data / scalar")
_scalar(
    "_rdiv_scalar", "divide", _rdiv_slope, swap=True, reads=(0,), aliases=["_RDivScalar"], doc="scalar / data"
)
_scalar("_power_scalar", "power", _power_slope, reads=(0,), aliases=["_PowerScalar"], doc="data ** scalar")
_scalar(
    "_rpower_scalar",
    "power",
    _rpower_slope,
    swap=True,
    reads=(0,),
    aliases=["_RPowerScalar"],
    doc="scalar ** data",
)
_scalar("_mod_scalar", "mod", _one, aliases=["_ModScalar"], doc="data % scalar")
_scalar(
    "_rmod_scalar", "mod", _rmod_slope, swap=True, reads=(0,), aliases=["_RModScalar"], doc="scalar % data"
)
