"""Stochastic gradient descent, with momentum and weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.device import module_of
from dmod.optimizer.elementwise import CompiledStep, MasterLast, rescaled_gradient
from dmod.optimizer.optimizer import _check_number, register

__all__ = ["NAG", "SGD", "ccSGD"]


class _Momentum(MasterLast):
    """At most one state, the momentum."""

    momentum: float
    state_form = "single"

    def flat_states(self) -> int:
        return 1 if self.momentum else 0

    def _plain_step(self, rates: Sequence[tuple[float, float]]) -> CompiledStep:
        """The step without momentum."""
        rescale = float(self.rescale_grad)
        rows = [(-lr * rescale, 1.0 - lr * wd, -lr) for lr, wd in rates]
        return CompiledStep("sgd", rows, (rescale, float(self.clip_gradient or 0)))


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

    def compiled_step(self, rates: Sequence[tuple[float, float]], t: int) -> CompiledStep:
        if not self.momentum:
            return self._plain_step(rates)
        rescale = float(self.rescale_grad)
        rows = [(-lr * rescale, -lr * wd, -lr) for lr, wd in rates]
        numbers = (rescale, float(self.clip_gradient or 0), float(self.momentum))
        return CompiledStep("sgd_momentum", rows, numbers)

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

    def compiled_step(self, rates: Sequence[tuple[float, float]], t: int) -> CompiledStep:
        if not self.momentum:
            return self._plain_step(rates)
        rescale, factor = float(self.rescale_grad), float(self.momentum)
        rows = [(-lr * rescale, -lr * wd, -lr, 1.0 - (1.0 + factor) * lr * wd) for lr, wd in rates]
        numbers = (rescale, float(self.clip_gradient or 0), factor, 1.0 + factor)
        return CompiledStep("nag", rows, numbers)

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
