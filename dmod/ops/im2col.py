"""im2col and col2im: images as columns of windows, and columns added up to images."""

from __future__ import annotations

import math

from dmod.base import InvalidArgument
from dmod.ops.columns import Columns
from dmod.ops.convolution import float_type
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, shape
from dmod.ops.registry import Attrs, Call, Shapes, Step, register
from dmod.ops.window import Window, window_of

__all__: list[str] = []


def _infer_im2col(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [None], [None], []
    window = window_of(attrs, data[2:])
    rows = -1 if data[1] == -1 else data[1] * window.taps
    positions = -1 if -1 in window.out else math.prod(window.out)
    return [data], [(data[0], rows, positions)], []


def _infer_col2im(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if len(attrs.output_size) != len(attrs.kernel) or min(attrs.output_size, default=1) < 1:
        raise InvalidArgument(
            f"output_size: expected a positive number for each axis of kernel {attrs.kernel}, "
            f"got {attrs.output_size}"
        )
    window = window_of(attrs, attrs.output_size)
    data = merge_shapes((-1, -1, math.prod(window.out)), inputs[0], "data")
    assert data is not None
    if data[1] != -1 and data[1] % window.taps:
        raise InvalidArgument(f"data: expected rows in a multiple of {window.taps}, got {data[1]}")
    channels = -1 if data[1] == -1 else data[1] // window.taps
    return [data], [(data[0], channels, *window.size)], []


def _gather(call: Call, window: Window, images, columns) -> Step:  # type: ignore[no-untyped-def]
    """The step from images (N, C, ...) to columns (N, C * taps, positions)."""
    xp, dtype = call.xp, columns.dtype
    memory = Columns(call, window, images.shape[1], images.shape[0], None, dtype)
    blocks = _per_image(memory, columns)

    def run() -> None:
        memory.clear()
        for block, points, target in blocks:
            block.gather(images)
            xp.copyto(target, points)

    return run


def _scatter(call: Call, window: Window, columns, images) -> Step:  # type: ignore[no-untyped-def]
    """The step from columns to images: elements of several windows are added up."""
    xp, dtype = call.xp, columns.dtype
    memory = Columns(call, window, images.shape[1], images.shape[0], None, dtype)
    blocks = _per_image(memory, columns)

    def run() -> None:
        for block, points, source in blocks:
            xp.copyto(points, source)
            block.scatter(images)

    return run


def _per_image(memory: Columns, columns):  # type: ignore[no-untyped-def]
    """Each block, its columns with the image's axis first, and where they are in `columns`."""
    found = []
    for block in memory.blocks():
        points = block.matrix(1)[0].reshape(columns.shape[1], block.count, -1).swapaxes(0, 1)
        found.append((block, points, columns[block.start : block.stop]))
    return found


_PARAMS = [
    Param("kernel", shape, doc="The window's lengths: (w,), (h, w) or (d, h, w)."),
    Param("stride", shape, (), "How far the window moves; default 1."),
    Param("dilate", shape, (), "How far the window's points lie apart; default 1."),
    Param("pad", shape, (), "Zeros on both sides of each axis; default 0."),
]

register(
    "im2col",
    params=_PARAMS,
    infer_shape=_infer_im2col,
    infer_type=float_type,
    forward=lambda call: _gather(
        call, window_of(call.attrs, call.inputs[0].shape[2:]), call.inputs[0], call.outputs[0]
    ),
    backward=lambda call: _scatter(
        call, window_of(call.attrs, call.in_grads[0].shape[2:]), call.out_grads[0], call.in_grads[0]
    ),
    doc="""The windows of images as columns.

data (N, C, ...) has one, two or three spatial axes; the output is (N, C * prod(kernel), positions).""",
)
register(
    "col2im",
    params=[Param("output_size", shape, doc="The spatial shape of the images."), *_PARAMS],
    infer_shape=_infer_col2im,
    infer_type=float_type,
    forward=lambda call: _scatter(
        call, window_of(call.attrs, call.attrs.output_size), call.inputs[0], call.outputs[0]
    ),
    backward=lambda call: _gather(
        call, window_of(call.attrs, call.attrs.output_size), call.out_grads[0], call.in_grads[0]
    ),
    doc="""Columns of windows added up to images, the transpose of im2col.

data (N, C * prod(kernel), positions); the output is (N, C, *output_size).""",
)
