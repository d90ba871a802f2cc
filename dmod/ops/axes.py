"""Operators that only move elements to other places: transpose, SwapAxis, reverse, depth and space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.params import Param, integer, shape
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register

__all__ = ["is_known", "normal_axis"]


def is_known(dims: Shape | None) -> bool:
    """Whether every length of a shape is known."""
    return dims is not None and -1 not in dims


def normal_axis(axis: int, dims: Shape, what: str = "axis", ndim: int | None = None) -> int:
    """`axis` counted from the front.

    Raises
    ------
    InvalidArgument
        It lies outside of `dims`, or of `ndim` axes if that is given.
    """
    count = len(dims) if ndim is None else ndim
    if not -count <= axis < count:
        raise InvalidArgument(f"{what} is {axis}, expected {-count} to {count - 1} for shape {dims}")
    return axis % count


def _moved(
    name: str, order: Callable[[Attrs, Shape], tuple[int, ...]], doc: str, params: Any, aliases: Any = ()
) -> None:
    """Register a permutation; ``order(attrs, shape)`` lists the input's axes in the output's order."""

    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        (data,), (out,) = inputs, outputs
        if data is not None:
            return [data], [tuple(data[i] for i in order(attrs, data))], []
        if out is None:
            return [None], [None], []
        axes = order(attrs, out)
        return [tuple(out[axes.index(i)] for i in range(len(out)))], [out], []

    def forward(call: Call) -> Step:
        xp, (x,), (y,) = call.xp, call.inputs, call.outputs
        source = x.transpose(order(call.attrs, x.shape))
        return lambda: xp.copyto(y, source)

    def backward(call: Call) -> Step:
        xp, (dy,), (dx,) = call.xp, call.out_grads, call.in_grads
        target = dx.transpose(order(call.attrs, dx.shape))
        return lambda: xp.copyto(target, dy)

    register(
        name,
        params=params,
        aliases=aliases,
        infer_shape=infer,
        forward=forward,
        backward=backward,
        doc=doc,
    )


def _transposed(attrs: Attrs, dims: Shape) -> tuple[int, ...]:
    axes = attrs.axes or tuple(reversed(range(len(dims))))
    if sorted(axes) != list(range(len(dims))):
        raise InvalidArgument(f"axes is {axes}, expected an order of 0 to {len(dims) - 1} for shape {dims}")
    return tuple(axes)


def _swapped(attrs: Attrs, dims: Shape) -> tuple[int, ...]:
    first, second = normal_axis(attrs.dim1, dims, "dim1"), normal_axis(attrs.dim2, dims, "dim2")
    axes = list(range(len(dims)))
    axes[first], axes[second] = second, first
    return tuple(axes)


_moved(
    "transpose",
    _transposed,
    "Reorder the axes: output axis i is input axis ``axes[i]``; without `axes` they are reversed.",
    [Param("axes", shape, (), "The input's axes in the output's order.")],
)
_moved(
    "SwapAxis",
    _swapped,
    "Interchange two axes.",
    [Param("dim1", integer, 0, "The first axis."), Param("dim2", integer, 0, "The second axis.")],
    ["swapaxes"],
)


def _same(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0] if inputs[0] is not None else outputs[0]
    if data is not None and not all(0 <= axis < len(data) for axis in attrs.axis):
        raise InvalidArgument(f"axis is {attrs.axis}, expected 0 to {len(data) - 1} for shape {data}")
    return [data], [data], []


def _reversed(array: Any, axes: tuple[int, ...]) -> Any:
    return array[tuple(slice(None, None, -1 if i in axes else 1) for i in range(array.ndim))]


def _reverse(call: Call) -> Step:
    xp, source, (y,) = call.xp, _reversed(call.inputs[0], call.attrs.axis), call.outputs
    return lambda: xp.copyto(y, source)


def _reverse_grad(call: Call) -> Step:
    xp, source, (dx,) = call.xp, _reversed(call.out_grads[0], call.attrs.axis), call.in_grads
    return lambda: xp.copyto(dx, source)


register(
    "reverse",
    aliases=["flip"],
    params=[Param("axis", shape, doc="The axes along which the order is reversed.")],
    infer_shape=_same,
    forward=_reverse,
    backward=_reverse_grad,
    doc="Reverse the order of the elements along some axes; the shape stays.",
)


def _image(attrs: Attrs, data: Shape) -> tuple[int, int, int, int, int]:
    if len(data) != 4:
        raise InvalidArgument(f"data has shape {data}, expected 4 axes: (N, C, H, W)")
    if attrs.block_size < 1:
        raise InvalidArgument(f"block_size is {attrs.block_size}, expected at least 1")
    n, c, h, w = data
    return n, c, h, w, attrs.block_size


def _infer_to_space(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None or not is_known(data):
        return [data], [None], []
    n, c, h, w, block = _image(attrs, data)
    if c % block**2:
        raise InvalidArgument(f"data has {c} channels, expected a multiple of block_size squared, {block**2}")
    return [data], [(n, c // block**2, h * block, w * block)], []


def _infer_to_depth(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None or not is_known(data):
        return [data], [None], []
    n, c, h, w, block = _image(attrs, data)
    if h % block or w % block:
        raise InvalidArgument(f"data is {h} high and {w} wide, expected multiples of block_size, {block}")
    return [data], [(n, c * block**2, h // block, w // block)], []


def _blocks(deep: Any, flat: Any, block: int) -> tuple[Any, Any]:
    """Views of a deep and a flat array, (N, c b b, h, w) and (N, c, h b, w b), as (N, c, h, b, w, b)."""
    n, c, h, w = deep.shape
    part = c // block**2
    return (
        deep.reshape(n, block, block, part, h, w).transpose(0, 3, 4, 1, 5, 2),
        flat.reshape(n, part, h, block, w, block),
    )


def _to_space(call: Call) -> Step:
    deep, flat = _blocks(call.inputs[0], call.outputs[0], call.attrs.block_size)
    return lambda: call.xp.copyto(flat, deep)


def _to_space_grad(call: Call) -> Step:
    deep, flat = _blocks(call.in_grads[0], call.out_grads[0], call.attrs.block_size)
    return lambda: call.xp.copyto(deep, flat)


def _to_depth(call: Call) -> Step:
    deep, flat = _blocks(call.outputs[0], call.inputs[0], call.attrs.block_size)
    return lambda: call.xp.copyto(deep, flat)


def _to_depth_grad(call: Call) -> Step:
    deep, flat = _blocks(call.out_grads[0], call.in_grads[0], call.attrs.block_size)
    return lambda: call.xp.copyto(flat, deep)


_BLOCK = [Param("block_size", integer, doc="The height and width of a block, B.")]
register(
    "depth_to_space",
    params=_BLOCK,
    infer_shape=_infer_to_space,
    forward=_to_space,
    backward=_to_space_grad,
    doc="Spread channels over blocks of pixels: (N, C B B, H, W) becomes (N, C, H B, W B).",
)
register(
    "space_to_depth",
    params=_BLOCK,
    infer_shape=_infer_to_depth,
    forward=_to_depth,
    backward=_to_depth_grad,
    doc="Gather blocks of pixels into channels: (N, C, H B, W B) becomes (N, C B B, H, W).",
)
