"""Compiled steps of optimizers over flat buffers of float32. Importing this file imports numba.

One call updates a whole buffer. `bounds` (K, 2) tells the ranges that have multipliers of their own, `rates`
has a row for each of them with what follows from its learning rate and weight decay, and `numbers` what holds
for all. Every operation rounds as numpy's does in the optimizer's `step`, in the same order, so the bits are
those of numpy.

Measured for 109 K floats, one core of an AMD EPYC: SGD with momentum 12 us, in numpy 26 us without and 55 us
with weight decay.
"""

from __future__ import annotations

import numpy as np

from dmod.device.compiled_math import compiled

__all__ = [
    "adagrad",
    "adagrad_of_sum",
    "adam",
    "adam_of_sum",
    "nag",
    "nag_of_sum",
    "rmsprop",
    "rmsprop_of_sum",
    "sgd",
    "sgd_momentum",
    "sgd_momentum_of_sum",
    "sgd_of_sum",
]

_ZERO = np.float32(0)


@compiled
def _limited(g, limit):  # type: ignore[no-untyped-def]
    """``clip(g, -limit, limit)``, if the limit is positive."""
    if limit > 0:
        if g > limit:
            g = limit
        elif g < -limit:
            g = -limit
    return g


@compiled
def _decayed(grad, weight, rescale, decay, limit):  # type: ignore[no-untyped-def]
    """``clip(rescale * grad + decay * weight)`` of one element."""
    g = grad * rescale
    if decay != 0:
        g = g + weight * decay
    return _limited(g, limit)


@compiled
def _scaled(grad, scale, rescale, limit, factor):  # type: ignore[no-untyped-def]
    """``factor * clip(rescale * grad)`` of one element; `scale` is the two factors' product."""
    if limit > 0:
        return _limited(grad * rescale, limit) * factor
    return grad * scale


@compiled
def _sgd(weight, grad, scale, keep, rescale, limit, factor):  # type: ignore[no-untyped-def]
    if keep != 1:
        for i in range(weight.size):
            weight[i] = weight[i] * keep + _scaled(grad[i], scale, rescale, limit, factor)
    else:
        for i in range(weight.size):
            weight[i] = weight[i] + _scaled(grad[i], scale, rescale, limit, factor)


@compiled
def sgd(weight, grad, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """``weight = keep * weight + factor * clip(rescale * grad)``.

    rates: factor * rescale, keep, factor; numbers: rescale, limit.
    """
    rescale, limit = numbers[0], numbers[1]
    for k in range(bounds.shape[0]):
        part = slice(bounds[k, 0], bounds[k, 1])
        _sgd(weight[part], grad[part], rates[k, 0], rates[k, 1], rescale, limit, rates[k, 2])


@compiled
def _sgd_momentum(weight, grad, state, scale, decay, factor, rescale, limit, momentum):  # type: ignore[no-untyped-def]
    if decay != 0:
        for i in range(weight.size):
            step = state[i] * momentum + _scaled(grad[i], scale, rescale, limit, factor)
            step = step + weight[i] * decay
            state[i] = step
            weight[i] = weight[i] + step
    else:
        for i in range(weight.size):
            step = state[i] * momentum + _scaled(grad[i], scale, rescale, limit, factor)
            state[i] = step
            weight[i] = weight[i] + step


@compiled
def sgd_momentum(weight, grad, state, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """``state = momentum * state + factor * clip(rescale * grad) + decay * weight; weight += state``.

    rates: factor * rescale, decay, factor; numbers: rescale, limit, momentum.
    """
    rescale, limit, momentum = numbers[0], numbers[1], numbers[2]
    for k in range(bounds.shape[0]):
        part = slice(bounds[k, 0], bounds[k, 1])
        _sgd_momentum(
            weight[part], grad[part], state[part], rates[k, 0], rates[k, 1], rates[k, 2],
            rescale, limit, momentum,
        )  # fmt: skip


@compiled
def _nag(weight, grad, state, scale, decay, factor, keep, rescale, limit, momentum, further):  # type: ignore[no-untyped-def]
    if decay != 0:
        for i in range(weight.size):
            kept = state[i] * momentum
            new = weight[i] * keep + kept * momentum
            step = _scaled(grad[i], scale, rescale, limit, factor)
            new = new + step * further
            state[i] = kept + step + new * decay
            weight[i] = new
    else:
        for i in range(weight.size):
            kept = state[i] * momentum
            step = _scaled(grad[i], scale, rescale, limit, factor)
            weight[i] = weight[i] + kept * momentum + step * further
            state[i] = kept + step


@compiled
def nag(weight, grad, state, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """Nesterov's step; see `dmod.optimizer.NAG`.

    rates: factor * rescale, decay, factor, keep; numbers: rescale, limit, momentum, 1 + momentum.
    """
    rescale, limit, momentum, further = numbers[0], numbers[1], numbers[2], numbers[3]
    for k in range(bounds.shape[0]):
        part = slice(bounds[k, 0], bounds[k, 1])
        _nag(
            weight[part], grad[part], state[part], rates[k, 0], rates[k, 1], rates[k, 2], rates[k, 3],
            rescale, limit, momentum, further,
        )  # fmt: skip


@compiled
def _adam(weight, grad, mean, var, rate, decay, rescale, limit, beta1, rest1, beta2, rest2, epsilon):  # type: ignore[no-untyped-def]
    for i in range(weight.size):
        g = _decayed(grad[i], weight[i], rescale, decay, limit)
        m = mean[i] * beta1 + g * rest1
        v = var[i] * beta2 + g * g * rest2
        mean[i] = m
        var[i] = v
        weight[i] = weight[i] - m / (np.sqrt(v) + epsilon) * rate


@compiled
def adam(weight, grad, mean, var, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """Adam's step.

    rates: the corrected learning rate, decay; numbers: rescale, limit, beta1, 1 - beta1, beta2, 1 - beta2,
    epsilon.
    """
    rescale, limit = numbers[0], numbers[1]
    beta1, rest1, beta2, rest2, epsilon = numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]
    for k in range(bounds.shape[0]):
        part = slice(bounds[k, 0], bounds[k, 1])
        _adam(
            weight[part], grad[part], mean[part], var[part], rates[k, 0], rates[k, 1],
            rescale, limit, beta1, rest1, beta2, rest2, epsilon,
        )  # fmt: skip


@compiled
def _adagrad(weight, grad, history, rate, decay, rescale, limit, epsilon):  # type: ignore[no-untyped-def]
    for i in range(weight.size):
        g = _decayed(grad[i], weight[i], rescale, _ZERO, limit)
        h = history[i] + g * g
        history[i] = h
        g = g / np.sqrt(h + epsilon)
        if decay != 0:
            g = g + weight[i] * decay
        weight[i] = weight[i] - g * rate


@compiled
def adagrad(weight, grad, history, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """AdaGrad's step; the decay is not part of the gradient.

    rates: the learning rate, decay; numbers: rescale, limit, epsilon.
    """
    rescale, limit, epsilon = numbers[0], numbers[1], numbers[2]
    for k in range(bounds.shape[0]):
        part = slice(bounds[k, 0], bounds[k, 1])
        _adagrad(weight[part], grad[part], history[part], rates[k, 0], rates[k, 1], rescale, limit, epsilon)


@compiled
def _rmsprop(weight, grad, n, rate, decay, rescale, limit, gamma, rest, epsilon, top):  # type: ignore[no-untyped-def]
    for i in range(weight.size):
        g = _decayed(grad[i], weight[i], rescale, decay, limit)
        mean = n[i] * gamma + g * g * rest
        n[i] = mean
        weight[i] = _limited(weight[i] - g / np.sqrt(mean + epsilon) * rate, top)


@compiled
def rmsprop(weight, grad, n, bounds, rates, numbers):  # type: ignore[no-untyped-def]
    """RMSProp's step without centering.

    rates: the learning rate, decay; numbers: rescale, limit, gamma, 1 - gamma, epsilon, limit of weights.
    """
    rescale, limit, gamma, rest = numbers[0], numbers[1], numbers[2], numbers[3]
    epsilon, top = numbers[4], numbers[5]
    for k in range(bounds.shape[0]):
        part = slice(bounds[k, 0], bounds[k, 1])
        _rmsprop(
            weight[part], grad[part], n[part], rates[k, 0], rates[k, 1],
            rescale, limit, gamma, rest, epsilon, top,
        )  # fmt: skip


# ---- with gradients that are the sum of two arrays
#
# A server adds up what workers have sent and updates in one pass: the sum goes to `scratch`, a part at a
# time, and is used while it is in the cache. Measured with the caches cold, on one core of an AMD EPYC: SGD
# with momentum takes 32 us over 109 K floats, 79 us with a call of numpy and one of the kernel for each part;
# over 1.9 M floats 1.0 and 1.2 ms.


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
def sgd_of_sum(weight, left, right, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """`sgd`, with ``left + right``."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            sgd(weight[part], grad, _all_of(grad), rates[k : k + 1], numbers)


@compiled
def sgd_momentum_of_sum(weight, left, right, state, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """`sgd_momentum`, with ``left + right``."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            sgd_momentum(weight[part], grad, state[part], _all_of(grad), rates[k : k + 1], numbers)


@compiled
def nag_of_sum(weight, left, right, state, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """`nag`, with ``left + right``."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            nag(weight[part], grad, state[part], _all_of(grad), rates[k : k + 1], numbers)


@compiled
def adam_of_sum(weight, left, right, mean, var, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """`adam`, with ``left + right``."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            adam(weight[part], grad, mean[part], var[part], _all_of(grad), rates[k : k + 1], numbers)


@compiled
def adagrad_of_sum(weight, left, right, history, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """`adagrad`, with ``left + right``."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            adagrad(weight[part], grad, history[part], _all_of(grad), rates[k : k + 1], numbers)


@compiled
def rmsprop_of_sum(weight, left, right, n, bounds, rates, numbers, scratch):  # type: ignore[no-untyped-def]
    """`rmsprop`, with ``left + right``."""
    for k in range(bounds.shape[0]):
        for low in range(bounds[k, 0], bounds[k, 1], scratch.size):
            part = _part(bounds, k, low, scratch)
            grad = _sum(left[part], right[part], scratch)
            rmsprop(weight[part], grad, n[part], _all_of(grad), rates[k : k + 1], numbers)
