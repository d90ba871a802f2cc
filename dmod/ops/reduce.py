"""Reductions over axes: sum, mean, prod, max, min, and sum and prod that leave out what is not a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.integers import is_real, through_float64
from dmod.ops.params import Param, boolean, optional, shape
from dmod.ops.reduction import Reduction, normal_axes, reduced_shape, sum_dtype
from dmod.ops.registry import Attrs, Builder, Call, Shapes, Step, register

__all__ = ["AXIS", "KEEPDIMS", "reduction_of"]

AXIS = Param("axis", optional(shape), None, "The axis or axes to reduce; all by default.")
KEEPDIMS = Param("keepdims", boolean, False, "Keep reduced axes, with length 1.")
_EXCLUDE = Param("exclude", boolean, False, "Reduce the axes that are not in axis.")


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [data], [None], []
    axes = normal_axes(attrs.axis, len(data), attrs.exclude)
    return [data], [reduced_shape(data, axes, attrs.keepdims)], []


def _infer_extremum(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if inputs[0] is not None and 0 in inputs[0]:
        raise InvalidArgument(f"data: expected at least one element, got shape {inputs[0]}")
    return _infer(attrs, inputs, outputs)


def reduction_of(call: Call) -> Reduction:
    """The reduction that a call's ``axis`` and ``exclude`` ask for."""
    x, attrs = call.inputs[0], call.attrs
    return Reduction(x.shape, normal_axes(attrs.axis, x.ndim, getattr(attrs, "exclude", False)))


def _sum(call: Call) -> Step:
    return reduction_of(call).sum(call.xp, call.inputs[0], call.outputs[0])


def _sum_gradient(call: Call) -> Step:
    xp, red, dy, dx = call.xp, reduction_of(call), call.out_grads[0], call.in_grads[0]
    dy, dx = dy.reshape(red.kept), dx.reshape(red.full)
    return lambda: xp.copyto(dx, dy)


def _mean(call: Call) -> Step:
    xp, red, (x,), (y,) = call.xp, reduction_of(call), call.inputs, call.outputs
    total = y if y.dtype == sum_dtype(y.dtype) else call.scratch(y.shape, sum_dtype(y.dtype))
    add_up, count = red.sum(xp, x, total), red.count

    def run() -> None:
        add_up()
        xp.divide(total, count, out=y)

    return run


def _mean_gradient(call: Call) -> Step:
    xp, red, dy, dx = call.xp, reduction_of(call), call.out_grads[0], call.in_grads[0]
    dy, dx, share = dy.reshape(red.kept), dx.reshape(red.full), 1 / max(1, red.count)
    return lambda: xp.multiply(dy, share, out=dx)


def _reducing(function: str) -> Builder:
    """Forward of prod, max and min."""

    def build(call: Call) -> Step:
        xp, red = call.xp, reduction_of(call)
        x, y = call.inputs[0].reshape(red.full), call.outputs[0].reshape(red.kept)
        if not red.axes:
            return lambda: xp.copyto(y, x)
        apply, axes = getattr(xp, function), red.axes
        options = {"dtype": y.dtype} if function == "prod" else {}
        return lambda: apply(x, axis=axes, out=y, keepdims=True, **options)

    return build


def _prod_gradient(call: Call) -> Step:
    """``dy * y / x``: not a number where x is 0, as in MXNet."""
    xp, red = call.xp, reduction_of(call)
    x, y = call.inputs[0].reshape(red.full), call.outputs[0].reshape(red.kept)
    dy, dx = call.out_grads[0].reshape(red.kept), call.in_grads[0].reshape(red.full)

    def run() -> None:
        xp.divide(y, x, out=dx)
        xp.multiply(dx, dy, out=dx)

    return run


def _extremum_gradient(call: Call) -> Step:
    """Every element that equals the extremum gets the whole gradient, as in MXNet."""
    xp, red = call.xp, reduction_of(call)
    x, y = call.inputs[0].reshape(red.full), call.outputs[0].reshape(red.kept)
    dy, dx = call.out_grads[0].reshape(red.kept), call.in_grads[0].reshape(red.full)

    def run() -> None:
        xp.equal(x, y, out=dx)
        xp.multiply(dx, dy, out=dx)

    return run


def _without_nan(build: Builder, neutral: int) -> Builder:
    """Forward of nansum and nanprod: `build` over the input with `neutral` for what is not a number."""

    def builder(call: Call) -> Step:
        xp, x = call.xp, call.inputs[0]
        if not is_real(x):
            return build(call)
        clean, missing = call.scratch(x.shape, x.dtype), call.scratch(x.shape, bool)
        call.inputs = [clean]
        reduce = build(call)

        def run() -> None:
            xp.isnan(x, out=missing)
            xp.copyto(clean, x)
            xp.copyto(clean, neutral, where=missing)
            reduce()

        return run

    return builder


def _zero_at_nan(build: Builder) -> Builder:
    """Backward of nansum and nanprod: `build`, and 0 for what is not a number."""

    def builder(call: Call) -> Step:
        xp, x, dx = call.xp, call.inputs[0], call.in_grads[0]
        if not is_real(x):
            return build(call)
        missing, fill = call.scratch(x.shape, bool), build(call)

        def run() -> None:
            fill()
            xp.isnan(x, out=missing)
            xp.copyto(dx, 0, where=missing)

        return run

    return builder


def _reduce(
    name: str,
    forward: Builder,
    backward: Builder,
    doc: str,
    *,
    reads: Any = ((), ()),
    infer: Callable[..., Any] = _infer,
    aliases: Any = (),
) -> None:
    register(
        name,
        aliases=aliases,
        params=[AXIS, KEEPDIMS, _EXCLUDE],
        infer_shape=infer,
        forward=forward,
        backward=backward,
        backward_reads=reads,
        doc=doc,
    )


_both = ((0,), (0,))
_prod = _reducing("prod")
_reduce("sum", _sum, _sum_gradient, "The sum over axes.", aliases=["sum_axis"])
_reduce("mean", through_float64(_mean), through_float64(_mean_gradient), "The mean over axes.")
_reduce("prod", _prod, through_float64(_prod_gradient), "The product over axes.", reads=_both)
_reduce(
    "nansum",
    _without_nan(_sum, 0),
    _zero_at_nan(_sum_gradient),
    "The sum over axes, without what is not a number.",
    reads=((0,), ()),
)
_reduce(
    "nanprod",
    _without_nan(_prod, 1),
    through_float64(_zero_at_nan(_prod_gradient)),
    "The product over axes, without what is not a number.",
    reads=_both,
)
for _name, _doc in (("max", "The greatest element over axes."), ("min", "The least element over axes.")):
    _reduce(
        _name,
        _reducing(_name),
        _extremum_gradient,
        _doc,
        reads=_both,
        infer=_infer_extremum,
        aliases=[f"{_name}_axis"],
    )
