"""Operators that cut an array into several along an axis: SliceChannel (split), _split_v2."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.axes import normal_axis
from dmod.ops.elementwise import merge_shapes
from dmod.ops.join import parts
from dmod.ops.params import Param, boolean, integer, shape
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register

Lengths = Callable[[Attrs, int], list[int]]
"""The lengths of the parts of an axis of some length (-1: not known)."""


def _equal(attrs: Attrs, count: int, length: int) -> list[int]:
    if count < 1:
        raise InvalidArgument(f"an array cannot be cut into {count} parts, expected at least 1")
    if length >= 0 and length % count:
        raise InvalidArgument(f"axis {attrs.axis} has length {length}, which is no multiple of {count} parts")
    if attrs.squeeze_axis and length not in (-1, count):
        raise InvalidArgument(
            f"axis {attrs.axis} has length {length}; squeeze_axis needs as many as there are parts, {count}"
        )
    return [length // count if length >= 0 else -1] * count


def _channel_lengths(attrs: Attrs, length: int) -> list[int]:
    return _equal(attrs, attrs.num_outputs, length)


def _split_lengths(attrs: Attrs, length: int) -> list[int]:
    if attrs.sections > 0:
        return _equal(attrs, attrs.sections, length)
    edges = [*attrs.indices, length]
    if length < 0:
        return [-1] * len(attrs.indices)
    lengths = [stop - start for start, stop in itertools.pairwise(edges)]
    if min(lengths, default=0) < 0 or (edges and edges[0] < 0):
        raise InvalidArgument(
            f"indices is {attrs.indices}, expected numbers from 0 to {length} in ascending order"
        )
    if attrs.squeeze_axis and any(n != 1 for n in lengths):
        raise InvalidArgument(f"squeeze_axis needs parts of length 1, indices {attrs.indices} give {lengths}")
    return lengths


def _part_shape(attrs: Attrs, data: Shape, axis: int, length: int) -> Shape:
    return (*data[:axis], *(() if attrs.squeeze_axis else (length,)), *data[axis + 1 :])


def _count(attrs: Attrs, lengths: Lengths) -> int:
    return len(lengths(attrs, -1))


def _from_outputs(attrs: Attrs, outputs: Shapes, equal: bool) -> Shape | None:
    """The input's shape as far as it follows from the parts."""
    known = next((dims for dims in outputs if dims is not None), None)
    if known is None:
        return None
    ndim = len(known) + attrs.squeeze_axis
    axis = normal_axis(attrs.axis, known, ndim=ndim)
    length = len(outputs) if attrs.squeeze_axis else known[axis] * len(outputs) if equal else -1
    rest = known if attrs.squeeze_axis else (*known[:axis], *known[axis + 1 :])
    return (*rest[:axis], max(length, -1), *rest[axis:])


def _register(name: str, lengths: Lengths, params: list[Param], aliases: list[str], doc: str) -> None:
    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        equal = name == "SliceChannel" or attrs.sections > 0
        data = merge_shapes(inputs[0], _from_outputs(attrs, outputs, equal), "data")
        if data is None:
            return [None], [None] * len(outputs), []
        axis = normal_axis(attrs.axis, data)
        shapes = [_part_shape(attrs, data, axis, n) for n in lengths(attrs, data[axis])]
        return [data], shapes, []

    def infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        return [inputs[0]], [inputs[0]] * _count(attrs, lengths), []

    def views(call: Call, array: Any) -> list[Any]:
        """The parts of an array like the input, in the shapes of the outputs."""
        axis = call.attrs.axis % array.ndim
        cut = lengths(call.attrs, array.shape[axis])
        found = parts(array, axis, cut)
        return [part[(slice(None),) * axis + (0,)] for part in found] if call.attrs.squeeze_axis else found

    def forward(call: Call) -> Step:
        xp = call.xp
        pairs = list(zip(call.outputs, views(call, call.inputs[0]), strict=True))

        def run() -> None:
            for target, source in pairs:
                xp.copyto(target, source)

        return run

    def backward(call: Call) -> Step:
        xp = call.xp
        pairs = list(zip(views(call, call.in_grads[0]), call.out_grads, strict=True))

        def run() -> None:
            for target, source in pairs:
                xp.copyto(target, source)

        return run

    register(
        name,
        aliases=aliases,
        params=params,
        outputs=lambda attrs: [f"output{i}" for i in range(_count(attrs, lengths))],
        num_visible=lambda attrs: _count(attrs, lengths),
        infer_shape=infer,
        infer_type=infer_type,
        forward=forward,
        backward=backward,
        doc=doc,
    )


_AXIS = Param("axis", integer, 1, "The axis along which the array is cut.")
_SQUEEZE = Param("squeeze_axis", boolean, False, "Drop that axis from the parts; each has length 1 there.")
_register(
    "SliceChannel",
    _channel_lengths,
    [Param("num_outputs", integer, doc="The number of parts, all of one length."), _AXIS, _SQUEEZE],
    ["split"],
    "Cut an array into equal parts along an axis; there are `num_outputs` outputs.",
)
_register(
    "_split_v2",
    _split_lengths,
    [
        Param("indices", shape, (), "Where each part begins, 0 included; used if sections is 0."),
        _AXIS,
        _SQUEEZE,
        Param("sections", integer, 0, "The number of equal parts."),
    ],
    [],
    "Cut an array along an axis, into equal parts or at given indices.",
)
