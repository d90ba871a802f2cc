"""Making the store and the optimizer that a module is told of by name."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import dmod.kvstore as kvs
import dmod.optimizer as opt
from dmod.base import InvalidArgument
from dmod.symbol import Symbol

__all__ = ["create_optimizer", "create_store", "note_installed"]


def create_store(kvstore: Any, num_devices: int) -> kvs.KVStore | None:
    """The store for `num_devices` devices; None where there is nothing to share."""
    if kvstore is None or isinstance(kvstore, kvs.KVStore):
        if kvstore is None and num_devices > 1:
            return kvs.create("local")
        return kvstore
    if not isinstance(kvstore, str):
        raise InvalidArgument(f"kvstore: expected a name, a KVStore or None, got {type(kvstore).__name__}")
    if num_devices == 1 and not kvs.KVStoreType.parse(kvstore).distributed:
        return None
    return kvs.create(kvstore)


_INSTALLED: weakref.WeakKeyDictionary[kvs.KVStore, tuple[weakref.ref[Any], str]] = weakref.WeakKeyDictionary()
"""Which module has given each store its optimizer, and which one."""
_TOLD = ("learning_rate", "momentum", "wd", "rescale_grad", "clip_gradient")
"""The parameters of an optimizer by which it is told from others."""


def note_installed(module: Any, store: kvs.KVStore, optimizer: opt.Optimizer, logger: Any) -> None:
    """A module has given a store its optimizer: warn if another module, which is there, has given another."""
    try:
        params = optimizer.to_config()["params"]
    except opt.NotSerializable:
        params = {}
    told = ", ".join(f"{name}={params[name]!r}" for name in _TOLD if params.get(name) is not None)
    own = f"{type(optimizer).__name__}({told})"
    other, others = _INSTALLED.get(store, (None, own))
    if other is not None and other() not in (None, module) and others != own:
        logger.warning(
            "init_optimizer: this store now updates the parameters of all its modules by %s, also those of "
            "the module that had asked for %s; with DMOD_UPDATE_ON_KVSTORE=0 each has its own optimizer",
            own,
            others,
        )
    _INSTALLED[store] = weakref.ref(module), own


def create_optimizer(
    optimizer: Any,
    params: Any,
    store: kvs.KVStore | None,
    batch_size: int,
    symbol: Symbol,
    param_names: Sequence[str],
    logger: Any,
) -> opt.Optimizer:
    """The optimizer, which knows the names of the parameters.

    Parameters
    ----------
    optimizer : str or Optimizer
        One that is made from a name takes the mean of the gradients over all samples of a step.
    params : dict, or sequence of pairs
    store : KVStore or None
    batch_size : int
        The samples of this worker's batch.
    symbol : Symbol
    param_names : list of str
    logger : logging.Logger
        Is warned of a scale that does not fit the samples.
    """
    samples = batch_size * (store.num_workers if store is not None else 1)
    names = dict(enumerate(param_names))
    if isinstance(optimizer, str):
        arguments = dict(params)
        if store is not None and store.asynchronous:
            samples //= store.num_workers  # each worker's push is an update of its own
        arguments.setdefault("rescale_grad", 1.0 / samples)
        return opt.create(optimizer, sym=symbol, param_idx2name=names, **arguments)
    if not isinstance(optimizer, opt.Optimizer):
        raise InvalidArgument(f"optimizer: expected a name or an Optimizer, got {type(optimizer).__name__}")
    if optimizer.rescale_grad != 1.0 / samples:
        logger.warning(
            "The optimizer's rescale_grad is %g, not 1/%d for the samples of a step; is this meant?",
            optimizer.rescale_grad,
            samples,
        )
    if not optimizer.idx2name:
        optimizer.idx2name = names
    return optimizer
