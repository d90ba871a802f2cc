"""The compiled steps of `compiled_optimizers`, with gradients that are the sum of two arrays.

A server adds up what workers have sent and updates in one pass: the sum goes to `scratch`, a part at a time,
and is used while it is in the cache. Names and all other parameters are those of `compiled_optimizers`, and
so are the bits of a sum that has been made before.

Measured with the caches cold, one core of an AMD EPYC: SGD with momentum over 109 K floats takes 32 us, with
a call of numpy and one of the kernel for each part 79 us; over 1.9 M floats 1.0 and 1.2 ms.
"""

from __future__ import annotations

import numpy as np

from dmod.device import compiled_optimizers as steps
from dmod.device.compiled_math import compiled

__all__ = ["adagrad", "adam", "nag", "rmsprop", "sgd", "sgd_momentum"]

_sgd, _sgd_momentum, _nag = steps.sgd, steps.sgd_momentum, steps.nag
_adam, _adagrad, _rmsprop = steps.adam, steps.adagrad, steps.rmsprop


@compiled
def _sum(left, right, scratch):  # type: ignore[no-untyped-def]
    """``left + right``, in as much of `scratch` as it takes."""
    total = scratch[: left.size]
    for i in range(total.size):
        total[i] = left[i] + right[i]
    return total


@compiled
def _part(bounds, k, low, scratch):  # type: ignore[no-untyped-def]
    """From `low` as far as range number `k` and the scratch go."""
    return slice(low, min(low + scratch.size, bounds[k, 1]))


@compiled
def _all_of(array):  # type: ignore[no-untyped-def]
    """Bounds of one range, which is the whole array."""
    bounds = np.empty((1, 2), np.int64)
    bounds[0, 0], bounds[0, 1] = 0, array.size
    return bounds


@compiled
def sgd(weight, left, right, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """See `compiled_optimizers.sgd`."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            _sgd(weight[part], grad, _all_of(grad), rates[k : k + 1], numbers)


@compiled
def sgd_momentum(weight, left, right, state, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """See `compiled_optimizers.sgd_momentum`."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            _sgd_momentum(weight[part], grad, state[part], _all_of(grad), rates[k : k + 1], numbers)


@compiled
def nag(weight, left, right, state, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """See `compiled_optimizers.nag`."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            _nag(weight[part], grad, state[part], _all_of(grad), rates[k : k + 1], numbers)


@compiled
def adam(weight, left, right, mean, var, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """See `compiled_optimizers.adam`."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            _adam(weight[part], grad, mean[part], var[part], _all_of(grad), rates[k : k + 1], numbers)


@compiled
def adagrad(weight, left, right, history, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """See `compiled_optimizers.adagrad`."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            _adagrad(weight[part], grad, history[part], _all_of(grad), rates[k : k + 1], numbers)


@compiled
def rmsprop(weight, left, right, n, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """See `compiled_optimizers.rmsprop`."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            _rmsprop(weight[part], grad, n[part], _all_of(grad), rates[k : k + 1], numbers)
