"""What may happen to a directory of checkpoints while a training runs, and what may be found there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmod.base import FormatError, InvalidArgument
from dmod.recovery.directory import CheckpointDirectory
from dmod.recovery.manifest import Manifest, _checksum
from tests.recovery.program import manager, train


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts something for the test; left out where that is not allowed."""
    there: list[Path] = []

    def mount(*arguments: str) -> Path:
        point = tmp_path / f"mount{len(there)}"
        point.mkdir()
        done = subprocess.run(["mount", *arguments, str(point)], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"mount: {done.stderr.strip()}")
        there.append(point)
        return point

    if shutil.which("mount") is None:
        pytest.skip("no mount")
    yield mount
    for point in there:
        subprocess.run(["umount", "-l", str(point)], check=True)


def after(batches: int, act: Callable[[], object]) -> Callable[[Any], None]:
    """A callback that does something once."""
    left = iter(range(batches))

    def callback(param: Any) -> None:
        if next(left, None) == batches - 1:
            act()

    return callback


def whole_ones(directory: Path) -> list[Path]:
    return sorted(p for p in directory.iterdir() if (p / "manifest.json").exists())


def test_a_disk_that_is_full_in_the_middle(
    mounted: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = mounted("-t", "tmpfs", "-o", "size=1m", "none")

    def fill() -> None:
        with open(disk / "others", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))

    callbacks = [after(8, fill), after(20, lambda: (disk / "others").unlink())]
    assert train(manager(disk / "run"), lambda p: [c(p) for c in callbacks]) == train()
    assert "was not written: No space left on device; training goes on" in caplog.text
    kept = whole_ones(disk / "run")
    assert kept
    assert train(manager(disk / "run")) == train()
    assert json.loads((kept[-1] / "manifest.json").read_text())["epoch"] == 3


def test_a_disk_that_stays_full_keeps_the_last_good_one(
    mounted: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    disk = mounted("-t", "tmpfs", "-o", "size=1m", "none")
    taken: list[list[Path]] = []

    def fill() -> None:
        taken.append(whole_ones(disk / "run"))
        with open(disk / "others", "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))

    assert train(manager(disk / "run"), after(8, fill)) == train()
    left = whole_ones(disk / "run")
    assert taken[0]
    assert taken[0][-1] in left
    assert len(left) <= len(taken[0]) + 1, "one was being written when the disk became full"
    (disk / "others").unlink()
    assert train(manager(disk / "run")) == train()
    assert "Resumed from" in caplog.text or "training goes on" in caplog.text


def test_a_disk_that_can_only_be_read(mounted: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    disk = mounted("--bind", str(tmp_path / "own"))
    done = subprocess.run(["mount", "-o", "remount,ro,bind", str(disk)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mount: {done.stderr.strip()}")
    with pytest.raises(InvalidArgument, match=r"cannot be written to \(Read-only file system\)"):
        train(str(disk))


def test_a_directory_that_vanishes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(manager(run), after(10, lambda: run.rename(tmp_path / "gone"))) == train()
    assert whole_ones(run), "those that were taken afterwards"
    assert train(manager(run)) == train()


def test_a_file_in_place_of_the_directory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"

    def replace() -> None:
        run.rename(tmp_path / "gone")
        run.write_text("")

    assert train(manager(run), after(10, replace)) == train()
    assert "was not written" in caplog.text


def test_old_ones_that_cannot_be_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one counts all the same."""

    def retain(self: Any, *arguments: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(CheckpointDirectory, "retain", retain)
    train(manager(tmp_path))
    assert "Old checkpoints under" in caplog.text
    assert len(whole_ones(tmp_path)) == len(list(tmp_path.iterdir())) > 3


# ---- manifests without sense


def rewrite(folder: Path, **changes: Any) -> None:
    """Change a manifest, with the right checksum."""
    content = json.loads((folder / "manifest.json").read_text())
    del content["checksum"]
    content |= changes
    content["checksum"] = _checksum(content)
    (folder / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": -1}, "epoch is -1, expected a whole number from 0"),
        ({"epoch": 10**30}, "expected a whole number from 0"),
        ({"nbatch": 1.5}, "nbatch is 1.5"),
        ({"step": None}, "step is None"),
        ({"step": True}, "step is True"),
        ({"num_workers": 0}, "num_workers is 0, expected a whole number from 1"),
        ({"serial": 3}, "the manifest is that of number 3"),
        ({"network": 7}, "network is 7, expected text"),
        ({"fingerprint": [1]}, "fingerprint: expected text by name"),
        ({"files": {}}, "files: expected size and checksum"),
        ({"files": {"../../passwd": [1, 2]}}, "is no name of a file in the folder"),
        ({"files": {"model-0003.params": ["1", 2]}}, "expected size and checksum"),
        ({"files": {"model-0003.params": [10**18, 2]}}, "bytes, expected 1000000000000000000"),
        ({"format": 99}, "of another version"),
    ],
)
def test_a_manifest_without_sense(
    tmp_path: Path, changes: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    directory = CheckpointDirectory(tmp_path)
    folder = directory.folder(5)
    folder.mkdir()
    Manifest(5, 3, 0, 30, "net", 1, 1, files={"model-0003.params": [3, 891568578]}).write(folder)
    (folder / "model-0003.params").write_bytes(b"abc")
    assert [m.serial for m in directory.valid()] == [5]
    rewrite(folder, **changes)
    assert list(directory.valid()) == []
    assert "is damaged and left out" in caplog.text
    assert message in caplog.text


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{}", '{"epoch": 1e999}', "\0" * 100, "9" * 10_000])
def test_a_manifest_that_is_something_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(FormatError, match=r"manifest\.json: offset"):
        Manifest.read(tmp_path)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    manifest = Manifest(1, 0, 0, 0, "net", 1, 1, files={"pipe": [0, 0]})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="no regular file"):
        manifest.verify(tmp_path)


def test_names_that_are_no_numbers_of_checkpoints(tmp_path: Path) -> None:
    for name in ("checkpoint-1", "checkpoint-0000012", "checkpoint-99999999999999999999", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint-000007").write_text("a file")
    assert CheckpointDirectory(tmp_path).serials() == [7]
    assert train(manager(tmp_path)) == train()
