"""What a checkpoint has of a worker beside weights: each of it decides bits, or what is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.recovery.schedule import schedule_state
from tests.recovery.program import (
    EPOCHS,
    Stopped,
    digest,
    iterator,
    manager,
    network,
    seed,
    stop_after,
    train,
)


def fit(module: Any, checkpoint: Any, callbacks: Any = (), data: Any = None, **options: Any) -> str:
    options.setdefault("optimizer_params", {"learning_rate": 0.05, "momentum": 0.9})
    module.fit(
        iterator() if data is None else data,
        num_epoch=EPOCHS,
        initializer=mx.init.Xavier(),
        batch_end_callback=list(callbacks),
        checkpoint=checkpoint,
        **options,
    )
    return digest(module)


def same_bits(directory: Path, run: Any, batches: int = 14) -> None:
    """`run` gives the same digest undisturbed, and cut after some batches."""
    seed()
    whole = run(None)
    seed()
    with pytest.raises(Stopped):
        run(manager(directory, every_n_batches=4), [stop_after(batches)])
    seed()
    assert run(manager(directory, every_n_batches=4)) == whole


def test_gradients_that_add_up(tmp_path: Path) -> None:
    def run(checkpoint: Any, callbacks: Any = ()) -> str:
        module = mx.mod.Module(network())
        data = iterator()
        module.bind(data.provide_data, data.provide_label, grad_req="add")
        return fit(module, checkpoint, callbacks, data, optimizer_params={"learning_rate": 0.001})

    same_bits(tmp_path, run)


@pytest.mark.parametrize("kind", ["2bit", "fp16"])
def test_what_compression_leaves_over(tmp_path: Path, kind: str) -> None:
    params = {"type": kind, "threshold": 0.05} if kind == "2bit" else {"type": kind}

    def run(checkpoint: Any, callbacks: Any = ()) -> str:
        module = mx.mod.Module(network(), context=[mx.cpu(0), mx.cpu(1)], compression_params=params)
        return fit(module, checkpoint, callbacks, kvstore=mx.kv.create("device"))

    same_bits(tmp_path, run)


def test_fixed_parameters(tmp_path: Path) -> None:
    def run(checkpoint: Any, callbacks: Any = ()) -> str:
        return fit(
            mx.mod.Module(network(), fixed_param_names=["fc1_weight", "bn_gamma"]), checkpoint, callbacks
        )

    same_bits(tmp_path, run)


def test_row_sparse_parameters(tmp_path: Path) -> None:
    def run(checkpoint: Any, callbacks: Any = ()) -> str:
        weight = mx.sym.Variable("embed_weight", stype="row_sparse")
        words = mx.sym.Embedding(
            mx.sym.Variable("data"), weight, input_dim=50, output_dim=8, sparse_grad=True, name="embed"
        )
        net = mx.sym.FullyConnected(words, num_hidden=10, name="fc")
        module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
        x = np.random.randint(0, 50, (200, 4)).astype("float32")
        data = mx.io.NDArrayIter(x, np.random.randint(0, 10, 200).astype("float32"), 16, shuffle=True)
        return fit(module, checkpoint, callbacks, data, optimizer="adam", optimizer_params={})

    same_bits(tmp_path, run)


class Halving(mx.lr_scheduler.LRScheduler):
    """One of a user's, which counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__(base_lr=0.1)
        self.asked = 0

    def __call__(self, num_update: int) -> float:
        self.asked += 1
        if self.asked % 10 == 0:
            self.base_lr *= 0.5
        return self.base_lr


def test_a_schedule_that_counts(tmp_path: Path) -> None:
    def run(checkpoint: Any, callbacks: Any = ()) -> str:
        params = {"momentum": 0.9, "lr_scheduler": Halving()}
        return fit(mx.mod.Module(network()), checkpoint, callbacks, optimizer_params=params)

    same_bits(tmp_path, run)


def test_schedules_of_dmod_have_no_state() -> None:
    assert schedule_state(mx.lr_scheduler.FactorScheduler(3)) == {}
    assert schedule_state(None) == {}
    assert schedule_state(Halving())["asked"] == 0


def test_feed_forward(tmp_path: Path) -> None:
    def run(checkpoint: Any, callbacks: Any = ()) -> str:
        model = mx.model.FeedForward(
            network(), num_epoch=2, initializer=mx.init.Xavier(), learning_rate=0.1, momentum=0.9
        )
        model.fit(iterator(), batch_end_callback=list(callbacks), checkpoint=checkpoint)
        assert model.arg_params is not None
        return str([v.asnumpy().tobytes() for v in model.arg_params.values()])

    same_bits(tmp_path, run)


class Counter:
    """A callback with a state; draws the line where it is told to."""

    def __init__(self, stop: int = -1) -> None:
        self.calls: list[Any] = []
        self.stop = stop

    def __call__(self, param: Any, *rest: Any) -> None:
        self.calls.append([param.epoch, param.nbatch] if not rest else param)
        if len(self.calls) == self.stop:
            raise Stopped

    def state_dict(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = list(state["calls"])


@pytest.mark.parametrize("stop", [4, 5, 9, 10, 22])
def test_callbacks_have_seen_each_batch_once(tmp_path: Path, stop: int) -> None:
    whole, ends = Counter(), Counter()
    train(None, whole, epoch_end_callback=ends)
    with pytest.raises(Stopped):
        train(manager(tmp_path), Counter(stop), epoch_end_callback=Counter())
    resumed, resumed_ends = Counter(), Counter()
    train(manager(tmp_path), resumed, epoch_end_callback=resumed_ends)
    assert resumed.calls == whole.calls
    assert resumed_ends.calls == ends.calls == list(range(EPOCHS))


@pytest.mark.parametrize("stop", [6, 9, 10, 12])
def test_a_metric_that_a_callback_resets(tmp_path: Path, stop: int, caplog: pytest.LogCaptureFixture) -> None:
    """The figures of the epoch are those of an undisturbed run, also if it ends with such a batch."""

    def figures(checkpoint: Any, callback: Any) -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO"):
            train(checkpoint, callback)
        return [r.getMessage() for r in caplog.records if "Train-" in r.getMessage()]

    class Resetting(Counter):
        def __call__(self, param: Any, *rest: Any) -> None:
            if param.nbatch % 3 == 2:
                param.eval_metric.reset()
            super().__call__(param)

    whole = figures(None, Resetting())
    with pytest.raises(Stopped):
        train(manager(tmp_path), Resetting(stop))
    again = figures(manager(tmp_path), Resetting())
    assert again == whole[len(whole) - len(again) :]
    assert "nan" not in "".join(again)


def test_a_finished_training_adds_no_checkpoint(tmp_path: Path) -> None:
    train(manager(tmp_path))
    before = sorted(p.name for p in tmp_path.iterdir())
    train(manager(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == before
