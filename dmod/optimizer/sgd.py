"""Stochastic gradient descent, with momentum and weight decay."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.device import module_of
from dmod.device.kernels import compiled_kernels
from dmod.optimizer.elementwise import MasterLast, rescaled_gradient
from dmod.optimizer.optimizer import _check_number, register

__all__ = ["NAG", "SGD", "ccSGD"]


class _Momentum(MasterLast):
    """At most one state, the momentum."""

    momentum: float
    state_form = "single"

    def flat_states(self) -> int:
        return 1 if self.momentum else 0


@register
class SGD(_Momentum):
    """Stochastic gradient descent.

    With ``g = clip(rescale_grad * grad)``, the update is::

        momentum == 0:  weight = (1 - lr * wd) * weight - lr * g
        else:           state = momentum * state - lr * (g + wd * weight);  weight = weight + state

    Parameters
    ----------
    momentum : float
    lazy_update : bool
        For row-sparse gradients: leave rows without a gradient alone. Dense gradients have no such rows.
    **kwargs
        See `Optimizer`.

    Examples
    --------
    >>> from dmod.ndarray.ndarray import array
    >>> weight, grad = array([1.0, 2.0]), array([0.5, 0.5])
    >>> SGD(learning_rate=0.5).update(0, weight, grad, None)
    >>> weight.asnumpy()
    array([0.75, 1.75], dtype=float32)
    """

    portable = True
    flat = True

    def __init__(self, momentum: float = 0.0, lazy_update: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        _check_number(type(self).__name__, "momentum", momentum)
        self.momentum = momentum
        self.lazy_update = lazy_update

    def step(
        self,
        weight: np.ndarray,
        grad: np.ndarray,
        states: tuple[np.ndarray, ...],
        lr: float,
        wd: float,
        scratch: tuple[np.ndarray, ...],
        t: int,
    ) -> None:
        rescale, clip = float(self.rescale_grad), self.clip_gradient
        if (clip is None or not clip > 0) and _fused(self, weight, grad, states, -lr * rescale, -lr * wd):
            return
        xp, (step,) = module_of(weight), scratch
        # Scalars are folded together first: each pass over the arrays counts.
        rescaled_gradient(self, grad, -lr, step)
        if states:
            momentum = states[0]
            xp.multiply(momentum, float(self.momentum), momentum)
            xp.add(momentum, step, momentum)
            if wd:
                xp.multiply(weight, -lr * wd, step)
                xp.add(momentum, step, momentum)
            xp.add(weight, momentum, weight)
        else:
            if wd:
                xp.multiply(weight, 1.0 - lr * wd, weight)
            xp.add(weight, step, weight)


def _fused(
    optimizer: SGD,
    weight: np.ndarray,
    grad: np.ndarray,
    states: tuple[np.ndarray, ...],
    scale: float,
    decay: float,
) -> bool:
    """Run the step as one compiled kernel, which has numpy's bits, if there is one for these arrays."""
    arrays = (weight, grad, *states)
    if any(type(a) is not np.ndarray or a.dtype != np.float32 for a in arrays):
        return False
    kernels = compiled_kernels()
    if kernels is None:
        return False
    if states:
        momentum = np.float32(optimizer.momentum)
        kernels.sgd_momentum(weight, grad, states[0], np.float32(scale), momentum, np.float32(decay))
    else:
        kernels.sgd(weight, grad, np.float32(scale), np.float32(1.0 + decay))
    return True


@register
class ccSGD(SGD):
    """Another name of `SGD`, which it once had to itself."""

    portable = True
    flat = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)


@register
class NAG(_Momentum):
    """Nesterov's accelerated gradient.

    With ``g = clip(rescale_grad * grad)``, the update is::

        momentum == 0:  weight = (1 - lr * wd) * weight - lr * g
        else:           step = momentum * state - lr * (g + wd * weight)
                        new = weight + momentum * step - lr * (g + wd * weight)
                        state = momentum * state - lr * (g + wd * new);  weight = new

    That the state decays by the new weight is how MXNet 1.9.1 computes it.

    Parameters
    ----------
    momentum : float
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True

    def __init__(self, momentum: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        _check_number(type(self).__name__, "momentum", momentum)
        self.momentum = momentum

    def step(
        self,
        weight: np.ndarray,
        grad: np.ndarray,
        states: tuple[np.ndarray, ...],
        lr: float,
        wd: float,
        scratch: tuple[np.ndarray, ...],
        t: int,
    ) -> None:
        xp, (step,) = module_of(weight), scratch
        if not states:
            if wd:
                xp.multiply(weight, 1.0 - lr * wd, weight)
            rescaled_gradient(self, grad, -lr, step)
            xp.add(weight, step, weight)
            return
        momentum, factor = states[0], float(self.momentum)
        if wd:
            xp.multiply(weight, 1.0 - (1.0 + factor) * lr * wd, weight)
        xp.multiply(momentum, factor, momentum)
        xp.multiply(momentum, factor, step)
        xp.add(weight, step, weight)
        rescaled_gradient(self, grad, -lr, step)
        xp.add(momentum, step, momentum)
        xp.multiply(step, 1.0 + factor, step)
        xp.add(weight, step, weight)
        if wd:
            xp.multiply(weight, -lr * wd, step)
            xp.add(momentum, step, momentum)
