"""Factors of matrices after LAPACK: linalg_potrf, potri, trsm, gelqf, syevd. All work on batches.

The gradients follow Seeger, Hetzel, Dai, Lawrence: Auto-Differentiating Linear Algebra, 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, MXNetError
from dmod.ops.elementwise import merge_shapes
from dmod.ops.linalg_products import (
    TRIANGLE,
    float_type,
    infer_triangle,
    is_known,
    linalg_names,
    matrices,
    square,
    transposed,
    triangle,
)
from dmod.ops.params import Param, boolean
from dmod.ops.registry import Attrs, Call, Shapes, Step, register

__all__ = ["factorise"]

_LOWER = [Param("lower", boolean, True, "Whether the factor is lower triangular.")]


def factorise(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of ``linalg``; a matrix that it cannot take is an `MXNetError`."""
    try:
        return function(*args)
    except np.linalg.LinAlgError as error:
        raise MXNetError(f"linear algebra: {error}") from None


def _same(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a = merge_shapes(inputs[0], outputs[0], "A")
    square("A", a)
    return [a], [a], []


def _copy_lower(xp: Any, x: Any) -> Any:
    """The symmetric matrix with the lower triangle of `x`."""
    return xp.tril(x) + transposed(xp.tril(x, -1))


def _potrf(call: Call) -> Step:
    xp, lower, (a,), (out,) = call.xp, call.attrs.lower, call.inputs, call.outputs

    def run() -> None:
        factor = factorise(xp.linalg.cholesky, a if lower else transposed(a))  # reads the lower triangle
        xp.copyto(out, factor if lower else transposed(factor))

    return run


def _potrf_grad(call: Call) -> Step:
    xp, lower, (factor,), (dy,), (da,) = (
        call.xp,
        call.attrs.lower,
        call.outputs,
        call.out_grads,
        call.in_grads,
    )
    half = factor.dtype.type(0.5)

    def run() -> None:
        low, grad = (factor, dy) if lower else (transposed(factor), transposed(dy))
        inner = _copy_lower(xp, xp.matmul(transposed(low), grad))
        left = xp.linalg.solve(transposed(low), inner)  # L^-T S
        xp.multiply(transposed(xp.linalg.solve(transposed(low), transposed(left))), half, out=da)

    return run


register(
    **linalg_names("potrf"),
    params=_LOWER,
    arguments=["A"],
    infer_shape=_same,
    infer_type=float_type(),
    forward=_potrf,
    backward=_potrf_grad,
    backward_reads=((), (0,)),
    doc="""The Cholesky factor B of symmetric positive definite matrices: ``A = B @ B^T`` (lower).

With ``lower=False`` B is upper triangular and ``A = B^T @ B``. Only that triangle of A is read.""",
)


def _inverse_of_triangle(call: Call, keep: Any) -> Any:
    xp, a = call.xp, call.inputs[0]
    return factorise(xp.linalg.inv, keep(a))


def _potri(call: Call) -> Step:
    xp, lower, (out,), keep = call.xp, call.attrs.lower, call.outputs, triangle(call)

    def run() -> None:
        inverse = _inverse_of_triangle(call, keep)
        left, right = (transposed(inverse), inverse) if lower else (inverse, transposed(inverse))
        xp.matmul(left, right, out=out)

    return run


def _potri_grad(call: Call) -> Step:
    xp, (out,), (dy,), (da,), keep = call.xp, call.outputs, call.out_grads, call.in_grads, triangle(call)

    def run() -> None:
        turned = transposed(_inverse_of_triangle(call, keep))
        both = dy + transposed(dy)
        grad = xp.matmul(xp.matmul(out, both), turned)
        if not call.attrs.lower:
            grad = xp.matmul(turned, xp.matmul(both, out))
        xp.negative(keep(grad), out=da)

    return run


register(
    **linalg_names("potri"),
    params=_LOWER,
    arguments=["A"],
    infer_shape=_same,
    infer_type=float_type(),
    forward=_potri,
    backward=_potri_grad,
    backward_reads=((0,), (0,)),
    doc="""The inverse of matrices whose Cholesky factor is A: ``A^-T @ A^-1`` (lower), ``A^-1 @ A^-T``.

trsm with the factor is cheaper and more accurate where the inverse itself is not needed.""",
)


def _trsm(call: Call) -> Step:
    xp, attrs, (a, b), (out,) = call.xp, call.attrs, call.inputs, call.outputs
    keep, alpha = triangle(call), out.dtype.type(attrs.alpha)

    def run() -> None:
        t = transposed(keep(a)) if attrs.transpose else keep(a)
        if attrs.rightside:
            solution = transposed(factorise(xp.linalg.solve, transposed(t), transposed(b)))
        else:
            solution = factorise(xp.linalg.solve, t, b)
        xp.multiply(solution, alpha, out=out)

    return run


def _trsm_grads(call: Call) -> Step:
    xp, attrs, a, x = call.xp, call.attrs, call.inputs[0], call.outputs[0]
    (dx,), (da, db) = call.out_grads, call.in_grads
    keep, alpha = triangle(call), x.dtype.type(attrs.alpha)

    def run() -> None:
        t = transposed(keep(a)) if attrs.transpose else keep(a)
        if attrs.rightside:
            g = transposed(xp.linalg.solve(t, transposed(dx)))
            grad = xp.matmul(transposed(x), g)
        else:
            g = xp.linalg.solve(transposed(t), dx)
            grad = xp.matmul(g, transposed(x))
        if da is not None:
            xp.negative(keep(transposed(grad) if attrs.transpose else grad), out=da)
        if db is not None:
            xp.multiply(g, alpha, out=db)

    return run


register(
    **linalg_names("trsm"),
    params=TRIANGLE,
    arguments=["A", "B"],
    infer_shape=infer_triangle,
    infer_type=float_type(),
    forward=_trsm,
    backward=_trsm_grads,
    backward_reads=((0,), (0,)),
    doc="The X of ``op(A) @ X = alpha * B``, or ``X @ op(A) = alpha * B``, with a triangular A, in batches.",
)


def _infer_gelqf(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a = merge_shapes(inputs[0], outputs[0], "A")
    matrices("A", a)
    if not is_known(a):
        return [a], [None, None], []
    assert a is not None
    if a[-2] > a[-1]:
        raise InvalidArgument(f"A has shape {a}, expected at most as many rows as columns")
    return [a], [a, (*a[:-1], a[-2])], []


def _gelqf(call: Call) -> Step:
    xp, (a,), (q, low) = call.xp, call.inputs, call.outputs

    def run() -> None:
        turned_q, turned_low = factorise(xp.linalg.qr, transposed(a))
        xp.copyto(q, transposed(turned_q))
        xp.copyto(low, transposed(turned_low))

    return run


def _gelqf_grad(call: Call) -> Step:
    xp, (q, low), (dq, dlow), (da,) = call.xp, call.outputs, call.out_grads, call.in_grads

    def run() -> None:
        m = xp.matmul(transposed(low), dlow) - xp.matmul(dq, transposed(q))
        inner = dq + xp.matmul(_copy_lower(xp, m), q)
        xp.copyto(da, xp.linalg.solve(transposed(low), inner))

    return run


register(
    **linalg_names("gelqf"),
    arguments=["A"],
    outputs=["output0", "output1"],
    num_visible=lambda attrs: 2,
    infer_shape=_infer_gelqf,
    infer_type=float_type(2),
    forward=_gelqf,
    backward=_gelqf_grad,
    backward_reads=((), (0, 1)),
    doc="""The LQ factors (Q, L) of matrices (..., m, n), m <= n, of full rank: ``A = L @ Q``.

Q (..., m, n) has orthonormal rows, L (..., m, m) is lower triangular.""",
)


def _infer_syevd(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a = merge_shapes(inputs[0], outputs[0], "A")
    square("A", a)
    return [a], [a, None if a is None else a[:-1]], []


def _syevd(call: Call) -> Step:
    xp, (a,), (u, values) = call.xp, call.inputs, call.outputs

    def run() -> None:
        found, columns = factorise(xp.linalg.eigh, a)
        rows = transposed(columns)
        # An eigenvector's sign is free; like MXNet's, its largest element is positive.
        largest = xp.take_along_axis(rows, xp.argmax(xp.abs(rows), axis=-1)[..., None], axis=-1)
        xp.copyto(u, xp.where(largest < 0, -rows, rows))
        xp.copyto(values, found)

    return run


def _syevd_grad(call: Call) -> Step:
    xp, (u, values), (du, dvalues), (da,) = call.xp, call.outputs, call.out_grads, call.in_grads
    eye = xp.eye(u.shape[-1], dtype=u.dtype)
    half = u.dtype.type(0.5)

    def run() -> None:
        gaps = values[..., None, :] - values[..., :, None]
        inner = xp.matmul(u, transposed(du)) / xp.where(gaps == 0, xp.inf, gaps)
        inner = (inner + transposed(inner)) * half + eye * dvalues[..., None, :]
        xp.matmul(transposed(u), xp.matmul(inner, u), out=da)

    return run


register(
    "_linalg_syevd",
    aliases=["linalg_syevd"],
    arguments=["A"],
    outputs=["output0", "output1"],
    num_visible=lambda attrs: 2,
    infer_shape=_infer_syevd,
    infer_type=float_type(2),
    forward=_syevd,
    backward=_syevd_grad,
    backward_reads=((), (0, 1)),
    doc="""Eigenvectors and eigenvalues (U, L) of symmetric matrices: ``U @ A = diag(L) @ U``.

The rows of U (..., n, n) are the orthonormal eigenvectors, L (..., n) the eigenvalues in ascending
order. The gradient is right where all eigenvalues differ.""",
)
