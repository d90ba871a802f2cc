"""Products of matrices and tensors: dot, batch_dot, khatri_rao."""

from __future__ import annotations

import math
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.params import Param, boolean, choice, integer, optional
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register
from dmod.ops.sparse_rows import csr_product, csr_transposed_product, is_sparse

_PARAMS = [
    Param("transpose_a", boolean, False, "Transpose lhs first."),
    Param("transpose_b", boolean, False, "Transpose rhs first."),
    Param(
        "forward_stype",
        optional(choice(("csr", "default", "row_sparse"))),
        None,
        "The storage type that the output should have.",
    ),
]


def _known(dims: Shape | None) -> bool:
    return dims is not None and -1 not in dims


def _sides(lhs: Shape, rhs: Shape, attrs: Attrs) -> tuple[Shape, Shape, int, int]:
    """The axes that stay of lhs and of rhs, and the lengths over which they are summed."""
    left, right = (lhs[1:], lhs[0]) if attrs.transpose_a and len(lhs) > 1 else (lhs[:-1], lhs[-1])
    kept, summed = (rhs[:-1], rhs[-1]) if attrs.transpose_b and len(rhs) > 1 else (rhs[1:], rhs[0])
    return left, kept, right, summed


def _infer_dot(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    lhs, rhs = inputs
    if not (_known(lhs) and _known(rhs)):
        return [lhs, rhs], [None], []
    assert lhs is not None and rhs is not None
    if not lhs or not rhs:
        raise InvalidArgument(f"lhs has shape {lhs}, rhs {rhs}, expected at least one axis each")
    if len(lhs) == len(rhs) == 1 and (attrs.transpose_a or attrs.transpose_b):
        raise InvalidArgument(f"vectors {lhs} and {rhs} cannot be transposed")
    left, kept, n, m = _sides(lhs, rhs, attrs)
    if n != m:
        raise InvalidArgument(
            f"rhs: expected {n} along its {'last' if attrs.transpose_b else 'first'} axis, got {rhs}; "
            f"lhs has shape {lhs}{', transposed' if attrs.transpose_a else ''}"
        )
    return [lhs, rhs], [left + kept or (1,)], []


class _Matrices:
    """lhs and rhs of dot as matrices A (m, k) and B (k, n), transposed or not; views of the same memory."""

    def __init__(self, call: Call, lhs: Any, rhs: Any):
        left, kept, k, _ = _sides(call.inputs[0].shape, call.inputs[1].shape, call.attrs)
        m, n = math.prod(left), math.prod(kept)
        self.ta = call.attrs.transpose_a and len(call.inputs[0].shape) > 1
        self.tb = call.attrs.transpose_b and len(call.inputs[1].shape) > 1
        self.a: Any = None if lhs is None else lhs.reshape((k, m) if self.ta else (m, k))
        self.b: Any = None if rhs is None else rhs.reshape((n, k) if self.tb else (k, n))
        self.out_shape = (m, n)


def _takes_csr(call: Call) -> bool:
    """A csr matrix times a dense one, neither transposed; the gradient of the latter may have some rows."""
    lhs, rhs = call.inputs
    return (
        call.device.is_host
        and is_sparse(lhs, "csr")
        and not is_sparse(rhs)
        and len(rhs.shape) == 2
        and not (call.attrs.transpose_a or call.attrs.transpose_b)
        and not (call.in_grads and is_sparse(call.in_grads[0]))
    )


def _csr_dot_grads(call: Call) -> Step:
    (lhs, rhs), (dlhs, drhs), dy = call.inputs, call.in_grads, call.out_grads[0]

    def run() -> None:
        if dlhs is not None:
            call.xp.matmul(dy, rhs.T, out=dlhs)
        if drhs is not None:
            csr_transposed_product(lhs, dy, drhs)

    return run


def _dot(call: Call) -> Step:
    if is_sparse(call.inputs[0]):
        (csr, dense), (out,) = call.inputs, call.outputs
        return lambda: csr_product(csr, dense, out)
    xp, pair = call.xp, _Matrices(call, *call.inputs)
    out = call.outputs[0].reshape(pair.out_shape)
    a, b = pair.a.T if pair.ta else pair.a, pair.b.T if pair.tb else pair.b
    return lambda: xp.matmul(a, b, out=out)


def _dot_grads(call: Call) -> Step:
    if is_sparse(call.inputs[0]):
        return _csr_dot_grads(call)
    xp, pair, grads = call.xp, _Matrices(call, *call.inputs), _Matrices(call, *call.in_grads)
    dy = call.out_grads[0].reshape(pair.out_shape)
    a, b = pair.a.T if pair.ta else pair.a, pair.b.T if pair.tb else pair.b

    def run() -> None:
        if grads.a is not None:
            xp.matmul(b, dy.T, out=grads.a) if pair.ta else xp.matmul(dy, b.T, out=grads.a)
        if grads.b is not None:
            xp.matmul(dy.T, a, out=grads.b) if pair.tb else xp.matmul(a.T, dy, out=grads.b)

    return run


register(
    "dot",
    aliases=["_sparse_dot"],
    params=_PARAMS,
    arguments=["lhs", "rhs"],
    infer_shape=_infer_dot,
    forward=_dot,
    backward=_dot_grads,
    backward_reads=((0, 1), ()),
    takes_sparse=_takes_csr,
    doc="""The sum of products over lhs's last and rhs's first axis: of matrices, their product.

lhs (..., k), rhs (k, ...) give the other axes of both; vectors give shape (1,). Transposed, lhs is
(k, ...) with the first axis moved to the end, rhs (..., k) with the last one moved to the front.""",
)


def _infer_batch_dot(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    lhs, rhs = inputs
    if not (_known(lhs) and _known(rhs)):
        return [lhs, rhs], [None], []
    assert lhs is not None and rhs is not None
    if len(lhs) < 3 or len(lhs) != len(rhs) or lhs[:-2] != rhs[:-2]:
        raise InvalidArgument(f"rhs: expected a batch like lhs's {lhs} (3 or more axes), got {rhs}")
    m, k = lhs[-2:][::-1] if attrs.transpose_a else lhs[-2:]
    j, n = rhs[-2:][::-1] if attrs.transpose_b else rhs[-2:]
    if j != k:
        raise InvalidArgument(f"rhs: matrices {rhs[-2:]} do not fit lhs's {lhs[-2:]}: {k} and {j} differ")
    return [lhs, rhs], [(*lhs[:-2], m, n)], []


def _batch_dot(call: Call) -> Step:
    xp, (a, b), (out,), attrs = call.xp, call.inputs, call.outputs, call.attrs
    a = a.swapaxes(-1, -2) if attrs.transpose_a else a
    b = b.swapaxes(-1, -2) if attrs.transpose_b else b
    return lambda: xp.matmul(a, b, out=out)


def _batch_dot_grads(call: Call) -> Step:
    xp, (a, b), (da, db), attrs = call.xp, call.inputs, call.in_grads, call.attrs
    dy = call.out_grads[0]
    dy_t = dy.swapaxes(-1, -2)
    ta, tb = attrs.transpose_a, attrs.transpose_b
    # op(B) and op(A) with their last axes exchanged
    b_t, a_t = b if tb else b.swapaxes(-1, -2), a if ta else a.swapaxes(-1, -2)

    def run() -> None:
        if da is not None:
            xp.matmul(b_t.swapaxes(-1, -2), dy_t, out=da) if ta else xp.matmul(dy, b_t, out=da)
        if db is not None:
            xp.matmul(dy_t, a_t.swapaxes(-1, -2), out=db) if tb else xp.matmul(a_t, dy, out=db)

    return run


register(
    "batch_dot",
    params=_PARAMS,
    arguments=["lhs", "rhs"],
    infer_shape=_infer_batch_dot,
    forward=_batch_dot,
    backward=_batch_dot_grads,
    backward_reads=((0, 1), ()),
    doc="The products of the matrices in a batch: lhs (..., m, k), rhs (..., k, n) give (..., m, n).",
)


def _infer_khatri_rao(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    for i, dims in enumerate(inputs):
        if dims is not None and len(dims) != 2:
            raise InvalidArgument(f"arg{i} has shape {dims}, expected a matrix")
        if dims is not None and inputs[0] is not None and dims[1] != inputs[0][1]:
            raise InvalidArgument(f"arg{i}: expected {inputs[0][1]} columns like arg0, got shape {dims}")
    if not all(_known(dims) for dims in inputs):
        return inputs, [None], []
    return inputs, [(math.prod(dims[0] for dims in inputs if dims), inputs[0][1])], []  # type: ignore[index]


def _khatri_rao(call: Call) -> Step:
    xp, matrices, out = call.xp, call.inputs, call.outputs[0]

    def run() -> None:
        product = matrices[0]
        for matrix in matrices[1:]:
            product = (product[:, None, :] * matrix[None, :, :]).reshape((-1, matrix.shape[1]))
        xp.copyto(out, product)

    return run


def _khatri_rao_grads(call: Call) -> Step:
    """Each input's gradient: the output's, times the others, summed over the others' rows."""
    xp, matrices, dy, grads = call.xp, call.inputs, call.out_grads[0], call.in_grads
    rows, columns = [m.shape[0] for m in matrices], dy.shape[1]

    def run() -> None:
        for i, grad in enumerate(grads):
            if grad is None:
                continue
            weighted = dy.reshape((*rows, columns))
            for j, matrix in enumerate(matrices):
                if j != i:
                    shape = [1] * len(rows) + [columns]
                    shape[j] = rows[j]
                    weighted = weighted * matrix.reshape(shape)
            others = tuple(j for j in range(len(rows)) if j != i)
            xp.copyto(grad, weighted.sum(axis=others, dtype=grad.dtype) if others else weighted)

    return run


register(
    "khatri_rao",
    params=[Param("num_args", integer, 0, "How many matrices there are.")],
    arguments=lambda attrs: [f"arg{i}" for i in range(attrs.num_args)],
    variadic="num_args",
    infer_shape=_infer_khatri_rao,
    forward=_khatri_rao,
    backward=_khatri_rao_grads,
    backward_reads=lambda attrs: (tuple(range(attrs.num_args)), ()),
    doc="""The column-wise Kronecker product of matrices (m1, n), (m2, n), ...: (m1 * m2 * ..., n).""",
)
