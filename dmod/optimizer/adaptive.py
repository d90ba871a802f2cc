"""Optimizers with a rate for each element, from the squares of its gradients: AdaGrad and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.device import module_of
from dmod.optimizer.elementwise import (
    CompiledStep,
    ElementWise,
    decayed_gradient,
    multiply,
    rescaled_gradient,
)
from dmod.optimizer.optimizer import _check_number, register

__all__ = ["AdaDelta", "AdaGrad", "Ftrl", "RMSProp"]


@register
class AdaGrad(ElementWise):
    """AdaGrad (Duchi, Hazan and Singer, JMLR 12, 2011).

    With ``g = clip(rescale_grad * grad)``, the update is::

        history = history + g * g
        weight = weight - lr * (g / sqrt(history + eps) + wd * weight)

    A row-sparse gradient updates only its own rows.

    Parameters
    ----------
    eps : float
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2
    state_form = "single"
    lazy_update = True

    def __init__(self, eps: float = 1e-7, **kwargs: Any):
        super().__init__(**kwargs)
        _check_number("AdaGrad", "eps", eps)
        self.float_stable_eps = eps

    @property
    def eps(self) -> float:
        """What keeps the square root from zero; also called ``float_stable_eps``."""
        return self.float_stable_eps

    def flat_states(self) -> int:
        return 1

    def compiled_step(self, rates: Sequence[tuple[float, float]], t: int) -> CompiledStep:
        numbers = (float(self.rescale_grad), float(self.clip_gradient or 0), float(self.float_stable_eps))
        return CompiledStep("adagrad", list(rates), numbers)

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
        eps = float(self.float_stable_eps)
        xp, (history,), (g, other) = module_of(weight), states, scratch
        rescaled_gradient(self, grad, 1.0, g)
        xp.multiply(g, g, other)
        xp.add(history, other, history)
        xp.add(history, eps, other)
        xp.sqrt(other, other)
        xp.divide(g, other, g)
        if wd:
            multiply(xp, weight, wd, other)
            xp.add(g, other, g)
        xp.multiply(g, lr, g)
        xp.subtract(weight, g, weight)


@register
class AdaDelta(ElementWise):
    """AdaDelta (Zeiler, arXiv:1212.5701). It has no learning rate.

    With ``g = clip(rescale_grad * grad)``, the update is::

        squares = rho * squares + (1 - rho) * g * g
        delta = sqrt(deltas + epsilon) / sqrt(squares + epsilon) * g
        deltas = rho * deltas + (1 - rho) * delta * delta
        weight = weight - (delta + wd * weight)

    Parameters
    ----------
    rho, epsilon : float
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2

    def __init__(self, rho: float = 0.9, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        _check_number("AdaDelta", "rho", rho)
        _check_number("AdaDelta", "epsilon", epsilon)
        self.rho = rho
        self.epsilon = epsilon

    def flat_states(self) -> int:
        return 2

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
        rho, epsilon = float(self.rho), float(self.epsilon)
        xp, (squares, deltas), (g, other) = module_of(weight), states, scratch
        rescaled_gradient(self, grad, 1.0, g)
        xp.multiply(squares, rho, squares)
        xp.multiply(g, g, other)
        xp.multiply(other, 1 - rho, other)
        xp.add(squares, other, squares)
        xp.add(deltas, epsilon, other)
        xp.sqrt(other, other)
        xp.multiply(g, other, g)
        xp.add(squares, epsilon, other)
        xp.sqrt(other, other)
        xp.divide(g, other, g)
        xp.multiply(deltas, rho, deltas)
        xp.multiply(g, g, other)
        xp.multiply(other, 1 - rho, other)
        xp.add(deltas, other, deltas)
        if wd:
            multiply(xp, weight, wd, other)
            xp.add(g, other, g)
        xp.subtract(weight, g, weight)


@register
class RMSProp(ElementWise):
    """RMSProp, after Tieleman and Hinton (2012), or centered, after Graves (arXiv:1308.0850, 38 to 45).

    With ``g = clip(rescale_grad * grad + wd * weight)``, the update is::

        n = gamma1 * n + (1 - gamma1) * g * g
        not centered:  weight = weight - lr * g / sqrt(n + epsilon)
        centered:      m = gamma1 * m + (1 - gamma1) * g
                       delta = gamma2 * delta - lr * g / sqrt(n - m * m + epsilon)
                       weight = weight + delta

    Parameters
    ----------
    learning_rate, gamma1, gamma2, epsilon : float
    centered : bool
    clip_weights : float, optional
        Each weight is limited to ``[-clip_weights, clip_weights]`` afterwards.
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2

    def __init__(
        self,
        learning_rate: float = 0.001,
        gamma1: float = 0.9,
        gamma2: float = 0.9,
        epsilon: float = 1e-8,
        centered: bool = False,
        clip_weights: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, **kwargs)
        for argument, value in (("gamma1", gamma1), ("gamma2", gamma2), ("epsilon", epsilon)):
            _check_number("RMSProp", argument, value)
        if clip_weights is not None:
            _check_number("RMSProp", "clip_weights", clip_weights)
        self.gamma1 = gamma1
        self.gamma2 = gamma2
        self.epsilon = epsilon
        self.centered = centered
        self.clip_weights = clip_weights

    def flat_states(self) -> int:
        return 3 if self.centered else 1

    def compiled_step(self, rates: Sequence[tuple[float, float]], t: int) -> CompiledStep | None:
        if self.centered:
            return None
        gamma1 = float(self.gamma1)
        numbers = (
            float(self.rescale_grad), float(self.clip_gradient or 0), gamma1, 1 - gamma1,
            float(self.epsilon), float(self.clip_weights or 0),
        )  # fmt: skip
        return CompiledStep("rmsprop", list(rates), numbers)

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
        gamma1, epsilon = float(self.gamma1), float(self.epsilon)
        limit = float(self.clip_weights or 0)
        xp, n, (g, other) = module_of(weight), states[0], scratch
        decayed_gradient(self, weight, grad, wd, g, other)
        xp.multiply(n, gamma1, n)
        xp.multiply(g, g, other)
        xp.multiply(other, 1 - gamma1, other)
        xp.add(n, other, n)
        if self.centered:
            _, mean, delta = states
            xp.multiply(mean, gamma1, mean)
            xp.multiply(g, 1 - gamma1, other)
            xp.add(mean, other, mean)
            xp.multiply(mean, mean, other)
            xp.subtract(n, other, other)
            xp.add(other, epsilon, other)
        else:
            xp.add(n, epsilon, other)
        xp.sqrt(other, other)
        xp.divide(g, other, g)
        xp.multiply(g, lr, g)
        if self.centered:
            xp.multiply(delta, float(self.gamma2), delta)
            xp.subtract(delta, g, delta)
            xp.add(weight, delta, weight)
        else:
            xp.subtract(weight, g, weight)
        if limit > 0:
            xp.clip(weight, -limit, limit, out=weight)


@register
class Ftrl(ElementWise):
    """Follow the regularised leader (McMahan et al., KDD 2013), with an L1 penalty that makes zeros.

    With ``g = clip(rescale_grad * grad)``, the update is::

        z = z + g - (sqrt(n + g * g) - sqrt(n)) * weight / lr
        n = n + g * g
        weight = (sign(z) * lamda1 - z) / ((beta + sqrt(n)) / lr + wd) * (abs(z) > lamda1)

    With a learning rate of zero nothing changes; MXNet divides by it.

    Parameters
    ----------
    lamda1, learning_rate, beta : float
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2
    lazy_update = True

    def __init__(self, lamda1: float = 0.01, learning_rate: float = 0.1, beta: float = 1, **kwargs: Any):
        super().__init__(learning_rate=learning_rate, **kwargs)
        _check_number("Ftrl", "lamda1", lamda1)
        _check_number("Ftrl", "beta", beta)
        self.lamda1 = lamda1
        self.beta = beta

    def flat_states(self) -> int:
        return 2

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
        if not lr:
            return
        limit, (z, n), (g, other) = float(self.lamda1), states, scratch
        xp = module_of(weight)
        rescaled_gradient(self, grad, 1.0, g)
        xp.add(z, g, z)
        xp.multiply(g, g, g)
        xp.sqrt(n, other)
        xp.add(n, g, n)
        xp.sqrt(n, g)
        xp.subtract(g, other, other)
        xp.multiply(other, 1 / lr, other)
        xp.multiply(other, weight, other)
        xp.subtract(z, other, z)
        # sign(z) * lamda1 - z where abs(z) > lamda1, else 0: what clipping z takes away, with its sign turned
        xp.clip(z, -limit, limit, out=other)
        xp.subtract(other, z, other)
        xp.add(g, float(self.beta), g)
        xp.multiply(g, 1 / lr, g)
        xp.add(g, wd, g)
        xp.maximum(g, 1e-38, out=g)
        xp.divide(other, g, weight)
