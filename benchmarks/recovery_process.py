"""Trains a network of 100 MB for 300 steps, and prints how long that took; for `recovery.py --cost`.

python benchmarks/recovery_process.py [--checkpoint DIRECTORY]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import dmod as mx

HIDDEN, LAYERS, BATCH, STEPS, PERIOD = 1600, 10, 64, 300, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint")
    args = parser.parse_args()
    net = mx.sym.Variable("data")
    for number in range(LAYERS):
        net = mx.sym.FullyConnected(net, num_hidden=HIDDEN, name=f"fc{number}")
        net = mx.sym.Activation(net, act_type="relu", name=f"relu{number}")
    net = mx.sym.FullyConnected(net, num_hidden=10, name="head")
    data = np.random.RandomState(0).randn(BATCH * STEPS, HIDDEN).astype("float32")
    label = np.zeros(len(data), "float32")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    started: list[float] = []
    manager = None
    if args.checkpoint:
        manager = mx.CheckpointManager(
            args.checkpoint, every_n_epochs=None, every_n_batches=PERIOD, max_overhead=None
        )
    module.fit(
        mx.io.NDArrayIter(data, label, BATCH),
        num_epoch=1,
        optimizer_params={"learning_rate": 0.001, "momentum": 0.9},
        initializer=mx.init.Xavier(),
        batch_end_callback=lambda param: started or started.append(time.monotonic()),
        checkpoint=manager,
    )
    print(f"{STEPS} steps in {time.monotonic() - started[0]:.3f} s")


if __name__ == "__main__":
    main()
