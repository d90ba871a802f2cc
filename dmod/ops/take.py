"""Operators that look up rows by number: take, Embedding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.axes import normal_axis
from dmod.ops.elementwise import merge_shapes
from dmod.ops.indices import add_rows, clipped, data_type, take_rows, wrapped
from dmod.ops.params import Param, boolean, choice, dtype, integer
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register
from dmod.ops.sparse_rows import add_by_row, is_sparse


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    a, indices = inputs
    if a is None or indices is None:
        return [a, indices], [None], []
    axis = normal_axis(attrs.axis, a)
    return [a, indices], [(*a[:axis], *indices, *a[axis + 1 :])], []


def _numbers(call: Call, source: Any, length: int) -> tuple[Any, Step]:
    """The indices by the operator's mode."""
    mode = getattr(call.attrs, "mode", "clip")
    if mode == "wrap":
        return wrapped(call, source, length)
    if mode == "clip":
        return clipped(call, source, 0, length - 1)
    target, fill = clipped(call, source, -1, length)

    def run() -> None:
        fill()
        if target.size and (int(target.min()) < 0 or int(target.max()) >= length):
            raise InvalidArgument(f"take: an index lies outside of 0 to {length - 1}; mode='clip' allows it")

    return target, run


def _forward(call: Call) -> Step:
    (a, indices), (out,) = call.inputs, call.outputs
    axis = call.attrs.axis % a.ndim
    index, fill = _numbers(call, indices, a.shape[axis])
    look_up = take_rows(call, a, index, axis, out)

    def run() -> None:
        fill()
        look_up()

    return run


def _backward(call: Call) -> Step:
    a, indices = call.inputs
    axis = call.attrs.axis % a.ndim
    return _gradient(call, indices, call.in_grads[0], call.in_grads[1], a.shape, axis)


def _gradient(call: Call, indices: Any, grad: Any, index_grad: Any, shape: Any, axis: int) -> Step:
    """Add up the output's gradient by row; the indices get zeros."""
    length = shape[axis]
    steps: list[Step] = []
    if grad is not None:
        index, fill = _numbers(call, indices, length)
        dims = (math.prod(shape[:axis]), length, math.prod(shape[axis + 1 :]))
        steps += [fill, add_rows(call, call.out_grads[0], index, dims, grad)]
    if index_grad is not None:
        steps.append(lambda: index_grad.fill(0))

    def run() -> None:
        for step in steps:
            step()

    return run


register(
    "take",
    arguments=["a", "indices"],
    params=[
        Param("axis", integer, 0, "The axis of `a` that the indices count along."),
        Param(
            "mode",
            choice(("clip", "raise", "wrap")),
            "clip",
            "What an index out of bounds means: the nearest one, an error, or one counted round.",
        ),
    ],
    infer_shape=_infer,
    infer_type=data_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((1,), ()),
    doc="The entries of `a` with given indices along an axis, which becomes the axes of `indices`.",
)


def _infer_embedding(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, weight = inputs
    for name in ("input_dim", "output_dim"):
        if getattr(attrs, name) < 1:
            raise InvalidArgument(f"{name} is {getattr(attrs, name)}, expected at least 1")
    if data is None and outputs[0] is not None:
        data = outputs[0][:-1]
    weight = merge_shapes((attrs.input_dim, attrs.output_dim), weight, "weight")
    return [data, weight], [None if data is None else (*data, attrs.output_dim)], []


def _embedding_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    weight = inputs[1] if inputs[1] is not None else np.dtype(attrs.dtype)
    return [inputs[0], weight], [weight], []


def _embed(call: Call) -> Step:
    (data, weight), (out,) = call.inputs, call.outputs
    index, fill = clipped(call, data, 0, weight.shape[0] - 1)
    look_up = take_rows(call, weight, index, 0, out)

    def run() -> None:
        fill()
        look_up()

    return run


def _takes_row_gradient(call: Call) -> bool:
    """Only the weight's gradient may be sparse."""
    return call.device.is_host and not any(map(is_sparse, (*call.inputs, *call.in_grads[:1])))


def _embed_grad(call: Call) -> Step:
    data, weight = call.inputs
    if is_sparse(call.in_grads[1]):
        index, fill = clipped(call, data, 0, weight.shape[0] - 1)
        dy, (index_grad, grad) = call.out_grads[0], call.in_grads

        def run() -> None:
            fill()
            add_by_row(index, dy, grad)
            if index_grad is not None:
                index_grad.fill(0)

        return run
    return _gradient(call, data, call.in_grads[1], call.in_grads[0], weight.shape, 0)


for _name in ("Embedding", "_contrib_SparseEmbedding"):
    register(
        _name,
        arguments=["data", "weight"],
        params=[
            Param("input_dim", integer, doc="The number of rows, V."),
            Param("output_dim", integer, doc="The length of a row, D."),
            Param("dtype", dtype, np.dtype(np.float32), "The dtype of the weight."),
            Param("sparse_grad", boolean, False, "Whether the weight's gradient is row_sparse."),
        ],
        infer_shape=_infer_embedding,
        infer_type=_embedding_type,
        forward=_embed,
        backward=_embed_grad,
        takes_sparse=_takes_row_gradient,
        backward_reads=((0,), ()),
        doc="""Replace each index by a row of a matrix.

data holds indices, of any shape; weight is (V, D); the output has a last axis of D more than data. An
index below 0 counts as 0, one above V - 1 as V - 1.""",
    )
