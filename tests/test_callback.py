"""Callbacks: when they act, what they report."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

import dmod.symbol as sym
from dmod import callback
from dmod.base import InvalidArgument
from dmod.metric import create
from dmod.model import BatchEndParam, load_checkpoint
from dmod.ndarray import array, ones


@pytest.fixture
def log(caplog: Any) -> Any:
    with caplog.at_level(logging.INFO, "dmod"):
        yield caplog


def used_metric() -> Any:
    metric = create(["acc", "ce"])
    metric.update([array([0, 1])], [array([[0.9, 0.1], [0.2, 0.8]])])
    return metric


def param(epoch: int, nbatch: int, metric: Any = None) -> Any:
    return BatchEndParam(epoch=epoch, nbatch=nbatch, eval_metric=metric, locals=None)


def without_speed(messages: list[str]) -> list[str]:
    return [re.sub(r"Speed: [\d.e+]+|Speed: inf", "Speed: N", m) for m in messages]


def test_the_speedometer_reports_every_few_batches_and_begins_anew(log: Any) -> None:
    metric, speedometer = used_metric(), callback.Speedometer(10, 2)
    for epoch in range(2):
        for nbatch in range(5):
            speedometer(param(epoch, nbatch, metric))
    figures = "\taccuracy=1.000000\tcross-entropy=0.164252"
    nothing = "\taccuracy=nan\tcross-entropy=nan"
    assert without_speed(log.messages) == [
        f"Epoch[{e}] Batch [{a}-{a + 2}]\tSpeed: N samples/sec{figures if (e, a) == (0, 0) else nothing}"
        for e in range(2)
        for a in (0, 2)
    ]
    assert metric.get_global()[1][0] == 1.0


def test_the_speedometer_can_leave_the_metric_alone(log: Any) -> None:
    metric, speedometer = used_metric(), callback.Speedometer(10, 2, auto_reset=False)
    for nbatch in range(5):
        speedometer(param(0, nbatch, metric))
    assert [m.split("\t")[0] for m in log.messages] == ["Epoch[0] Batch [0-2]", "Epoch[0] Batch [0-4]"]
    assert all("accuracy=1.000000" in m for m in log.messages)


def test_the_speedometer_works_without_a_metric(log: Any) -> None:
    speedometer = callback.Speedometer(10, 2)
    for nbatch in range(3):
        speedometer(param(0, nbatch))
    assert without_speed(log.messages) == ["Iter[0] Batch [2]\tSpeed: N samples/sec"]


def test_the_progress_bar_grows(log: Any) -> None:
    bar = callback.ProgressBar(4, 10)
    for nbatch in range(6):
        bar(param(0, nbatch))
    shown = ["[----------] 0%", "[==--------] 25%", "[=====-----] 50%", "[========--] 75%"]
    assert log.messages == [*shown, "[==========] 100%", "[==========] 100%"]


def test_the_progress_bar_draws_over_itself_if_logging_is_not_set_up(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for nbatch in (1, 2):
        callback.ProgressBar(2, 4)(param(0, nbatch))
    assert capsys.readouterr().err == "[==--] 50%\r[====] 100%\n"


def test_the_training_metric_is_logged_and_reset_on_request(log: Any) -> None:
    metric = used_metric()
    report = callback.log_train_metric(2, auto_reset=True)
    for nbatch in range(3):
        report(param(1, nbatch, metric))
    report(param(1, 4))
    assert log.messages == [
        "Iter[1] Batch[0] Train-accuracy=1.000000",
        "Iter[1] Batch[0] Train-cross-entropy=0.164252",
        "Iter[1] Batch[2] Train-accuracy=nan",
        "Iter[1] Batch[2] Train-cross-entropy=nan",
    ]


def test_the_validation_metric_is_logged(log: Any) -> None:
    report = callback.LogValidationMetricsCallback()
    report(param(3, 0))
    report(param(3, 0, used_metric()))
    assert log.messages == [
        "Epoch[3] Validation-accuracy=1.000000",
        "Epoch[3] Validation-cross-entropy=0.164252",
    ]


def test_checkpoints_are_written_every_period(tmp_path: Path, log: Any) -> None:
    network = sym.FullyConnected(sym.Variable("data"), num_hidden=2, name="fc")
    save = callback.do_checkpoint(str(tmp_path / "net"), period=2)
    for epoch in range(4):
        save(epoch, network, {"fc_weight": ones((2, 2)) * epoch}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "net-0002.params",
        "net-0004.params",
        "net-symbol.json",
    ]
    loaded, args, _ = load_checkpoint(str(tmp_path / "net"), 4)
    assert loaded.list_outputs() == ["fc_output"] and (args["fc_weight"].asnumpy() == 3).all()
    assert log.messages[0] == f'Saved checkpoint to "{tmp_path}/net-0002.params"'


def test_a_directory_for_checkpoints_is_made_or_refused_at_once(tmp_path: Path, log: Any) -> None:
    save = callback.do_checkpoint(str(tmp_path / "new" / "runs" / "net"))
    assert not (tmp_path / "new").exists()
    save(0, None, {"w": ones((2,))}, {})
    assert (tmp_path / "new" / "runs" / "net-0001.params").exists()
    (tmp_path / "file").write_text("")
    for make in (callback.do_checkpoint, lambda prefix: callback.module_checkpoint(None, prefix)):
        with pytest.raises(InvalidArgument, match=r"checkpoint\(.*file' is no directory"):
            make(str(tmp_path / "file" / "net"))


def test_a_module_saves_its_own_checkpoint() -> None:
    class Module:
        saved: list[Any] = []  # noqa: RUF012

        def save_checkpoint(self, *arguments: Any) -> None:
            self.saved.append(arguments)

    save = callback.module_checkpoint(Module(), "net", 2, True)
    for epoch in range(4):
        save(epoch, None, None, None)
    callback.module_checkpoint(Module(), "net", 0)(0)
    assert Module.saved == [("net", 2, True), ("net", 4, True), ("net", 1, False)]
