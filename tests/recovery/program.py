"""A training that recovery is tested on: batch norm, dropout, momentum, a schedule, shuffled data.

As a script, it is what every worker of a job runs: ``program.py DIRECTORY [KILL_RANK KILL_AT [KIND]]`` kills
worker KILL_RANK with signal 9 after KILL_AT batches, on the job's first start. It prints the digest of the
result. KIND '2bit' is with gradient compression and fewer batches for worker 1; 'async' is with 'dist_async',
and fewer batches likewise.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import dmod as mx

ROWS, FEATURES, CLASSES, BATCH, EPOCHS = 300, 20, 10, 32, 3


class Stopped(Exception):
    """The training was cut short."""


def network(hidden: int = 32) -> mx.Symbol:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=hidden, name="fc1")
    net = mx.sym.Activation(mx.sym.BatchNorm(net, name="bn"), act_type="relu", name="relu")
    net = mx.sym.FullyConnected(mx.sym.Dropout(net, p=0.3, name="drop"), num_hidden=CLASSES, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def seed() -> None:
    mx.random.seed(3)
    np.random.seed(4)
    random.seed(5)


def iterator(rank: int = 0, workers: int = 1, less: int = 0) -> Any:
    """`less`: how many rows worker 1 has less."""
    x = np.random.randn(ROWS * workers, FEATURES).astype("float32")
    y = np.random.randint(0, CLASSES, len(x)).astype("float32")
    rows = slice(rank, len(x) - less * workers if rank == 1 else None, workers)
    return mx.io.NDArrayIter(x[rows], y[rows], BATCH, shuffle=True, last_batch_handle="roll_over")


def digest(module: Any) -> str:
    arg_params, aux_params = module.get_params()
    found = hashlib.sha256()
    for _, value in sorted({**arg_params, **aux_params}.items()):
        found.update(value.asnumpy().tobytes())
    return found.hexdigest()[:16]


def stop_after(batches: int) -> Callable[[Any], None]:
    left = iter(range(batches - 1))

    def callback(param: Any) -> None:
        if next(left, None) is None:
            raise Stopped

    return callback


def manager(directory: Path, **options: Any) -> mx.CheckpointManager:
    return mx.CheckpointManager(directory, **{"every_n_batches": 3, "max_overhead": None, **options})


def train(
    checkpoint: Any = None,
    callback: Any = None,
    devices: int = 1,
    optimizer: str = "sgd",
    wrap: Callable[[Any], Any] = lambda it: it,
    kvstore: Any = "local",
    hidden: int = 32,
    less: int = 0,
    compression: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[str, Any]:
    """Train; returns the digest of the parameters, and the metric's last value."""
    seed()
    store = mx.kv.create(kvstore)
    data = wrap(iterator(store.rank, store.num_workers, less))
    params: dict[str, Any] = {"learning_rate": 0.1}
    if optimizer == "sgd":
        params |= {"momentum": 0.9, "lr_scheduler": mx.lr_scheduler.FactorScheduler(7, 0.9, base_lr=0.1)}
    contexts = [mx.cpu(i) for i in range(devices)]
    module = mx.mod.Module(network(hidden), context=contexts, compression_params=compression)
    metric = mx.metric.create(["acc", "ce"])
    callbacks: Sequence[Any] = [callback] if callback else []
    module.fit(
        data,
        num_epoch=EPOCHS,
        kvstore=store,
        optimizer=optimizer,
        optimizer_params=params,
        initializer=mx.init.Xavier(),
        eval_metric=metric,
        batch_end_callback=callbacks,
        checkpoint=checkpoint,
        **options,
    )
    return digest(module), metric.get()[1]


def main(directory: str, kill_rank: str = "-1", kill_at: str = "0", kind: str = "sync") -> None:
    logging.basicConfig(level=logging.INFO)
    rank, done = int(os.environ["DMLC_WORKER_ID"]), 0
    first = os.environ.get("DMOD_RESTART", "0") == "0"

    def count(param: Any) -> None:
        nonlocal done
        done += 1
        if first and rank == int(kill_rank) and done == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    path = Path(directory)
    if path.name == "by-rank":  # as on hosts that share no file system
        path = path.with_name(str(rank))
    checkpoint = None if directory == "none" else manager(path)
    options: dict[str, Any] = {"kvstore": "dist_async" if kind == "async" else "dist_sync"}
    if kind != "sync":
        options |= {"less": 2 * BATCH}
    if kind == "2bit":
        options |= {"compression": {"type": "2bit", "threshold": 0.02}}
    print("digest", train(checkpoint, count, **options)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
