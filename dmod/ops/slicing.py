"""Operators that cut out a rectangle: slice, slice_axis, slice_like, Crop; and that assign to one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.axes import is_known, normal_axis
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer, number, optional, partial_shape, shape
from dmod.ops.registry import Attrs, Call, Dtypes, InferShape, Shape, Shapes, Step, register

Region = tuple[slice, ...]
Find = Callable[[Attrs, Sequence[Any]], Region]
"""The region of the first input, from the shapes of all."""


def _first_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return list(inputs), [inputs[0]], []


def _lengths(region: Region, dims: Shape) -> Shape:
    return tuple(
        len(range(*cut.indices(n))) if n >= 0 else -1 if cut != slice(None) else n
        for cut, n in zip(region, dims, strict=True)
    )


def _cutter(name: str, find: Find, infer: InferShape, **rest: Any) -> None:
    """Register an operator whose output is a region of its first input."""

    def forward(call: Call) -> Step:
        xp, (y,) = call.xp, call.outputs
        source = call.inputs[0][find(call.attrs, [x.shape for x in call.inputs])]
        return lambda: xp.copyto(y, source)

    def backward(call: Call) -> Step:
        xp, dy, dx = call.xp, call.out_grads[0], call.in_grads[0]
        grads = [grad for grad in call.in_grads if grad is not None]
        target = None if dx is None else dx[find(call.attrs, [x.shape for x in call.inputs])]

        def run() -> None:
            for grad in grads:
                grad.fill(0)
            if target is not None:
                xp.copyto(target, dy)

        return run

    register(name, infer_shape=infer, infer_type=_first_type, forward=forward, backward=backward, **rest)


def _infer(find: Find) -> InferShape:
    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        if any(dims is None for dims in inputs):
            return list(inputs), [None], []
        return list(inputs), [_lengths(find(attrs, inputs), inputs[0])], []  # type: ignore[arg-type]

    return infer


def _region(attrs: Attrs, shapes: Sequence[Any]) -> Region:
    """What begin, end and step say about the first shape."""
    dims, steps = shapes[0], attrs.step or (None,) * len(attrs.begin)
    if len(attrs.begin) != len(attrs.end) or len(steps) != len(attrs.begin):
        raise InvalidArgument(
            f"begin {attrs.begin}, end {attrs.end} and step {attrs.step} differ in their numbers of axes"
        )
    if len(attrs.begin) > len(dims):
        raise InvalidArgument(f"begin {attrs.begin} has more axes than shape {dims}")
    for i, n in enumerate(attrs.begin):
        if n is not None and n < 0 <= dims[i] < -n:
            raise InvalidArgument(f"begin {attrs.begin} lies before the first element of axis {i} of {dims}")
    if 0 in steps:
        raise InvalidArgument(f"step {attrs.step} has a 0")
    cuts = [slice(*cut) for cut in zip(attrs.begin, attrs.end, steps, strict=True)]
    return (*cuts, *(slice(None),) * (len(dims) - len(cuts)))


_BEGIN_END = [
    Param(
        "begin", partial_shape, doc="The first index of each axis; None: the first in the step's direction."
    ),
    Param("end", partial_shape, doc="The index after the last of each axis; None: to the end."),
    Param("step", partial_shape, (), "The step of each axis; it may be negative."),
]
_cutter(
    "slice",
    _region,
    _infer(_region),
    aliases=["crop"],
    params=_BEGIN_END,
    doc="A region of an array, as ``data[begin[0]:end[0]:step[0], ...]``; further axes stay whole.",
)


def _axis_region(attrs: Attrs, shapes: Sequence[Any]) -> Region:
    dims = shapes[0]
    axis = normal_axis(attrs.axis, dims)
    n, cuts = dims[axis], [slice(None)] * len(dims)
    begin, end = attrs.begin, attrs.end
    if n >= 0:
        end = n if end is None else end
        begin, end = begin + n * (begin < 0), end + n * (end < 0)
        if not 0 <= begin < end <= n:
            raise InvalidArgument(
                f"begin={attrs.begin} and end={attrs.end} name no range of axis {axis}, of length {n}"
            )
    cuts[axis] = slice(begin, end)
    return tuple(cuts)


_cutter(
    "slice_axis",
    _axis_region,
    _infer(_axis_region),
    params=[
        Param("axis", integer, doc="The axis."),
        Param("begin", integer, doc="The first index."),
        Param("end", optional(integer), doc="The index after the last; None: to the end."),
    ],
    doc="A range of one axis.",
)


def _like_region(attrs: Attrs, shapes: Sequence[Any]) -> Region:
    dims, like = shapes
    if not attrs.axes and len(dims) != len(like):
        raise InvalidArgument(f"data has shape {dims}, shape_like {like}; give axes if their numbers differ")
    cuts = [slice(None)] * len(dims)
    for i in attrs.axes or range(len(dims)):
        axis, n = normal_axis(i, dims), like[normal_axis(i, like)]
        if dims[axis] >= 0 and n > dims[axis]:
            raise InvalidArgument(f"axis {axis} of shape_like has length {n}, of data only {dims[axis]}")
        cuts[axis] = slice(0, n)
    return tuple(cuts)


def _infer_like(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if not all(map(is_known, inputs)):
        return list(inputs), [None], []
    return _infer(_like_region)(attrs, inputs, outputs)


_cutter(
    "slice_like",
    _like_region,
    _infer_like,
    arguments=["data", "shape_like"],
    params=[Param("axes", shape, (), "The axes that are cut; by default all.")],
    doc="The beginning of data, as long along each of `axes` as shape_like.",
)


def _crop_region(attrs: Attrs, shapes: Sequence[Any]) -> Region:
    """The window of Crop: its size is h_w or the second input's, its corner the offset or the centre's."""
    dims = shapes[0]
    if len(dims) != 4 or len(shapes[-1]) != 4:
        raise InvalidArgument(f"data has shape {dims}, expected 4 axes: (N, C, H, W)")
    if len(attrs.h_w) != 2 or len(attrs.offset) != 2:
        raise InvalidArgument(f"h_w is {attrs.h_w} and offset {attrs.offset}, expected two numbers each")
    size = shapes[1][2:] if len(shapes) > 1 else attrs.h_w
    corner = tuple((n - m) // 2 for n, m in zip(dims[2:], size, strict=True))
    corner = corner if attrs.center_crop else attrs.offset
    for n, m, start in zip(dims[2:], size, corner, strict=True):
        if not (m >= 1 and start >= 0 and start + m <= n):
            raise InvalidArgument(f"a window of {size} at {corner} does not lie within images of {dims[2:]}")
    windows = (slice(start, start + m) for m, start in zip(size, corner, strict=True))
    return (slice(None), slice(None), *windows)


def _infer_crop(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if attrs.num_args not in (1, 2):
        raise InvalidArgument(f"num_args is {attrs.num_args}, expected 1 or 2")
    if not all(map(is_known, inputs)):
        return list(inputs), [None], []
    return _infer(_crop_region)(attrs, inputs, outputs)


_cutter(
    "Crop",
    _crop_region,
    _infer_crop,
    arguments=lambda attrs: [f"arg{i}" for i in range(attrs.num_args)],
    variadic="num_args",
    params=[
        Param("num_args", integer, doc="1, or 2 if a second input gives the size."),
        Param("offset", shape, (0, 0), "The upper left corner: (y, x)."),
        Param("h_w", shape, (0, 0), "Height and width of the window, with one input."),
        Param("center_crop", boolean, False, "Cut the window from the centre."),
    ],
    doc="A window of images (N, C, H, W), as large as `h_w` or as the images of a second input.",
)


def _infer_assign(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = merge_shapes(inputs[0], outputs[0], "output")
    shapes: list[Shape | None] = [data, *inputs[1:]]
    if data is not None:
        region = _lengths(_region(attrs, [data]), data)
        if len(inputs) > 1:
            shapes[1] = merge_shapes(region, inputs[1], "rhs")
    return shapes, [data], []


def _assign(call: Call) -> Step:
    xp, x, (y,) = call.xp, call.inputs[0], call.outputs
    region = y[_region(call.attrs, [y.shape])]
    value = call.inputs[1] if len(call.inputs) > 1 else y.dtype.type(call.attrs.scalar)

    def run() -> None:
        if y is not x:
            xp.copyto(y, x)
        xp.copyto(region, value)

    return run


register(
    "_slice_assign",
    aliases=["_crop_assign"],
    arguments=["lhs", "rhs"],
    params=_BEGIN_END,
    infer_shape=_infer_assign,
    forward=_assign,
    backward=None,
    inplace=[(0, 0)],
    doc="lhs with rhs in the place of a region.",
)
register(
    "_slice_assign_scalar",
    aliases=["_crop_assign_scalar"],
    params=[Param("scalar", number, 0.0, "The number."), *_BEGIN_END],
    infer_shape=_infer_assign,
    forward=_assign,
    backward=None,
    inplace=[(0, 0)],
    doc="data with a number in the place of a region.",
)
