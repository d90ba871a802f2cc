"""Operators on batches of sequences of different lengths: SequenceMask, SequenceLast, SequenceReverse.

Data is (T, N, ...), or (N, T, ...) with ``axis=1``; sequence_length is (N,).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.indices import clipped, data_type, take_rows
from dmod.ops.params import Param, boolean, integer, number
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register


def _arguments(attrs: Attrs) -> list[str]:
    return ["data", "sequence_length"] if attrs.use_sequence_length else ["data"]


def _with_lengths(attrs: Attrs, inputs: Shapes, most: int = 1) -> list[Shape | None]:
    """The inputs' shapes, with that of the lengths."""
    data = inputs[0]
    if not 0 <= attrs.axis <= most:
        raise InvalidArgument(f"axis is {attrs.axis}, expected {'0 or 1' if most else '0'}")
    if data is None:
        return list(inputs)
    if len(data) < 2:
        raise InvalidArgument(f"data has shape {data}, expected at least two axes: (T, N, ...)")
    lengths = (data[1 - attrs.axis],)
    return [data, *(merge_shapes(lengths, dims, "sequence_length") for dims in inputs[1:])]


def _infer_same(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = merge_shapes(inputs[0], outputs[0], "output")
    return _with_lengths(attrs, [data, *inputs[1:]]), [data], []


def _infer_reverse(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    _with_lengths(attrs, inputs, most=0)
    return _infer_same(attrs, inputs, outputs)


def _infer_last(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    shapes = _with_lengths(attrs, inputs)
    data = shapes[0]
    return shapes, [None if data is None else (*data[: attrs.axis], *data[attrs.axis + 1 :])], []


def _lengths(call: Call, low: int = 0) -> tuple[Any, Step]:
    """The lengths as whole numbers, at most the number of steps."""
    return clipped(call, call.inputs[1], low, call.inputs[0].shape[call.attrs.axis])


def _zero_lengths(call: Call) -> Step:
    grad = call.in_grads[1] if len(call.in_grads) > 1 else None
    return (lambda: None) if grad is None else (lambda: grad.fill(0))


def _outside(call: Call, like: Any) -> tuple[Any, Any, Step]:
    """`like` as (T, N, D), where its elements lie beyond the sequences' ends, and the step that finds out."""
    xp, axis = call.xp, call.attrs.axis
    lengths, fill = _lengths(call)
    first, second = like.shape[:2]
    mask = call.scratch((first, second, 1), bool)
    steps = xp.arange(like.shape[axis]).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    ends = lengths.reshape((1, -1, 1) if axis == 0 else (-1, 1, 1))

    def run() -> None:
        fill()
        xp.greater_equal(steps, ends, out=mask)

    return like.reshape(first, second, math.prod(like.shape[2:])), mask, run


def _masked(call: Call, source: Any, target: Any, value: float) -> Step:
    xp = call.xp
    if not call.attrs.use_sequence_length:
        return lambda: xp.copyto(target, source)
    rows, mask, find = _outside(call, target)
    constant = target.dtype.type(value)

    def run() -> None:
        find()
        xp.copyto(target, source)
        xp.copyto(rows, constant, where=mask)

    return run


def _both(first: Step | None, second: Step) -> Step:
    def run() -> None:
        if first is not None:
            first()
        second()

    return run


def _mask_grad(call: Call) -> Step:
    dx = call.in_grads[0]
    step = None if dx is None else _masked(call, call.out_grads[0], dx, 0.0)
    return _both(step, _zero_lengths(call))


def _reads_lengths(attrs: Attrs) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (1,) if attrs.use_sequence_length else (), ()


_USE = Param("use_sequence_length", boolean, False, "Whether there is a second input with the lengths.")
_AXIS = Param("axis", integer, 0, "The axis of the steps: 0 or 1.")
_SHARED: dict[str, Any] = {
    "arguments": _arguments,
    "slots": ("data", "sequence_length"),
    "infer_type": data_type,
    "backward_reads": _reads_lengths,
}
register(
    "SequenceMask",
    params=[_USE, Param("value", number, 0.0, "What elements beyond the end become."), _AXIS],
    infer_shape=_infer_same,
    forward=lambda call: _masked(call, call.inputs[0], call.outputs[0], call.attrs.value),
    backward=_mask_grad,
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    view=lambda attrs, is_train: not attrs.use_sequence_length,
    doc="Set the elements beyond each sequence's end to a value.",
    **_SHARED,
)


def _last_places(call: Call) -> tuple[Any, Step]:
    """The number of each sequence's last row among all T N rows."""
    xp, axis = call.xp, call.attrs.axis
    first, second = call.inputs[0].shape[:2]
    lengths, fill = _lengths(call, low=1)
    places = call.scratch(lengths.shape, np.int64)
    stride, offsets = (second, xp.arange(second)) if axis == 0 else (1, xp.arange(first) * second)

    def run() -> None:
        fill()
        xp.subtract(lengths, 1, out=places)
        xp.multiply(places, stride, out=places)
        xp.add(places, offsets, out=places)

    return places, run


def _rows(array: Any, axes: int) -> Any:
    return array.reshape(math.prod(array.shape[:axes]), math.prod(array.shape[axes:]))


def _at_end(call: Call, array: Any) -> Any:
    """The view of the last step, for sequences that all are of full length."""
    return array[-1] if call.attrs.axis == 0 else array[:, -1]


def _last(call: Call) -> Step:
    xp, x, (y,) = call.xp, call.inputs[0], call.outputs
    if not call.attrs.use_sequence_length:
        source = _at_end(call, x)
        return lambda: xp.copyto(y, source)
    places, find = _last_places(call)
    return _both(find, take_rows(call, _rows(x, 2), places, 0, _rows(y, 1)))


def _last_grad(call: Call) -> Step:
    xp, (dy,), dx = call.xp, call.out_grads, call.in_grads[0]
    if dx is None:
        return _zero_lengths(call)
    if not call.attrs.use_sequence_length:
        target = _at_end(call, dx)
        return _both(lambda: dx.fill(0), lambda: xp.copyto(target, dy))
    places, find = _last_places(call)
    rows, values = _rows(dx, 2), _rows(dy, 1)

    def run() -> None:
        find()
        dx.fill(0)
        rows[places] = values

    return _both(run, _zero_lengths(call))


register(
    "SequenceLast",
    params=[_USE, _AXIS],
    infer_shape=_infer_last,
    forward=_last,
    backward=_last_grad,
    doc="The last element of each sequence: (N, ...).",
    **_SHARED,
)


def _reversed(call: Call, source: Any, target: Any) -> Step:
    """Reverse the beginning of each sequence, as long as its length says; doing it twice undoes it."""
    xp = call.xp
    if not call.attrs.use_sequence_length:
        backwards = source[::-1]
        return lambda: xp.copyto(target, backwards)
    steps, batch = source.shape[:2]
    lengths, fill = _lengths(call)
    places = call.scratch((steps, batch), np.int64)
    times = xp.arange(steps).reshape(-1, 1)
    columns, ends = xp.arange(batch).reshape(1, -1), lengths.reshape(1, -1)
    outside = call.scratch((steps, batch), bool)

    def find() -> None:
        fill()
        xp.subtract(ends, 1, out=places)
        xp.subtract(places, times, out=places)
        xp.greater_equal(times, ends, out=outside)
        xp.copyto(places, times, where=outside)
        xp.multiply(places, batch, out=places)
        xp.add(places, columns, out=places)

    return _both(find, take_rows(call, _rows(source, 2), places.reshape(-1), 0, _rows(target, 2)))


def _reverse_grad(call: Call) -> Step:
    dx = call.in_grads[0]
    return _both(None if dx is None else _reversed(call, call.out_grads[0], dx), _zero_lengths(call))


register(
    "SequenceReverse",
    params=[_USE, Param("axis", integer, 0, "The axis of the steps: only 0.")],
    infer_shape=_infer_reverse,
    forward=lambda call: _reversed(call, call.inputs[0], call.outputs[0]),
    backward=_reverse_grad,
    doc="Reverse each sequence; what lies beyond its end stays.",
    **_SHARED,
)
