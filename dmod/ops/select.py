"""Operators over several arrays of one shape: add_n and where."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes, same_shape
from dmod.ops.params import Param, integer
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register


def _add_n(call: Call) -> Step:
    """Add in the order of the arguments, so that the bits do not depend on how many there are."""
    xp, (first, *rest), (y,) = call.xp, call.inputs, call.outputs
    if not rest:
        return lambda: xp.copyto(y, first)
    second, *others = rest

    def run() -> None:
        xp.add(first, second, out=y)
        for x in others:
            xp.add(y, x, out=y)

    return run


def _add_n_gradient(call: Call) -> Step:
    xp, (dy,), grads = call.xp, call.out_grads, [g for g in call.in_grads if g is not None]

    def run() -> None:
        for dx in grads:
            xp.copyto(dx, dy)

    return run


register(
    "add_n",
    aliases=["ElementWiseSum"],
    params=[Param("num_args", integer, doc="The number of inputs.")],
    variadic="num_args",
    arguments=lambda attrs: [f"arg{i}" for i in range(attrs.num_args)],
    infer_shape=same_shape,
    forward=_add_n,
    backward=_add_n_gradient,
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    doc="The sum of all inputs, which have one shape.",
)


def _infer_where(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    condition, x, y = inputs
    both = merge_shapes(merge_shapes(x, y, "y"), outputs[0], "output")
    if condition is not None and both is not None:
        if len(condition) != 1:
            both = merge_shapes(both, condition, "condition")
        elif -1 not in (condition[0], both[0]) and condition[0] != both[0]:
            raise InvalidArgument(f"condition: expected {both} or {both[:1]}, got {condition}")
    return [condition, both, both], [both], []


def _where_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    condition, x, y = inputs
    if x is not None and y is not None and x != y:
        raise InvalidArgument(f"y: expected dtype {x} as x has, got {y}")
    common = x if x is not None else y
    return [condition, common, common], [common], []


def _column(condition: Any, ndim: int) -> Any:
    """A condition for each row, as an array that broadcasts over the rows."""
    return condition.reshape(condition.shape + (1,) * (ndim - condition.ndim))


def _where(call: Call) -> Step:
    """Choose bit by bit, ``b ^ ((a ^ b) & mask)``: four times as fast as masked copies."""
    xp, (condition, a, b), (y,) = call.xp, call.inputs, call.outputs
    condition = _column(condition, y.ndim)
    bits = np.dtype(f"i{y.dtype.itemsize}")
    a, b, y = (array.view(bits) for array in (a, b, y))
    mask = call.scratch(condition.shape, bits)

    def run() -> None:
        xp.not_equal(condition, 0, out=mask)
        xp.negative(mask, out=mask)  # 1 becomes -1: all bits
        xp.bitwise_xor(a, b, out=y)
        xp.bitwise_and(y, mask, out=y)
        xp.bitwise_xor(y, b, out=y)

    return run


def _where_gradient(call: Call) -> Step:
    xp, condition, (dy,), (dcondition, da, db) = call.xp, call.inputs[0], call.out_grads, call.in_grads
    condition = _column(condition, dy.ndim)
    chosen = call.scratch(condition.shape, bool)

    def run() -> None:
        if dcondition is not None:
            dcondition.fill(0)
        for grad, compare in ((da, xp.not_equal), (db, xp.equal)):
            if grad is not None:
                compare(condition, 0, out=chosen)
                xp.multiply(dy, chosen, out=grad)

    return run


register(
    "where",
    arguments=["condition", "x", "y"],
    infer_shape=_infer_where,
    infer_type=_where_type,
    forward=_where,
    backward=_where_gradient,
    backward_reads=((0,), ()),
    doc="""x where condition is not 0, else y.

x and y have one shape; condition has it too, or is one number for each row of x: shape (N,).""",
)
