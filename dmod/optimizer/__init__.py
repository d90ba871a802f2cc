"""Optimizers, and what applies them: `Updater` array by array, `FlatUpdater` to whole buffers."""

from __future__ import annotations

from dmod.optimizer.adam import FTML, Adam, Adamax, Nadam
from dmod.optimizer.adaptive import AdaDelta, AdaGrad, Ftrl, RMSProp
from dmod.optimizer.flat import FlatUpdater, supports_flat
from dmod.optimizer.layerwise import LAMB, LARS, LBSGD, SGLD
from dmod.optimizer.optimizer import NotSerializable, Optimizer, create, from_config, register
from dmod.optimizer.sgd import NAG, SGD, ccSGD
from dmod.optimizer.states import OptimizerStates, StateEntry
from dmod.optimizer.updater import Updater, get_updater
from dmod.optimizer.variants import DCASGD, Signum, Test

__all__ = [
    "DCASGD",
    "FTML",
    "LAMB",
    "LARS",
    "LBSGD",
    "NAG",
    "SGD",
    "SGLD",
    "AdaDelta",
    "AdaGrad",
    "Adam",
    "Adamax",
    "FlatUpdater",
    "Ftrl",
    "Nadam",
    "NotSerializable",
    "Optimizer",
    "OptimizerStates",
    "RMSProp",
    "Signum",
    "StateEntry",
    "Test",
    "Updater",
    "ccSGD",
    "create",
    "from_config",
    "get_updater",
    "register",
    "supports_flat",
]
