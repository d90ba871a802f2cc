"""BatchNorm's steps over compiled kernels, for float32 in host memory; no operator.

They do in two or three passes over the data what `batch_norm` does in ten, and take a ReLU along.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.device.kernels import kernels_for
from dmod.ops.registry import Call, Step

__all__ = ["backward_step", "forward_step", "kernels_of"]

Dims = tuple[int, int, int]
"""The data as (outer, channels, inner)."""


def kernels_of(call: Call) -> Any:
    """The compiled kernels, if they fit the arrays of a call, else None."""
    grads = [*call.out_grads[:1], *call.in_grads]
    return kernels_for(*call.inputs, *call.outputs, *call.aux, *grads)


def _named(kernels: Any, name: str, dims: Dims) -> Any:
    return getattr(kernels, f"{name}_{'columns' if dims[2] == 1 else 'rows'}")


def _views(dims: Dims, *arrays: Any) -> list[Any]:
    shape = dims[:2] if dims[2] == 1 else dims
    return [None if a is None else a.reshape(shape) for a in arrays]


def forward_step(call: Call, dims: Dims, use_global: bool, low: float) -> Step:
    """Normalise; results are at least `low`."""
    kernels, attrs = kernels_of(call), call.attrs
    statistics, normalise = (_named(kernels, name, dims) for name in ("norm_statistics", "norm"))
    x, y = _views(dims, call.inputs[0], call.outputs[0])
    gamma, beta = call.inputs[1:]
    mean, inv_std = call.outputs[1:]
    moving_mean, moving_var = call.aux
    scale = call.scratch(gamma.shape, gamma.dtype)
    eps, one, bound = np.float32(attrs.eps), np.float32(1), np.float32(low)
    fix_gamma = attrs.fix_gamma

    def run() -> None:
        if use_global:
            np.copyto(mean, moving_mean)
            np.add(moving_var, eps, out=inv_std)
            np.sqrt(inv_std, out=inv_std)
            np.divide(one, inv_std, out=inv_std)
        else:
            statistics(x, mean, inv_std, eps)
        if fix_gamma:
            gamma.fill(1)
        np.multiply(gamma, inv_std, out=scale)
        normalise(x, mean, scale, beta, bound, y)

    return run


def backward_step(call: Call, dims: Dims, use_global: bool, low: float, move: Step | None) -> Step:
    """The gradients; `move` updates the moving statistics afterwards."""
    kernels, fix_gamma = kernels_of(call), call.attrs.fix_gamma
    sums, gradient = (_named(kernels, name, dims) for name in ("norm_sums", "norm_grad"))
    dx, dgamma, dbeta = call.in_grads
    x, y, dy, dx = _views(dims, call.inputs[0], call.outputs[0], call.out_grads[0], dx)
    if low == -np.inf:
        y = x  # there is nothing to compare: the output may be gone
    gamma = call.inputs[1]
    mean, inv_std = call.outputs[1:]
    bound, inv_count = np.float32(low), np.float32(1 / max(1, dims[0] * dims[2]))
    sum_dy, sum_dy_xhat, scale = (call.scratch(mean.shape, mean.dtype) for _ in range(3))

    def run() -> None:
        sums(x, y, dy, mean, inv_std, bound, sum_dy, sum_dy_xhat)
        if dgamma is not None:
            if fix_gamma:
                dgamma.fill(0)
            else:
                np.copyto(dgamma, sum_dy_xhat)
        if dbeta is not None:
            np.copyto(dbeta, sum_dy)
        if dx is not None:
            np.multiply(gamma, inv_std, out=scale)
            np.multiply(sum_dy, 0 if use_global else inv_count, out=sum_dy)
            np.multiply(sum_dy_xhat, 0 if use_global else inv_count, out=sum_dy_xhat)
            gradient(x, y, dy, mean, inv_std, bound, sum_dy, sum_dy_xhat, scale, dx)
        if move is not None:
            move()

    return run
