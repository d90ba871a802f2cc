"""A training that goes on with other hyperparameters says so; what it had changed itself is put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from tests.recovery.program import Stopped, manager, stop_after


def fit(checkpoint: Any = None, *callbacks: Any, batch_size: int = 10, **options: Any) -> Any:
    mx.random.seed(1)
    rows = np.random.RandomState(0).randn(40, 4).astype("float32")
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    module = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
    module.fit(
        mx.io.NDArrayIter(rows, np.arange(40) % 2, batch_size),
        num_epoch=2,
        initializer=mx.init.One(),
        batch_end_callback=list(callbacks),
        checkpoint=checkpoint,
        **{"optimizer_params": {"learning_rate": 0.5, "momentum": 0.9}, **options},
    )
    return module


def weights(module: Any) -> bytes:
    return b"".join(value.asnumpy().tobytes() for value in module.get_params()[0].values())


def cut(path: Path, *callbacks: Any, batches: int = 4) -> None:
    keeper = manager(path)
    with pytest.raises(Stopped):
        fit(keeper, *callbacks, stop_after(batches))
    assert keeper._writer.wait(60)


def test_other_numbers_count_and_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut(tmp_path)
    module = fit(manager(tmp_path), optimizer_params={"learning_rate": 0.25, "momentum": 0.5, "wd": 0.0})
    assert "learning_rate 0.5 then, 0.25 now; momentum 0.9 then, 0.5 now" in caplog.text
    assert "Those given now count" in caplog.text
    assert module.optimizer.lr == 0.25


def test_the_same_numbers_are_not_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cut(tmp_path)
    assert weights(fit(manager(tmp_path))) == weights(fit())
    assert "then," not in caplog.text


@pytest.mark.parametrize(
    ("optimizer", "params", "said"),
    [
        ("adam", {"learning_rate": 0.5}, "they are of another optimizer, SGD"),
        ("sgd", {"learning_rate": 0.5}, "expected 0 of shape"),
    ],
)
def test_states_of_another_optimizer_begin_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, optimizer: str, params: dict[str, Any], said: str
) -> None:
    cut(tmp_path)
    calls: list[Any] = []
    fit(manager(tmp_path), calls.append, optimizer=optimizer, optimizer_params=params)
    assert (calls[0].epoch, calls[0].nbatch) == (0, 3)
    assert "the optimizer's states begin anew" in caplog.text
    assert said in caplog.text


def test_batches_of_another_size_begin_the_epoch_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut(tmp_path)
    calls: list[Any] = []
    fit(manager(tmp_path), calls.append, batch_size=20)
    assert [(c.epoch, c.nbatch) for c in calls] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert "batch_size 10 then, 20 now" in caplog.text
    assert "taken with batches of 10, they are of 20 now" in caplog.text


def test_what_a_callback_had_changed_is_put_back(tmp_path: Path) -> None:
    def slower(param: Any) -> None:
        if (param.epoch, param.nbatch) == (0, 1):
            param.locals["self"].optimizer.lr = np.float32(0.01)

    whole = weights(fit(None, slower))
    assert whole != weights(fit())
    cut(tmp_path, slower, batches=5)
    assert weights(fit(manager(tmp_path), slower)) == whole
    said = json.loads((max(tmp_path.iterdir()) / "manifest.json").read_text())
    assert said["changed"] == [{"learning_rate": pytest.approx(0.01)}]
