"""Operators that only give an array another shape: Flatten, Reshape."""

from __future__ import annotations

import math
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.params import Param, boolean, shape
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register

__all__ = ["reshaped"]


def reshaped(old: Shape, new: Shape, reverse: bool = False) -> Shape:
    """The shape that the codes `new` make of `old`.

    0 keeps an axis, -1 takes what is left, -2 copies all remaining axes, -3 joins the next two axes,
    ``-4, a, b`` splits the next axis into a and b, one of which may be -1. With `reverse` the codes are
    matched from the right.

    Examples
    --------
    >>> reshaped((2, 6, 3), (0, -4, -1, 2, -2))
    (2, 3, 2, 3)

    Raises
    ------
    InvalidArgument
        The codes do not fit the shape.
    """
    if reverse:
        return tuple(reversed(reshaped(tuple(reversed(old)), _reversed_codes(new))))
    out: list[int] = []
    axis, i = 0, 0

    def take() -> int:
        nonlocal axis
        if axis >= len(old):
            raise InvalidArgument(f"reshape of {old} to {new}: the codes need more axes than there are")
        axis += 1
        return old[axis - 1]

    while i < len(new):
        code = new[i]
        if code > 0:
            out.append(code)
            axis += 1
        elif code == 0:
            out.append(take())
        elif code == -1:
            out.append(-1)
            axis += 1
        elif code == -2:
            out.extend(old[axis:])
            axis = len(old)
        elif code == -3:
            out.append(take() * take())
        elif code == -4 and i + 2 < len(new):
            out.extend(_split(take(), new[i + 1], new[i + 2], old, new))
            i += 2
        else:
            raise InvalidArgument(f"reshape of {old} to {new}: {code} is no code")
        i += 1
    return _fill(out, old, new)


def _reversed_codes(new: Shape) -> Shape:
    """The codes from the right; ``-4, a, b`` stays together as ``-4, b, a``."""
    groups: list[tuple[int, ...]] = []
    i = 0
    while i < len(new):
        if new[i] == -4 and i + 2 < len(new):
            groups.append((-4, new[i + 2], new[i + 1]))
            i += 3
        else:
            groups.append((new[i],))
            i += 1
    return tuple(code for group in reversed(groups) for code in group)


def _split(length: int, a: int, b: int, old: Shape, new: Shape) -> tuple[int, int]:
    if a == -1 and b > 0:
        a = length // b
    elif b == -1 and a > 0:
        b = length // a
    if a * b != length or a < 0:
        raise InvalidArgument(
            f"reshape of {old} to {new}: an axis of {length} cannot be split into {a} and {b}"
        )
    return a, b


def _fill(out: list[int], old: Shape, new: Shape) -> Shape:
    size = math.prod(old)
    if out.count(-1) > 1:
        raise InvalidArgument(f"reshape of {old} to {new}: only one axis can be -1")
    if -1 in out:
        rest = math.prod(n for n in out if n != -1)
        out[out.index(-1)] = size // rest if rest else 0
    if math.prod(out) != size:
        raise InvalidArgument(f"reshape of {old} to {new}: {math.prod(out)} elements, there are {size}")
    return tuple(out)


def _copy_forward(call: Call) -> Step:
    source, target = call.inputs[0].reshape(-1), call.outputs[0].reshape(-1)
    return lambda: call.xp.copyto(target, source)


def _copy_backward(call: Call) -> Step:
    source, target = call.out_grads[0].reshape(-1), call.in_grads[0].reshape(-1)
    return lambda: call.xp.copyto(target, source)


def _infer_flatten(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None or -1 in data or not data:
        return [data], [None], []
    return [data], [(data[0], math.prod(data[1:]))], []


def _infer_reshape(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if attrs.shape:
        codes, reverse = attrs.shape, attrs.reverse
    elif attrs.target_shape:
        codes = attrs.target_shape if not attrs.keep_highest else (0, *attrs.target_shape[1:])
        codes, reverse = (
            tuple(n if n or (i == 0 and attrs.keep_highest) else -1 for i, n in enumerate(codes)),
            False,
        )
    else:
        raise InvalidArgument("shape is missing; give the new shape, such as shape=(0, -1)")
    if data is None or -1 in data:
        return [data], [None], []
    return [data], [reshaped(data, codes, reverse)], []


_SHARED: dict[str, Any] = {
    "forward": _copy_forward,
    "backward": _copy_backward,
    "backward_inplace": [(0, 0)],
    "view": True,
}

register(
    "Flatten",
    aliases=["flatten"],
    infer_shape=_infer_flatten,
    doc="Join all axes but the first: (N, ...) becomes (N, D).",
    **_SHARED,
)
register(
    "Reshape",
    aliases=["reshape"],
    params=[
        Param("shape", shape, (), "The new shape, with the codes 0, -1, -2, -3 and -4."),
        Param("reverse", boolean, False, "Match the codes from the right."),
        Param(
            "target_shape", shape, (), "The new shape in the manner of old versions: 0 takes what is left."
        ),
        Param("keep_highest", boolean, False, "With target_shape: keep the first axis."),
    ],
    infer_shape=_infer_reshape,
    doc="Give the array another shape of the same size.",
    **_SHARED,
)
