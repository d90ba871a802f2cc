"""A training that is cut short and started again ends with the bits of one that was not."""

from __future__ import annotations

import errno
import json
import logging
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

import dmod as mx
from dmod.base import InvalidArgument, NotReadyError
from dmod.recovery import writer
from tests.recovery.program import (
    BATCH,
    EPOCHS,
    ROWS,
    Stopped,
    digest,
    iterator,
    manager,
    network,
    seed,
    stop_after,
    train,
)


def cut(directory: Path, batches: int, **options: Any) -> None:
    with pytest.raises(Stopped):
        train(manager(directory), stop_after(batches), **options)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "nadam", "lars"])
def test_bits_with_every_kind_of_optimizer(tmp_path: Path, optimizer: str, devices: int) -> None:
    whole = train(optimizer=optimizer, devices=devices)
    cut(tmp_path, 17, optimizer=optimizer, devices=devices)
    assert train(manager(tmp_path), optimizer=optimizer, devices=devices) == whole


@pytest.mark.parametrize("batches", [2, 4, 10, 19, 27])
def test_bits_wherever_it_is_cut(tmp_path: Path, batches: int) -> None:
    cut(tmp_path, batches)
    assert train(manager(tmp_path)) == train()


def test_bits_when_it_is_cut_again_and_again(tmp_path: Path) -> None:
    for _ in range(3):
        cut(tmp_path, 6)
    assert train(manager(tmp_path)) == train()


class Around(mx.io.DataIter):
    """An iterator without a state around another one."""

    default_bucket_key = 0

    def __init__(self, inner: Any):
        super().__init__(BATCH)
        self.inner = inner

    @property
    def provide_data(self) -> Any:
        return self.inner.provide_data

    @property
    def provide_label(self) -> Any:
        return self.inner.provide_label

    def reset(self) -> None:
        self.inner.reset()


class Reversed(Around):
    """It draws from a global generator, too."""

    def next(self) -> Any:
        batch = self.inner.next()
        noise = random.random()
        return mx.io.DataBatch(
            [x[::-1] * noise for x in batch.data], [x[::-1] for x in batch.label], batch.pad
        )


class Keyed(Around):
    """Its batches say which bucket they are for."""

    def next(self) -> Any:
        batch = self.inner.next()
        return mx.io.DataBatch(
            batch.data, batch.label, batch.pad, None, 0, self.provide_data, self.provide_label
        )


@pytest.mark.parametrize(
    "wrap", [Reversed, lambda it: mx.io.PrefetchingIter(it), lambda it: mx.io.ResizeIter(it, 7)]
)
def test_bits_with_iterators_around_another(tmp_path: Path, wrap: Any) -> None:
    whole = train(wrap=wrap)
    cut(tmp_path, 12, wrap=wrap)
    assert train(manager(tmp_path), wrap=wrap) == whole


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    assert train(manager(tmp_path)) == train()


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    whole = train(str(tmp_path))
    calls: list[Any] = []
    assert train(str(tmp_path), calls.append)[0] == whole[0]
    assert not calls


def test_resume_none_begins_anew(tmp_path: Path) -> None:
    cut(tmp_path, 8)
    calls: list[Any] = []
    train(manager(tmp_path), calls.append, resume=None)
    assert (calls[0].epoch, calls[0].nbatch) == (0, 0)


def test_the_files_are_a_checkpoint_of_mxnet(tmp_path: Path) -> None:
    whole, _ = train(manager(tmp_path, keep=1))
    (folder,) = tmp_path.iterdir()
    module = mx.mod.Module.load(str(folder / "model"), EPOCHS, load_optimizer_states=True)
    data = iterator()
    module.bind(data.provide_data, data.provide_label)
    module.init_optimizer(optimizer_params={"momentum": 0.9})
    assert digest(module) == whole


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    def loop(directory: Path | None, stop: int | None = None) -> str:
        seed()
        data, metric = iterator(), mx.metric.create("acc")
        module = mx.mod.Module(network())
        module.bind(data.provide_data, data.provide_label)
        keeper = manager(tmp_path / "none" if directory is None else directory)
        keeper.init_params(module, initializer=mx.init.Xavier())
        module.init_optimizer(optimizer_params={"learning_rate": 0.1, "momentum": 0.9})
        data = keeper.begin(module, data, metric)
        for epoch in range(keeper.epoch, EPOCHS):
            for nbatch, batch in enumerate(data, keeper.nbatch):
                module.forward_backward(batch)
                module.update()
                module.update_metric(metric, batch.label)
                keeper.batch_done(epoch, nbatch)
                if keeper.step == stop:
                    return ""
            data.reset()
            keeper.epoch_done(epoch)
        keeper.finish()
        return digest(module)

    loop(tmp_path / "own", stop=13)
    assert loop(tmp_path / "own") == loop(None)


def test_buckets_and_chains(tmp_path: Path) -> None:
    def run(kind: str, checkpoint: Any, callback: Any = None) -> str:
        seed()
        if kind == "buckets":
            module: Any = mx.mod.BucketingModule(
                lambda key: (network(), ["data"], ["softmax_label"]), default_bucket_key=0
            )
        else:
            head = mx.sym.SoftmaxOutput(mx.sym.Variable("scores"), name="softmax")
            body = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=10, name="fc")
            module = mx.mod.SequentialModule()
            module.add(mx.mod.Module(mx.sym.Dropout(body, p=0.2), label_names=None))
            module.add(mx.mod.Module(head, data_names=["scores"]), take_labels=True, auto_wiring=True)
        data = Keyed(iterator()) if kind == "buckets" else iterator()
        module.fit(
            data,
            num_epoch=2,
            initializer=mx.init.Xavier(),
            optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
            checkpoint=checkpoint,
            batch_end_callback=callback,
        )
        return digest(module)

    for kind in ("buckets", "chain"):
        with pytest.raises(Stopped):
            run(kind, manager(tmp_path / kind), stop_after(13))
        assert run(kind, manager(tmp_path / kind)) == run(kind, None), kind


# ---- what may be wrong with a directory


def newest(directory: Path) -> Path:
    return max(p for p in directory.iterdir() if (p / "manifest.json").exists())


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("manifest.json", lambda p: p.unlink()),
        ("manifest.json", lambda p: p.write_bytes(p.read_bytes()[:-40])),
        ("manifest.json", lambda p: p.write_text(p.read_text().replace('"epoch": ', '"epoch": 1'))),
        ("worker-0.state", lambda p: p.write_bytes(p.read_bytes()[:-1])),
        ("model-0003.params", lambda p: p.write_bytes(b"\0" + p.read_bytes()[1:])),
        ("model-0003.states", lambda p: p.unlink()),
    ],
)
def test_a_damaged_checkpoint_is_left_out(
    tmp_path: Path, name: str, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(manager(tmp_path))
    damage(newest(tmp_path) / name)
    with caplog.at_level(logging.INFO):
        assert train(manager(tmp_path)) == whole
    assert "left out" in caplog.text
    assert "Resumed from" in caplog.text


def test_a_checkpoint_of_another_network_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(manager(tmp_path), hidden=16)
    theirs = {p.name for p in tmp_path.iterdir()}
    assert train(manager(tmp_path)) == train()
    assert "of another network" in caplog.text
    assert theirs <= {p.name for p in tmp_path.iterdir()}, "another network's checkpoints were removed"


def test_another_number_of_devices_goes_on_with_parameters(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut(tmp_path, 13)
    calls: list[Any] = []
    train(manager(tmp_path), calls.append, devices=2)
    assert (calls[0].epoch, calls[0].nbatch) == (1, 0)
    assert (
        "1 workers of 1 devices, there are 1 of 2 now: parameters and optimizer states go on" in caplog.text
    )


def test_other_versions_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    cut(tmp_path, 13)
    monkeypatch.setattr("dmod.recovery.resuming.fingerprint_here", lambda: {"numpy": "1.2.3"})
    train(manager(tmp_path))
    assert "numpy 2." in caplog.text or "numpy 1." in caplog.text
    assert "1.2.3 now" in caplog.text


def test_a_module_with_an_optimizer_is_refused(tmp_path: Path) -> None:
    cut(tmp_path, 8)
    seed()
    data, module = iterator(), mx.mod.Module(network())
    module.fit(data, num_epoch=1)
    with pytest.raises(NotReadyError, match="resume with a new module"):
        module.fit(data, num_epoch=2, checkpoint=tmp_path)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="cannot be written to"):
        train(str(tmp_path / "file" / "run"))


def test_a_full_disk_costs_one_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = writer.write_files, []

    def full_for_a_while(*args: Any) -> Any:
        calls.append(args)
        if 3 <= len(calls) <= 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*args)

    monkeypatch.setattr(writer, "write_files", full_for_a_while)
    assert train(manager(tmp_path)) == train()
    assert caplog.text.count("was not written: No space left on device; training goes on") == 2
    for folder in tmp_path.iterdir():
        assert json.loads((folder / "manifest.json").read_text())["serial"] not in (3, 4)


def test_the_number_of_checkpoints(tmp_path: Path) -> None:
    train(manager(tmp_path, keep=3))
    per_epoch = ROWS // BATCH // 3 + 1
    last = EPOCHS * per_epoch
    assert [int(p.name[-6:]) for p in sorted(tmp_path.iterdir())] == [last - 2, last - 1, last]


def test_a_share_of_the_time(tmp_path: Path) -> None:
    train(manager(tmp_path, max_overhead=1e-6, keep=100))
    taken = [json.loads((p / "manifest.json").read_text()) for p in sorted(tmp_path.iterdir())]
    assert [(m["epoch"], m["nbatch"]) for m in taken] == [(0, 3), (EPOCHS, 0)]


@pytest.mark.parametrize(
    "options", [{"every_n_batches": 0}, {"every_n_epochs": -1}, {"keep": 0}, {"max_overhead": 2.0}]
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        mx.CheckpointManager(tmp_path, **options)


def test_resume_says_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="expected 'auto' or None"):
        train(str(tmp_path), resume="yes")
    shutil.rmtree(tmp_path)
