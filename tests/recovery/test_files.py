"""Files of a checkpoint: images in memory that is used again, written past the system's cache or not."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from dmod.optimizer import OptimizerStates, StateEntry
from dmod.recovery import files
from dmod.recovery.image import BLOCK, Content, Images


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On a disk."""
    return tmp_path_factory.mktemp("files")


def contents(seed: int) -> dict[str, Content]:
    random = np.random.RandomState(seed)
    large = random.bytes((2 << 20) + 12345)
    return {
        "large": Content([large[:1000], b"", memoryview(large)[1000:]]),
        "blocks": Content([random.bytes(3 * BLOCK)]),
        "small": Content([b"abc"]),
        "empty": Content([]),
    }


def check(folder: Path, seed: int, found: dict[str, list[int]]) -> None:
    for name, content in contents(seed).items():
        expected = b"".join(bytes(chunk) for chunk in content.chunks)
        assert (folder / name).read_bytes() == expected
        assert found[name] == [len(expected), zlib.crc32(expected)]


@pytest.mark.parametrize("direct", [files._DIRECT, 0])
def test_files_have_what_was_given(folder: Path, monkeypatch: pytest.MonkeyPatch, direct: int) -> None:
    monkeypatch.setattr(files, "_DIRECT", direct)
    images = Images()
    images.prepare([2 << 20, 10])
    for seed in (0, 1):  # in the same memory, and over the same files
        check(folder, seed, files.write_files(folder, images.take(contents(seed))))


@pytest.mark.parametrize("refused", ["open", "pwrite"])
def test_a_file_system_that_wants_its_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    call, direct = getattr(os, refused), False

    def refusing(*arguments: object) -> object:
        nonlocal direct
        if refused == "pwrite":  # of one part that is not the first
            if arguments[2] and not direct:
                direct = True
                raise OSError(errno.EINVAL, "Invalid argument")
        elif isinstance(arguments[1], int) and arguments[1] & files._DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return call(*arguments)

    monkeypatch.setattr(files, "_PART", 1 << 20)
    monkeypatch.setattr(os, refused, refusing)
    check(folder, 3, files.write_files(folder, Images().take(contents(3))))


def test_a_full_disk_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(OSError, match="No space left"):
        files.write_files(folder, Images().take(contents(0)))
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_images_begin_at_a_block_and_end_in_zeros() -> None:
    images = Images()
    for size in (BLOCK + 5, 7):
        image = images.take({"one": Content([b"x" * size])})["one"]
        assert np.frombuffer(image.blocks, np.uint8).ctypes.data % BLOCK == 0
        assert len(image.blocks) % BLOCK == 0
        assert bytes(image.blocks) == b"x" * size + bytes(len(image.blocks) - size)


def test_states_that_are_sealed_later_are_the_same() -> None:
    entries = {0: StateEntry("w", 3, (np.arange(5.0), np.ones((2, 3), "float32")))}
    states = OptimizerStates({"name": "SGD"}, entries)  # type: ignore[arg-type]
    content = Content([*states.chunks(checksum=False)], OptimizerStates.seal)
    image = Images().take({"states": content})["states"]
    image.seal()
    assert bytes(image.content) == states.to_bytes()
