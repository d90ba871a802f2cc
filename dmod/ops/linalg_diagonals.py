"""Diagonals and triangles of square matrices, cut out and put in: linalg_extractdiag and its kin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.linalg_products import float_type, is_known, linalg_names, square
from dmod.ops.params import Param, boolean, integer
from dmod.ops.registry import Attrs, Call, Shapes, Step, register

OFFSET = Param("offset", integer, 0, "Which diagonal: 0 the main one, positive above it, negative below.")
LOWER = Param("lower", boolean, True, "With offset 0: the lower triangle, else the upper one.")


def _diagonal(n: int, attrs: Attrs) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the elements of a diagonal."""
    place = np.arange(max(0, n - abs(attrs.offset)))
    return place + max(0, -attrs.offset), place + max(0, attrs.offset)


def _triangle(n: int, attrs: Attrs) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a triangle: a lower one row by row, an upper one column by column."""
    if attrs.offset < 0 or (attrs.offset == 0 and attrs.lower):
        return np.tril_indices(n, attrs.offset)
    columns, rows = np.tril_indices(n, -attrs.offset)
    return rows, columns


def _diagonal_size(length: int, attrs: Attrs) -> int:
    """The size of the matrix whose diagonal has that length."""
    return length + abs(attrs.offset)


def _triangle_size(length: int, attrs: Attrs) -> int:
    """The size of the matrix whose triangle has that many elements."""
    side = (math.isqrt(8 * length + 1) - 1) // 2
    if side * (side + 1) // 2 != length:
        raise InvalidArgument(f"A: {length} elements fill no triangle")
    return side + abs(attrs.offset)


def _places(call: Call, part: Any, n: int) -> tuple[Any, ...]:
    """The index of the elements, on the device."""
    return (Ellipsis, *(call.device.from_host(index) for index in part(n, call.attrs)))


def _register_pair(extract: str, make: str, part: Any, size: Any, what: str, params: list[Param]) -> None:
    """Register the operator that cuts a part out of matrices, and the one that puts it into zeros."""

    def infer_extract(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        a = inputs[0]
        square("A", a)
        if not is_known(a):
            return [a], [None], []
        assert a is not None
        if abs(attrs.offset) >= a[-1]:
            raise InvalidArgument(f"offset {attrs.offset} lies outside of matrices of shape {a}")
        return [a], [(*a[:-2], len(part(a[-1], attrs)[0]))], []

    def infer_make(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        a = inputs[0]
        if not is_known(a):
            return [a], [None], []
        if not a:
            raise InvalidArgument("A has shape (), expected at least one axis")
        n = size(a[-1], attrs)
        return [a], [(*a[:-1], n, n)], []

    def cut(call: Call, source: Any, target: Any) -> Step:
        places = _places(call, part, source.shape[-1])
        return lambda: call.xp.copyto(target, source[places])

    def put(call: Call, source: Any, target: Any) -> Step:
        places = _places(call, part, target.shape[-1])

        def run() -> None:
            target.fill(0)
            target[places] = source

        return run

    register(
        **linalg_names(extract),
        params=params,
        arguments=["A"],
        infer_shape=infer_extract,
        infer_type=float_type(),
        forward=lambda call: cut(call, call.inputs[0], call.outputs[0]),
        backward=lambda call: put(call, call.out_grads[0], call.in_grads[0]),
        doc=f"A {what} of square matrices (..., n, n), as (..., k).",
    )
    register(
        **linalg_names(make),
        params=params,
        arguments=["A"],
        infer_shape=infer_make,
        infer_type=float_type(),
        forward=lambda call: put(call, call.inputs[0], call.outputs[0]),
        backward=lambda call: cut(call, call.out_grads[0], call.in_grads[0]),
        doc=f"Square matrices (..., n, n) with the given {what} (..., k), and 0 elsewhere.",
    )


_register_pair("extractdiag", "makediag", _diagonal, _diagonal_size, "diagonal", [OFFSET])
_register_pair("extracttrian", "maketrian", _triangle, _triangle_size, "triangle", [OFFSET, LOWER])


def _infer_sumlogdiag(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a = inputs[0]
    square("A", a)
    return [a], [None if a is None else a[:-2] or (1,)], []


def _sumlogdiag(call: Call) -> Step:
    xp, (a,), out = call.xp, call.inputs, call.outputs[0].reshape(call.inputs[0].shape[:-2])
    diagonal = xp.diagonal(a, 0, -2, -1)
    logs = call.scratch(diagonal.shape, a.dtype)

    def run() -> None:
        xp.log(diagonal, out=logs)
        xp.sum(logs, axis=-1, out=out)

    return run


def _sumlogdiag_grad(call: Call) -> Step:
    xp, (a,), (da,) = call.xp, call.inputs, call.in_grads
    dy = call.out_grads[0].reshape((*a.shape[:-2], 1))
    diagonal = xp.diagonal(a, 0, -2, -1)
    rows = xp.arange(a.shape[-1])

    def run() -> None:
        da.fill(0)
        da[..., rows, rows] = dy / diagonal

    return run


register(
    **linalg_names("sumlogdiag"),
    arguments=["A"],
    infer_shape=_infer_sumlogdiag,
    infer_type=float_type(),
    forward=_sumlogdiag,
    backward=_sumlogdiag_grad,
    backward_reads=((0,), ()),
    doc="The sum of the logarithms of each square matrix's diagonal, of shape (1,) for one matrix.",
)
