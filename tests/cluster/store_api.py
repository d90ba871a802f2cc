"""What the workers of test_store_api.py run: ``store_api.py NAME DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from dmod.base import DeadlineError, InvalidArgument
from tests.cluster.modules import BATCH, CLASSES, FEATURES, network

# MXNet 1.9.1, dist_sync, 2 workers, {'type': '2bit', 'threshold': 0.5}: three pushes of two devices each.
GRAD = np.float32([0.1, 0.5, -0.5, 0.6, -0.7, 0.3, 2.0])
SUMS = [
    [0.0, 1.0, -1.0, 1.0, -1.0, 0.5, 1.0],
    [0.5, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0],
    [0.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0],
]


def compressed(directory: Path) -> None:
    """2 bits as MXNet makes them; 16 bits; what cannot be compressed; bytes on the wire."""
    kv = mx.kv.create("dist_sync")
    kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
    kv.init(["w", "big", "whole"], [mx.nd.zeros(7), mx.nd.zeros(100_000), mx.nd.zeros(3, dtype="int32")])
    grad, out = GRAD * (1 + kv.rank), mx.nd.zeros(7)
    for sums in SUMS:
        kv.push("w", [mx.nd.array(grad), mx.nd.array(grad / 2)])
        kv.pull("w", out=out)
        assert out.asnumpy().tolist() == sums
    with pytest.raises(InvalidArgument, match=r"push\('whole'\): gradient compression '2bit' takes float32"):
        kv.push("whole", mx.nd.ones(3, dtype="int32"))

    sent = []
    send = kv._client._endpoint.send

    def counted(peer, frames):
        sent.append(sum(len(memoryview(frame).cast("B")) for frame in frames))
        return send(peer, frames)

    kv._client._endpoint.send = counted
    big, wanted = mx.nd.ones(100_000), mx.nd.zeros(100_000)
    for kind, limit in (("2bit", 400_000 / 15), ("bf16", 400_000 / 1.9), ("fp16", 400_000 / 1.9)):
        kv.set_gradient_compression({"type": kind})
        sent.clear()
        kv.pushpull("big", big, out=wanted)
        assert sum(sent) < limit, f"{kind}: {sum(sent)} bytes"
        assert (wanted.asnumpy() == (1 if kind == "2bit" else 2)).all()


def asynchronous(directory: Path) -> None:
    """Each push is an update of its own, without waiting; `fit` learns, with any number of batches."""
    kv = mx.kv.create("dist_async")
    kv.init(3, mx.nd.zeros(2))
    kv.set_optimizer(mx.optimizer.create("sgd", learning_rate=1.0))
    out = mx.nd.zeros(2)
    if kv.rank == 1:
        for step in range(1, 6):  # alone
            kv.push(3, mx.nd.ones(2))
            kv.pull(3, out=out)
            assert out.asnumpy().tolist() == [-step, -step]
    kv.barrier()
    kv.pull(3, out=out)
    assert out.asnumpy().tolist() == [-5, -5]

    rng = np.random.RandomState(kv.rank)
    data = rng.randn((20 + 10 * kv.rank) * BATCH, FEATURES)
    module = mx.mod.Module(network(), compression_params={"type": "bf16"})
    module.fit(
        mx.io.NDArrayIter(data, data[:, :CLASSES].argmax(1), BATCH),
        num_epoch=10,
        kvstore=kv,
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.1},
    )
    kv.barrier()
    test = np.random.RandomState(99).randn(512, FEATURES)
    score = module.score(mx.io.NDArrayIter(test, test[:, :CLASSES].argmax(1), BATCH), "acc")
    assert score[0][1] > 0.6, score


def different_keys(directory: Path) -> None:
    """Many keys, again and again; then keys that differ between workers are named; no sum is wrong."""
    kv, out = mx.kv.create("dist_sync"), mx.nd.zeros(2)
    names = [f"key{i}" for i in range(40)]
    values, outs = [mx.nd.ones(3) * i for i in range(40)], [mx.nd.zeros(3) for _ in names]
    kv.init(names, outs)
    for step in range(1, 5):
        kv.pushpull(names, values, out=outs)
        assert [o.asnumpy().tolist() for o in outs] == [[2.0 * step * i] * 3 for i in range(40)]
        for i, value in enumerate(values):
            value[:] = (step + 1) * i
        if step == 2:  # other arrays, of which one is a view that is not contiguous
            values[3], outs[4] = mx.nd.ones((3, 2)).T[0] * 9, mx.nd.zeros(3)
            kv.pushpull(names, values, out=outs)
            assert outs[3].asnumpy().tolist() == [18] * 3
            values[3] = mx.nd.ones(3) * 9
    kv.init(["a", "b"], [mx.nd.zeros(2), mx.nd.zeros(2)])
    with pytest.raises(InvalidArgument, match="initialise keys in the same order on all workers"):
        kv.init(["c", "d"][kv.rank], mx.nd.zeros(2))
    waits = r"pushpull\('[ab]'\): after .* server 0 .* still waits for worker [01] in round 1"
    with pytest.raises(DeadlineError, match=waits):
        kv.pushpull(["a", "b"][kv.rank], mx.nd.ones(2), out=out)
    assert out.asnumpy().tolist() == [0, 0]
    kv.barrier()  # else the other one might hear first that this one has left


class Largest(mx.metric.EvalMetric):
    """The largest output so far: nothing to add up."""

    def update(self, labels, preds):
        self.sum_metric = max(self.sum_metric, float(preds[0].max().asscalar()))
        self.num_inst = 1

    def get(self):
        return self.name, self.sum_metric


class Log:
    """Keeps what it is told, and shows warnings."""

    def __init__(self, said):
        self.info = lambda *told: said.append(told)

    def warning(self, text, *values):
        print(text % values)


def figures(directory: Path) -> None:
    """An epoch without learning: what `fit` reports is the accuracy on the data of both workers."""
    kv = mx.kv.create("dist_sync")

    def share(rank: int, count: int) -> mx.io.NDArrayIter:
        data = np.random.RandomState(rank).randn(count * BATCH, FEATURES)
        return mx.io.NDArrayIter(data, data[:, :CLASSES].argmax(1), BATCH)

    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=CLASSES, name="fc")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    said = []
    module.logger = Log(said)
    module.fit(
        share(kv.rank, 3),
        eval_data=share(7, 5) if kv.rank == 0 else None,  # the other one gets the figures all the same
        eval_metric=["acc", Largest("largest")],
        num_epoch=1,
        kvstore=kv,
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.0},
    )
    own = [module.score(share(rank, 3), "acc")[0][1] for rank in range(2)]
    values = {a[1]: a[2] for text, *a in said if "Train" in text}
    scores = {a[1]: a[2] for text, *a in said if "Validation" in text}
    assert own[0] != own[1] and values["accuracy"] == pytest.approx((own[0] + own[1]) / 2)
    assert scores["accuracy"] == module.score(share(7, 5), "acc")[0][1]


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
