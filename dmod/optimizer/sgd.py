"""Stochastic gradient descent, with momentum and weight decay."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.device import module_of
from dmod.device.kernels import compiled_kernels
from dmod.ndarray.ndarray import NDArray, zeros
from dmod.optimizer.flat import step_array
from dmod.optimizer.optimizer import Optimizer, _check_number, register

__all__ = ["NAG", "SGD", "ccSGD"]


class _ElementWise(Optimizer):
    """An optimizer of at most one state, whose `step` serves single arrays as well as flat buffers."""

    momentum: float

    def flat_states(self) -> int:
        return 1 if self.momentum else 0

    def create_state(self, index: Any, weight: NDArray) -> NDArray | None:
        return zeros(weight.shape, weight.context, weight.dtype) if self.momentum else None

    def create_state_multi_precision(self, index: Any, weight: NDArray) -> Any:
        if self.multi_precision and weight.dtype == np.float16:
            master = weight.astype(np.float32)
            return (self.create_state(index, master), master)  # in this order, unlike other optimizers
        return super().create_state_multi_precision(index, weight)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Update one array, or each of a list of arrays, in place."""
        self._update(index, weight, grad, state, self.update)

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Like `update`, for a state of `create_state_multi_precision`."""
        self._update(index, weight, grad, state, self.update_multi_precision)

    def _update(self, index: Any, weight: Any, grad: Any, state: Any, again: Any) -> None:
        if isinstance(index, (list, tuple)):
            for one in zip(index, weight, grad, state, strict=True):
                again(*one)
            return
        self._update_count(index)
        states = state if isinstance(state, tuple) else (state,)
        arrays = tuple(s._data for s in states if s is not None)
        step_array(self, weight._data, grad._data, arrays, self._get_lr(index), self._get_wd(index))


@register
class SGD(_ElementWise):
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
        scratch: np.ndarray,
    ) -> None:
        rescale, clip = float(self.rescale_grad), self.clip_gradient
        if (clip is None or not clip > 0) and _fused(self, weight, grad, states, -lr * rescale, -lr * wd):
            return
        xp = module_of(weight)
        # Scalars are folded together first: each pass over the arrays counts.
        _scaled_gradient(self, grad, -lr, scratch)
        if states:
            momentum = states[0]
            xp.multiply(momentum, float(self.momentum), momentum)
            xp.add(momentum, scratch, momentum)
            if wd:
                xp.multiply(weight, -lr * wd, scratch)
                xp.add(momentum, scratch, momentum)
            xp.add(weight, momentum, weight)
        else:
            if wd:
                xp.multiply(weight, 1.0 - lr * wd, weight)
            xp.add(weight, scratch, weight)


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


def _scaled_gradient(optimizer: Optimizer, grad: np.ndarray, factor: float, out: np.ndarray) -> None:
    """``out = factor * clip(rescale_grad * grad)``."""
    xp = module_of(out)
    rescale, clip = float(optimizer.rescale_grad), optimizer.clip_gradient
    if clip is None or not clip > 0:
        xp.multiply(grad, factor * rescale, out)
        return
    xp.multiply(grad, rescale, out)
    xp.clip(out, -float(clip), float(clip), out=out)  # six times as fast as minimum, then maximum
    xp.multiply(out, factor, out)


@register
class ccSGD(SGD):
    """Another name of `SGD`, which it once had to itself."""

    portable = True
    flat = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)


@register
class NAG(_ElementWise):
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
        scratch: np.ndarray,
    ) -> None:
        xp = module_of(weight)
        if not states:
            if wd:
                xp.multiply(weight, 1.0 - lr * wd, weight)
            _scaled_gradient(self, grad, -lr, scratch)
            xp.add(weight, scratch, weight)
            return
        momentum, factor = states[0], float(self.momentum)
        if wd:
            xp.multiply(weight, 1.0 - (1.0 + factor) * lr * wd, weight)
        xp.multiply(momentum, factor, momentum)
        xp.multiply(momentum, factor, scratch)
        xp.add(weight, scratch, weight)
        _scaled_gradient(self, grad, -lr, scratch)
        xp.add(momentum, scratch, momentum)
        xp.multiply(scratch, 1.0 + factor, scratch)
        xp.add(weight, scratch, weight)
        if wd:
            xp.multiply(weight, -lr * wd, scratch)
            xp.add(momentum, scratch, momentum)
