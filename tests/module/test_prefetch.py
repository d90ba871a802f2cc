"""`fit` prepares the next batch in a thread where the iterator lets it."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

import dmod as mx

DATA = np.random.RandomState(0).randn(32, 5).astype("float32")


class Slow(mx.io.DataIter):
    """Batches that are made in whichever thread asks."""

    def __init__(self, prefetchable: bool, fails_at: int = -1):
        super().__init__(8)
        self.prefetchable, self.fails_at = prefetchable, fails_at
        self.provide_data = [mx.io.DataDesc("data", (8, 5))]
        self.provide_label = [mx.io.DataDesc("softmax_label", (8,))]
        self.threads: set[str] = set()
        self.at = 0

    def reset(self) -> None:
        self.at = 0

    def next(self) -> Any:
        self.threads.add(threading.current_thread().name)
        if self.at == self.fails_at:
            raise OSError("the disk is gone")
        if self.at == 4:
            raise StopIteration
        rows = slice(8 * self.at, 8 * self.at + 8)
        self.at += 1
        data = mx.nd.array(DATA[rows])
        return mx.io.DataBatch([data], [mx.nd.array(DATA[rows, 0] > 0)], 0)


def fitted(iterator: Slow) -> dict[str, Any]:
    mx.random.seed(1)
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    mod = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    mod.fit(iterator, num_epoch=3, optimizer_params={"learning_rate": 0.5}, initializer=mx.init.Xavier())
    return {name: value.asnumpy() for name, value in mod.get_params()[0].items()}


def test_batches_come_from_a_thread_and_are_the_same() -> None:
    before = set(threading.enumerate())
    plain, ahead = Slow(False), Slow(True)
    expected, found = fitted(plain), fitted(ahead)
    assert plain.threads == {threading.current_thread().name} and ahead.threads == {"dmod-prefetch"}
    for name, value in expected.items():
        assert (found[name] == value).all()
    assert plain.at == ahead.at == 0  # whoever goes on with the iterator finds all batches
    gc.collect()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("prefetchable", [False, True])
def test_an_error_of_the_iterator_ends_the_fit(prefetchable: bool) -> None:
    with pytest.raises(OSError, match="the disk is gone") as caught:
        fitted(Slow(prefetchable, fails_at=2))
    assert any(entry.name == "next" for entry in caught.traceback)
