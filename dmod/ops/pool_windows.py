"""Where pooling windows lie, and sums and maxima over them one axis at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.registry import Attrs, Call, Shape, Step
from dmod.ops.window import per_axis

__all__ = ["PoolWindows", "expand", "pool_windows", "reduce", "to_channels_first"]


@dataclass(frozen=True)
class PoolWindows:
    """Windows over spatial axes `size`; the first one starts `pad` before the first element.

    Attributes
    ----------
    kernel, stride, pad, size, out : tuple of int
        One number per spatial axis; `out` is the number of windows.
    is_global : bool
        Whether there is one window, over everything.
    """

    kernel: Shape
    stride: Shape
    pad: Shape
    size: Shape
    out: Shape
    is_global: bool = False

    @property
    def length(self) -> Shape:
        """The lengths of the axes with all that windows reach."""
        return tuple(
            max((o - 1) * s + k, p + n)
            for k, s, p, n, o in zip(self.kernel, self.stride, self.pad, self.size, self.out, strict=True)
        )

    @property
    def is_padded(self) -> bool:
        """Whether a window reaches beyond the elements."""
        return self.length != self.size

    @property
    def inner(self) -> tuple[Any, ...]:
        """Where the elements lie in an array of the spatial axes `length`."""
        return (..., *(slice(p, p + n) for p, n in zip(self.pad, self.size, strict=True)))

    @property
    def zeros(self) -> tuple[Any, ...]:
        """The elements and the padding on both sides."""
        return (..., *(slice(0, n + 2 * p) for p, n in zip(self.pad, self.size, strict=True)))

    @property
    def is_disjoint(self) -> bool:
        """Whether no two windows overlap."""
        return all(s >= k for s, k in zip(self.stride, self.kernel, strict=True))

    def covers(self, length: Shape) -> bool:
        """Whether the windows are disjoint, and cover all of the spatial axes `length`."""
        axes = zip(self.kernel, self.stride, self.out, length, strict=True)
        return all(k == s and o * s == n for k, s, o, n in axes)

    def tap(self, axis: int, i: int) -> slice:
        """The elements on `axis` that are point `i` of a window."""
        return slice(i, i + (self.out[axis] - 1) * self.stride[axis] + 1, self.stride[axis])

    def taps(self) -> Iterator[tuple[Any, ...]]:
        """For each point of the window, in order: the elements that are this point."""
        for point in itertools.product(*map(range, self.kernel)):
            yield (..., *(self.tap(axis, i) for axis, i in enumerate(point)))

    def counts(self, include_pad: bool, clip: bool) -> np.ndarray:
        """The number of elements in each window.

        Parameters
        ----------
        include_pad : bool
            Whether padding counts.
        clip : bool
            Whether windows end where the padding does.
        """
        found = np.ones(())
        for k, s, p, n, o in zip(self.kernel, self.stride, self.pad, self.size, self.out, strict=True):
            start = np.arange(o) * s - p
            stop = np.minimum(start + k, n + p) if clip else start + k
            if not include_pad:
                start, stop = np.maximum(start, 0), np.minimum(stop, n)
            found = found[..., None] * np.maximum(stop - start, 1)
        return found


def to_channels_first(attrs: Attrs, array: Any) -> Any:
    """A view of `array` as (N, C, ...)."""
    layout = getattr(attrs, "layout", None)
    if layout is None or not layout.endswith("C"):
        return array
    return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))


def _length(size: int, k: int, s: int, p: int, convention: str) -> int:
    if size == -1:
        return -1
    if convention == "same":
        return -(-size // s)
    span = size + 2 * p - k
    return (-(-span // s) if convention == "full" else span // s) + 1


def pool_windows(attrs: Attrs, data: Shape) -> PoolWindows:
    """The windows of a pooling over an array of shape `data`.

    Raises
    ------
    InvalidArgument
        A parameter does not fit the data.
    """
    layout = getattr(attrs, "layout", None)
    size = data[1:-1] if layout is not None and layout.endswith("C") else data[2:]
    expected = len(attrs.kernel) if attrs.kernel and not attrs.global_pool else len(size)
    if not 1 <= len(size) <= 3 or len(size) != expected or (layout is not None and len(layout) != len(data)):
        wanted = layout or f"{expected} spatial axes for kernel {attrs.kernel}"
        raise InvalidArgument(f"data: expected {wanted}, got shape {data}")
    if attrs.global_pool:
        ones, none = (1,) * len(size), (0,) * len(size)
        return PoolWindows(size, ones, none, size, ones, is_global=True)
    kernel = attrs.kernel
    if not kernel or min(kernel) < 1:
        raise InvalidArgument(f"kernel: expected 1 to 3 positive numbers, got {kernel}")
    stride = per_axis(attrs.stride, kernel, 1, "stride", 1)
    pad = per_axis(attrs.pad, kernel, 0, "pad", 0)
    convention = attrs.pooling_convention
    if convention == "same" and any(pad):
        raise InvalidArgument(f"pad: expected none under pooling_convention 'same', got {pad}")
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise InvalidArgument(f"pad: expected less than kernel {kernel}, got {pad}")
    if convention != "same" and any(
        n != -1 and k > n + 2 * p for n, k, p in zip(size, kernel, pad, strict=True)
    ):
        raise InvalidArgument(f"kernel: {kernel} is larger than the input {size} with pad {pad}")
    axes = list(zip(size, kernel, stride, pad, strict=True))
    out = tuple(_length(*axis, convention) for axis in axes)
    if convention == "same":
        beyond = [max(0, (o - 1) * s + k - n) for o, (n, k, s, _) in zip(out, axes, strict=True)]
        pad = tuple(b // 2 for b in beyond)
    return PoolWindows(kernel, stride, pad, size, out)


def reduce(call: Call, windows: PoolWindows, kind: str, source: Any, target: Any) -> list[Step]:
    """Steps that take the 'max' or the 'sum' of the windows of `source` (N, C, ...), into `target`."""
    xp, n = call.xp, len(windows.out)
    function = xp.maximum if kind == "max" else xp.add
    if windows.is_global:
        whole = xp.max if kind == "max" else xp.sum
        flat = target.reshape(target.shape[:2])
        return [lambda: whole(source, axis=tuple(range(2, n + 2)), out=flat)]
    steps: list[Step] = []
    for axis in range(n):
        last = axis == n - 1
        dims = (*source.shape[: axis + 2], windows.out[axis], *source.shape[axis + 3 :])
        into = target if last else call.scratch(dims, source.dtype)
        where = (slice(None),) * (axis + 2)
        taps = [source[(*where, windows.tap(axis, i))] for i in range(windows.kernel[axis])]
        if len(taps) == 1:
            steps.append(_copy(xp, taps[0], into))
        else:
            steps.append(_reduce_taps(function, taps, into))
        source = into
    return steps


def _copy(xp: Any, source: Any, target: Any) -> Step:
    return lambda: xp.copyto(target, source)


def _reduce_taps(function: Callable[..., Any], taps: list[Any], target: Any) -> Step:
    first, second, *rest = taps

    def run() -> None:
        function(first, second, out=target)
        for tap in rest:
            function(target, tap, out=target)

    return run


def expand(call: Call, windows: PoolWindows, source: Any, target: Any) -> list[Step]:
    """The transpose of `reduce` by sums: add each element of `source` to its window in `target`."""
    xp, n = call.xp, len(windows.out)
    if windows.is_global:
        return [_copy(xp, source, target)]
    steps: list[Step] = []
    for axis in range(n - 1, -1, -1):
        length = target.shape[axis + 2]
        dims = (*source.shape[: axis + 2], length, *source.shape[axis + 3 :])
        into = target if axis == 0 else call.scratch(dims, source.dtype)
        where = (slice(None),) * (axis + 2)
        taps = [into[(*where, windows.tap(axis, i))] for i in range(windows.kernel[axis])]
        k, s = windows.kernel[axis], windows.stride[axis]
        covers = k == s and windows.out[axis] * s == length
        steps.append(_spread(xp, source, taps, into, covers, s >= k))
        source = into
    return steps


def _spread(xp: Any, source: Any, taps: list[Any], into: Any, covers: bool, disjoint: bool) -> Step:
    def run() -> None:
        if not covers:
            into.fill(0)
        for tap in taps:
            if disjoint:
                xp.copyto(tap, source)
            else:
                xp.add(tap, source, out=tap)

    return run
