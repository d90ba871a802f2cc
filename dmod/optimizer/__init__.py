"""Optimizers, and what applies them: `Updater` array by array, `FlatUpdater` to whole buffers."""

from __future__ import annotations

from dmod.optimizer.flat import FlatUpdater, supports_flat
from dmod.optimizer.optimizer import NotSerializable, Optimizer, create, from_config, register
from dmod.optimizer.sgd import NAG, SGD, ccSGD
from dmod.optimizer.states import OptimizerStates, StateEntry
from dmod.optimizer.updater import Updater, get_updater

__all__ = [
    "NAG",
    "SGD",
    "FlatUpdater",
    "NotSerializable",
    "Optimizer",
    "OptimizerStates",
    "StateEntry",
    "Updater",
    "ccSGD",
    "create",
    "from_config",
    "get_updater",
    "register",
    "supports_flat",
]
