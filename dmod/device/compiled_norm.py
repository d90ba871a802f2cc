"""Compiled kernels of batch normalisation, alone or with the ReLU behind it. float32, C-contiguous arrays.

`_rows` kernels take arrays (outer, channels, inner), in which a channel's elements lie in rows; `_columns`
ones take matrices (rows, channels). `low` is 0 for a ReLU and minus infinity without one.
"""

from __future__ import annotations

import numpy as np

from dmod.device.compiled_math import LANES, compiled, lane_sum

__all__ = [
    "norm_columns",
    "norm_grad_columns",
    "norm_grad_rows",
    "norm_rows",
    "norm_statistics_columns",
    "norm_statistics_rows",
    "norm_sums_columns",
    "norm_sums_rows",
]


@compiled
def _inverse_root(mean, inv_std, count, eps):  # type: ignore[no-untyped-def]
    for c in range(mean.size):
        inv_std[c] = np.float32(1) / np.sqrt(inv_std[c] / count + eps)


@compiled
def norm_statistics_rows(x, mean, inv_std, eps):  # type: ignore[no-untyped-def]
    """The mean and the inverse standard deviation of each channel."""
    outer, channels, inner = x.shape
    count = np.float32(outer * inner)
    lanes, squares = np.empty(LANES, np.float32), np.empty(inner, np.float32)
    for c in range(channels):
        total = np.float32(0)
        for n in range(outer):
            total += lane_sum(x[n, c], lanes)
        centre = total / count
        total = np.float32(0)
        for n in range(outer):
            row = x[n, c]
            for j in range(inner):
                squares[j] = (row[j] - centre) * (row[j] - centre)
            total += lane_sum(squares, lanes)
        mean[c], inv_std[c] = centre, total
    _inverse_root(mean, inv_std, count, eps)


@compiled
def norm_statistics_columns(x, mean, inv_std, eps):  # type: ignore[no-untyped-def]
    """The mean and the inverse standard deviation of each channel."""
    rows, channels = x.shape
    count = np.float32(rows)
    for c in range(channels):
        mean[c] = np.float32(0)
        inv_std[c] = np.float32(0)
    for n in range(rows):
        row = x[n]
        for c in range(channels):
            mean[c] += row[c]
    for c in range(channels):
        mean[c] /= count
    for n in range(rows):
        row = x[n]
        for c in range(channels):
            inv_std[c] += (row[c] - mean[c]) * (row[c] - mean[c])
    _inverse_root(mean, inv_std, count, eps)


@compiled
def norm_rows(x, mean, scale, beta, low, y):  # type: ignore[no-untyped-def]
    """``y = max((x - mean) * scale + beta, low)``."""
    outer, channels, inner = x.shape
    for n in range(outer):
        for c in range(channels):
            source, target = x[n, c], y[n, c]
            m, s, b = mean[c], scale[c], beta[c]
            for j in range(inner):
                v = (source[j] - m) * s + b
                target[j] = low if v < low else v


@compiled
def norm_columns(x, mean, scale, beta, low, y):  # type: ignore[no-untyped-def]
    """``y = max((x - mean) * scale + beta, low)``."""
    rows, channels = x.shape
    for n in range(rows):
        source, target = x[n], y[n]
        for c in range(channels):
            v = (source[c] - mean[c]) * scale[c] + beta[c]
            target[c] = low if v < low else v


@compiled
def norm_sums_rows(x, y, dy, mean, inv_std, low, sum_dy, sum_dy_xhat):  # type: ignore[no-untyped-def]
    """Per channel, the sums of the gradient where ``y > low``, and of its product with the normalised x."""
    outer, channels, inner = x.shape
    lanes, grads = np.empty(LANES, np.float32), np.empty(inner, np.float32)
    for c in range(channels):
        first, second = np.float32(0), np.float32(0)
        m, s = mean[c], inv_std[c]
        for n in range(outer):
            source, out, grad = x[n, c], y[n, c], dy[n, c]
            for j in range(inner):
                grads[j] = grad[j] * np.float32(out[j] > low)
            first += lane_sum(grads, lanes)
            for j in range(inner):
                grads[j] = grads[j] * ((source[j] - m) * s)
            second += lane_sum(grads, lanes)
        sum_dy[c], sum_dy_xhat[c] = first, second


@compiled
def norm_sums_columns(x, y, dy, mean, inv_std, low, sum_dy, sum_dy_xhat):  # type: ignore[no-untyped-def]
    """Per channel, the sums of the gradient where ``y > low``, and of its product with the normalised x."""
    rows, channels = x.shape
    for c in range(channels):
        sum_dy[c] = np.float32(0)
        sum_dy_xhat[c] = np.float32(0)
    for n in range(rows):
        source, out, grad = x[n], y[n], dy[n]
        for c in range(channels):
            sum_dy[c] += grad[c] * np.float32(out[c] > low)
        for c in range(channels):
            g = grad[c] * np.float32(out[c] > low)
            sum_dy_xhat[c] += g * ((source[c] - mean[c]) * inv_std[c])


@compiled
def norm_grad_rows(x, y, dy, mean, inv_std, low, mean_dy, mean_dy_xhat, scale, dx):  # type: ignore[no-untyped-def]
    """``dx = scale * (dy - xhat * mean_dy_xhat - mean_dy)``, with dy where ``y > low``."""
    outer, channels, inner = x.shape
    for n in range(outer):
        for c in range(channels):
            source, out, grad, target = x[n, c], y[n, c], dy[n, c], dx[n, c]
            m, s, first, second, factor = mean[c], inv_std[c], mean_dy[c], mean_dy_xhat[c], scale[c]
            for j in range(inner):
                g = grad[j] * np.float32(out[j] > low)
                target[j] = (g - (source[j] - m) * s * second - first) * factor


@compiled
def norm_grad_columns(x, y, dy, mean, inv_std, low, mean_dy, mean_dy_xhat, scale, dx):  # type: ignore[no-untyped-def]
    """``dx = scale * (dy - xhat * mean_dy_xhat - mean_dy)``, with dy where ``y > low``."""
    rows, channels = x.shape
    for n in range(rows):
        source, out, grad, target = x[n], y[n], dy[n], dx[n]
        for c in range(channels):
            g = grad[c] * np.float32(out[c] > low)
            x_hat = (source[c] - mean[c]) * inv_std[c]
            target[c] = (g - x_hat * mean_dy_xhat[c] - mean_dy[c]) * scale[c]
