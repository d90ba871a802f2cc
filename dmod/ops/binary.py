"""Functions of two numbers, applied to arrays of one shape (elemwise_*) or of shapes that broadcast.

A row of the table is the function and its two partial derivatives; both families of operators are made of
it. Broadcasting is undone in the gradient by sums over the axes that were spread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dmod.ops.elementwise import same_shape
from dmod.ops.integers import is_real, through_float64
from dmod.ops.reduction import Reduction, broadcast_shape
from dmod.ops.registry import Attrs, Builder, Call, Shape, Shapes, Step, register, zero_gradient

__all__ = ["Binary", "Partial", "infer_broadcast"]


class Partial(NamedTuple):
    """A partial derivative, times the gradient of the result.

    ``apply(xp, a, b, y, dy, out)`` returns it, negated if `negate`: in `out`, which has dy's shape, or dy
    itself.
    """

    apply: Callable[[Any, Any, Any, Any, Any, Any], Any]
    negate: bool = False


class Binary(NamedTuple):
    """A function of two arrays.

    `forward` builds a step over arrays that broadcast; `reads_inputs` and `reads_output` say what the
    partial derivatives read; without derivatives the gradient is 0. `is_whole` if integers need no other
    arithmetic than other numbers.
    """

    doc: str
    forward: Builder
    partials: tuple[Partial, Partial] | None = None
    reads_inputs: bool = True
    reads_output: bool = False
    is_whole: bool = True


def _named(function: str) -> Builder:
    def build(call: Call) -> Step:
        (a, b), (y,), apply = call.inputs, call.outputs, getattr(call.xp, function)
        return lambda: apply(a, b, out=y)

    return build


def _mod(call: Call) -> Step:
    """The remainder with the divisor's sign; 0 for a divisor of 0, as in MXNet."""
    xp, (a, b), (y,) = call.xp, call.inputs, call.outputs
    if not is_real(b):
        return lambda: xp.mod(a, b, out=y)
    zero = call.scratch(b.shape, bool)

    def run() -> None:
        xp.equal(b, 0, out=zero)
        xp.mod(a, b, out=y)
        xp.copyto(y, 0, where=zero)

    return run


def _pass(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    return dy


def _by_lhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    return xp.multiply(dy, a, out=out)


def _by_rhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    return xp.multiply(dy, b, out=out)


def _over_rhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    return xp.divide(dy, b, out=out)


def _div_rhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    xp.divide(dy, b, out=out)
    xp.multiply(out, a, out=out)
    return xp.divide(out, b, out=out)


def _mod_rhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    xp.divide(a, b, out=out)
    xp.floor(out, out=out)
    return xp.multiply(out, dy, out=out)


def _power_lhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    xp.subtract(b, 1, out=out)
    xp.power(a, out, out=out)
    xp.multiply(out, b, out=out)
    return xp.multiply(out, dy, out=out)


def _power_rhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    xp.log(a, out=out)
    xp.multiply(out, y, out=out)
    return xp.multiply(out, dy, out=out)


def _hypot_lhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    xp.divide(a, y, out=out)
    return xp.multiply(out, dy, out=out)


def _hypot_rhs(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
    xp.divide(b, y, out=out)
    return xp.multiply(out, dy, out=out)


def _where(comparison: str) -> Partial:
    """dy where the comparison holds, else 0."""

    def apply(xp: Any, a: Any, b: Any, y: Any, dy: Any, out: Any) -> Any:
        getattr(xp, comparison)(a, b, out=out)
        return xp.multiply(out, dy, out=out)

    return Partial(apply)


def binary_gradient(function: Binary) -> Builder:
    """The backward builder of a function; each input's gradient has that input's shape."""
    if function.partials is None:
        return zero_gradient
    partials = function.partials

    def build(call: Call) -> Step:
        steps = [
            _partial_step(call, partial, target)
            for partial, target in zip(partials, call.in_grads, strict=True)
            if target is not None
        ]
        if len(steps) == 1:
            return steps[0]
        first, second = steps

        def run() -> None:
            first()
            second()

        return run

    return through_float64(build)


def _partial_step(call: Call, partial: Partial, target: Any) -> Step:
    """The step that writes one input's gradient."""
    xp, (a, b), y, dy = call.xp, call.inputs, call.outputs[0], call.out_grads[0]
    apply, negate = partial
    if target.size == dy.size:
        target = target.reshape(dy.shape)

        def run() -> None:
            found = apply(xp, a, b, y, dy, target)
            if negate:
                xp.negative(found, out=target)
            elif found is not target:
                xp.copyto(target, found)

        return run
    full = dy if apply is _pass else call.scratch(dy.shape, dy.dtype)
    add_up = Reduction.to_shape(dy.shape, target.shape).sum(xp, full, target)

    def run_reduced() -> None:
        apply(xp, a, b, y, dy, full)
        add_up()
        if negate:
            xp.negative(target, out=target)

    return run_reduced


def infer_broadcast(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    """The output's shape is the inputs' common one."""
    left, right = inputs
    if left is None or right is None:
        return [left, right], [None], []
    common: Shape = broadcast_shape(left, right)
    return [left, right], [common], []


FUNCTIONS = {
    "add": Binary("lhs + rhs", _named("add"), (Partial(_pass), Partial(_pass)), reads_inputs=False),
    "sub": Binary(
        "lhs - rhs", _named("subtract"), (Partial(_pass), Partial(_pass, negate=True)), reads_inputs=False
    ),
    "mul": Binary("lhs * rhs", _named("multiply"), (Partial(_by_rhs), Partial(_by_lhs))),
    "div": Binary(
        "lhs / rhs",
        _named("divide"),
        (Partial(_over_rhs), Partial(_div_rhs, negate=True)),
        is_whole=False,
    ),
    "mod": Binary(
        "The remainder of lhs / rhs, with the sign of rhs.",
        _mod,
        (Partial(_pass), Partial(_mod_rhs, negate=True)),
    ),
    "power": Binary(
        "lhs ** rhs",
        _named("power"),
        (Partial(_power_lhs), Partial(_power_rhs)),
        reads_output=True,
        is_whole=False,
    ),
    "maximum": Binary(
        "The greater one of lhs and rhs; the gradient goes to it, and to lhs if they are equal.",
        _named("maximum"),
        (_where("greater_equal"), _where("less")),
    ),
    "minimum": Binary(
        "The lesser one of lhs and rhs; the gradient goes to it, and to lhs if they are equal.",
        _named("minimum"),
        (_where("less_equal"), _where("greater")),
    ),
    "hypot": Binary(
        "sqrt(lhs**2 + rhs**2)",
        _named("hypot"),
        (Partial(_hypot_lhs), Partial(_hypot_rhs)),
        reads_output=True,
        is_whole=False,
    ),
}
"""The arithmetic functions, by the names that ``broadcast_*`` has for them."""

COMPARISONS = {
    "equal": "equal",
    "not_equal": "not_equal",
    "greater": "greater",
    "greater_equal": "greater_equal",
    "lesser": "less",
    "lesser_equal": "less_equal",
    "logical_and": "logical_and",
    "logical_or": "logical_or",
    "logical_xor": "logical_xor",
}
"""Functions that give 0 or 1 in the inputs' dtype, and numpy's names of them."""

FUNCTIONS.update(
    {
        name: Binary(f"1 where {name.replace('_', ' ')} holds for lhs and rhs, else 0.", _named(function))
        for name, function in COMPARISONS.items()
    }
)


def _register(name: str, function: Binary, infer_shape: Any, doc: str, aliases: Sequence[str] = ()) -> None:
    has_gradient = function.partials is not None
    register(
        name,
        arguments=["lhs", "rhs"],
        aliases=aliases,
        infer_shape=infer_shape,
        forward=function.forward if function.is_whole else through_float64(function.forward),
        backward=binary_gradient(function),
        backward_reads=(
            (0, 1) if function.reads_inputs and has_gradient else (),
            (0,) if function.reads_output else (),
        ),
        inplace=[(0, 0), (1, 0)],
        doc=doc,
    )


_ONE_SHAPE = {
    "add": ["elemwise_add", "_plus", "_Plus", "_add"],
    "sub": ["elemwise_sub", "_minus", "_Minus", "_sub"],
    "mul": ["elemwise_mul", "_mul", "_Mul"],
    "div": ["elemwise_div", "_div", "_Div"],
    "mod": ["_mod", "_Mod"],
    "power": ["_power", "_Power"],
    "maximum": ["_maximum", "_Maximum"],
    "minimum": ["_minimum", "_Minimum"],
    "hypot": ["_hypot", "_Hypot"],
    "equal": ["_equal", "_Equal"],
    "not_equal": ["_not_equal", "_Not_Equal"],
    "greater": ["_greater", "_Greater"],
    "greater_equal": ["_greater_equal", "_Greater_Equal"],
    "lesser": ["_lesser", "_Lesser"],
    "lesser_equal": ["_lesser_equal", "_Lesser_Equal"],
    "logical_and": ["_logical_and", "_Logical_And"],
    "logical_or": ["_logical_or", "_Logical_Or"],
    "logical_xor": ["_logical_xor", "_Logical_Xor"],
}
_BROADCAST_ALIASES = {"add": ["broadcast_plus"], "sub": ["broadcast_minus"]}

for _key, (_name, *_aliases) in _ONE_SHAPE.items():
    _function = FUNCTIONS[_key]
    _register(_name, _function, same_shape, _function.doc + " lhs and rhs have one shape.", _aliases)
    _register(
        f"broadcast_{_key}",
        _function,
        infer_broadcast,
        _function.doc + " Axes of length 1, and missing first axes, are repeated to fit.",
        _BROADCAST_ALIASES.get(_key, ()),
    )
