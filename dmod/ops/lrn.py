"""LRN: local response normalisation across channels, of Krizhevsky et al., 2012."""

from __future__ import annotations

from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.convolution import float_type
from dmod.ops.elementwise import same_shape
from dmod.ops.params import Param, integer, number
from dmod.ops.registry import Attrs, Call, Shapes, Step, register

__all__: list[str] = []


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if attrs.nsize < 1:
        raise InvalidArgument(f"nsize: expected at least 1, got {attrs.nsize}")
    if inputs[0] is not None and len(inputs[0]) != 4:
        raise InvalidArgument(f"data: expected 4 axes (NCHW), got shape {inputs[0]}")
    return same_shape(attrs, inputs, outputs)


class _Sums:
    """Sums over the channels next to each one, `nsize` of them in all."""

    def __init__(self, call: Call):
        self.xp, self.reach = call.xp, (call.attrs.nsize - 1) // 2

    def add_up(self, source: Any, target: Any) -> None:
        xp, channels = self.xp, source.shape[1]
        xp.copyto(target, source)
        for step in range(1, min(self.reach, channels - 1) + 1):
            upper, lower = target[:, step:], target[:, : channels - step]
            xp.add(upper, source[:, : channels - step], out=upper)
            xp.add(lower, source[:, step:], out=lower)


def _norm(call: Call, out: Any, tmp: Any) -> Step:
    """The step that puts ``knorm + alpha / nsize * sum(x**2)`` into `out`."""
    xp, x, attrs, sums = call.xp, call.inputs[0], call.attrs, _Sums(call)
    scale, knorm = x.dtype.type(attrs.alpha / attrs.nsize), x.dtype.type(attrs.knorm)

    def run() -> None:
        xp.multiply(x, x, out=tmp)
        sums.add_up(tmp, out)
        xp.multiply(out, scale, out=out)
        xp.add(out, knorm, out=out)

    return run


def _forward(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    norm, tmp = (call.scratch(x.shape, x.dtype) for _ in range(2))
    measure, power = _norm(call, norm, tmp), _power(call)

    def run() -> None:
        measure()
        power(norm, tmp, y)
        xp.multiply(x, tmp, out=y)

    return run


def _power(call: Call) -> Any:
    """``norm ** -beta``; for the usual beta by two square roots, which are ten times as fast."""
    xp, beta = call.xp, call.attrs.beta
    one = call.inputs[0].dtype.type(1)

    def usual(norm: Any, out: Any, tmp: Any) -> None:
        xp.sqrt(norm, out=out)
        xp.sqrt(out, out=tmp)
        xp.multiply(out, tmp, out=out)
        xp.divide(one, out, out=out)

    def general(norm: Any, out: Any, tmp: Any) -> None:
        xp.power(norm, norm.dtype.type(-beta), out=out)

    return usual if beta == 0.75 else general


def _backward(call: Call) -> Step:
    """``dx = dy * n**-beta - 2 * alpha * beta / nsize * x * sums(dy * x * n**(-beta - 1))``."""
    xp, x, dy, dx = call.xp, call.inputs[0], call.out_grads[0], call.in_grads[0]
    attrs, sums = call.attrs, _Sums(call)
    norm, factor, product = (call.scratch(x.shape, x.dtype) for _ in range(3))
    measure, power = _norm(call, norm, product), _power(call)
    scale = x.dtype.type(-2 * attrs.alpha * attrs.beta / attrs.nsize)

    def run() -> None:
        measure()
        power(norm, factor, product)
        xp.multiply(dy, factor, out=factor)
        xp.multiply(factor, x, out=product)
        xp.divide(product, norm, out=product)
        sums.add_up(product, norm)
        xp.multiply(norm, x, out=norm)
        xp.multiply(norm, scale, out=norm)
        xp.add(norm, factor, out=dx)

    return run


register(
    "LRN",
    params=[
        Param("alpha", number, 1e-4, "The weight of the squares."),
        Param("beta", number, 0.75, "The exponent."),
        Param("knorm", number, 2.0, "Added to the squares."),
        Param("nsize", integer, doc="How many channels are summed; an even number counts as one less."),
    ],
    json_outputs=2,
    infer_shape=_infer,
    infer_type=float_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((0,), ()),
    doc="""Divide each element by ``(knorm + alpha / nsize * s) ** beta``.

s is the sum of squares over the channels around it. data and output are (N, C, H, W).""",
)
