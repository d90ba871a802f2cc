"""What the workers of test_optimizers.py run: ``optimizers.py PREFIX RANK KVSTORE``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import dmod as mx

# Those that run in the workers come first: the servers have no optimizer yet.
NAMES = [
    "lars", "lbsgd", "lamb", "sgld",
    "nag", "signum", "ftml", "dcasgd", "adam", "adagrad", "adadelta", "rmsprop", "ftrl", "adamax", "nadam",
]  # fmt: skip
BATCH, COUNT, WORKERS = 8, 3, 2


def rows(rank: int) -> np.ndarray:
    """A worker's rows; both workers' batches, side by side, for a rank that is neither."""
    if rank < WORKERS:
        return np.random.RandomState(rank).randn(COUNT, BATCH, 6).reshape(-1, 6)
    both = [rows(r).reshape(COUNT, BATCH, 6) for r in range(WORKERS)]
    return np.concatenate(both, axis=1).reshape(-1, 6)


def train(name: str, kvstore: object, rank: int) -> dict[str, np.ndarray]:
    """The weights after an epoch."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=16, name="fc1")
    net = mx.sym.Activation(net, act_type="relu")
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=3, name="fc2"), name="softmax")
    devices = 1 if rank < WORKERS else WORKERS
    mx.random.seed(1)
    data = rows(rank)
    train_iter = mx.io.NDArrayIter(data, data[:, :3].argmax(1), BATCH * devices)
    module = mx.mod.Module(net, context=[mx.cpu(i) for i in range(devices)])
    options = {"learning_rate": 0.01, "wd": 0.01}
    initializer = mx.init.Xavier()
    module.fit(
        train_iter, num_epoch=1, kvstore=kvstore, optimizer=name, optimizer_params=options,
        initializer=initializer,
    )  # fmt: skip
    return {key: value.asnumpy() for key, value in module.get_params()[0].items()}


if __name__ == "__main__":
    prefix, rank = Path(sys.argv[1]), int(sys.argv[2])
    store = mx.kv.create("dist_sync") if rank < WORKERS else "local"
    trained = {f"{n} {k}": v for n in NAMES for k, v in train(n, store, rank).items()}
    np.savez(f"{prefix}{rank}.npz", **trained)
