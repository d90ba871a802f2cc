"""Operators that address elements by several indices: gather_nd, scatter_nd; and index_copy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.axes import is_known
from dmod.ops.elementwise import merge_shapes
from dmod.ops.indices import add_rows, clipped, data_type, take_rows
from dmod.ops.params import Param, shape
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register

_SHAPE = [Param("shape", shape, doc="The output's shape.")]


def _gathered(data: Shape, indices: Shape) -> Shape:
    """The shape of ``data`` addressed by indices (M, Y...): (Y..., X_M, ...)."""
    if not indices or indices[0] > len(data):
        raise InvalidArgument(
            f"indices has shape {indices}: its first axis counts axes of the array, which are {len(data)}"
        )
    return (*indices[1:], *data[indices[0] :])


def _rows(call: Call, indices: Any, dims: Shape) -> tuple[Any, Step]:
    """The rows that indices (M, Y...) name, by number; negative indices count from the end.

    The step refuses indices out of bounds.
    """
    xp, leading = call.xp, dims[: indices.shape[0]]
    columns = [clipped(call, indices[i], -n - 1, n) for i, n in enumerate(leading)]
    total, part = (call.scratch(indices.shape[1:], np.int64) for _ in range(2))

    def run() -> None:
        total.fill(0)
        for axis, ((index, fill), n) in enumerate(zip(columns, leading, strict=True)):
            fill()
            if index.size and (int(index.min()) < -n or int(index.max()) >= n):
                raise InvalidArgument(f"an index lies outside of axis {axis}, of length {n}")
            xp.remainder(index, n, out=part)
            xp.multiply(total, n, out=total)
            xp.add(total, part, out=total)

    return total.reshape(-1), run


def _flat(array: Any, count: int) -> Any:
    """`array` as rows: its first `count` axes joined, and the others."""
    return array.reshape(math.prod(array.shape[:count]), math.prod(array.shape[count:]))


def _gather(call: Call, source: Any, indices: Any, out: Any) -> Step:
    count = indices.ndim - 1
    index, fill = _rows(call, indices, source.shape)
    look_up = take_rows(call, _flat(source, indices.shape[0]), index, 0, _flat(out, count))

    def run() -> None:
        fill()
        look_up()

    return run


def _accumulate(call: Call, source: Any, indices: Any, target: Any) -> Step:
    index, fill = _rows(call, indices, target.shape)
    rows = _flat(target, indices.shape[0])
    add = add_rows(call, source, index, (1, *rows.shape), target)

    def run() -> None:
        fill()
        add()

    return run


def _scatter(call: Call, source: Any, indices: Any, target: Any, start: Any = None) -> Step:
    """Write rows to where indices say; elsewhere the target is `start`, or 0."""
    xp = call.xp
    index, fill = _rows(call, indices, target.shape)
    rows, values = _flat(target, indices.shape[0]), _flat(source, indices.ndim - 1)

    def run() -> None:
        fill()
        if start is None:
            target.fill(0)
        else:
            xp.copyto(target, start)
        rows[index] = values

    return run


def _with_zeros(call: Call, step: Step, wanted: Any) -> Step:
    """`step` if its gradient is wanted, and zeros for the indices' gradient."""
    index_grad = call.in_grads[1]

    def run() -> None:
        if wanted is not None:
            step()
        if index_grad is not None:
            index_grad.fill(0)

    return run


def _infer_gather(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, indices = inputs
    if data is None or indices is None or not is_known(indices):
        return [data, indices], [None], []
    return [data, indices], [_gathered(data, indices)], []


def _gather_grad(call: Call) -> Step:
    data_grad = call.in_grads[0]
    if data_grad is None:
        return _with_zeros(call, lambda: None, None)
    return _with_zeros(call, _accumulate(call, call.out_grads[0], call.inputs[1], data_grad), data_grad)


register(
    "gather_nd",
    arguments=["data", "indices"],
    infer_shape=_infer_gather,
    infer_type=data_type,
    forward=lambda call: _gather(call, call.inputs[0], call.inputs[1], call.outputs[0]),
    backward=_gather_grad,
    backward_reads=((1,), ()),
    doc="""Entries of data (X_0, ..., X_N-1) at indices (M, Y...).

Each column of `indices` addresses the first M axes of data; the output is (Y..., X_M, ..., X_N-1).""",
)


def _infer_scatter(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, indices = inputs
    if indices is not None and is_known(indices):
        data = merge_shapes(_gathered(attrs.shape, indices), data, "data")
    return [data, indices], [tuple(attrs.shape)], []


def _scatter_grad(call: Call) -> Step:
    data_grad = call.in_grads[0]
    if data_grad is None:
        return _with_zeros(call, lambda: None, None)
    return _with_zeros(call, _gather(call, call.out_grads[0], call.inputs[1], data_grad), data_grad)


for _name, _write, _doc in (
    ("scatter_nd", _scatter, "the last one stays where indices repeat."),
    ("_backward_gather_nd", _accumulate, "they add up where indices repeat."),
):
    register(
        _name,
        arguments=["data", "indices"],
        params=_SHAPE,
        infer_shape=_infer_scatter,
        infer_type=data_type,
        forward=lambda call, write=_write: write(call, *call.inputs, call.outputs[0]),  # type: ignore[misc]
        backward=_scatter_grad,
        backward_reads=((1,), ()),
        doc=f"Entries of data (Y..., X_M, ...) put at indices (M, Y...) of an array of zeros; {_doc}",
    )


def _infer_set(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    lhs, rhs, indices = inputs
    lhs = merge_shapes(tuple(attrs.shape), lhs, "lhs")
    if indices is not None and is_known(indices):
        rhs = merge_shapes(_gathered(attrs.shape, indices), rhs, "rhs")
    return [lhs, rhs, indices], [lhs], []


register(
    "_scatter_set_nd",
    arguments=["lhs", "rhs", "indices"],
    params=_SHAPE,
    infer_shape=_infer_set,
    infer_type=data_type,
    forward=lambda call: _scatter(call, call.inputs[1], call.inputs[2], call.outputs[0], call.inputs[0]),
    backward=None,
    inplace=[(0, 0)],
    doc="lhs with entries of rhs (Y..., X_M, ...) at indices (M, Y...).",
)


def _infer_copy(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    old, index, new = inputs
    old = merge_shapes(old, outputs[0], "output")
    if new is not None:
        index = merge_shapes(new[:1], index, "index_vector")
    if old is not None and index is not None:
        new = merge_shapes((*index[:1], *old[1:]), new, "new_tensor")
    if old is not None and new is not None and new[0] > old[0] >= 0:
        raise InvalidArgument(f"new_tensor has {new[0]} rows, more than old_tensor, {old[0]}")
    return [old, index, new], [old], []


def _index_copy(call: Call) -> Step:
    old, index, new = call.inputs
    return _scatter(call, new, index.reshape(1, -1), call.outputs[0], old)


def _index_copy_grad(call: Call) -> Step:
    """Zeros for the rows that were replaced; their gradient goes to the new ones."""
    xp, (dy,), (old_grad, index_grad, new_grad) = call.xp, call.out_grads, call.in_grads
    index = call.inputs[1].reshape(1, -1)
    rows, fill = _rows(call, index, dy.shape)
    look_up = None if new_grad is None else _gather(call, dy, index, new_grad)

    def run() -> None:
        if old_grad is not None:
            fill()
            xp.copyto(old_grad, dy)
            old_grad[rows] = 0
        if look_up is not None:
            look_up()
        if index_grad is not None:
            index_grad.fill(0)

    return run


register(
    "_contrib_index_copy",
    arguments=["old_tensor", "index_vector", "new_tensor"],
    infer_shape=_infer_copy,
    infer_type=data_type,
    forward=_index_copy,
    backward=_index_copy_grad,
    backward_reads=((1,), ()),
    doc="old_tensor with row i of new_tensor in the place of its row ``index_vector[i]``.",
)
