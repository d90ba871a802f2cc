"""Pad: surround images or volumes with a constant, their edge, or their mirror image."""

from __future__ import annotations

from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.params import Param, choice, number, shape
from dmod.ops.registry import Attrs, Call, Shapes, Step, register


def _widths(attrs: Attrs) -> list[tuple[int, int]]:
    return list(zip(attrs.pad_width[::2], attrs.pad_width[1::2], strict=True))


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None:
        return [None], [None], []
    if len(data) not in (4, 5):
        raise InvalidArgument(f"data has shape {data}, expected 4 or 5 axes: (N, C, H, W) or (N, C, T, H, W)")
    if len(attrs.pad_width) != 2 * len(data) or min(attrs.pad_width) < 0:
        raise InvalidArgument(
            f"pad_width is {attrs.pad_width}, expected {2 * len(data)} numbers of at least 0: "
            "before and after each axis"
        )
    if any(attrs.pad_width[:4]):
        raise InvalidArgument(f"pad_width is {attrs.pad_width}, expected 0 for the first two axes")
    for n, widths in zip(data, _widths(attrs), strict=True):
        if attrs.mode == "reflect" and 0 <= n <= max(widths):
            raise InvalidArgument(f"an axis of length {n} has no mirror image {max(widths)} wide")
        if attrs.mode == "edge" and n == 0 and max(widths) > 0:
            raise InvalidArgument("an axis of length 0 has no edge to repeat")
    pairs = zip(data, _widths(attrs), strict=True)
    return [data], [tuple(n + before + after if n >= 0 else -1 for n, (before, after) in pairs)], []


def _along(array: Any, axis: int, start: int, stop: int, flipped: bool = False) -> Any:
    part = array[(slice(None),) * axis + (slice(start, stop),)]
    return part[(slice(None),) * axis + (slice(None, None, -1),)] if flipped else part


def _inside(attrs: Attrs, array: Any) -> Any:
    pairs = zip(_widths(attrs), array.shape, strict=True)
    return array[tuple(slice(before, n - after) for (before, after), n in pairs)]


def _margins(attrs: Attrs, array: Any) -> list[tuple[Any, Any]]:
    """For each margin, axis after axis: its view, and the view of what it repeats.

    Each axis is taken whole, so that the corners follow from the axes before.
    """
    pairs = []
    reflect = attrs.mode == "reflect"
    for axis, (before, after) in enumerate(_widths(attrs)):
        length = array.shape[axis]
        end = length - after
        if before:
            stop = 2 * before + 1 if reflect else before + 1
            source = _along(array, axis, before + reflect, stop, reflect)
            pairs.append((_along(array, axis, 0, before), source))
        if after:
            start = end - 1 - after if reflect else end - 1
            source = _along(array, axis, start, end - reflect, reflect)
            pairs.append((_along(array, axis, end, length), source))
    return pairs


def _forward(call: Call) -> Step:
    xp, (x,), (y,), attrs = call.xp, call.inputs, call.outputs, call.attrs
    inside, value = _inside(attrs, y), y.dtype.type(attrs.constant_value)
    margins = [] if attrs.mode == "constant" else _margins(attrs, y)

    def run() -> None:
        if not margins:
            y.fill(value)
        xp.copyto(inside, x)
        for target, source in margins:
            xp.copyto(target, source)

    return run


def _backward(call: Call) -> Step:
    """Add each margin to what it repeats, in the reverse order."""
    xp, (dy,), (dx,), attrs = call.xp, call.out_grads, call.in_grads, call.attrs
    if attrs.mode == "constant":
        source = _inside(attrs, dy)
        return lambda: xp.copyto(dx, source)
    folded = call.scratch(dy.shape, dy.dtype)
    inside = _inside(attrs, folded)
    pairs = []
    for margin, target in reversed(_margins(attrs, folded)):
        axis = next((i for i in range(dy.ndim) if margin.shape[i] != target.shape[i]), None)
        pairs.append((margin, target, axis))

    def run() -> None:
        xp.copyto(folded, dy)
        for margin, target, axis in pairs:
            if axis is not None:
                margin = xp.sum(margin, axis=axis, keepdims=True)
            xp.add(target, margin, out=target)
        xp.copyto(dx, inside)

    return run


register(
    "Pad",
    aliases=["pad"],
    params=[
        Param("mode", choice(("constant", "edge", "reflect")), doc="What the margins hold."),
        Param("pad_width", shape, doc="The widths before and after each axis; 0 for the first two axes."),
        Param("constant_value", number, 0.0, "The value of the margins, in mode 'constant'."),
    ],
    infer_shape=_infer,
    forward=_forward,
    backward=_backward,
    doc="Surround images (N, C, H, W) or volumes (N, C, T, H, W) with margins.",
)
