"""Trains 100 steps on one process with two devices, or on two workers with half of each batch each.

The network has batch normalisation and dropout, the optimizer momentum and weight decay. What comes out, all
parameters and auxiliary states, goes to the file named on the command line.
"""

from __future__ import annotations

import sys

import numpy as np

import dmod as mx

STEPS, BATCH, FEATURES, CLASSES = 100, 32, 20, 5


def network() -> mx.sym.Symbol:
    net = mx.sym.Variable("data")
    for i in (1, 2):
        net = mx.sym.FullyConnected(net, name=f"fc{i}", num_hidden=48)
        net = mx.sym.BatchNorm(net, name=f"bn{i}", fix_gamma=False)
        net = mx.sym.Activation(net, name=f"relu{i}", act_type="relu")
        net = mx.sym.Dropout(net, name=f"drop{i}", p=0.3)
    net = mx.sym.FullyConnected(net, name="fc3", num_hidden=CLASSES)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def main(kv_store: str, out: str) -> None:
    kv = mx.kv.create(kv_store)
    mx.random.seed(7)
    rng = np.random.RandomState(0)
    label = rng.randint(CLASSES, size=(STEPS, BATCH))
    data = rng.standard_normal((CLASSES, FEATURES))[label] + rng.standard_normal((STEPS, BATCH, FEATURES))
    share = BATCH // kv.num_workers
    mine = slice(kv.rank * share, (kv.rank + 1) * share)  # as a module slices a batch for its devices
    train = mx.io.NDArrayIter(
        data[:, mine].reshape(-1, FEATURES).astype("float32"),
        label[:, mine].reshape(-1).astype("float32"),
        share,
    )
    module = mx.mod.Module(network(), context=[mx.cpu(i) for i in range(2 // kv.num_workers)])
    module.fit(
        train,
        kvstore=kv,
        num_epoch=1,
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.1, "momentum": 0.9, "wd": 1e-3},
    )
    arg_params, aux_params = module.get_params()
    arrays = {name: array.asnumpy() for name, array in {**arg_params, **aux_params}.items()}
    np.savez(out.format(rank=kv.rank), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
