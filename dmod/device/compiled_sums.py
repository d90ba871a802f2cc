"""The steps of `compiled_optimizers` for gradients that are sums of two arrays. Importing it imports numba.

A slice of the sum is made in scratch memory and used while it is in the cache, so it never goes to memory.
`turn` (1,) counts the slices that have been taken: threads that call a kernel with the same `turn`, and with
scratch memory of their own, share the work, each as much as it gets to. The bits do not depend on who does
which slice, since every element is computed from itself alone. No kernel holds the GIL.

Measured on one core of an AMD EPYC for 0.93 M floats, SGD with momentum: 0.42 ms, 0.55 ms with slices of 64 K
floats that numpy adds up.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from dmod.device import compiled_optimizers as steps
from dmod.device.compiled_math import compiled

__all__ = ["SLICE", "adagrad", "adam", "nag", "rmsprop", "sgd", "sgd_momentum"]

SLICE = 16384
"""Elements of a slice, which are those of the scratch memory."""

_compiled = partial(compiled, nogil=True)
_sgd, _sgd_momentum, _nag = steps.sgd, steps.sgd_momentum, steps.nag
_adam, _adagrad, _rmsprop = steps.adam, steps.adagrad, steps.rmsprop


def _typed_fetch_add(context, turn):  # type: ignore[no-untyped-def]
    """The value of ``turn[0]``, which is one greater afterwards, in one step that no thread gets between."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        array = context.make_array(turn)(context, builder, values[0])
        return builder.atomic_rmw("add", array.data, context.get_constant(types.int64, 1), "seq_cst")

    return types.int64(turn), generate


_fetch_add: Any = intrinsic(_typed_fetch_add)


@_compiled
def _next(turn, left, right, scratch):  # type: ignore[no-untyped-def]
    """The bounds of the next slice, whose sum is in `scratch` then; two equal ones after the last."""
    low = min(_fetch_add(turn) * SLICE, left.size)
    high = min(low + SLICE, left.size)
    a, b, out = left[low:high], right[low:high], scratch[: high - low]
    for i in range(out.size):
        out[i] = a[i] + b[i]
    return low, high


@_compiled
def _within(bounds, low, high):  # type: ignore[no-untyped-def]
    """Of the ranges in ``[low, high)`` the first, the one after the last, and their bounds in there."""
    first, last = 0, bounds.shape[0]
    while first < last and bounds[first, 1] <= low:
        first += 1
    while first < last and bounds[last - 1, 0] >= high:
        last -= 1
    part = np.empty((last - first, 2), np.int64)
    for k in range(last - first):
        part[k, 0] = max(bounds[first + k, 0], low) - low
        part[k, 1] = min(bounds[first + k, 1], high) - low
    return first, last, part


@_compiled
def sgd(turn, left, right, scratch, weight, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """`compiled_optimizers.sgd` of ``left + right``."""
    low, high = _next(turn, left, right, scratch)
    while low < high:
        first, last, part = _within(bounds, low, high)
        _sgd(weight[low:high], scratch[: high - low], part, rates[first:last], numbers)
        low, high = _next(turn, left, right, scratch)


@_compiled
def sgd_momentum(turn, left, right, scratch, weight, state, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """`compiled_optimizers.sgd_momentum` of ``left + right``."""
    low, high = _next(turn, left, right, scratch)
    while low < high:
        first, last, part = _within(bounds, low, high)
        grad, rows = scratch[: high - low], rates[first:last]
        _sgd_momentum(weight[low:high], grad, state[low:high], part, rows, numbers)
        low, high = _next(turn, left, right, scratch)


@_compiled
def nag(turn, left, right, scratch, weight, state, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """`compiled_optimizers.nag` of ``left + right``."""
    low, high = _next(turn, left, right, scratch)
    while low < high:
        first, last, part = _within(bounds, low, high)
        grad, rows = scratch[: high - low], rates[first:last]
        _nag(weight[low:high], grad, state[low:high], part, rows, numbers)
        low, high = _next(turn, left, right, scratch)


@_compiled
def adam(turn, left, right, scratch, weight, mean, var, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """`compiled_optimizers.adam` of ``left + right``."""
    low, high = _next(turn, left, right, scratch)
    while low < high:
        first, last, part = _within(bounds, low, high)
        grad, rows = scratch[: high - low], rates[first:last]
        _adam(weight[low:high], grad, mean[low:high], var[low:high], part, rows, numbers)
        low, high = _next(turn, left, right, scratch)


@_compiled
def adagrad(turn, left, right, scratch, weight, history, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """`compiled_optimizers.adagrad` of ``left + right``."""
    low, high = _next(turn, left, right, scratch)
    while low < high:
        first, last, part = _within(bounds, low, high)
        grad, rows = scratch[: high - low], rates[first:last]
        _adagrad(weight[low:high], grad, history[low:high], part, rows, numbers)
        low, high = _next(turn, left, right, scratch)


@_compiled
def rmsprop(turn, left, right, scratch, weight, n, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """`compiled_optimizers.rmsprop` of ``left + right``."""
    low, high = _next(turn, left, right, scratch)
    while low < high:
        first, last, part = _within(bounds, low, high)
        grad, rows = scratch[: high - low], rates[first:last]
        _rmsprop(weight[low:high], grad, n[low:high], part, rows, numbers)
        low, high = _next(turn, left, right, scratch)
