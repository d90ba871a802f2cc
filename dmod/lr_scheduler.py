"""Learning rates as functions of the number of updates.

A schedule here is a function of ``num_update`` alone: asked again, or asked out of order, it gives the
same rate for the same number. MXNet's count and decay in place, so there the rate depends on who asked
before; asked in order, both give the same rates.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from dmod.base import InvalidArgument
from dmod.registry import Registry

__all__ = [
    "CosineScheduler",
    "FactorScheduler",
    "LRScheduler",
    "MultiFactorScheduler",
    "NotSerializable",
    "PolyScheduler",
    "register",
    "schedule_from_config",
]

_registry = Registry("learning rate schedule")


class NotSerializable(InvalidArgument):
    """An optimizer or schedule that cannot be described by a registered name and plain values."""


def register(klass: type[LRScheduler]) -> type[LRScheduler]:
    """Register a schedule under its class name, for `schedule_from_config`; usable as a decorator.

    A schedule of one's own that also sets ``portable = True`` may run inside server processes, which must
    then import the module that registers it.
    """
    _registry.register(klass)
    return klass


class LRScheduler:
    """Base of all schedules: a warm-up, then what a subclass computes.

    Parameters
    ----------
    base_lr : float
        The learning rate after the warm-up.
    warmup_steps : int
        How many updates the warm-up takes.
    warmup_begin_lr : float
        The rate at which it begins.
    warmup_mode : {'linear', 'constant'}
        Rise to `base_lr` in a line, or stay at `warmup_begin_lr`.
    """

    portable: ClassVar[bool] = False
    """Whether class name and plain values describe an instance; not inherited."""
    state_attributes: ClassVar[tuple[str, ...]] = ("warmup_final_lr",)
    """What `to_config` keeps besides the constructor's arguments."""

    def __init__(
        self,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ):
        name = type(self).__name__
        if not isinstance(warmup_steps, int) or warmup_steps < 0:
            raise InvalidArgument(f"{name}: warmup_steps={warmup_steps!r}, expected a whole number from 0")
        if warmup_begin_lr > base_lr:
            raise InvalidArgument(f"{name}: warmup_begin_lr={warmup_begin_lr!r} is above base_lr={base_lr!r}")
        if warmup_mode not in ("linear", "constant"):
            raise InvalidArgument(f"{name}: warmup_mode={warmup_mode!r}, expected 'linear' or 'constant'")
        self.base_lr = base_lr
        self.warmup_steps = warmup_steps
        self.warmup_begin_lr = warmup_begin_lr
        self.warmup_final_lr = base_lr
        self.warmup_mode = warmup_mode

    def get_warmup_lr(self, num_update: int) -> float:
        """The rate at `num_update`, which lies within the warm-up."""
        if num_update >= self.warmup_steps:
            raise InvalidArgument(f"get_warmup_lr({num_update}): the warm-up ends at {self.warmup_steps}")
        if self.warmup_mode == "constant":
            return self.warmup_begin_lr
        rise = (self.warmup_final_lr - self.warmup_begin_lr) * float(num_update) / float(self.warmup_steps)
        return self.warmup_begin_lr + rise

    def __call__(self, num_update: int) -> float:
        """The learning rate for update number `num_update`, counted from 1."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(num_update)")

    def _constructor_arguments(self) -> dict[str, Any]:
        return {
            "base_lr": self.base_lr,
            "warmup_steps": self.warmup_steps,
            "warmup_begin_lr": self.warmup_begin_lr,
            "warmup_mode": self.warmup_mode,
        }

    def to_config(self) -> dict[str, Any]:
        """Describe the schedule by registered name and plain values.

        Raises
        ------
        NotSerializable
            The class is not registered, or not marked `portable`.
        """
        name = type(self).__name__
        if (
            not type(self).__dict__.get("portable")
            or name not in _registry
            or _registry.get(name) is not type(self)
        ):
            raise NotSerializable(
                f"learning rate schedule {name}: not registered with dmod.lr_scheduler.register"
            )
        state = {attribute: getattr(self, attribute) for attribute in self.state_attributes}
        return {"name": name, "params": self._constructor_arguments(), "state": state}


def schedule_from_config(config: Any) -> LRScheduler:
    """The schedule that `LRScheduler.to_config` described; makes registered, portable classes only."""
    if not isinstance(config, Mapping) or not isinstance(config.get("name"), str):
        raise InvalidArgument(f"not a learning rate schedule: {config!r}")
    klass = _registry.get(config["name"])
    if not klass.__dict__.get("portable"):
        raise InvalidArgument(f"learning rate schedule {config['name']!r} is not portable")
    params, state = config.get("params", {}), config.get("state", {})
    if not isinstance(params, Mapping) or not isinstance(state, Mapping):
        raise InvalidArgument(f"learning rate schedule {config['name']!r}: params and state must be maps")
    try:
        schedule: LRScheduler = klass(**params)
    except TypeError as error:
        raise InvalidArgument(f"learning rate schedule {config['name']!r}: {error}") from None
    for attribute in schedule.state_attributes:
        if attribute in state:
            setattr(schedule, attribute, _number(config["name"], attribute, state[attribute]))
    return schedule


def _number(name: str, attribute: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"learning rate schedule {name!r}: {attribute}={value!r}, expected a number")
    return value


class _DecayScheduler(LRScheduler):
    """Multiplies the rate by a factor at certain updates.

    `base_lr` may be assigned at any time: the decay then goes on from that rate, as in MXNet, where it is
    the current rate. Only that needs memory: how many decays had been seen when it was assigned.
    """

    state_attributes = ("warmup_final_lr", "_anchor_lr", "_anchor_decays", "_seen")
    factor: float
    stop_factor_lr: float = 0.0
    _anchor_lr: float
    _anchor_decays: int = 0
    _seen: int = 0
    _memo: tuple[int, float] | None = None

    @property
    def base_lr(self) -> float:
        """The rate after the decays seen so far."""
        return self._after(self._seen)

    @base_lr.setter
    def base_lr(self, value: float) -> None:
        self._anchor_lr, self._anchor_decays, self._memo = value, self._seen, None

    def _decays(self, num_update: int) -> int:
        """How many decays come before update number `num_update`."""
        raise NotImplementedError

    def _after(self, decays: int) -> float:
        # Multiplied out one by one: a power would differ from MXNet's rate in the last bits.
        done, rate = self._anchor_decays, self._anchor_lr
        if self._memo is not None and self._memo[0] <= decays:
            done, rate = self._memo
        while done < decays:
            rate, done = rate * self.factor, done + 1
            if rate < self.stop_factor_lr:
                rate, done = self.stop_factor_lr, decays
        self._memo = (done, rate)
        return rate

    def __call__(self, num_update: int) -> float:
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        decays = self._decays(num_update)
        self._seen = max(self._seen, decays)
        return self._after(decays)

    def _constructor_arguments(self) -> dict[str, Any]:
        # The constructor insists that the warm-up rises, also where the rate has decayed below its begin.
        return super()._constructor_arguments() | {"factor": self.factor, "base_lr": self.warmup_final_lr}


@register
class FactorScheduler(_DecayScheduler):
    """Multiply the rate by `factor` every `step` updates.

    Parameters
    ----------
    step : int
        Updates between two decays.
    factor : float
        At most 1.
    stop_factor_lr : float
        The rate does not fall below this.
    base_lr, warmup_steps, warmup_begin_lr, warmup_mode
        See `LRScheduler`.

    Examples
    --------
    >>> schedule = FactorScheduler(step=2, factor=0.5, base_lr=1.0)
    >>> [schedule(n) for n in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    portable = True

    def __init__(
        self,
        step: int,
        factor: float = 1,
        stop_factor_lr: float = 1e-8,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ):
        if step < 1:
            raise InvalidArgument(f"FactorScheduler: step={step!r}, expected at least 1")
        if factor > 1.0:
            raise InvalidArgument(
                f"FactorScheduler: factor={factor!r}, expected at most 1: the rate would grow"
            )
        self.step, self.factor, self.stop_factor_lr = step, factor, stop_factor_lr
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)

    @property
    def count(self) -> int:
        """The update after which the last decay seen took effect."""
        return self._seen * self.step

    def _decays(self, num_update: int) -> int:
        return max(0, -(-num_update // self.step) - 1)

    def _constructor_arguments(self) -> dict[str, Any]:
        return super()._constructor_arguments() | {"step": self.step, "stop_factor_lr": self.stop_factor_lr}


@register
class MultiFactorScheduler(_DecayScheduler):
    """Multiply the rate by `factor` after each of the updates listed in `step`.

    Parameters
    ----------
    step : list of int
        Rising numbers of updates.
    factor, base_lr, warmup_steps, warmup_begin_lr, warmup_mode
        See `FactorScheduler`.

    Examples
    --------
    >>> schedule = MultiFactorScheduler(step=[2, 3], factor=0.5, base_lr=1.0)
    >>> [schedule(n) for n in (1, 2, 3, 4, 5)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    portable = True

    def __init__(
        self,
        step: Sequence[int],
        factor: float = 1,
        base_lr: float = 0.01,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ):
        steps = list(step) if isinstance(step, list | tuple) else []
        if not steps or steps[0] < 1 or any(low >= high for low, high in pairwise(steps)):
            raise InvalidArgument(
                f"MultiFactorScheduler: step={step!r}, expected a rising list of numbers from 1"
            )
        if factor > 1.0:
            raise InvalidArgument(
                f"MultiFactorScheduler: factor={factor!r}, expected at most 1: the rate would grow"
            )
        self.step, self.factor = steps, factor
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)

    @property
    def count(self) -> int:
        """The update after which the last decay seen took effect."""
        return self.step[self._seen - 1] if self._seen else 0

    @property
    def cur_step_ind(self) -> int:
        """The next entry of `step`."""
        return self._seen

    def _decays(self, num_update: int) -> int:
        return bisect_left(self.step, num_update)

    def _constructor_arguments(self) -> dict[str, Any]:
        return super()._constructor_arguments() | {"step": list(self.step)}


class _AnnealingScheduler(LRScheduler):
    """Falls from the first rate to `final_lr` within ``max_update`` updates, then stays there."""

    state_attributes = ("warmup_final_lr", "base_lr")

    def __init__(
        self,
        max_update: int,
        base_lr: float,
        final_lr: float,
        warmup_steps: int,
        warmup_begin_lr: float,
        warmup_mode: str,
    ):
        super().__init__(base_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        if not isinstance(max_update, int) or max_update < 1:
            raise InvalidArgument(f"{type(self).__name__}: max_update={max_update!r}, expected at least 1")
        self.base_lr_orig = base_lr
        self.max_update = max_update
        self.final_lr = final_lr
        self.max_steps = max_update - warmup_steps

    def _share(self, steps: int) -> float:
        """The share of the way still to go after so many of the `max_steps`."""
        raise NotImplementedError

    def __call__(self, num_update: int) -> float:
        if num_update < self.warmup_steps:
            return self.get_warmup_lr(num_update)
        steps = min(num_update, self.max_update) - self.warmup_steps
        self.base_lr = self.final_lr + (self.base_lr_orig - self.final_lr) * (
            self._share(steps) if self.max_steps > 0 else 0.0
        )
        return self.base_lr

    def _constructor_arguments(self) -> dict[str, Any]:
        return super()._constructor_arguments() | {
            "max_update": self.max_update,
            "final_lr": self.final_lr,
            "base_lr": self.base_lr_orig,
        }


@register
class PolyScheduler(_AnnealingScheduler):
    """Fall from `base_lr` to `final_lr` along a power of the share of updates still to go.

    Parameters
    ----------
    max_update : int
        The update at which `final_lr` is reached.
    base_lr : float
    pwr : int
        The power; 1 falls in a line.
    final_lr : float
    warmup_steps, warmup_begin_lr, warmup_mode
        See `LRScheduler`.
    """

    portable = True

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        pwr: float = 2,
        final_lr: float = 0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ):
        super().__init__(max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode)
        self.power = pwr

    def _share(self, steps: int) -> float:
        return (1 - steps / self.max_steps) ** self.power

    def _constructor_arguments(self) -> dict[str, Any]:
        return super()._constructor_arguments() | {"pwr": self.power}


@register
class CosineScheduler(_AnnealingScheduler):
    """Fall from `base_lr` to `final_lr` along half a cosine (Loshchilov and Hutter, 2017, without restarts).

    Parameters
    ----------
    max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode
        See `PolyScheduler`.
    """

    portable = True

    def __init__(
        self,
        max_update: int,
        base_lr: float = 0.01,
        final_lr: float = 0,
        warmup_steps: int = 0,
        warmup_begin_lr: float = 0,
        warmup_mode: str = "linear",
    ):
        super().__init__(max_update, base_lr, final_lr, warmup_steps, warmup_begin_lr, warmup_mode)

    def _share(self, steps: int) -> float:
        return (1 + math.cos(math.pi * steps / self.max_steps)) / 2
