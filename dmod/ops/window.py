"""The geometry of windows that slide over the spatial axes of (N, C, ...) arrays.

Convolution, Deconvolution, im2col, col2im and Pooling share it. Nothing here computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.registry import Attrs, Shape

__all__ = ["LAYOUTS", "Window", "convolved", "per_axis", "strided", "window_of"]

LAYOUTS = {1: "NCW", 2: "NCHW", 3: "NCDHW"}
"""The layout of arrays with that many spatial axes."""


@dataclass(frozen=True)
class Window:
    """A window of `kernel` points, `dilate` apart, that moves by `stride` over `size` padded by `pad`.

    All are tuples with one number per spatial axis; `out` is the number of positions.
    """

    kernel: Shape
    stride: Shape
    dilate: Shape
    pad: Shape
    size: Shape
    out: Shape

    @property
    def taps(self) -> int:
        """The number of points in the window."""
        return math.prod(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """Whether the windows are the elements themselves."""
        return self.taps == 1 and not any(self.pad) and all(s == 1 for s in self.stride)

    def mirrored(self) -> Window | None:
        """The window over the outputs that gives the gradient of the input; None if the stride is not 1.

        Each input element takes part in as many windows as there are points; with stride 1 these are the
        points of a window over the outputs, in reverse order.
        """
        pad = tuple((k - 1) * d - p for k, d, p in zip(self.kernel, self.dilate, self.pad, strict=True))
        if any(s != 1 for s in self.stride) or min(pad) < 0:
            return None
        return Window(self.kernel, self.stride, self.dilate, pad, self.out, self.size)


def per_axis(values: Shape, kernel: Shape, default: int, name: str, least: int) -> Shape:
    """`values`, or `default` for each axis of the kernel if it is empty.

    Raises
    ------
    InvalidArgument
        There are more or fewer values than axes, or one is less than `least`.
    """
    if not values:
        return (default,) * len(kernel)
    if len(values) != len(kernel):
        raise InvalidArgument(f"{name}: expected {len(kernel)} numbers as in kernel {kernel}, got {values}")
    if min(values) < least:
        raise InvalidArgument(f"{name}: expected numbers of at least {least}, got {values}")
    return values


def convolved(size: int, kernel: int, stride: int, dilate: int, pad: int) -> int:
    """The number of positions on one axis; -1 if its length is -1, not known yet."""
    return -1 if size == -1 else (size + 2 * pad - dilate * (kernel - 1) - 1) // stride + 1


def window_of(attrs: Attrs, size: Shape) -> Window:
    """The window that the parameters kernel, stride, dilate and pad describe over spatial axes `size`.

    Raises
    ------
    InvalidArgument
        A parameter does not fit the kernel, or the window is larger than the padded input.
    """
    kernel = attrs.kernel
    if not 1 <= len(kernel) <= 3 or min(kernel) < 1:
        raise InvalidArgument(f"kernel: expected 1 to 3 positive numbers, got {kernel}")
    stride = per_axis(attrs.stride, kernel, 1, "stride", 1)
    dilate = per_axis(attrs.dilate, kernel, 1, "dilate", 1)
    pad = per_axis(attrs.pad, kernel, 0, "pad", 0)
    if len(size) != len(kernel):
        raise InvalidArgument(
            f"data: expected {len(kernel) + 2} axes ({LAYOUTS[len(kernel)]}) for kernel {kernel}, "
            f"got {len(size) + 2}"
        )
    axes = list(zip(size, kernel, stride, dilate, pad, strict=True))
    for n, k, _, d, p in axes:
        if n != -1 and d * (k - 1) + 1 > n + 2 * p:
            raise InvalidArgument(
                f"kernel: {kernel} with dilate {dilate} is larger than the input {size} with pad {pad}"
            )
    return Window(kernel, stride, dilate, pad, size, tuple(convolved(*axis) for axis in axes))


def strided(xp: Any, array: Any, offset: int, shape: Sequence[int], steps: Sequence[int]) -> Any:
    """A view of the one-dimensional `array` from element `offset` on, `steps` elements apart on each axis."""
    strides = tuple(step * array.itemsize for step in steps)
    return xp.lib.stride_tricks.as_strided(array[offset:], tuple(shape), strides)
