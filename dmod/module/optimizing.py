"""Making the store and the optimizer that a module is told of by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dmod.kvstore as kvs
import dmod.optimizer as opt
from dmod.base import InvalidArgument
from dmod.symbol import Symbol

__all__ = ["create_optimizer", "create_store"]


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
