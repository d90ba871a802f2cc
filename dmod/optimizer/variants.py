"""Relatives of SGD: by sign (Signum), with delay compensation (DCASGD); and `Test`."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.device import copy, module_of
from dmod.ndarray.ndarray import NDArray
from dmod.optimizer.elementwise import ElementWise, multiply, rescaled_gradient
from dmod.optimizer.optimizer import _check_number, register

__all__ = ["DCASGD", "Signum", "Test"]


@register
class Signum(ElementWise):
    """SignSGD, and Signum with momentum (Bernstein et al., arXiv:1802.04434).

    With ``g = clip(rescale_grad * grad)``, the update is::

        momentum == 0:  weight = (1 - lr * wd) * weight - lr * sign(g)
        else:           state = momentum * state - (1 - momentum) * (g + wd * weight)
                        weight = (1 - lr * wd_lh) * weight + lr * sign(state)

    Parameters
    ----------
    learning_rate, momentum : float
    wd_lh : float
        Weight decay apart from the gradient (arXiv:1711.05101); counts with momentum only.
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2
    state_form = "single"

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.9, wd_lh: float = 0.0, **kwargs: Any):
        super().__init__(learning_rate=learning_rate, **kwargs)
        _check_number("Signum", "momentum", momentum)
        _check_number("Signum", "wd_lh", wd_lh)
        self.momentum = momentum
        self.wd_lh = wd_lh

    def flat_states(self) -> int:
        return 1 if self.momentum else 0

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
        xp, (g, other) = module_of(weight), scratch
        rescaled_gradient(self, grad, 1.0, g)
        if states:
            momentum, decay = states[0], float(self.wd_lh)
            if wd:
                multiply(xp, weight, wd, other)
                xp.add(g, other, g)
            xp.multiply(g, 1 - float(self.momentum), g)
            xp.multiply(momentum, float(self.momentum), momentum)
            xp.subtract(momentum, g, momentum)
            xp.sign(momentum, g)
        else:
            decay = wd
            xp.sign(g, g)
            xp.negative(g, g)
        xp.multiply(g, lr, g)
        if decay:
            xp.multiply(weight, 1 - lr * decay, weight)
        xp.add(weight, g, weight)


@register
class DCASGD(ElementWise):
    """SGD that makes up for late gradients (Zheng et al., arXiv:1609.08326).

    With ``g = clip(rescale_grad * grad)``, the update is::

        step = -lr * (g + wd * weight + lamda * g * g * (weight - previous))
        momentum != 0:  state = momentum * state + step;  step = state
        previous = weight;  weight = weight + step

    MXNet raises an error if there is a momentum and the array has more than one element.

    Parameters
    ----------
    momentum, lamda : float
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2

    def __init__(self, momentum: float = 0.0, lamda: float = 0.04, **kwargs: Any):
        super().__init__(**kwargs)
        _check_number("DCASGD", "momentum", momentum)
        _check_number("DCASGD", "lamda", lamda)
        self.momentum = momentum
        self.lamda = lamda

    def flat_states(self) -> int:
        return 2 if self.momentum else 1

    def begin_states(self, weight: np.ndarray, states: tuple[np.ndarray, ...]) -> None:
        copy(states[-1], weight)

    def create_state(self, index: Any, weight: NDArray) -> Any:
        states = super().create_state(index, weight)
        return states if self.momentum else (None, *states)

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
        xp, previous, (g, other) = module_of(weight), states[-1], scratch
        rescaled_gradient(self, grad, 1.0, g)
        xp.subtract(weight, previous, other)
        xp.multiply(other, float(self.lamda), other)
        xp.multiply(other, g, other)
        xp.multiply(other, g, other)
        xp.add(g, other, g)
        if wd:
            multiply(xp, weight, wd, other)
            xp.add(g, other, g)
        xp.multiply(g, -lr, g)
        xp.copyto(previous, weight)
        if len(states) == 2:
            xp.multiply(states[0], float(self.momentum), states[0])
            xp.add(states[0], g, states[0])
            xp.add(weight, states[0], weight)
        else:
            xp.add(weight, g, weight)


@register
class Test(ElementWise):
    """Adds the rescaled gradient to the weight, and keeps the weight as its state; for tests of stores.

    Parameters
    ----------
    **kwargs
        See `Optimizer`.
    """

    __test__ = False  # what pytest asks before it collects a class of this name
    portable = True
    flat = True
    state_form = "single"

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)

    def flat_states(self) -> int:
        return 1

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
        xp, g = module_of(weight), scratch[0]
        multiply(xp, grad, float(self.rescale_grad), g)
        xp.add(weight, g, weight)
        xp.copyto(states[0], weight)
