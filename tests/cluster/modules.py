"""What the workers of test_modules.py run: ``modules.py NAME DIRECTORY ARGUMENTS...``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import dmod as mx

FEATURES, CLASSES, BATCH = 6, 3, 8


def network(num_hidden: int = 16, p: float = 0.0) -> mx.sym.Symbol:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=num_hidden, name="fc1")
    net = mx.sym.BatchNorm(net, fix_gamma=False, name="bn")
    net = mx.sym.Dropout(mx.sym.Activation(net, act_type="relu"), p=p)
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=CLASSES, name="fc2"), name="softmax")


def batches(count: int, rank: int) -> mx.io.NDArrayIter:
    rng = np.random.RandomState(rank)
    data = rng.randn(count * BATCH, FEATURES)
    return mx.io.NDArrayIter(data, data[:, :CLASSES].argmax(1), BATCH)


OPTIMIZER = {"learning_rate": 0.1, "momentum": 0.9}


def save(module: mx.mod.Module, path: Path) -> None:
    args, aux = module.get_params()
    np.savez(path, **{name: array.asnumpy() for name, array in {**args, **aux}.items()})


def unequal(directory: Path, *counts: str) -> None:
    """Every worker has another number of batches."""
    kv = mx.kv.create("dist_sync")
    mx.random.seed(1)
    module = mx.mod.Module(network(p=0.2))
    train = batches(int(counts[kv.rank]), kv.rank)
    module.fit(train, num_epoch=3, kvstore=kv, initializer=mx.init.Xavier(), optimizer_params=OPTIMIZER)
    save(module, directory / f"unequal{kv.rank}.npz")


def train(directory: Path, name: str, begin: str, end: str) -> None:
    """Epochs `begin` to `end`, from the checkpoint of `begin` if there is one; a checkpoint at the end."""
    kv = mx.kv.create("dist_sync")
    mx.random.seed(1)
    prefix = str(directory / f"checkpoint{kv.rank}")
    if int(begin):
        module = mx.mod.Module.load(prefix, int(begin), load_optimizer_states=True)
    else:
        module = mx.mod.Module(network())
    module.fit(
        batches(4, kv.rank),
        begin_epoch=int(begin),
        num_epoch=int(end),
        kvstore=kv,
        initializer=mx.init.Xavier(),
        optimizer_params=OPTIMIZER,
    )
    module.save_checkpoint(prefix, int(end), save_optimizer_states=True)
    save(module, directory / f"{name}{kv.rank}.npz")
    kv.barrier()  # nobody leaves while another still gathers states


def symbols(directory: Path) -> None:
    """Workers whose networks differ in a layer's width."""
    kv = mx.kv.create("dist_sync")
    module = mx.mod.Module(network(16 + kv.rank))
    module.fit(batches(2, kv.rank), num_epoch=1, kvstore=kv)


def twice(directory: Path) -> None:
    """Two modules one after the other, each asking for the store by name."""
    for i in range(2):
        mx.random.seed(1)
        module = mx.mod.Module(network(16 + i))
        rank = mx.kv.create("dist_sync").rank
        module.fit(batches(3, rank), num_epoch=2, kvstore="dist_sync", optimizer_params=OPTIMIZER)
        save(module, directory / f"twice{i}{rank}.npz")


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
