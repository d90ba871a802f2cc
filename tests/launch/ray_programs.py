"""What the jobs and trials of the Ray tests run; imports little, since each is a process of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

import dmod as mx
import dmod_launch


def recover(config: dict[str, str]) -> str:
    """The training of tests/recovery; its first run waits, after an epoch, until its node is lost."""
    from tests.recovery import program

    def wait(epoch: int, *parameters: object) -> None:
        if epoch == 1 and os.environ["DMOD_RESTART"] == "0":
            actor = parent_of(os.getppid())
            said = Path(config["directory"], f"{dmod_launch.get_context().rank}.node")
            said.with_suffix(".part").write_text(str(parent_of(actor)))
            said.with_suffix(".part").rename(said)
            time.sleep(600)

    arguments = dmod_launch.reporting({"every_n_batches": 3, "max_overhead": None}, epoch_end_callback=wait)
    return program.train(arguments.pop("checkpoint"), kvstore="dist_sync", **arguments)[0]


def digits(config: dict[str, Any]) -> float:
    """Two epochs or more on digits; returns the validation accuracy. May be killed once, in the second.

    Parameters
    ----------
    config : dict
        'data': a file with the digits; 'lr', 'epochs'; 'kill': which process, if any, and 'markers': a
        directory in which that is noted.
    """
    if config["lr"] < 0:
        raise ValueError("this way leads up")
    mx.random.seed(0)
    np.random.seed(0)
    kv = mx.kv.create("dist_sync" if dmod_launch.get_context().num_workers > 1 else "local")
    with np.load(config["data"]) as found:
        data, label = found["data"], found["label"]
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
        num_epoch=config.get("epochs", 2),
        batch_end_callback=kill,
        **dmod_launch.reporting(),
    )
    return dict(module.score(validation, "acc"))["accuracy"]


def digits_of(config: dict[str, Any]) -> float:
    """`digits`, with settings that are drawn together."""
    return digits(config["setting"])


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
