"""The shape rule of element-wise operators; no operators.

Functions of one array are in `unary` and `rounding`, of two in `binary`, of an array and a number in
`scalar`.
"""

from __future__ import annotations

from dmod.base import InvalidArgument
from dmod.ops.registry import Attrs, Shape, Shapes

__all__ = ["merge_shapes", "same_shape"]


def merge_shapes(first: Shape | None, second: Shape | None, what: str = "") -> Shape | None:
    """What two partly known shapes say together; -1 is an unknown length.

    Raises
    ------
    InvalidArgument
        They contradict each other.
    """
    if first is None or second is None:
        return second if first is None else first
    fits = len(first) == len(second)
    if not fits or any(a != b and -1 not in (a, b) for a, b in zip(first, second, strict=True)):
        raise InvalidArgument(f"{what or 'shapes'}: expected {first}, got {second}")
    return tuple(b if a == -1 else a for a, b in zip(first, second, strict=True))


def same_shape(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    """All inputs and outputs have one shape."""
    shape = None
    for i, dims in enumerate([*inputs, *outputs]):
        shape = merge_shapes(shape, dims, f"input {i}" if i < len(inputs) else "output")
    return [shape] * len(inputs), [shape] * len(outputs), []
