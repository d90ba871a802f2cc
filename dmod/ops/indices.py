"""What operators with index inputs share: whole numbers within bounds, rows taken and added by number.

Networks carry indices as floats as often as not. They are cut off towards zero, as MXNet does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.device.kernels import kernels_for
from dmod.ops.registry import Attrs, Call, Dtypes, Step

__all__ = ["add_rows", "clipped", "data_type", "flat_positions", "take_rows", "wrapped"]

_FAR = 2**62


def data_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    """The output has the dtype of the first input, the others have their own."""
    return list(inputs), [inputs[0]], []


def clipped(call: Call, source: Any, low: int, high: int) -> tuple[Any, Step]:
    """An int64 array for the whole numbers in `source`, and the step that fills it.

    Numbers below `low`, and NaN, become `low`; numbers above `high` become `high`.
    """
    xp, target = call.xp, call.scratch(source.shape, np.int64)
    if source.dtype.kind != "f":

        def run() -> None:
            xp.copyto(target, source)
            xp.maximum(target, low, out=target)
            xp.minimum(target, high, out=target)

        return target, run
    kind, limit = source.dtype.type, float(np.finfo(source.dtype).max)
    lowest, highest = kind(max(low, -limit)), kind(min(high, limit))
    near = call.scratch(source.shape, source.dtype)

    def run_float() -> None:
        xp.fmax(source, lowest, out=near)
        xp.fmin(near, highest, out=near)
        xp.copyto(target, near, casting="unsafe")
        xp.minimum(target, high, out=target)  # `highest` may have been rounded up

    return target, run_float


def wrapped(call: Call, source: Any, length: int) -> tuple[Any, Step]:
    """Likewise, but numbers outside of [0, length) wrap around."""
    xp = call.xp
    target, fill = clipped(call, source, -_FAR, _FAR)

    def run() -> None:
        fill()
        xp.remainder(target, length, out=target)

    return target, run


def take_rows(call: Call, source: Any, index: Any, axis: int, out: Any) -> Step:
    """``out = source.take(index, axis)`` for an index within bounds."""
    xp = call.xp
    # numpy makes a copy of `out` unless it is told that no index is out of bounds; CuPy takes no such word.
    options = {"mode": "clip"} if call.device.is_host else {}
    return lambda: xp.take(source, index, axis=axis, out=out, **options)


def flat_positions(call: Call, index: Any, dims: tuple[int, int, int]) -> tuple[Any, Step]:
    """Where ``(o, index, i)`` lies in a flat array of `dims`; `index` is (outer or 1, count, inner or 1).

    Returns
    -------
    (array, step)
        An int64 array (outer, count, inner), and the step that fills it once `index` is filled.
    """
    xp, (outer, length, inner) = call.xp, dims
    positions = call.scratch((outer, index.shape[1], inner), np.int64)
    scaled = call.scratch(index.shape, np.int64)
    offsets = (xp.arange(outer) * (length * inner)).reshape(-1, 1, 1) + xp.arange(inner).reshape(1, 1, -1)

    def run() -> None:
        xp.multiply(index, inner, out=scaled)
        xp.add(offsets, scaled, out=positions)

    return positions, run


def add_rows(call: Call, source: Any, index: Any, dims: tuple[int, int, int], target: Any) -> Step:
    """Set `target` to zero, then add to ``target[o, index[j], i]`` each ``source[o, j, i]``, in order.

    Flat positions: `ufunc.at` is six times as fast on vectors as on rows.
    """
    xp, (outer, length, inner) = call.xp, dims
    if outer == 1 and kernels_for(source, target) is not None:
        from dmod.device.compiled_rows import add_rows as compiled_add_rows

        arrays = source.reshape(index.size, inner), index.reshape(-1), target.reshape(length, inner)
        return lambda: compiled_add_rows(*arrays)
    positions, locate = flat_positions(call, index.reshape(1, -1, 1), dims)
    where, total, values = positions.reshape(-1), target.reshape(-1), source.reshape(-1)

    def run() -> None:
        locate()
        total.fill(0)
        xp.add.at(total, where, values)

    return run
