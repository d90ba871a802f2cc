"""Adam and its relatives: means of the gradient and of its square, or of its largest size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.device import module_of
from dmod.optimizer.elementwise import CompiledStep, ElementWise, decayed_gradient
from dmod.optimizer.optimizer import _check_number, register

__all__ = ["FTML", "Adam", "Adamax", "Nadam"]


class _Moments(ElementWise):
    """The constructor that they share."""

    def __init__(self, beta1: float, beta2: float, **kwargs: Any):
        super().__init__(**kwargs)
        for argument, value in (("beta1", beta1), ("beta2", beta2)):
            _check_number(type(self).__name__, argument, value)
        self.beta1 = beta1
        self.beta2 = beta2

    def flat_states(self) -> int:
        return 2


@register
class Adam(_Moments):
    """Adam (Kingma and Ba, arXiv:1412.6980).

    With ``g = clip(rescale_grad * grad + wd * weight)``, update t is::

        mean = beta1 * mean + (1 - beta1) * g
        var = beta2 * var + (1 - beta2) * g * g
        weight = weight - lr * sqrt(1 - beta2**t) / (1 - beta1**t) * mean / (sqrt(var) + epsilon)

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon : float
    lazy_update : bool
        With row-sparse gradients: update only the rows that have one.
    **kwargs
        See `Optimizer`.

    Examples
    --------
    >>> from dmod.ndarray.ndarray import array
    >>> adam, weight, grad = Adam(learning_rate=0.5), array([1.0, 2.0]), array([0.5, -0.5])
    >>> adam.update(0, weight, grad, adam.create_state(0, weight))
    >>> weight.asnumpy().round(3)
    array([0.5, 2.5], dtype=float32)
    """

    portable = True
    flat = True
    scratch_arrays = 2

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        lazy_update: bool = True,
        **kwargs: Any,
    ):
        super().__init__(beta1, beta2, learning_rate=learning_rate, **kwargs)
        _check_number(type(self).__name__, "epsilon", epsilon)
        self.epsilon = epsilon
        self.lazy_update = lazy_update

    def compiled_step(self, rates: Sequence[tuple[float, float]], t: int) -> CompiledStep:
        beta1, beta2 = float(self.beta1), float(self.beta2)
        rows = [(lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t), wd) for lr, wd in rates]
        numbers = (
            float(self.rescale_grad), float(self.clip_gradient or 0), beta1, 1 - beta1, beta2, 1 - beta2,
            float(self.epsilon),
        )  # fmt: skip
        return CompiledStep("adam", rows, numbers)

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
        beta1, beta2, epsilon = float(self.beta1), float(self.beta2), float(self.epsilon)
        rate = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
        xp, (mean, var), (g, other) = module_of(weight), states, scratch
        decayed_gradient(self, weight, grad, wd, g, other)
        xp.multiply(mean, beta1, mean)
        xp.multiply(g, 1 - beta1, other)
        xp.add(mean, other, mean)
        xp.multiply(g, g, g)
        xp.multiply(g, 1 - beta2, g)
        xp.multiply(var, beta2, var)
        xp.add(var, g, var)
        xp.sqrt(var, g)
        xp.add(g, epsilon, g)
        xp.divide(mean, g, other)
        xp.multiply(other, rate, other)
        xp.subtract(weight, other, weight)


@register
class Adamax(_Moments):
    """Adamax, Adam with the infinity norm (Kingma and Ba, arXiv:1412.6980, section 7).

    With ``g = clip(rescale_grad * grad + wd * weight)``, update t is::

        mean = beta1 * mean + (1 - beta1) * g
        top = maximum(beta2 * top, abs(g))
        weight = weight - lr / (1 - beta1**t) * mean / top

    An element whose gradients have all been zero stays as it is; MXNet makes it NaN.

    Parameters
    ----------
    learning_rate, beta1, beta2 : float
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2

    def __init__(self, learning_rate: float = 0.002, beta1: float = 0.9, beta2: float = 0.999, **kwargs: Any):
        super().__init__(beta1, beta2, learning_rate=learning_rate, **kwargs)

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
        beta1, beta2 = float(self.beta1), float(self.beta2)
        xp, (mean, top), (g, other) = module_of(weight), states, scratch
        decayed_gradient(self, weight, grad, wd, g, other)
        xp.multiply(mean, beta1, mean)
        xp.multiply(g, 1 - beta1, other)
        xp.add(mean, other, mean)
        xp.absolute(g, g)
        xp.multiply(top, beta2, top)
        xp.maximum(top, g, out=top)
        xp.maximum(top, 1e-38, out=g)  # where it is zero, so is the mean
        xp.divide(mean, g, other)
        xp.multiply(other, lr / (1 - beta1**t), other)
        xp.subtract(weight, other, weight)


@register
class Nadam(_Moments):
    """Adam with Nesterov's momentum (Dozat, CS229 report 54, 2015).

    With ``g = clip(rescale_grad * grad + wd * weight)`` and the momentum schedule
    ``m(t) = beta1 * (1 - 0.5 * 0.96 ** (schedule_decay * t))``, ``M(t) = m(1) * ... * m(t)``, update t is::

        mean = beta1 * mean + (1 - beta1) * g
        var = beta2 * var + (1 - beta2) * g * g
        bar = (1 - m(t)) * g / (1 - M(t)) + m(t + 1) * mean / (1 - M(t + 1))
        weight = weight - lr * bar / (sqrt(var / (1 - beta2**t)) + epsilon)

    In MXNet the product M runs on with every array, so that an array's updates depend on how many there
    are; here each array has its own count.

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon, schedule_decay : float
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        schedule_decay: float = 0.004,
        **kwargs: Any,
    ):
        super().__init__(beta1, beta2, learning_rate=learning_rate, **kwargs)
        _check_number(type(self).__name__, "epsilon", epsilon)
        self.epsilon = epsilon
        _check_number("Nadam", "schedule_decay", schedule_decay)
        self.schedule_decay = schedule_decay
        self._products = [1.0]

    def _momentum(self, t: int) -> float:
        return float(self.beta1) * (1 - 0.5 * 0.96 ** (float(self.schedule_decay) * t))

    def _product(self, t: int) -> float:
        """M(t). Products are kept until they are zero for good: a server may have many updates behind it."""
        products = self._products
        while len(products) <= t and products[-1]:
            products.append(products[-1] * self._momentum(len(products)))
        return products[min(t, len(products) - 1)]

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
        beta1, beta2 = float(self.beta1), float(self.beta2)
        xp, (mean, var), (g, other) = module_of(weight), states, scratch
        decayed_gradient(self, weight, grad, wd, g, other)
        xp.multiply(mean, beta1, mean)
        xp.multiply(g, 1 - beta1, other)
        xp.add(mean, other, mean)
        xp.multiply(var, beta2, var)
        xp.multiply(g, g, other)
        xp.multiply(other, 1 - beta2, other)
        xp.add(var, other, var)
        xp.multiply(g, (1 - self._momentum(t)) / (1 - self._product(t)), g)
        xp.multiply(mean, self._momentum(t + 1) / (1 - self._product(t + 1)), other)
        xp.add(g, other, g)
        xp.multiply(var, 1 / (1 - beta2**t), other)
        xp.sqrt(other, other)
        xp.add(other, float(self.epsilon), other)
        xp.divide(g, other, g)
        xp.multiply(g, lr, g)
        xp.subtract(weight, g, weight)


@register
class FTML(_Moments):
    """Follow the moving leader (Zheng and Kwok, ICML 2017).

    With ``g = clip(rescale_grad * grad + wd * weight)``, update t is::

        v = beta2 * v + (1 - beta2) * g * g
        new_d = (1 - beta1**t) / lr * (sqrt(v / (1 - beta2**t)) + epsilon)
        z = beta1 * z + (1 - beta1) * g - (new_d - beta1 * d) * weight
        d = new_d;  weight = -z / d

    With a learning rate of zero nothing changes; MXNet divides by it.

    Parameters
    ----------
    beta1, beta2, epsilon : float
    **kwargs
        See `Optimizer`.
    """

    portable = True
    flat = True
    scratch_arrays = 2

    def __init__(self, beta1: float = 0.6, beta2: float = 0.999, epsilon: float = 1e-8, **kwargs: Any):
        super().__init__(beta1, beta2, **kwargs)
        _check_number(type(self).__name__, "epsilon", epsilon)
        self.epsilon = epsilon

    def flat_states(self) -> int:
        return 3

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
        beta1, beta2 = float(self.beta1), float(self.beta2)
        xp, (d, v, z), (g, other) = module_of(weight), states, scratch
        decayed_gradient(self, weight, grad, wd, g, other)
        xp.multiply(v, beta2, v)
        xp.multiply(g, g, other)
        xp.multiply(other, 1 - beta2, other)
        xp.add(v, other, v)
        xp.multiply(z, beta1, z)
        xp.multiply(g, 1 - beta1, g)
        xp.add(z, g, z)
        xp.multiply(v, 1 / (1 - beta2**t), other)
        xp.sqrt(other, other)
        xp.add(other, float(self.epsilon), other)
        xp.multiply(other, (1 - beta1**t) / lr, other)
        xp.multiply(d, beta1, d)
        xp.subtract(other, d, d)
        xp.multiply(d, weight, d)
        xp.subtract(z, d, z)
        xp.copyto(d, other, casting="same_kind")
        xp.divide(z, other, weight)
        xp.negative(weight, weight)
