"""Which axes sums and broadcasts run over, as few and as long as the memory allows; no operators.

A reduction over neighbouring axes is one over their product, so every array is looked at with axes that
are kept and reduced by turns: numpy and GPUs are fastest on few, long axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.registry import Shape, Step

__all__ = ["Reduction", "broadcast_shape", "normal_axes", "one_axis", "reduced_shape", "sum_dtype"]


def normal_axes(
    axis: tuple[int, ...] | None, ndim: int, exclude: bool = False, name: str = "axis"
) -> tuple[int, ...]:
    """Sorted axes from 0 on; none given are all, with `exclude` too, as in MXNet.

    Examples
    --------
    >>> normal_axes((-1, 0), 3), normal_axes((1,), 3, exclude=True), normal_axes(None, 2)
    ((0, 2), (0, 2), (0, 1))

    Raises
    ------
    InvalidArgument
        There is no such axis, or one is given twice.
    """
    if not axis:
        return tuple(range(ndim))
    axes = sorted({one_axis(a, ndim, f"data, {name}={axis}") for a in axis})
    if len(axes) != len(axis):
        raise InvalidArgument(f"{name}: expected different axes, got {axis} of {ndim}")
    return tuple(i for i in range(ndim) if i not in axes) if exclude else tuple(axes)


def one_axis(axis: int, ndim: int, argument: str = "data") -> int:
    """An axis from 0 on; `InvalidArgument` if there is no such axis."""
    if not -ndim <= axis < ndim:
        raise InvalidArgument(f"{argument}: expected an axis {axis}, got {ndim} axes, {-ndim} to {ndim - 1}")
    return axis % ndim


def reduced_shape(shape: Shape, axes: tuple[int, ...], keepdims: bool) -> Shape:
    """What is left of a shape; (1,) if nothing is."""
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes) or (1,)


def broadcast_shape(left: Shape, right: Shape) -> Shape:
    """The common shape of two; -1 where it is not known yet.

    Raises
    ------
    InvalidArgument
        They have none.
    """
    ndim = max(len(left), len(right))
    out = []
    for a, b in zip((1,) * (ndim - len(left)) + left, (1,) * (ndim - len(right)) + right, strict=True):
        if a != b and 1 not in (a, b) and -1 not in (a, b):
            raise InvalidArgument(f"rhs: expected a shape that broadcasts with lhs {left}, got {right}")
        out.append(b if a == 1 else a if b in (1, a) else max(a, b))
    return tuple(out)


def sum_dtype(dtype: Any) -> np.dtype:
    """What sums of `dtype` are added up in: float16 is too narrow for it."""
    return np.dtype(np.float32) if dtype == np.float16 else np.dtype(dtype)


class Reduction:
    """An array's shape with some axes to reduce, joined as far as possible.

    Attributes
    ----------
    full, kept : Shape
        The array's and the result's shape over joined axes; a reduced one has length 1 in `kept`.
    axes : tuple of int
        The reduced axes among the joined ones.
    count : int
        How many elements make one of the result.

    Examples
    --------
    >>> r = Reduction((4, 3, 5, 5), (0, 2, 3))
    >>> r.full, r.kept, r.axes, r.count
    ((4, 3, 25), (1, 3, 1), (0, 2), 100)
    """

    def __init__(self, shape: Shape, axes: tuple[int, ...]):
        full: list[int] = []
        reduced: list[bool] = []
        for i, n in enumerate(shape):
            if n == 1:
                continue
            if reduced and reduced[-1] == (i in axes):
                full[-1] *= n
            else:
                full.append(n)
                reduced.append(i in axes)
        self.full = tuple(full) or (1,)
        self.axes = tuple(i for i, r in enumerate(reduced) if r)
        self.kept = tuple(1 if i in self.axes else n for i, n in enumerate(self.full))
        self.count = math.prod(shape[i] for i in axes)

    @classmethod
    def to_shape(cls, full: Shape, target: Shape) -> Reduction:
        """The reduction that undoes broadcasting `target` to `full`."""
        padded = (1,) * (len(full) - len(target)) + tuple(target)
        return cls(full, tuple(i for i, (n, m) in enumerate(zip(full, padded, strict=True)) if m != n))

    def sum(self, xp: Any, source: Any, target: Any) -> Step:
        """A step that adds `source` up into `target`."""
        source, target = source.reshape(self.full), target.reshape(self.kept)
        if not self.axes:
            return lambda: xp.copyto(target, source)
        axes, dtype = self.axes, sum_dtype(target.dtype)
        return lambda: xp.sum(source, axis=axes, dtype=dtype, out=target, keepdims=True)
