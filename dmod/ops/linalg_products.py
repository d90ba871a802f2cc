"""Products of matrices after BLAS: linalg_gemm, gemm2, syrk, trmm. All work on batches of matrices.

`square`, `float_type` and `transposed` serve the other files of linear algebra too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer, number
from dmod.ops.registry import Attrs, Call, Dtypes, InferType, Shape, Shapes, Step, register, same_type

__all__ = ["float_type", "is_known", "linalg_names", "matrices", "square", "transposed"]

ALPHA = Param("alpha", number, 1.0, "A factor for the product.")
TRANSPOSE_A = Param("transpose_a", boolean, False, "Transpose A first.")
TRANSPOSE_B = Param("transpose_b", boolean, False, "Transpose B first.")
AXIS = Param("axis", integer, -2, "The axis of the matrices' rows; the last one is that of the columns.")
TRIANGLE = [
    Param("transpose", boolean, False, "Transpose A."),
    Param("rightside", boolean, False, "Whether A stands to the right of the other matrix."),
    Param("lower", boolean, True, "Whether A is lower triangular; the other triangle is not read."),
    ALPHA,
]


def linalg_names(name: str) -> dict[str, Any]:
    """The canonical name and the alias of an operator of linear algebra."""
    return {"name": f"_linalg_{name}", "aliases": [f"linalg_{name}"]}


def is_known(dims: Shape | None) -> bool:
    """Whether every length is known."""
    return dims is not None and -1 not in dims


def matrices(name: str, dims: Shape | None) -> None:
    """Refuse an input `name` without two axes."""
    if dims is not None and len(dims) < 2:
        raise InvalidArgument(f"{name} has shape {dims}, expected matrices: two axes or more")


def square(name: str, dims: Shape | None) -> None:
    """Refuse an input `name` that holds no square matrices."""
    matrices(name, dims)
    if dims is not None and -1 not in dims[-2:] and dims[-1] != dims[-2]:
        raise InvalidArgument(f"{name} has shape {dims}, expected square matrices")


def float_type(n_outputs: int = 1) -> InferType:
    """The dtype rule of linear algebra: one dtype for all, float32 or float64."""
    same = same_type(n_outputs)

    def infer(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        for dtype in inputs:
            if dtype is not None and dtype not in (np.float32, np.float64):
                raise InvalidArgument(f"dtype {dtype}, expected float32 or float64; use Cast")
        return same(attrs, inputs)

    return infer


def transposed(array: Any) -> Any:
    """The array with its last two axes exchanged: a view."""
    return array.swapaxes(-1, -2)


def _product(attrs: Attrs, a: Shape, b: Shape) -> Shape:
    """The shape of the product of A and B, the rows along `axis`."""
    if len(a) != len(b):
        raise InvalidArgument(f"B: expected {len(a)} axes like A's {a}, got {b}")
    axis = attrs.axis
    if not -len(a) <= axis < len(a) - 1 or axis == -1:
        raise InvalidArgument(f"axis {axis} cannot be that of the rows in shape {a}")
    axis %= len(a)
    (m, k), (j, n) = (a[axis], a[-1]), (b[axis], b[-1])
    m, k = (k, m) if attrs.transpose_a else (m, k)
    j, n = (n, j) if attrs.transpose_b else (j, n)
    rest_a, rest_b = (dims[:axis] + dims[axis + 1 : -1] for dims in (a, b))
    if rest_a != rest_b or j != k:
        raise InvalidArgument(f"B: shape {b} does not fit A's {a}")
    return (*a[:axis], m, *a[axis + 1 : -1], n)


def _infer_gemm(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a, b, *c = inputs
    matrices("A", a)
    matrices("B", b)
    if not (is_known(a) and is_known(b)):
        return [a, b, *c], [None], []
    out = _product(attrs, a, b)  # type: ignore[arg-type]
    return [a, b, *(merge_shapes(out, dims, "C") for dims in c)], [out], []


def _gemm(call: Call) -> Step:
    xp, attrs = call.xp, call.attrs
    a, b, *c = (x.swapaxes(attrs.axis, -2) for x in call.inputs)
    out = call.outputs[0].swapaxes(attrs.axis, -2)
    a = transposed(a) if attrs.transpose_a else a
    b = transposed(b) if attrs.transpose_b else b
    alpha, beta = out.dtype.type(attrs.alpha), out.dtype.type(getattr(attrs, "beta", 0))
    product = call.scratch(out.shape, out.dtype)

    def run() -> None:
        xp.matmul(a, b, out=product)
        xp.multiply(product, alpha, out=product)
        if c:
            xp.multiply(c[0], beta, out=out)
            xp.add(out, product, out=out)
        else:
            xp.copyto(out, product)

    return run


def _gemm_grads(call: Call) -> Step:
    xp, attrs = call.xp, call.attrs
    a, b = (x.swapaxes(attrs.axis, -2) for x in call.inputs[:2])
    dy = call.out_grads[0].swapaxes(attrs.axis, -2)
    da, db, *dc = (None if g is None else g.swapaxes(attrs.axis, -2) for g in call.in_grads)
    a = transposed(a) if attrs.transpose_a else a
    b = transposed(b) if attrs.transpose_b else b
    alpha, beta = dy.dtype.type(attrs.alpha), dy.dtype.type(getattr(attrs, "beta", 0))
    left = transposed(da) if da is not None and attrs.transpose_a else da  # where the gradient of op(A) goes
    right = transposed(db) if db is not None and attrs.transpose_b else db

    def run() -> None:
        if left is not None:
            xp.multiply(xp.matmul(dy, transposed(b)), alpha, out=left)
        if right is not None:
            xp.multiply(xp.matmul(transposed(a), dy), alpha, out=right)
        if dc and dc[0] is not None:
            xp.multiply(dy, beta, out=dc[0])

    return run


register(
    **linalg_names("gemm"),
    params=[
        TRANSPOSE_A,
        TRANSPOSE_B,
        ALPHA,
        Param("beta", number, 1.0, "A factor for C."),
        AXIS,
    ],
    arguments=["A", "B", "C"],
    infer_shape=_infer_gemm,
    infer_type=float_type(),
    forward=_gemm,
    backward=_gemm_grads,
    backward_reads=((0, 1), ()),
    doc="``alpha * op(A) @ op(B) + beta * C`` for batches of matrices (..., m, k), (..., k, n), (..., m, n).",
)
register(
    **linalg_names("gemm2"),
    params=[TRANSPOSE_A, TRANSPOSE_B, ALPHA, AXIS],
    arguments=["A", "B"],
    infer_shape=_infer_gemm,
    infer_type=float_type(),
    forward=_gemm,
    backward=_gemm_grads,
    backward_reads=((0, 1), ()),
    doc="``alpha * op(A) @ op(B)`` for batches of matrices (..., m, k) and (..., k, n).",
)


def _infer_syrk(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a = inputs[0]
    matrices("A", a)
    if a is None:
        return [a], [None], []
    n = a[-1] if attrs.transpose else a[-2]
    return [a], [(*a[:-2], n, n)], []


def _syrk(call: Call) -> Step:
    xp, (a,), (out,) = call.xp, call.inputs, call.outputs
    left, right = (transposed(a), a) if call.attrs.transpose else (a, transposed(a))
    alpha = out.dtype.type(call.attrs.alpha)

    def run() -> None:
        xp.matmul(left, right, out=out)
        xp.multiply(out, alpha, out=out)

    return run


def _syrk_grad(call: Call) -> Step:
    xp, (a,), (dy,), (da,) = call.xp, call.inputs, call.out_grads, call.in_grads
    both, alpha = call.scratch(dy.shape, dy.dtype), dy.dtype.type(call.attrs.alpha)
    left, right = (a, both) if call.attrs.transpose else (both, a)

    def run() -> None:
        xp.add(dy, transposed(dy), out=both)
        xp.matmul(left, right, out=da)
        xp.multiply(da, alpha, out=da)

    return run


register(
    **linalg_names("syrk"),
    params=[Param("transpose", boolean, False, "The transpose first: A^T A instead of A A^T."), ALPHA],
    arguments=["A"],
    infer_shape=_infer_syrk,
    infer_type=float_type(),
    forward=_syrk,
    backward=_syrk_grad,
    backward_reads=((0,), ()),
    doc="``alpha * A @ A^T``, or ``alpha * A^T @ A``, for a batch of matrices.",
)


def infer_triangle(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    """The shapes of trmm and trsm: A square, B and the output alike."""
    a, b = inputs
    square("A", a)
    matrices("B", b)
    b = merge_shapes(b, outputs[0], "B")
    if is_known(a) and is_known(b):
        assert a is not None and b is not None
        n = b[-1] if attrs.rightside else b[-2]
        if a[:-2] != b[:-2] or a[-1] != n:
            raise InvalidArgument(f"A: expected {(*b[:-2], n, n)} for B of shape {b}, got {a}")
    elif b is not None and a is None:
        n = b[-1] if attrs.rightside else b[-2]
        a = (*b[:-2], n, n)
    return [a, b], [b], []


def triangle(call: Call) -> Any:
    """A function that gives A with its other triangle set to 0."""
    return call.xp.tril if call.attrs.lower else call.xp.triu


def _trmm(call: Call) -> Step:
    xp, attrs, (a, b), (out,) = call.xp, call.attrs, call.inputs, call.outputs
    keep, alpha = triangle(call), out.dtype.type(attrs.alpha)
    product = call.scratch(out.shape, out.dtype)

    def run() -> None:
        t = transposed(keep(a)) if attrs.transpose else keep(a)
        xp.matmul(b, t, out=product) if attrs.rightside else xp.matmul(t, b, out=product)
        xp.multiply(product, alpha, out=out)

    return run


def _trmm_grads(call: Call) -> Step:
    xp, attrs, (a, b), (dy,), (da, db) = call.xp, call.attrs, call.inputs, call.out_grads, call.in_grads
    keep, alpha = triangle(call), dy.dtype.type(attrs.alpha)

    def run() -> None:
        if da is not None:
            grad = xp.matmul(transposed(b), dy) if attrs.rightside else xp.matmul(dy, transposed(b))
            xp.multiply(keep(transposed(grad) if attrs.transpose else grad), alpha, out=da)
        if db is not None:
            t = keep(a) if attrs.transpose else transposed(keep(a))
            xp.multiply(xp.matmul(dy, t) if attrs.rightside else xp.matmul(t, dy), alpha, out=db)

    return run


register(
    **linalg_names("trmm"),
    params=TRIANGLE,
    arguments=["A", "B"],
    infer_shape=infer_triangle,
    infer_type=float_type(),
    forward=_trmm,
    backward=_trmm_grads,
    backward_reads=((0, 1), ()),
    doc="``alpha * op(A) @ B``, or ``alpha * B @ op(A)``, with a triangular A, for batches of matrices.",
)
