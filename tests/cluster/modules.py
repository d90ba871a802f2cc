"""What the workers of test_modules.py run: ``modules.py NAME DIRECTORY ARGUMENTS...``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import dmod as mx
from dmod.kvstore.transports.windows import open_windows

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


def chain(directory: Path, *counts: str) -> None:
    """Two modules in a chain, with another number of batches for every worker."""
    kv = mx.kv.create("dist_sync")
    mx.random.seed(1)
    body = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=16, name="fc1")
    body = mx.sym.Dropout(mx.sym.BatchNorm(body, fix_gamma=False, name="bn"), p=0.2)
    head = mx.sym.FullyConnected(mx.sym.Variable("features"), num_hidden=CLASSES, name="fc2")
    module = mx.mod.SequentialModule()
    module.add(mx.mod.Module(body, label_names=None))
    module.add(
        mx.mod.Module(mx.sym.SoftmaxOutput(head, name="softmax"), ["features"]),
        take_labels=True,
        auto_wiring=True,
    )
    train = batches(int(counts[kv.rank]), kv.rank)
    module.fit(train, num_epoch=3, kvstore=kv, initializer=mx.init.Xavier(), optimizer_params=OPTIMIZER)
    save(module, directory / f"chain{kv.rank}.npz")


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


class Lengths(mx.io.DataIter):
    """Batches of sequences; the lengths are of another order for every worker."""

    def __init__(self, lengths: list[int], rank: int):
        super().__init__(BATCH)
        self.provide_data = [mx.io.DataDesc("data", (BATCH, max(lengths), FEATURES))]
        self.provide_label = [mx.io.DataDesc("softmax_label", (BATCH,))]
        rng = np.random.RandomState(rank)
        self.batches = [
            mx.io.DataBatch(
                [mx.nd.array(rng.randn(BATCH, n, FEATURES))],
                [mx.nd.array(rng.randint(CLASSES, size=BATCH))],
                bucket_key=n,
                provide_data=[mx.io.DataDesc("data", (BATCH, n, FEATURES))],
                provide_label=self.provide_label,
            )
            for n in lengths
        ]
        self.reset()

    def reset(self) -> None:
        self.rest = list(self.batches)

    def next(self) -> mx.io.DataBatch:
        if not self.rest:
            raise StopIteration
        return self.rest.pop(0)


def unrolled(length: int) -> tuple[mx.sym.Symbol, list[str], list[str]]:
    """A recurrent net with gates; one step of it does without the recurrent weights."""
    names = ("x_weight", "h_weight", "gate_weight")
    shared = {name: mx.sym.Variable(name) for name in names}
    data, state = mx.sym.Variable("data"), None
    for i in range(length):
        x = mx.sym.Flatten(mx.sym.slice_axis(data, axis=1, begin=i, end=i + 1))

        def dense(value: mx.sym.Symbol, name: str) -> mx.sym.Symbol:
            return mx.sym.FullyConnected(value, shared[name], num_hidden=8, no_bias=True)

        new = mx.sym.tanh(
            dense(x, "x_weight") if state is None else dense(x, "x_weight") + dense(state, "h_weight")
        )
        state = new if state is None else state + mx.sym.sigmoid(dense(x, "gate_weight")) * (new - state)
    net = mx.sym.FullyConnected(state, num_hidden=CLASSES, name="fc")
    return mx.sym.SoftmaxOutput(net, name="softmax"), ["data"], ["softmax_label"]


ORDERS = ([4, 1, 2, 3], [1, 4, 1, 2])
"""The buckets of two workers: different ones in every step, and once each without the recurrence."""


def buckets(directory: Path) -> None:
    """Two workers whose buckets differ in the same step."""
    kv = mx.kv.create("dist_sync")
    mx.random.seed(1)
    module = mx.mod.BucketingModule(unrolled, default_bucket_key=4)
    module.fit(
        Lengths(ORDERS[kv.rank], kv.rank),
        num_epoch=2,
        kvstore=kv,
        initializer=mx.init.Xavier(),
        optimizer_params=OPTIMIZER,
    )
    save(module, directory / f"buckets{kv.rank}.npz")


def twice(directory: Path) -> None:
    """Two modules one after the other, each asking for the store by name."""
    for i in range(2):
        mx.random.seed(1)
        module = mx.mod.Module(network(16 + i))
        rank = mx.kv.create("dist_sync").rank
        module.fit(batches(3, rank), num_epoch=2, kvstore="dist_sync", optimizer_params=OPTIMIZER)
        save(module, directory / f"twice{i}{rank}.npz")


def scribbles(directory: Path) -> None:
    """One worker changes its weights in the middle of an epoch; all of them when the job is over."""
    kv = mx.kv.create("dist_sync")
    mx.random.seed(1)
    module = mx.mod.Module(network(4096))

    def scribble(at: mx.model.BatchEndParam) -> None:
        if kv.rank == 0 and at.nbatch == 2:
            args, aux = module.get_params()
            module.set_params({name: 2 * array for name, array in args.items()}, aux)

    module.fit(
        batches(6, kv.rank),
        num_epoch=2,
        kvstore=kv,
        initializer=mx.init.Xavier(),
        optimizer_params=OPTIMIZER,
        batch_end_callback=scribble,
    )
    module.optimizer.lr *= 2
    module.fit(batches(6, kv.rank), num_epoch=1, kvstore=kv)
    (directory / f"shown{kv.rank}").write_text(str(sum(window.shown_nbytes for window in open_windows())))
    save(module, directory / f"scribbles{kv.rank}.npz")
    kv.barrier()
    kv.close()
    args, aux = module.get_params()
    module.set_params({name: 0 * array + kv.rank for name, array in args.items()}, aux)
    assert {array.asnumpy().mean() for array in module.get_params()[0].values()} == {kv.rank}


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
