"""Train on handwritten digits with two workers on Ray, from Python.

    python examples/ray_fit.py
    python examples/ray_fit.py --address ray://head-node:10001 --num-workers 8 --results /shared/results

Without an address a Ray of its own is started on this machine. Needs ``pip install 'dmod[ray,examples]'``.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import dmod as mx
import dmod_launch


def network(hidden: int) -> mx.sym.Symbol:
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=hidden, name="fc1")
    net = mx.sym.Activation(net, act_type="relu", name="relu1")
    net = mx.sym.FullyConnected(net, num_hidden=10, name="fc2")
    return mx.sym.SoftmaxOutput(net, name="softmax")


def train(config: dict[str, Any]) -> float:
    """What every worker runs; returns the accuracy on digits that were held out."""
    kv = mx.kv.create("dist_sync" if dmod_launch.get_context().num_workers > 1 else "local")
    mx.random.seed(config["seed"])
    np.random.seed(config["seed"] + kv.rank)
    digits = load_digits()
    data, label = digits.data.astype("float32") / 16, digits.target.astype("float32")
    order = np.random.RandomState(config["seed"]).permutation(len(data))  # the same split on all workers
    split = len(data) * 8 // 10
    mine, held_out = order[:split][kv.rank :: kv.num_workers], order[split:]
    batch_size = config["batch_size"]
    module = mx.mod.Module(network(config["hidden"]))
    validation = mx.io.NDArrayIter(data[held_out], label[held_out], batch_size)
    module.fit(
        mx.io.NDArrayIter(data[mine], label[mine], batch_size, shuffle=True),
        eval_data=validation,
        eval_metric=["acc", "ce"],
        kvstore=kv,
        optimizer="sgd",
        optimizer_params={"learning_rate": config["lr"], "momentum": config["momentum"]},
        initializer=mx.init.Xavier(),
        num_epoch=config["epochs"],
        **dmod_launch.reporting(),  # reports every epoch, and takes checkpoints
    )
    return dict(module.score(validation, "acc"))["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="of a Ray cluster; default: a new one on this machine")
    parser.add_argument("--num-workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--num-epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--results", help="a directory that all nodes share; default: ~/ray_results")
    parser.add_argument("--name", help="of this training; the same name again goes on from its checkpoint")
    args = parser.parse_args()

    from ray.train import FailureConfig, RunConfig, ScalingConfig

    result = dmod_launch.fit(
        train,
        {"seed": 0, "hidden": 64, "batch_size": 32, "lr": 0.1, "momentum": 0.9, "epochs": args.num_epochs},
        ScalingConfig(num_workers=args.num_workers),
        RunConfig(name=args.name, storage_path=args.results, failure_config=FailureConfig(max_failures=3)),
        address=args.address,
    )
    print(result.metrics_dataframe[["epoch", "validation-accuracy", "validation-cross-entropy"]])
    print(f"Validation accuracy {result.return_value:.4f}; newest checkpoint: {result.checkpoint.path}")


if __name__ == "__main__":
    main()
