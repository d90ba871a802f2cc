"""dmod: data-parallel training with a parameter server, by MXNet's Symbol, Module and KVStore API.

``import dmod as mx`` is the one line that a user changes. Importing starts nothing.
"""

from __future__ import annotations

from dmod import (
    attribute,
    base,
    callback,
    context,
    engine,
    executor,
    image,
    initializer,
    io,
    kvstore,
    log,
    lr_scheduler,
    metric,
    model,
    module,
    monitor,
    name,
    ndarray,
    operator,
    optimizer,
    profiler,
    random,
    recordio,
    recovery,
    registry,
    rnn,
    scope,
    symbol,
    test_utils,
    visualization,
)
from dmod.attribute import AttrScope
from dmod.base import MXNetError
from dmod.context import Context, cpu, cpu_pinned, current_context, gpu, num_gpus
from dmod.executor import Executor
from dmod.monitor import Monitor
from dmod.name import NameManager, Prefix
from dmod.ndarray import NDArray
from dmod.recovery import CheckpointManager
from dmod.symbol import Symbol

img = image
init = initializer
kv = kvstore
mod = module
mon = monitor
nd = ndarray
opt = optimizer
rnd = random
sym = symbol
viz = visualization

scope.refuse_imports("dmod")

__version__ = "0.1.0"

__all__ = [
    "AttrScope",
    "CheckpointManager",
    "Context",
    "Executor",
    "MXNetError",
    "Monitor",
    "NDArray",
    "NameManager",
    "Prefix",
    "Symbol",
    "attribute",
    "base",
    "callback",
    "context",
    "cpu",
    "cpu_pinned",
    "current_context",
    "engine",
    "executor",
    "gpu",
    "image",
    "img",
    "init",
    "initializer",
    "io",
    "kv",
    "kvstore",
    "log",
    "lr_scheduler",
    "metric",
    "mod",
    "model",
    "module",
    "mon",
    "monitor",
    "name",
    "nd",
    "ndarray",
    "num_gpus",
    "operator",
    "opt",
    "optimizer",
    "profiler",
    "random",
    "recordio",
    "recovery",
    "rnd",
    "rnn",
    "sym",
    "symbol",
    "test_utils",
    "visualization",
    "viz",
]


def __getattr__(name: str) -> object:
    if name in scope.OUT_OF_SCOPE:
        raise AttributeError(scope.why_not("dmod", name))
    raise AttributeError(f"module 'dmod' has no attribute {name!r}{registry.nearest(name, __all__)}")
