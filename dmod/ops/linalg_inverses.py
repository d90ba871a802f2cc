"""Inverses and determinants of square matrices: linalg_inverse, det, slogdet. All work on batches."""

from __future__ import annotations

from typing import Any

from dmod.ops.elementwise import merge_shapes
from dmod.ops.linalg_factors import factorise
from dmod.ops.linalg_products import float_type, linalg_names, square, transposed
from dmod.ops.registry import Attrs, Call, Shapes, Step, register


def _infer_inverse(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a = merge_shapes(inputs[0], outputs[0], "A")
    square("A", a)
    return [a], [a], []


def _inverse(call: Call) -> Step:
    xp, (a,), (out,) = call.xp, call.inputs, call.outputs
    return lambda: xp.copyto(out, factorise(xp.linalg.inv, a))


def _inverse_grad(call: Call) -> Step:
    xp, (inverse,), (dy,), (da,) = call.xp, call.outputs, call.out_grads, call.in_grads
    turned = transposed(inverse)
    return lambda: xp.negative(xp.matmul(xp.matmul(turned, dy), turned), out=da)


register(
    **linalg_names("inverse"),
    arguments=["A"],
    infer_shape=_infer_inverse,
    infer_type=float_type(),
    forward=_inverse,
    backward=_inverse_grad,
    backward_reads=((), (0,)),
    doc="The inverses of square matrices.",
)


def _infer_det(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a = inputs[0]
    square("A", a)
    out = None if a is None else a[:-2] or (1,)
    return [a], [out, out][: len(outputs)], []


def _det(call: Call) -> Step:
    xp, (a,), out = call.xp, call.inputs, call.outputs[0].reshape(call.inputs[0].shape[:-2])

    def run() -> None:
        sign, log = xp.linalg.slogdet(a)
        xp.multiply(sign, xp.exp(log), out=out)

    return run


def _inverse_transposed(call: Call, singular: Any) -> Any:
    """``A^-T``, with the unit matrix where `singular`."""
    xp, a = call.xp, call.inputs[0]
    eye = xp.eye(a.shape[-1], dtype=a.dtype)
    return transposed(xp.linalg.inv(xp.where(singular[..., None, None], eye, a)))


def _det_grad(call: Call) -> Step:
    xp, (da,), batch = call.xp, call.in_grads, call.inputs[0].shape[:-2]
    det, dy = call.outputs[0].reshape(batch), call.out_grads[0].reshape(batch)

    def run() -> None:
        inverse = _inverse_transposed(call, det == 0)
        xp.multiply(inverse, (dy * det)[..., None, None], out=da)

    return run


register(
    **linalg_names("det"),
    arguments=["A"],
    outputs=["output0"],
    json_outputs=3,
    infer_shape=_infer_det,
    infer_type=float_type(),
    forward=_det,
    backward=_det_grad,
    backward_reads=((0,), (0,)),
    doc="""The determinants of square matrices, of shape (1,) for one matrix.

A singular matrix gets no gradient.""",
)


def _slogdet(call: Call) -> Step:
    xp, (a,), batch = call.xp, call.inputs, call.inputs[0].shape[:-2]
    sign, log = (out.reshape(batch) for out in call.outputs)

    def run() -> None:
        found_sign, found_log = xp.linalg.slogdet(a)
        xp.copyto(sign, found_sign)
        xp.copyto(log, found_log)

    return run


def _slogdet_grad(call: Call) -> Step:
    xp, (da,), batch = call.xp, call.in_grads, call.inputs[0].shape[:-2]
    sign, dlog = call.outputs[0].reshape(batch), call.out_grads[1].reshape(batch)

    def run() -> None:
        singular = sign == 0
        inverse = _inverse_transposed(call, singular)
        xp.multiply(inverse, xp.where(singular, 0, dlog).astype(da.dtype)[..., None, None], out=da)

    return run


register(
    **linalg_names("slogdet"),
    arguments=["A"],
    outputs=["output0", "output1"],
    num_visible=lambda attrs: 2,
    json_outputs=4,
    infer_shape=_infer_det,
    infer_type=float_type(2),
    forward=_slogdet,
    backward=_slogdet_grad,
    backward_reads=((0,), (0,)),
    doc="""The sign of the determinants of square matrices, and the logarithm of their absolute value.

The sign has no gradient, nor has a singular matrix.""",
)
