"""Images as arrays (H, W, C) or (N, H, W, C): image.to_tensor, normalize, resize, crop, flips."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import same_shape
from dmod.ops.params import Param, boolean, integer, numbers, shape
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register, zero_gradient


def _image(dims: Shape | None, what: str = "(H, W, C) or (N, H, W, C)") -> None:
    if dims is not None and len(dims) not in (3, 4):
        raise InvalidArgument(f"data has shape {dims}, expected {what}")


def _infer_tensor(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    _image(data)
    return [data], [None if data is None else (*data[:-3], data[-1], data[-3], data[-2])], []


def _tensor_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return [inputs[0]], [np.dtype(np.float32)], []


def _to_tensor(call: Call) -> Step:
    xp, out = call.xp, call.outputs[0]
    x = call.xp.moveaxis(call.inputs[0], -1, -3)
    return lambda: xp.multiply(x, np.float32(1 / 255), out=out, casting="same_kind", dtype=np.float32)


register(
    "_image_to_tensor",
    infer_shape=_infer_tensor,
    infer_type=_tensor_type,
    forward=_to_tensor,
    backward=None,
    doc="Images (..., H, W, C) with values from 0 to 255 as tensors (..., C, H, W) from 0 to 1.",
)


def _infer_normalize(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    shapes = same_shape(attrs, inputs, outputs)
    data = shapes[0][0]
    _image(data, "(C, H, W) or (N, C, H, W)")
    for name, values in (("mean", attrs.mean), ("std", attrs.std)):
        if data is not None and data[-3] != -1 and 1 < len(values) < data[-3]:
            raise InvalidArgument(f"{name} has {len(values)} numbers for {data[-3]} channels")
    return shapes


def _per_channel(call: Call, values: Any, like: Any) -> Any:
    count = like.shape[-3]
    values = list(values)[:count] if len(values) > 1 else list(values) * count
    return call.device.from_host(np.array(values, like.dtype).reshape(count, 1, 1))


def _normalize(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    mean, std = _per_channel(call, call.attrs.mean, x), _per_channel(call, call.attrs.std, x)

    def run() -> None:
        xp.subtract(x, mean, out=y)
        xp.divide(y, std, out=y)

    return run


def _normalize_grad(call: Call) -> Step:
    xp, dy, dx = call.xp, call.out_grads[0], call.in_grads[0]
    std = _per_channel(call, call.attrs.std, dy)
    return lambda: xp.divide(dy, std, out=dx)


register(
    "_image_normalize",
    params=[
        Param("mean", numbers, (0.0, 0.0, 0.0, 0.0), "The mean of each channel, or one for all."),
        Param("std", numbers, (1.0, 1.0, 1.0, 1.0), "The standard deviation of each channel, or one."),
    ],
    infer_shape=_infer_normalize,
    forward=_normalize,
    backward=_normalize_grad,
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    doc="Each channel of a tensor (..., C, H, W) less its mean, over its standard deviation.",
)


def _infer_crop(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    _image(data)
    if data is None:
        return [data], [None], []
    height, width = data[-3:-1]
    inside = attrs.x >= 0 and attrs.y >= 0 and attrs.width > 0 and attrs.height > 0
    if -1 not in (height, width) and not (
        inside and attrs.x + attrs.width <= width and attrs.y + attrs.height <= height
    ):
        raise InvalidArgument(
            f"{attrs.width} x {attrs.height} from ({attrs.x}, {attrs.y}) on lies outside of data {data}"
        )
    return [data], [(*data[:-3], attrs.height, attrs.width, data[-1])], []


def _crop_index(attrs: Attrs) -> Any:
    rows, columns = slice(attrs.y, attrs.y + attrs.height), slice(attrs.x, attrs.x + attrs.width)
    return (Ellipsis, rows, columns, slice(None))


def _crop(call: Call) -> Step:
    part = call.inputs[0][_crop_index(call.attrs)]
    return lambda: call.xp.copyto(call.outputs[0], part)


def _crop_grad(call: Call) -> Step:
    dx, dy = call.in_grads[0], call.out_grads[0]
    part = dx[_crop_index(call.attrs)]

    def run() -> None:
        dx.fill(0)
        call.xp.copyto(part, dy)

    return run


register(
    "_image_crop",
    params=[
        Param("x", integer, doc="The left column."),
        Param("y", integer, doc="The top row."),
        Param("width", integer, doc="How many columns."),
        Param("height", integer, doc="How many rows."),
    ],
    infer_shape=_infer_crop,
    forward=_crop,
    backward=_crop_grad,
    doc="A part of images (..., H, W, C).",
)


def _infer_same(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    shapes = same_shape(attrs, inputs, outputs)
    _image(shapes[0][0])
    return shapes


def _register_flips(name: str, axis: int, doc: str) -> None:
    """Register the flip along an axis, and the one that is made with probability 1/2."""

    def copy(call: Call, source: Any, target: Any) -> Step:
        flipped = call.xp.flip(source, axis)
        return lambda: call.xp.copyto(target, flipped)

    def maybe(call: Call) -> Step:
        source, target = call.inputs[0], call.outputs[0]
        flipped, stream, node = call.xp.flip(source, axis), call.stream, call.node

        def run() -> None:
            call.xp.copyto(target, flipped if stream.generator(node).random() < 0.5 else source)

        return run

    register(
        f"_image_flip_{name}",
        infer_shape=_infer_same,
        forward=lambda call: copy(call, call.inputs[0], call.outputs[0]),
        backward=lambda call: copy(call, call.out_grads[0], call.in_grads[0]),
        doc=doc,
    )
    register(
        f"_image_random_flip_{name}",
        infer_shape=_infer_same,
        forward=maybe,
        backward=None,
        doc=f"{doc} With probability 1/2; else as they are.",
    )


_register_flips("left_right", -2, "Images (..., H, W, C) with left and right exchanged.")
_register_flips("top_bottom", -3, "Images (..., H, W, C) with top and bottom exchanged.")


def _new_size(attrs: Attrs, height: int, width: int) -> tuple[int, int]:
    """The height and width after resizing: size is (width, height), or one number."""
    size = attrs.size
    if len(size) not in (1, 2) or min(size) < 1:
        raise InvalidArgument(f"size is {size}, expected (width, height) or one number")
    if len(size) == 2:
        return size[1], size[0]
    if not attrs.keep_ratio:
        return size[0], size[0]
    if height > width:
        return int(size[0] * height / width), size[0]
    return size[0], int(size[0] * width / height)


def _infer_resize(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    _image(data)
    if attrs.interp not in (0, 1):
        raise InvalidArgument(f"interp is {attrs.interp}, expected 0 (nearest) or 1 (bilinear)")
    if data is None or -1 in data:
        return [data], [None], []
    return [data], [(*data[:-3], *_new_size(attrs, *data[-3:-1]), data[-1])], []


def _taps(old: int, new: int, interp: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new pixel of an axis: the two old ones, and the share of the second."""
    if interp == 0:
        low = np.minimum((np.arange(new) * (old / new)).astype(np.int64), old - 1)
        return low, low, np.zeros(new)
    place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    low = place.astype(np.int64)
    return low, np.minimum(low + 1, old - 1), place - low


def _resize(call: Call) -> Step:
    xp, x, y, interp = call.xp, call.inputs[0], call.outputs[0], call.attrs.interp
    (top, bottom, down), (left, right, across) = (
        tuple(call.device.from_host(a) for a in _taps(x.shape[axis], y.shape[axis], interp))
        for axis in (-3, -2)
    )
    down, across = down[:, None, None].astype(np.float32), across[:, None].astype(np.float32)

    def run() -> None:
        rows = x[..., top, :, :] * (1 - down) + x[..., bottom, :, :] * down
        found = rows[..., left, :] * (1 - across) + rows[..., right, :] * across
        xp.copyto(y, xp.rint(found) if y.dtype.kind in "iu" else found, casting="unsafe")

    return run


register(
    "_image_resize",
    params=[
        Param("size", shape, (), "(width, height), or one number for both."),
        Param("keep_ratio", boolean, False, "Whether one number is for the short edge."),
        Param("interp", integer, 1, "0: the nearest pixel, 1: bilinear."),
    ],
    infer_shape=_infer_resize,
    forward=_resize,
    backward=zero_gradient,
    doc="Images (..., H, W, C) in another size.",
)
