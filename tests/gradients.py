"""Numeric gradients in float64, for comparing an executor's backward pass with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmod import executor as _executor  # noqa: F401  (binding needs it)
from dmod.context import cpu
from dmod.ndarray import array

__all__ = ["worst_gradient_error"]


def worst_gradient_error(
    symbol: Any,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    values: Mapping[str, Any] | None = None,
    skip: tuple[str, ...] = (),
    eps: float = 1e-5,
    seed: int = 0,
) -> float:
    """The largest relative difference between backward and central differences, over all arguments.

    Arguments get values from [0.5, 1.5) unless `values` has them; the outputs get random gradients. Every
    forward pass repeats the first one's random numbers.
    """
    rng = np.random.RandomState(seed)
    names = symbol.list_arguments()
    exe = symbol.simple_bind(cpu(), type_dict=dict.fromkeys(names, "float64"), **shapes)
    for name, arg in exe.arg_dict.items():
        arg[:] = (values or {}).get(name, rng.uniform(0.5, 1.5, arg.shape))
    for aux in exe.aux_arrays:
        aux[:] = rng.uniform(0.5, 1.5, aux.shape)
    heads = [rng.randn(*out.shape) for out in exe.outputs]

    def loss() -> float:
        exe._stream._counts = [0, 0]
        outputs = exe.forward(is_train=True)
        return float(sum((out._data * head).sum() for out, head in zip(outputs, heads, strict=True)))

    loss()
    exe.backward([array(head, dtype="float64") for head in heads])
    grads = {name: grad.asnumpy() for name, grad in exe.grad_dict.items()}
    worst = 0.0
    for name in names:
        if name in skip:
            continue
        values_of = exe.arg_dict[name]._data
        for index in np.ndindex(values_of.shape):
            old = values_of[index]
            values_of[index] = old + eps
            above = loss()
            values_of[index] = old - eps
            below = loss()
            values_of[index] = old
            numeric = (above - below) / (2 * eps)
            worst = max(worst, abs(numeric - grads[name][index]) / (1e-2 + abs(numeric)))
    return worst
