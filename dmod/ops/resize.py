"""Resizing of images by matrices: BilinearResize2D, AdaptiveAvgPooling2D.

Both are linear along each axis, so ``output = rows @ data @ columns.T`` for each channel, with matrices
that are made when the step is built, and the gradient is the same with the matrices transposed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.convolution import float_type
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, choice, integer, number, optional, shape
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register

__all__: list[str] = []


def bilinear_matrix(size: int, out: int, align_corners: bool) -> np.ndarray:
    """The weights (out, size) of linear interpolation.

    Examples
    --------
    >>> bilinear_matrix(2, 3, True)
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]])
    """
    positions = np.arange(out, dtype=np.float64)
    if size == out or out == 1:  # a single output is the first element, whatever aligns
        source = positions
    elif align_corners:
        source = positions * ((size - 1) / (out - 1))
    else:
        source = np.maximum((positions + 0.5) * (size / out) - 0.5, 0.0)
    low = np.minimum(source.astype(np.int64), size - 1)
    rest = source - low
    matrix = np.zeros((out, size))
    matrix[np.arange(out), low] += 1 - rest
    matrix[np.arange(out), np.minimum(low + 1, size - 1)] += rest
    return matrix


def average_matrix(size: int, out: int) -> np.ndarray:
    """The weights (out, size) of averages over parts of about equal length.

    Examples
    --------
    >>> average_matrix(3, 2)
    array([[0.5, 0.5, 0. ],
           [0. , 0.5, 0.5]])
    """
    matrix = np.zeros((out, size))
    for i in range(out):
        start, stop = i * size // out, -(-(i + 1) * size // out)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


Matrices = Callable[[Attrs, Shape, Shape], tuple[np.ndarray, np.ndarray]]


def _forward_by(matrices: Matrices) -> Callable[[Call], Step]:
    def build(call: Call) -> Step:
        xp, x, y = call.xp, call.inputs[0], call.outputs[0]
        rows, columns = _on_device(call, matrices(call.attrs, x.shape[2:], y.shape[2:]), x.dtype)
        tmp = call.scratch((*x.shape[:3], y.shape[3]), x.dtype)

        def run() -> None:
            xp.matmul(x, columns.T, out=tmp)
            xp.matmul(rows, tmp, out=y)

        return run

    return build


def _backward_by(matrices: Matrices) -> Callable[[Call], Step]:
    def build(call: Call) -> Step:
        xp, dy, dx = call.xp, call.out_grads[0], call.in_grads[0]
        others = [grad for grad in call.in_grads[1:] if grad is not None]
        size = call.inputs[0].shape[2:]
        rows, columns = _on_device(call, matrices(call.attrs, size, dy.shape[2:]), dy.dtype)
        tmp = call.scratch((*dy.shape[:3], size[1]), dy.dtype)

        def run() -> None:
            if dx is not None:
                xp.matmul(dy, columns, out=tmp)
                xp.matmul(rows.T, tmp, out=dx)
            for grad in others:  # only their shape counts
                grad.fill(0)

        return run

    return build


def _on_device(call: Call, matrices: tuple[np.ndarray, np.ndarray], dtype: Any) -> tuple[Any, Any]:
    rows, columns = (call.device.from_host(m.astype(dtype)) for m in matrices)
    return rows, columns


def _need_images(data: Shape | None) -> None:
    if data is not None and len(data) != 4:
        raise InvalidArgument(f"data: expected 4 axes (NCHW), got shape {data}")


# ---- BilinearResize2D


def _resized(attrs: Attrs, size: int, wanted: int, scale: float | None, like: int) -> int:
    """The length of one axis; -1 if it is not known yet."""
    mode = attrs.mode
    if mode == "like":
        return like
    if mode == "size" and scale is None:
        return wanted
    if size == -1:
        return -1
    if mode == "size":
        assert scale is not None
        return int(size * scale)
    if mode == "odd_scale":
        if scale is None:
            raise InvalidArgument("scale_height, scale_width: required for mode 'odd_scale'")
        return int((size - 1) * scale) + 1 if size % 2 else int(size * scale)
    odd = 1 if "odd" in mode else 0
    return size if size % 2 == odd else size + (1 if mode.endswith("up") else -1)


def _infer_resize(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    _need_images(data)
    like = inputs[1] if attrs.mode == "like" else None
    if data is None:
        return list(inputs), [None], []
    if like is not None and len(like) != 4:
        raise InvalidArgument(f"like: expected 4 axes (NCHW), got shape {like}")
    target = (-1, -1) if like is None else like[2:]
    h = _resized(attrs, data[2], attrs.height, attrs.scale_height, target[0])
    w = _resized(attrs, data[3], attrs.width, attrs.scale_width, target[1])
    if 0 in (h, w) or min(h, w) < -1:
        raise InvalidArgument(f"height, width: expected at least 1, got {h} and {w}")
    return list(inputs), [(*data[:2], h, w)], []


def _bilinear(attrs: Attrs, size: Shape, out: Shape) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = (bilinear_matrix(n, m, attrs.align_corners) for n, m in zip(size, out, strict=True))
    return rows, columns


_MODES = ("like", "odd_scale", "size", "to_even_down", "to_even_up", "to_odd_down", "to_odd_up")

register(
    "_contrib_BilinearResize2D",
    params=[
        Param("height", integer, 1, "The output's height, in mode 'size' without scale_height."),
        Param("width", integer, 1, "The output's width, in mode 'size' without scale_width."),
        Param("scale_height", optional(number), None, "By what the height is multiplied."),
        Param("scale_width", optional(number), None, "By what the width is multiplied."),
        Param(
            "mode",
            choice(_MODES),
            "size",
            "Where the output's size comes from: height and width or the scales; 'odd_scale' the same, with "
            "(size - 1) * scale + 1 for odd sizes; 'like' the second input; the others, the next even or odd "
            "number.",
        ),
        Param("align_corners", boolean, True, "Whether corners lie on corners; else edges on edges."),
    ],
    arguments=lambda attrs: ["data", "like"] if attrs.mode == "like" else ["data"],
    slots=("data", "like"),
    infer_shape=_infer_resize,
    infer_type=float_type,
    forward=_forward_by(_bilinear),
    backward=_backward_by(_bilinear),
    doc="Give images (N, C, H, W) another height and width, by bilinear interpolation.",
)


# ---- AdaptiveAvgPooling2D


def _infer_average(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, size = inputs[0], attrs.output_size
    _need_images(data)
    if len(size) > 2 or any(n < 1 for n in size):
        raise InvalidArgument(f"output_size: expected one or two positive numbers, got {size}")
    size = (size * 2)[:2] if size else (1, 1)
    return [data], [None if data is None else merge_shapes((*data[:2], *size), outputs[0], "output")], []


def _average(attrs: Attrs, size: Shape, out: Shape) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = (average_matrix(n, m) for n, m in zip(size, out, strict=True))
    return rows, columns


register(
    "_contrib_AdaptiveAvgPooling2D",
    params=[Param("output_size", shape, (), "The output's height and width, or both in one; default 1.")],
    infer_shape=_infer_average,
    infer_type=float_type,
    forward=_forward_by(_average),
    backward=_backward_by(_average),
    doc="Average images (N, C, H, W) over a grid of windows of about equal size: (N, C, *output_size).",
)
