"""Find a learning rate and a size for a network on handwritten digits, many trainings at a time, on Ray.

    python examples/ray_sweep.py
    python examples/ray_sweep.py --scheduler asha --num-epochs 20
    dmod-sweep examples/ray_sweep.py --set 'lr=loguniform(0.001, 1)' --set hidden=8,32 --set epochs=5

Needs ``pip install 'dmod[ray,examples]'``.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import dmod as mx
import dmod_launch


def train(config: dict[str, Any]) -> float:
    """One training with the given settings; returns the accuracy on digits that were held out."""
    mx.random.seed(0)
    np.random.seed(0)
    digits = load_digits()
    order = np.random.RandomState(0).permutation(len(digits.data))
    data, label = digits.data[order].astype("float32") / 16, digits.target[order].astype("float32")
    split = len(data) * 8 // 10
    validation = mx.io.NDArrayIter(data[split:], label[split:], 64)

    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=config["hidden"], name="fc1")
    net = mx.sym.FullyConnected(mx.sym.Activation(net, act_type="relu"), num_hidden=10, name="fc2")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    module.fit(
        mx.io.NDArrayIter(data[:split], label[:split], 64, shuffle=True),
        eval_data=validation,
        optimizer="sgd",
        optimizer_params={"learning_rate": config["lr"], "momentum": 0.9},
        initializer=mx.init.Xavier(),
        num_epoch=config["epochs"],
        **dmod_launch.reporting(),  # every epoch, so that trials that are behind can be stopped
    )
    return dict(module.score(validation, "acc"))["accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--address", help="of a Ray cluster; default: a new one on this machine")
    parser.add_argument("--scheduler", choices=["fifo", "asha"], default="fifo", help="default: %(default)s")
    parser.add_argument("--num-epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--max-concurrent", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.001, 0.01, 0.1, 0.5])
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--results", default="~/ray_results", help="default: %(default)s")
    args = parser.parse_args()

    from ray import tune

    found = dmod_launch.sweep(
        train,
        {
            "lr": tune.grid_search(args.rates),
            "hidden": tune.grid_search(args.sizes),
            "epochs": args.num_epochs,
        },
        scheduler=args.scheduler,
        max_concurrent=args.max_concurrent,
        storage_path=args.results,
        address=args.address,
    )
    print(found)
    print(f"Best: {found.best.config}")
    print(f"Written: {', '.join(map(str, found.save()))}")


if __name__ == "__main__":
    main()
