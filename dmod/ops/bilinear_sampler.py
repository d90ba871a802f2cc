"""Images sampled at computed places: GridGenerator, BilinearSampler, SpatialTransformer.

Jaderberg et al.: Spatial Transformer Networks, 2015. Grids hold x and y from -1 to 1 over the image;
what lies beyond it counts as 0.
"""

from __future__ import annotations

from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, choice, optional, shape
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register


def _unit_grid(xp: Any, size: Shape, dtype: Any) -> Any:
    """The places of a regular grid as (3, height * width): x, y and 1."""
    height, width = size
    x = xp.arange(width, dtype=dtype) * (2 / max(1, width - 1)) - 1
    y = xp.arange(height, dtype=dtype) * (2 / max(1, height - 1)) - 1
    grid = xp.ones((3, height, width), dtype=dtype)
    grid[0], grid[1] = x[None, :], y[:, None]
    return grid.reshape(3, height * width)


def _infer_grid(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if attrs.transform_type == "warp":
        data = merge_shapes(data, outputs[0], "data")
        if data is not None and (len(data) != 4 or data[1] != 2):
            raise InvalidArgument(f"data has shape {data}, expected a flow (N, 2, H, W)")
        return [data], [data], []
    height, width = _target(attrs)
    if data is not None:
        data = merge_shapes((-1, 6), data, "data")
    return [data], [None if data is None else (data[0], 2, height, width)], []


def _target(attrs: Attrs) -> tuple[int, int]:
    if len(attrs.target_shape) != 2 or min(attrs.target_shape) < 1:
        raise InvalidArgument(f"target_shape is {attrs.target_shape}, expected (height, width)")
    return attrs.target_shape[0], attrs.target_shape[1]


def _affine(call: Call, theta: Any, out: Any) -> Step:
    xp, grid = call.xp, _unit_grid(call.xp, out.shape[2:], out.dtype)
    matrix, places = theta.reshape(-1, 2, 3), out.reshape(*out.shape[:2], -1)
    return lambda: xp.matmul(matrix, grid, out=places)


def _affine_grad(call: Call, dgrid: Any, dtheta: Any) -> Step:
    xp, grid = call.xp, _unit_grid(call.xp, dgrid.shape[2:], dgrid.dtype)
    matrix, places = dtheta.reshape(-1, 2, 3), dgrid.reshape(*dgrid.shape[:2], -1)
    return lambda: xp.matmul(places, grid.T, out=matrix)


def _half(call: Call, like: Any) -> Any:
    """Half the image's extent in pixels, shaped to go with a flow."""
    half = call.xp.ones((1, 2, 1, 1), dtype=like.dtype)
    half[0, 0], half[0, 1] = max(1, like.shape[3] - 1) / 2, max(1, like.shape[2] - 1) / 2
    return half


def _grid(call: Call) -> Step:
    xp, (data,), (out,) = call.xp, call.inputs, call.outputs
    if call.attrs.transform_type == "affine":
        return _affine(call, data, out)
    half = _half(call, data)
    base = _unit_grid(xp, data.shape[2:], data.dtype)[:2].reshape(1, 2, *data.shape[2:])

    def run() -> None:
        xp.divide(data, half, out=out)
        xp.add(out, base, out=out)

    return run


def _grid_grad(call: Call) -> Step:
    xp, (dy,), (dx,) = call.xp, call.out_grads, call.in_grads
    if call.attrs.transform_type == "affine":
        return _affine_grad(call, dy, dx)
    half = _half(call, dx)
    return lambda: xp.divide(dy, half, out=dx)


register(
    "GridGenerator",
    params=[
        Param("transform_type", choice(("affine", "warp")), doc="What data describes."),
        Param("target_shape", shape, (0, 0), "With affine: the height and width of the grid."),
    ],
    json_outputs=2,
    infer_shape=_infer_grid,
    forward=_grid,
    backward=_grid_grad,
    doc="""A grid (N, 2, H, W) of places to sample at, for `BilinearSampler`.

Affine: data (N, 6) holds matrices (2, 3) that map places of the output to such of the input. Warp: data
(N, 2, H, W) says by how many pixels each place is moved.""",
)


class _Corners:
    """The four pixels around each place of a grid: where they are, their weights, and whether they exist."""

    def __init__(self, xp: Any, data: Any, grid: Any):
        n, _, height, width = data.shape
        x, y = (grid[:, 0] + 1) * ((width - 1) / 2), (grid[:, 1] + 1) * ((height - 1) / 2)
        self.xp, self.size = xp, (height, width)
        # The cast must not meet numbers that are no integers; places this far outside have no pixels anyway.
        left, top = xp.floor(xp.clip(x, -2, width + 1)), xp.floor(xp.clip(y, -2, height + 1))
        self.fx, self.fy = x - left, y - top
        self.left, self.top = left.astype("int64"), top.astype("int64")
        self.image = xp.arange(n).reshape(n, 1, 1)

    def each(self) -> Any:
        """For each corner: its offset (down, right), index into (N, H * W), weight and existence."""
        xp, (height, width) = self.xp, self.size
        for down in (0, 1):
            for right in (0, 1):
                x, y = self.left + right, self.top + down
                inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
                index = xp.clip(y, 0, height - 1) * width + xp.clip(x, 0, width - 1)
                wx, wy = (self.fx if right else 1 - self.fx), (self.fy if down else 1 - self.fy)
                yield down, right, index, wx * wy, inside


def _flat(data: Any) -> Any:
    """The data as (N, H * W, C), a view."""
    return data.reshape(*data.shape[:2], -1).swapaxes(1, 2)


def _sample(xp: Any, data: Any, grid: Any, out: Any) -> None:
    corners = _Corners(xp, data, grid)
    total: Any = 0
    for _, _, index, weight, inside in corners.each():
        pixels = _flat(data)[corners.image, index]  # (N, h, w, C)
        total = total + pixels * xp.where(inside, weight, 0)[..., None]
    xp.copyto(out, xp.moveaxis(total, -1, 1), casting="same_kind")


def _sample_grads(xp: Any, data: Any, grid: Any, dy: Any, ddata: Any, dgrid: Any) -> None:
    corners = _Corners(xp, data, grid)
    dy_last = xp.moveaxis(dy, 1, -1)
    by_x: Any = 0
    by_y: Any = 0
    pixel_grads = None if ddata is None else xp.zeros_like(xp.ascontiguousarray(_flat(ddata)))
    for down, right, index, weight, inside in corners.each():
        if pixel_grads is not None:
            share = dy_last * xp.where(inside, weight, 0)[..., None]
            xp.add.at(pixel_grads, (corners.image, index), share.astype(pixel_grads.dtype))
        if dgrid is not None:
            value = (_flat(data)[corners.image, index] * dy_last).sum(axis=-1) * inside
            wx = corners.fx if right else 1 - corners.fx
            wy = corners.fy if down else 1 - corners.fy
            by_x = by_x + value * wy * (1 if right else -1)
            by_y = by_y + value * wx * (1 if down else -1)
    if pixel_grads is not None:
        xp.copyto(ddata, pixel_grads.swapaxes(1, 2).reshape(ddata.shape))
    if dgrid is not None:
        height, width = data.shape[2:]
        xp.copyto(dgrid[:, 0], by_x * ((width - 1) / 2), casting="same_kind")
        xp.copyto(dgrid[:, 1], by_y * ((height - 1) / 2), casting="same_kind")


def _image_shape(dims: Shape | None) -> None:
    if dims is not None and len(dims) != 4:
        raise InvalidArgument(f"data has shape {dims}, expected images (N, C, H, W)")


def _infer_sampler(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, grid = inputs
    _image_shape(data)
    if grid is not None or data is not None:
        grid = merge_shapes((data[0] if data is not None else -1, 2, -1, -1), grid, "grid")
    if data is None or grid is None:
        return [data, grid], [None], []
    return [data, grid], [(*data[:2], *grid[2:])], []


def _sampler(call: Call) -> Step:
    (data, grid), (out,) = call.inputs, call.outputs
    return lambda: _sample(call.xp, data, grid, out)


def _sampler_grads(call: Call) -> Step:
    (data, grid), (dy,), (ddata, dgrid) = call.inputs, call.out_grads, call.in_grads
    return lambda: _sample_grads(call.xp, data, grid, dy, ddata, dgrid)


_CUDNN = Param("cudnn_off", optional(boolean), None, "Ignored.")

register(
    "BilinearSampler",
    params=[_CUDNN],
    arguments=["data", "grid"],
    json_outputs=2,
    infer_shape=_infer_sampler,
    forward=_sampler,
    backward=_sampler_grads,
    backward_reads=((0, 1), ()),
    doc="""Images sampled at the places of a grid, by bilinear interpolation.

data (N, C, H, W), grid (N, 2, h, w) with x and y from -1 to 1; the output is (N, C, h, w).""",
)


def _infer_transformer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, loc = inputs
    _image_shape(data)
    target = _target(attrs)
    if data is not None or loc is not None:
        loc = merge_shapes((data[0] if data is not None else -1, 6), loc, "loc")
    if data is None:
        return [data, loc], [None], []
    return [data, loc], [(*data[:2], *target)], []


def _transformer(call: Call) -> Step:
    data, loc = call.inputs
    grid = call.scratch((data.shape[0], 2, *call.attrs.target_shape), data.dtype)
    place = _affine(call, loc, grid)

    def run() -> None:
        place()
        _sample(call.xp, data, grid, call.outputs[0])

    return run


def _transformer_grads(call: Call) -> Step:
    (data, loc), (ddata, dloc), dy = call.inputs, call.in_grads, call.out_grads[0]
    dims = (data.shape[0], 2, *call.attrs.target_shape)
    grid = call.scratch(dims, data.dtype)
    dgrid = None if dloc is None else call.scratch(dims, data.dtype)
    place = _affine(call, loc, grid)
    turn_back = None if dloc is None else _affine_grad(call, dgrid, dloc)

    def run() -> None:
        place()
        _sample_grads(call.xp, data, grid, dy, ddata, dgrid)
        if turn_back is not None:
            turn_back()

    return run


register(
    "SpatialTransformer",
    params=[
        Param("target_shape", shape, (0, 0), "The height and width of the output."),
        Param("transform_type", choice(("affine",)), doc="What loc describes."),
        Param("sampler_type", choice(("bilinear",)), doc="How pixels are interpolated."),
        _CUDNN,
    ],
    arguments=["data", "loc"],
    json_outputs=3,
    infer_shape=_infer_transformer,
    forward=_transformer,
    backward=_transformer_grads,
    backward_reads=((0, 1), ()),
    doc="Images (N, C, H, W) sampled through affine maps loc (N, 6): `GridGenerator`, `BilinearSampler`.",
)
