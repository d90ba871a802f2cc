"""Optimizers with a rate for each whole array, from its norms: LARS, LAMB, LBSGD; and SGLD, with noise.

They are not cut into pieces, and so run array by array in the workers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.device import module_of, to_host
from dmod.device.random import SlotStream
from dmod.ndarray.ndarray import NDArray, array, zeros
from dmod.optimizer.elementwise import multiply, rescaled_gradient
from dmod.optimizer.optimizer import Optimizer, _check_number, register

__all__ = ["LAMB", "LARS", "LBSGD", "SGLD"]


def _norm(values: np.ndarray) -> float:
    """The L2 norm, summed in float64."""
    flat = to_host(values).reshape(-1).astype(np.float64)
    return math.sqrt(float(flat @ flat))


def _momentum_step(
    optimizer: Optimizer,
    weight: NDArray,
    grad: Any,
    state: NDArray | None,
    lr: float,
    wd: float,
    momentum: float,
) -> None:
    """``state = momentum * state - lr * (clip(rescale * grad) + wd * weight); weight += state``."""
    values = weight._data
    xp = module_of(values)
    with np.errstate(all="ignore"):
        step = xp.empty(values.shape, np.promote_types(values.dtype, np.float32))
        rescaled_gradient(optimizer, grad, -lr, step)
        step += (-lr * wd) * values
        if state is not None:
            xp.multiply(state._data, momentum, state._data)
            xp.add(state._data, step, state._data)
            step = state._data
        xp.add(values, step, values)


class _Whole(Optimizer):
    """Takes lists too, and dense forms of sparse gradients; `_update_one` does the rest."""

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Update one array, or each of a list of arrays, in place."""
        if isinstance(index, (list, tuple)):
            for one in zip(index, weight, grad, state, strict=True):
                self.update(*one)
            return
        self._update_count(index)
        dense = grad._data if grad.stype == "default" else grad.tostype("default")._data
        self._update_one(index, weight, dense, state, self._get_lr(index), self._get_wd(index))

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Like `update`, for a state of `create_state_multi_precision`."""
        if isinstance(index, (list, tuple)):
            for one in zip(index, weight, grad, state, strict=True):
                self.update_multi_precision(*one)
            return
        super().update_multi_precision(index, weight, grad, state)

    def _update_one(self, index: Any, weight: NDArray, grad: Any, state: Any, lr: float, wd: float) -> None:
        raise NotImplementedError


@register
class LARS(_Whole):
    """SGD with layer-wise adaptive rates (You, Gitman and Ginsburg, arXiv:1708.03888).

    Arrays whose names end in ``gamma``, ``beta`` or ``bias`` are updated as by `SGD`, and only names ending
    in ``_weight`` decay unless told otherwise. For the others, with
    g the rescaled gradient, the rate is::

        lr * eta * norm(weight) / (norm(g) + wd * norm(weight) + eps)     if both norms are positive

    Parameters
    ----------
    momentum : float
    lazy_update : bool
        Kept for MXNet's sake; row-sparse gradients count as dense ones.
    eta, eps : float
    momentum_correction : bool
        When the schedule changes the rate, scale the momentum alike (arXiv:1706.02677). MXNet, updating
        array by array, does so for the first array only.
    **kwargs
        See `Optimizer`.
    """

    portable = True
    master_first = False

    def __init__(
        self,
        momentum: float = 0.0,
        lazy_update: bool = True,
        eta: float = 0.001,
        eps: float = 0,
        momentum_correction: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for argument, value in (("momentum", momentum), ("eta", eta), ("eps", eps)):
            _check_number("LARS", argument, value)
        self.momentum = momentum
        self.lazy_update = lazy_update
        self.eta = eta
        self.eps = eps
        self.momentum_correction = momentum_correction

    def create_state(self, index: Any, weight: NDArray) -> Any:
        return zeros(weight.shape, weight.context, weight.dtype) if self.momentum else None

    def create_state_multi_precision(self, index: Any, weight: NDArray) -> Any:
        if self.multi_precision and weight.dtype == np.float16:
            master = weight.astype(np.float32)
            return (self.create_state(index, master), master)
        return super().create_state_multi_precision(index, weight)

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Like `update`, for a state of `create_state_multi_precision`."""
        if not isinstance(index, (list, tuple)) and self.multi_precision and weight.dtype == np.float16:
            super().update_multi_precision(index, weight, grad, state[::-1])
        else:
            super().update_multi_precision(index, weight, grad, state)

    def set_wd_mult(self, args_wd_mult: Mapping[Any, float]) -> None:
        """Like `Optimizer.set_wd_mult`, but gammas do not decay unless they are told to."""
        gammas = {n: 0.0 for n in self.idx2name.values() if not n.endswith("_weight")}
        super().set_wd_mult({**gammas, **self._symbol_multipliers("__wd_mult__"), **args_wd_mult})

    def _update_one(self, index: Any, weight: NDArray, grad: Any, state: Any, lr: float, wd: float) -> None:
        momentum, count = float(self.momentum), self._index_update_count[index]
        if self.momentum_correction and momentum:
            before = self._rate_at(count - 1) if count - 1 > self.begin_num_update else self._rate_at(count)
            momentum *= self._rate_at(count) / before if before else 1.0
        if not str(self.idx2name.get(index, "")).endswith(("gamma", "beta", "bias")):
            lr *= self._trust(weight, grad, wd)
        _momentum_step(self, weight, grad, state, lr, wd, momentum)

    def _trust(self, weight: NDArray, grad: Any, wd: float) -> float:
        size = _norm(weight._data)
        step = _norm(grad) * abs(float(self.rescale_grad))
        if not (size > 0 and step > 0):
            return 1.0
        return float(self.eta) * size / (step + wd * size + float(self.eps))


@register
class LAMB(_Whole):
    """Adam with a rate for each array (You et al., arXiv:1904.00962).

    With ``g = clip(rescale_grad * grad)``, update t is::

        mean = beta1 * mean + (1 - beta1) * g;  var = beta2 * var + (1 - beta2) * g * g
        with bias_correction: both divided by 1 - beta**t in what follows
        step = mean / (sqrt(var) + epsilon) + wd * weight
        r = norm(weight), limited to [lower_bound, upper_bound], over norm(step); 1 if one of them is zero
        weight = weight - lr * r * step

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon : float
    lower_bound, upper_bound : float, optional
        None or values that are not positive: no limit.
    bias_correction : bool
    **kwargs
        See `Optimizer`.
    """

    portable = True

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-6,
        lower_bound: float | None = None,
        upper_bound: float | None = None,
        bias_correction: bool = True,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, **kwargs)
        for argument, value in (("beta1", beta1), ("beta2", beta2), ("epsilon", epsilon)):
            _check_number("LAMB", argument, value)
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound
        self.bias_correction = bias_correction

    def create_state(self, index: Any, weight: NDArray) -> Any:
        return tuple(zeros(weight.shape, weight.context, weight.dtype) for _ in range(2))

    def _update_one(self, index: Any, weight: NDArray, grad: Any, state: Any, lr: float, wd: float) -> None:
        values, (mean, var) = weight._data, (s._data for s in state)
        xp, t = module_of(values), self._index_update_count[index]
        beta1, beta2 = float(self.beta1), float(self.beta2)
        with np.errstate(all="ignore"):
            g = xp.empty(values.shape, np.promote_types(values.dtype, np.float32))
            rescaled_gradient(self, grad, 1.0, g)
            mean[...] = beta1 * mean + (1 - beta1) * g
            var[...] = beta2 * var + (1 - beta2) * g * g
            first, second = (1 - beta1**t, 1 - beta2**t) if self.bias_correction else (1.0, 1.0)
            step = (mean / first) / (xp.sqrt(var / second) + float(self.epsilon)) + wd * values
            values[...] = values - (lr * self._ratio(_norm(values), _norm(step))) * step

    def _ratio(self, size: float, step: float) -> float:
        if self.lower_bound is not None and self.lower_bound > 0:
            size = max(size, float(self.lower_bound))
        if self.upper_bound is not None and self.upper_bound > 0:
            size = min(size, float(self.upper_bound))
        return size / step if size and step else 1.0


STRATEGIES = ("linear", "power2", "sqrt", "lars")


@register
class LBSGD(_Whole):
    """SGD for large batches: gradients of several batches make one update, and the rate warms up.

    The mean of `batch_scale` gradients makes an update as by `SGD`. While there are fewer than
    ``warmup_epochs * updates_per_epoch`` batches, the rate is multiplied by a factor that grows from 1 to
    `batch_scale`, afterwards by `batch_scale`; with the strategy 'lars', always by
    ``norm(weight) / sqrt(norm(g)**2 + wd * norm(weight)**2)``, limited to [0.01, 100].

    MXNet asks the schedule for the number of updates before an array's own is counted, so that the first
    array is one behind the others; here each array has the rate of its own count.

    Parameters
    ----------
    momentum : float
    multi_precision : bool
    warmup_strategy : {'linear', 'power2', 'sqrt', 'lars'}
    warmup_epochs, batch_scale, updates_per_epoch, begin_epoch, num_epochs : int
    **kwargs
        See `Optimizer`.
    """

    portable = True

    def __init__(
        self,
        momentum: float = 0.0,
        multi_precision: bool = False,
        warmup_strategy: str = "linear",
        warmup_epochs: int = 5,
        batch_scale: int = 1,
        updates_per_epoch: int = 32,
        begin_epoch: int = 0,
        num_epochs: int = 60,
        **kwargs: Any,
    ):
        super().__init__(multi_precision=multi_precision, **kwargs)
        numbers = {
            "momentum": momentum, "warmup_epochs": warmup_epochs, "batch_scale": batch_scale,
            "updates_per_epoch": updates_per_epoch, "begin_epoch": begin_epoch, "num_epochs": num_epochs,
        }  # fmt: skip
        for argument, value in numbers.items():
            _check_number("LBSGD", argument, value)
        if batch_scale < 1:
            raise InvalidArgument(f"LBSGD: batch_scale={batch_scale!r}, expected at least 1")
        self.momentum = momentum
        self.warmup_strategy = warmup_strategy
        self.warmup_epochs = warmup_epochs
        self.batch_scale = batch_scale
        self.updates_per_epoch = updates_per_epoch
        self.begin_epoch = begin_epoch
        self.num_epochs = num_epochs
        self._sums: dict[Any, Any] = {}

    def create_state(self, index: Any, weight: NDArray) -> Any:
        return zeros(weight.shape, weight.context, weight.dtype) if self.momentum else None

    def _update_one(self, index: Any, weight: NDArray, grad: Any, state: Any, lr: float, wd: float) -> None:
        done = self._index_update_count[index] - self.begin_num_update
        batches = self.begin_epoch * self.updates_per_epoch + done
        total = grad if index not in self._sums else self._sums.pop(index) + grad
        if batches % self.batch_scale:
            self._sums[index] = total.copy()
            return
        total = total / self.batch_scale
        lr *= self._factor(batches, weight, total, wd)
        _momentum_step(self, weight, total, state, lr, wd, float(self.momentum))

    def _factor(self, batches: int, weight: NDArray, grad: Any, wd: float) -> float:
        if self.warmup_strategy == "lars":
            size, step = _norm(weight._data) ** 2, _norm(grad) ** 2
            return min(max(math.sqrt(size / (step + wd * size + 1e-18)), 0.01), 100.0)
        warmup = self.warmup_epochs * self.updates_per_epoch
        if batches >= warmup:
            return float(self.batch_scale)
        done = batches / warmup if batches > 1 else 0.0
        growth = {"linear": done, "power2": done * done, "sqrt": math.sqrt(done)}
        return 1.0 + (self.batch_scale - 1) * growth.get(self.warmup_strategy, 0.0)


_NOISE_SLOT = (1 << 64) - 2
"""No executor has as many slots; the one above is the host's."""


@register
class SGLD(_Whole):
    """Stochastic gradient Langevin dynamics: half a step of SGD, and normal noise of variance lr.

    With ``g = clip(rescale_grad * grad)``::

        weight = weight - lr / 2 * (g + wd * weight) + normal(0, sqrt(lr))

    The noise follows from the process's seed, the parameter's index and the number of the update: workers
    that are seeded alike draw the same. With the same seed it differs from MXNet's.

    Parameters
    ----------
    **kwargs
        See `Optimizer`.
    """

    portable = True

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._stream = SlotStream(_NOISE_SLOT)

    def _update_one(self, index: Any, weight: NDArray, grad: Any, state: Any, lr: float, wd: float) -> None:
        noise = self._noise(index, weight.shape)
        values = weight._data
        xp = module_of(values)
        step = xp.empty(values.shape, np.promote_types(values.dtype, np.float32))
        with np.errstate(all="ignore"):
            rescaled_gradient(self, grad, 1.0, step)
            if wd:
                step += wd * values
            multiply(xp, step, -lr / 2, step)
            step += array(noise, weight.context, "float32")._data * math.sqrt(lr)
            xp.add(values, step, values)

    def _noise(self, index: Any, shape: tuple[int, ...]) -> np.ndarray:
        self._stream.step = self._index_update_count[index]
        node = index if isinstance(index, int) else (1 << 32) + zlib.crc32(str(index).encode())
        return self._stream.generator(node).standard_normal(shape, np.float32)
