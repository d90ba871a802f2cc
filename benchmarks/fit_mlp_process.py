"""One process of benchmarks/fit_mlp.py: trains through `Module.fit` and writes its samples per second.

Runs under MXNet 1.9.1's Python as well as under dmod's; the first epoch warms up and isn't timed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from typing import Any

import numpy as np


def mlp(mx: Any) -> Any:
    net = mx.sym.Variable("data")
    for i, num_hidden in enumerate((128, 64), 1):
        net = mx.sym.FullyConnected(net, name=f"fc{i}", num_hidden=num_hidden)
        net = mx.sym.Activation(net, name=f"relu{i}", act_type="relu")
    net = mx.sym.FullyConnected(net, name="fc3", num_hidden=10)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", choices=["dmod", "mxnet"])
    parser.add_argument("out", help="where to write the figures, as JSON; {rank} becomes the worker's rank")
    parser.add_argument("--kv-store", default="local")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=300, help="per epoch")
    parser.add_argument("--epochs", type=int, default=10, help="timed ones")
    args = parser.parse_args()
    mx = importlib.import_module(args.package)

    kv = mx.kv.create(args.kv_store)
    rng = np.random.RandomState(kv.rank)
    count = args.batch_size * args.batches
    data = rng.standard_normal((count, 784)).astype("float32")
    label = rng.randint(10, size=count).astype("float32")
    module = mx.mod.Module(mlp(mx))
    ends: list[float] = []
    module.fit(
        mx.io.NDArrayIter(data, label, args.batch_size),
        kvstore=kv,
        optimizer_params={"learning_rate": 0.01, "momentum": 0.9},
        num_epoch=args.epochs + 1,
        epoch_end_callback=lambda *_: ends.append(time.perf_counter()),
    )
    figures = {"samples_per_s": count * args.epochs / (ends[-1] - ends[0]), "rank": kv.rank}
    with open(args.out.format(rank=kv.rank), "w", encoding="ascii") as file:
        json.dump(figures, file)


if __name__ == "__main__":
    main()
