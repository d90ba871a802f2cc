"""ROIPooling: the maximum over each bin of regions of interest (Girshick: Fast R-CNN, 2015). On the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, number, shape
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register

__all__ = ["infer_regions"]


def infer_regions(attrs: Attrs, data: Shape | None, rois: Shape | None) -> tuple[Any, Any, Any]:
    """The shapes of data, rois and the output of an operator on regions."""
    if len(attrs.pooled_size) != 2 or min(attrs.pooled_size) < 1:
        raise InvalidArgument(f"pooled_size is {attrs.pooled_size}, expected (height, width)")
    if data is not None and len(data) != 4:
        raise InvalidArgument(f"data has shape {data}, expected maps (N, C, H, W)")
    rois = merge_shapes((-1, 5), rois, "rois")
    if data is None or rois is None:
        return data, rois, None
    return data, rois, (rois[0], data[1], *attrs.pooled_size)


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, rois, out = infer_regions(attrs, *inputs)
    return [data, rois], [out, out], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    known = inputs[0] if inputs[0] is not None else inputs[1]
    return [t if t is not None else known for t in inputs], [known, np.dtype(np.int64)], []


def _round(x: float) -> int:
    """The nearest whole number, halves away from 0."""
    return math.floor(abs(x) + 0.5) * (-1 if x < 0 else 1)


def _bins(start: int, stop: int, count: int, limit: int) -> list[tuple[int, int]]:
    """Where each bin of a region begins and ends, within the map."""
    # In float32, as MXNet: where a bin ends depends on the rounding.
    size = np.float32(max(stop - start + 1, 1)) / np.float32(count)
    edges = [
        (math.floor(np.float32(i) * size) + start, math.ceil(np.float32(i + 1) * size) + start)
        for i in range(count)
    ]
    return [(min(max(a, 0), limit), min(max(b, 0), limit)) for a, b in edges]


def _forward(call: Call) -> Step:
    (data, rois), (out, place), attrs = call.inputs, call.outputs, call.attrs
    (n, channels, height, width), (rows, columns) = data.shape, attrs.pooled_size
    maps, channel = data.reshape(n, channels, -1), np.arange(channels)

    def run() -> None:
        out.fill(0)
        place.fill(-1)
        for r, roi in enumerate(rois):
            image = int(roi[0])
            if not 0 <= image < n:
                continue
            x1, y1, x2, y2 = (_round(float(v) * attrs.spatial_scale) for v in roi[1:])
            for i, (top, bottom) in enumerate(_bins(y1, y2, rows, height)):
                for j, (left, right) in enumerate(_bins(x1, x2, columns, width)):
                    if bottom <= top or right <= left:
                        continue
                    part = data[image, :, top:bottom, left:right].reshape(channels, -1)
                    best = part.argmax(axis=1)
                    row, column = np.divmod(best, right - left)
                    index = (row + top) * width + column + left
                    out[r, :, i, j] = maps[image, channel, index]
                    place[r, :, i, j] = index

    return run


def _backward(call: Call) -> Step:
    (ddata, drois), dy = call.in_grads, call.out_grads[0]
    rois, place = call.inputs[1], call.outputs[1]

    def run() -> None:
        if drois is not None:
            drois.fill(0)
        if ddata is None:
            return
        ddata.fill(0)
        _, channels, height, width = ddata.shape
        index, image = place, rois[:, 0].astype(np.int64)[:, None, None, None]
        index = index + (image * channels + np.arange(channels)[None, :, None, None]) * (height * width)
        found = place >= 0
        np.add.at(ddata.reshape(-1), index[found], dy[found])

    return run


register(
    "ROIPooling",
    params=[
        Param("pooled_size", shape, doc="The height and width of the output."),
        Param("spatial_scale", number, doc="The ratio of the map's size to that of the image."),
    ],
    arguments=["data", "rois"],
    outputs=["output", "maxidx"],
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((1,), (1,)),
    host=True,
    doc="""The maximum over each of h x w bins of regions of interest.

data (N, C, H, W); rois (R, 5) with image number, x1, y1, x2, y2 in the image's pixels; the output is
(R, C, h, w). There is no gradient for rois.""",
)
