"""What the jobs and trials of the Ray tests run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import dmod as mx
import dmod_launch


def recover(config: dict[str, str]) -> str:
    """The training of tests/recovery; its first run waits, after an epoch, to be cut short."""
    from tests.recovery import program

    def wait(epoch: int, *parameters: object) -> None:
        if epoch == 1 and os.environ["DMOD_RESTART"] == "0":
            Path(config["ready"]).touch()
            time.sleep(600)

    arguments = dmod_launch.reporting(
        {"every_n_batches": 3, "max_overhead": None}, **({"epoch_end_callback": wait} if config else {})
    )
    return program.train(arguments.pop("checkpoint"), kvstore="dist_sync", **arguments)[0]


def digits(config: dict[str, Any]) -> float:
    """Two epochs on digits; returns the validation accuracy. May be killed once, in the second."""
    mx.random.seed(0)
    np.random.seed(0)
    kv = mx.kv.create("dist_sync" if dmod_launch.get_context().num_workers > 1 else "local")
    found = load_digits()
    data, label = found.data.astype("float32") / 16, found.target.astype("float32")
    validation = mx.io.NDArrayIter(data[1500:], label[1500:], 64)
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=10, name="fc")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))

    def kill(param: Any) -> None:
        marker = Path(config.get("markers", "."), config.get("kill", ""))
        if config.get("kill") and param.epoch == 1 and not marker.exists():
            marker.touch()
            keeper = os.getppid()
            victim = {"process": os.getpid(), "actor": parent_of(keeper)}[config["kill"]]
            os.kill(victim, signal.SIGKILL)
            time.sleep(600)

    module.fit(
        mx.io.NDArrayIter(data[kv.rank : 1500 : kv.num_workers], label[kv.rank : 1500 : kv.num_workers], 64),
        eval_data=validation,
        kvstore=kv,
        optimizer_params={"learning_rate": config["lr"]},
        initializer=mx.init.Xavier(),
        num_epoch=2,
        batch_end_callback=kill,
        **dmod_launch.reporting(),
    )
    return dict(module.score(validation, "acc"))["accuracy"]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def climb(config: dict[str, Any]) -> None:
    """Reports what it is told to, for nine epochs."""
    if config["slope"] < 0:
        raise ValueError("this slope leads down")
    for epoch in range(9):
        dmod_launch.report({"height": config["slope"] * (epoch + 1)}, epoch)
