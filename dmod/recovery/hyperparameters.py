"""What a training is told to learn with: noted in a checkpoint, and compared when it goes on.

A run is told by its arguments, so those given now count, with a warning if they differ. What the training
itself has changed since, such as a callback that lowers the learning rate, is put back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmod.lr_scheduler import NotSerializable
from dmod.recovery.snapshot import Trainable

__all__ = ["BATCH_SIZE", "OPTIMIZER", "Hyperparameters", "differing"]

OPTIMIZER, BATCH_SIZE = "optimizer", "batch_size"
_FOLLOWS = "rescale_grad"  # from the batch size and the number of workers, which are compared themselves
_ATTRIBUTES = {"learning_rate": "lr"}
_PLAIN = (bool, int, float, str, type(None))


class Hyperparameters:
    """Those of a training that begins, or goes on.

    Parameters
    ----------
    module : BaseModule
        With its optimizer.
    train_data : DataIter

    Attributes
    ----------
    given : dict of str to bool, int, float, str or None
    """

    def __init__(self, module: Trainable, train_data: Any):
        self.given: dict[str, Any] = {BATCH_SIZE: int(getattr(train_data, "batch_size", 0) or 0)}
        self._watched: list[tuple[Any, dict[str, Any]]] = []
        for number, learner in enumerate(module.learners):
            optimizer = learner.optimizer
            params, others = _described(optimizer)
            prefix = f"module {number} " if number else ""
            told = {OPTIMIZER: type(optimizer).__name__, **params, **others}
            self.given.update({prefix + name: value for name, value in told.items() if name != _FOLLOWS})
            self._watched.append((optimizer, params))

    def changed(self) -> list[dict[str, Any]]:
        """What the training has changed since, of each learner's optimizer."""
        return [
            {name: now for name, then in params.items() if (now := _value(optimizer, name)) != then}
            for optimizer, params in self._watched
        ]

    def put_back(self, given: Mapping[str, Any], changed: list[dict[str, Any]]) -> None:
        """Set what had been changed, as far as the same was given then."""
        for number, ((optimizer, _), values) in enumerate(zip(self._watched, changed, strict=False)):
            prefix = f"module {number} " if number else ""
            for name, value in values.items():
                if given.get(prefix + name) == self.given.get(prefix + name):
                    setattr(optimizer, _ATTRIBUTES.get(name, name), value)


def _described(optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plain numbers of an optimizer, and what else it was told, as text."""
    try:
        config = optimizer.to_config()
    except NotSerializable:  # one of the user's own: what all optimizers have
        return {"learning_rate": _value(optimizer, "learning_rate"), "wd": _value(optimizer, "wd")}, {}
    others = {kind: str(dict(config[kind])) for kind in ("lr_mult", "wd_mult") if config[kind]}
    schedule = config["lr_scheduler"]
    if schedule is not None:
        arguments = ", ".join(f"{name}={value}" for name, value in schedule["params"].items())
        others["lr_scheduler"] = f"{schedule['name']}({arguments})"
    return dict(config["params"]), others


def _value(optimizer: Any, name: str) -> Any:
    value = getattr(optimizer, _ATTRIBUTES.get(name, name), None)
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, _PLAIN) else None


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """What differs, by name, as text with both values.

    Examples
    --------
    >>> differing({'wd': 0.0, 'momentum': 0.9}, {'wd': 0.0, 'momentum': 0.5})
    {'momentum': 'momentum 0.9 then, 0.5 now'}
    """
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return {name: f"{name} {then.get(name, 'none')} then, {now.get(name, 'none')} now" for name in names}
