"""Softmax over one axis, and its relatives: softmax, softmin, log_softmax, SoftmaxActivation.

float16 is computed in float32 and rounded at the end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, choice, integer, number, optional
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register

__all__ = ["as_rows", "checked_axis"]


def checked_axis(axis: int, ndim: int) -> int:
    """`axis`, counted from the front.

    Raises
    ------
    InvalidArgument
        There is no such axis.
    """
    if not -ndim <= axis < ndim:
        raise InvalidArgument(f"axis {axis} does not lie within {ndim} dimensions")
    return axis % ndim


def as_rows(shape: Shape, axis: int) -> Shape:
    """The shape with `axis` in the middle: (outer, n, inner), or (outer, n) if nothing follows it."""
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    return (outer, shape[axis]) if inner == 1 else (outer, shape[axis], inner)


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = merge_shapes(inputs[0], outputs[0], "data")
    if data is not None:
        axis = checked_axis(attrs.axis, len(data))
    if not attrs.use_length:
        return [data], [data], []
    length = None if data is None else merge_shapes(data[:axis] + data[axis + 1 :], inputs[1], "length")
    return [data, length], [data], []


def _infer_without_length(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if attrs.use_length:
        raise InvalidArgument("use_length is True, which only softmax can do; use softmax")
    return _infer(attrs, inputs, outputs)


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    data = inputs[0]
    out = np.dtype(attrs.dtype) if attrs.dtype is not None else data
    if data is not None and data.kind != "f":
        raise InvalidArgument(f"data has dtype {data}, expected float16, float32 or float64; use Cast")
    if not attrs.use_length:
        return [data], [out], []
    length = inputs[1] if inputs[1] is not None else np.dtype(np.int32)
    if length.kind not in "iu":
        raise InvalidArgument(f"length has dtype {length}, expected an integer dtype; use Cast")
    return [data, length], [out], []


def _wide(dtype: Any) -> np.dtype:
    """The dtype to compute in."""
    return np.dtype(np.float32) if dtype == np.float16 else np.dtype(dtype)


def _nothing() -> None:
    """The step of arrays without elements."""


def _past_end(call: Call, rows: Shape) -> Any:
    """A function that gives which elements lie beyond `length`; None if all count."""
    if not getattr(call.attrs, "use_length", False):
        return None
    length = call.inputs[1].reshape((rows[0], 1, *rows[2:]))
    place = call.xp.arange(rows[1]).reshape((1, rows[1], *[1] * (len(rows) - 2)))
    past = call.scratch(rows, bool)
    return lambda: call.xp.greater_equal(place, length, out=past)


def _softmax_step(call: Call, rows: Shape, factor: float) -> Step:
    xp, x, y = call.xp, call.inputs[0].reshape(rows), call.outputs[0].reshape(rows)
    if x.size == 0:
        return _nothing
    wide = _wide(y.dtype)
    z = y if y.dtype == wide else call.scratch(rows, wide)
    per_row = call.scratch((rows[0], 1, *rows[2:]), wide)
    past_end = _past_end(call, rows)
    source = z if factor != 1 or x.dtype != wide or past_end is not None else x
    scale = wide.type(factor)

    def run() -> None:
        if source is z:
            xp.multiply(x, scale, out=z, dtype=wide)
        past = past_end() if past_end is not None else None
        if past is not None:
            xp.copyto(z, wide.type(-np.inf), where=past)
        xp.max(source, axis=1, keepdims=True, out=per_row)
        xp.subtract(source, per_row, out=z)
        xp.exp(z, out=z)
        xp.sum(z, axis=1, keepdims=True, out=per_row)
        xp.divide(z, per_row, out=y, casting="same_kind")
        if past is not None:
            xp.copyto(y, y.dtype.type(0), where=past)  # a length of 0 leaves not-a-number otherwise

    return run


def _softmax_grad_step(call: Call, rows: Shape, factor: float) -> Step:
    if call.in_grads[0] is None:
        return _nothing
    xp, y = call.xp, call.outputs[0].reshape(rows)
    dy, dx = call.out_grads[0].reshape(rows), call.in_grads[0].reshape(rows)
    wide = _wide(y.dtype)
    tmp, per_row = call.scratch(rows, wide), call.scratch((rows[0], 1, *rows[2:]), wide)
    scale = wide.type(factor)

    def run() -> None:
        xp.multiply(dy, y, out=tmp, dtype=wide)
        xp.sum(tmp, axis=1, keepdims=True, out=per_row)
        xp.subtract(dy, per_row, out=tmp, dtype=wide)
        xp.multiply(tmp, y, out=tmp, dtype=wide)
        xp.multiply(tmp, scale, out=dx, casting="same_kind")

    return run


def _log_softmax_step(call: Call, rows: Shape, factor: float) -> Step:
    xp, x, y = call.xp, call.inputs[0].reshape(rows), call.outputs[0].reshape(rows)
    if x.size == 0:
        return _nothing
    wide = _wide(y.dtype)
    z = y if y.dtype == wide else call.scratch(rows, wide)
    tmp, per_row = call.scratch(rows, wide), call.scratch((rows[0], 1, *rows[2:]), wide)
    scale = wide.type(factor)

    def run() -> None:
        xp.multiply(x, scale, out=z, dtype=wide)
        xp.max(z, axis=1, keepdims=True, out=per_row)
        xp.subtract(z, per_row, out=z)
        xp.exp(z, out=tmp)
        xp.sum(tmp, axis=1, keepdims=True, out=per_row)
        xp.log(per_row, out=per_row)
        xp.subtract(z, per_row, out=y, casting="same_kind")

    return run


def _log_softmax_grad_step(call: Call, rows: Shape, factor: float) -> Step:
    xp, y = call.xp, call.outputs[0].reshape(rows)
    dy, dx = call.out_grads[0].reshape(rows), call.in_grads[0].reshape(rows)
    wide = _wide(y.dtype)
    tmp, per_row = call.scratch(rows, wide), call.scratch((rows[0], 1, *rows[2:]), wide)
    scale = wide.type(factor)

    def run() -> None:
        xp.sum(dy, axis=1, keepdims=True, out=per_row, dtype=wide)
        xp.exp(y, out=tmp, dtype=wide)
        xp.multiply(tmp, per_row, out=tmp)
        xp.subtract(dy, tmp, out=tmp, dtype=wide)
        xp.multiply(tmp, scale, out=dx, casting="same_kind")

    return run


def _over_axis(step: Any, sign: int) -> Any:
    """The builder that runs `step` over the attribute `axis` with its temperature."""

    def build(call: Call) -> Step:
        shape = call.outputs[0].shape
        rows = as_rows(shape, call.attrs.axis % max(1, len(shape)))
        run = step(call, rows, sign / (call.attrs.temperature or 1.0))
        length_grad = call.in_grads[1] if len(call.in_grads) > 1 else None
        if length_grad is None:
            return run

        def both() -> None:
            run()
            length_grad.fill(0)

        return both

    return build


def _register(name: str, forward: Any, backward: Any, sign: int, doc: str, **rest: Any) -> None:
    register(
        name,
        params=[
            Param("axis", integer, -1, "The axis along which the elements compete."),
            Param("temperature", optional(number), None, "What the input is divided by first; default 1."),
            Param(
                "dtype",
                optional(choice(("float16", "float32", "float64"))),
                None,
                "The dtype of the output; default: that of the input.",
            ),
            Param("use_length", optional(boolean), False, "Whether `length` says how many elements count."),
        ],
        infer_type=_infer_type,
        forward=_over_axis(forward, sign),
        backward=_over_axis(backward, sign),
        backward_reads=((), (0,)),
        inplace=[(0, 0)],
        backward_inplace=[(0, 0)],
        doc=doc,
        **rest,
    )


_register(
    "softmax",
    _softmax_step,
    _softmax_grad_step,
    1,
    """``exp(data / temperature)``, normalised to the sum 1 along `axis`.

With `use_length`, `length` (the shape of data without `axis`, integers) says how many elements along the
axis take part; the output is 0 beyond.""",
    slots=("data", "length"),
    arguments=lambda attrs: ["data", "length"] if attrs.use_length else ["data"],
    infer_shape=_infer,
)
_register(
    "softmin",
    _softmax_step,
    _softmax_grad_step,
    -1,
    "``exp(-data / temperature)``, normalised to the sum 1 along `axis`.",
    infer_shape=_infer_without_length,
)
_register(
    "log_softmax",
    _log_softmax_step,
    _log_softmax_grad_step,
    1,
    "The logarithm of `softmax`, computed without underflow.",
    infer_shape=_infer_without_length,
)


def _infer_activation(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = merge_shapes(inputs[0], outputs[0], "data")
    least = 3 if attrs.mode == "channel" else 1
    if data is not None and len(data) < least:
        raise InvalidArgument(
            f"data has shape {data}, expected at least {least} axes with mode={attrs.mode!r}"
        )
    return [data], [data], []


def _by_mode(step: Any) -> Any:
    def build(call: Call) -> Step:
        shape = call.outputs[0].shape
        return step(call, as_rows(shape, 1 if call.attrs.mode == "channel" else len(shape) - 1), 1.0)

    return build


register(
    "SoftmaxActivation",
    params=[
        Param(
            "mode",
            choice(("channel", "instance")),
            "instance",
            "Whether the classes lie along axis 1 (channel) or along the last one (instance).",
        )
    ],
    infer_shape=_infer_activation,
    forward=_by_mode(_softmax_step),
    backward=_by_mode(_softmax_grad_step),
    backward_reads=((), (0,)),
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    doc="Softmax over each instance, or over the channels of each place; `softmax` is its successor.",
)
