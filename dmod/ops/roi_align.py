"""contrib.ROIAlign: averages of interpolated points in regions (He et al.: Mask R-CNN, 2017). On the host."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.params import Param, boolean, integer, number, shape
from dmod.ops.registry import Attrs, Call, Shapes, Step, register
from dmod.ops.roi_pooling import infer_regions


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, rois, out = infer_regions(attrs, *inputs)
    if out is not None and attrs.position_sensitive:
        bins = attrs.pooled_size[0] * attrs.pooled_size[1]
        if out[1] % bins:
            raise InvalidArgument(f"data has {out[1]} channels, expected a multiple of {bins} bins")
        out = (out[0], out[1] // bins, *out[2:])
    return [data, rois], [out], []


def _weights(start: float, size: float, bins: int, points: int, length: int) -> np.ndarray:
    """How much each pixel of an axis counts for each bin: (bins, length), before division by `points`."""
    place = start + size * (np.arange(bins)[:, None] + (np.arange(points)[None, :] + 0.5) / points)
    outside = (place < -1) | (place > length)
    place = np.clip(place, 0, length - 1)
    low = np.minimum(place.astype(np.int64), length - 1)
    high = np.minimum(low + 1, length - 1)
    part = place - low
    found = np.zeros((bins, length))
    row = np.arange(bins)[:, None]
    np.add.at(found, (row, low), np.where(outside, 0, 1 - part))
    np.add.at(found, (row, high), np.where(outside, 0, part))
    return found


def _regions(call: Call) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """For each region: its number, its image, and the weights of rows and columns for each bin.

    A bin's value is the mean over a grid of points, and interpolation separates into rows and columns.
    """
    attrs, (data, rois) = call.attrs, call.inputs
    (n, _, height, width), (rows, columns) = data.shape, attrs.pooled_size
    shift = 0.5 if attrs.aligned else 0.0
    for r, roi in enumerate(rois):
        image = int(roi[0])
        if not 0 <= image < n:
            continue
        x1, y1, x2, y2 = (float(v) * attrs.spatial_scale - shift for v in roi[1:])
        across, down = x2 - x1, y2 - y1
        if not attrs.aligned:
            across, down = max(across, 1.0), max(down, 1.0)
        points = [
            attrs.sample_ratio if attrs.sample_ratio > 0 else math.ceil(length / bins)
            for length, bins in ((down, rows), (across, columns))
        ]
        count = max(points[0] * points[1], 1)
        by_row = _weights(y1, down / rows, rows, points[0], height) / count
        yield r, image, by_row, _weights(x1, across / columns, columns, points[1], width)


def _own_channels(out: Any, attrs: Attrs) -> tuple[Any, ...]:
    """With position_sensitive: the index that takes from each bin (c, i, j) the channel made for it."""
    rows, columns = attrs.pooled_size
    i, j = np.arange(rows)[:, None], np.arange(columns)[None, :]
    channel = (np.arange(out.shape[1])[:, None, None] * rows + i) * columns + j
    return channel, i[None], j[None]


def _forward(call: Call) -> Step:
    data, out, attrs = call.inputs[0], call.outputs[0], call.attrs
    own = _own_channels(out, attrs) if attrs.position_sensitive else (Ellipsis,)

    def run() -> None:
        out.fill(0)
        for r, image, by_row, by_column in _regions(call):
            out[r] = (by_row @ data[image] @ by_column.T)[own]

    return run


def _backward(call: Call) -> Step:
    (ddata, drois), dy, attrs = call.in_grads, call.out_grads[0], call.attrs
    own = _own_channels(dy, attrs) if attrs.position_sensitive else (Ellipsis,)

    def run() -> None:
        if drois is not None:
            drois.fill(0)
        if ddata is None:
            return
        ddata.fill(0)
        for r, image, by_row, by_column in _regions(call):
            grad = np.zeros((ddata.shape[1], *attrs.pooled_size))
            grad[own] = dy[r]
            ddata[image] += (by_row.T @ grad @ by_column).astype(ddata.dtype)

    return run


register(
    "_contrib_ROIAlign",
    params=[
        Param("pooled_size", shape, doc="The height and width of the output."),
        Param("spatial_scale", number, doc="The ratio of the map's size to that of the image."),
        Param("sample_ratio", integer, -1, "Points per bin along each axis; -1: one per pixel."),
        Param("position_sensitive", boolean, False, "Whether each bin has channels of its own."),
        Param("aligned", boolean, False, "Whether regions are moved by half a pixel, as they should be."),
    ],
    arguments=["data", "rois"],
    infer_shape=_infer,
    forward=_forward,
    backward=_backward,
    backward_reads=((0, 1), ()),
    host=True,
    doc="""The mean of interpolated points over each of h x w bins of regions of interest.

data (N, C, H, W); rois (R, 5) with image number, x1, y1, x2, y2 in the image's pixels; the output is
(R, C, h, w). A region with a negative image number gives 0. There is no gradient for rois.""",
)
