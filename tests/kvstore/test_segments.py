"""Shared memory: who may do what with it, when it is used again, what happens when there is none."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dmod.base import ProtocolError
from dmod.kvstore.transports import segments
from dmod.kvstore.transports.segments import SEGMENT_NBYTES, Arena, MappedSegment, gradient_buffer
from dmod.ndarray.flat import ALIGNMENT


def mapped(arena: Arena, number: int = 0) -> MappedSegment:
    """A segment as a peer sees it."""
    fd, nbytes = arena.descriptor(number)
    return MappedSegment(os.dup(fd), nbytes)


def place_of(arena: Arena, array: np.ndarray) -> segments.Place:
    place = arena.find(array.__array_interface__["data"][0], array.nbytes)
    assert place is not None
    return place


def test_a_peer_reads_what_is_written_later_and_cannot_write() -> None:
    arena = Arena()
    arrays = [arena.zeros(n, "float32") for n in (3, 1000, 17)]
    peer = mapped(arena)
    for i, array in enumerate(arrays):
        assert array is not None and array.__array_interface__["data"][0] % ALIGNMENT == 0
        number, offset, nbytes = place_of(arena, array)
        assert number == 0 and nbytes == array.nbytes
        array[:] = i + 1
        view = np.frombuffer(peer.view(offset, nbytes), np.float32)
        assert (view == i + 1).all() and not view.flags.writeable
    fd, nbytes = arena.descriptor(0)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, nbytes)  # neither of its own accord
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)  # which would be a SIGBUS for whoever reads


def test_only_what_lies_in_an_arena_is_its_own() -> None:
    arena, other = Arena(), Arena()
    mine, private = arena.empty(10, "float64"), np.zeros(10)
    theirs = other.empty(10, "float64")
    assert mine is not None and theirs is not None
    assert arena.owns(mine) and arena.owns(mine[2:5])
    assert not arena.owns(theirs) and not arena.owns(private) and not Arena().owns(private)


def test_memory_is_used_again_when_the_last_view_of_it_is_gone() -> None:
    arena = Arena()
    array = arena.empty(1000, "float32")
    assert array is not None
    place, view = place_of(arena, array), array[10:20].reshape(2, 5)
    del array
    other = arena.empty(1000, "float32")
    assert other is not None and place_of(arena, other)[1] != place[1]
    del view
    again = arena.empty(1000, "float32")
    assert again is not None and place_of(arena, again) == place


def test_a_large_array_has_a_segment_of_its_own_and_pages_come_when_they_are_needed() -> None:
    arena = Arena()
    arena.empty(10, "uint8")
    assert arena.nbytes == mmap.PAGESIZE
    large = arena.empty(SEGMENT_NBYTES + 1, "uint8")
    assert large is not None and place_of(arena, large)[0] == 1
    peer = mapped(arena, 1)
    assert len(peer.view(SEGMENT_NBYTES, 1)) == 1


def test_without_memory_the_arena_says_so_once_and_arrays_are_private(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(fd: int, offset: int, nbytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    arena = Arena()
    first = arena.zeros(10, "float32")
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(segments, "process_arena", lambda: arena)
    monkeypatch.setenv("DMLC_ROLE", "worker")
    with caplog.at_level(logging.WARNING, "dmod.kvstore"):
        assert arena.empty(10000, "float32") is None and arena.empty(10000, "float32") is None
    [record] = caplog.records
    assert "No space left on device" in record.getMessage() and "sockets" in record.getMessage()
    assert first is not None and not first.any()
    gradients = gradient_buffer(10000, "float32")
    assert not arena.owns(gradients) and not gradients.any()
    small = gradient_buffer(10, "float32")  # the first page has room
    assert arena.owns(small)


def test_gradients_are_shared_in_workers_that_may(monkeypatch: pytest.MonkeyPatch) -> None:
    for role, transport, shared in (
        ("worker", "auto", True),
        ("worker", "shm", True),
        ("worker", "tcp", False),
        ("", "auto", False),
    ):
        monkeypatch.setenv("DMLC_ROLE", role)
        monkeypatch.setenv("DMOD_TRANSPORT", transport)
        assert segments.process_arena().owns(gradient_buffer(8, "float32")) == shared


def test_a_foreign_or_short_segment_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 16))
    with pytest.raises(ProtocolError, match="segment"):
        MappedSegment(os.open(tmp_path / "file", os.O_RDONLY), 1 << 16)  # its owner could shrink it
    arena = Arena()
    arena.empty(1, "uint8")
    fd, nbytes = arena.descriptor(0)
    with pytest.raises(ProtocolError, match="segment"):
        MappedSegment(os.dup(fd), nbytes + 1)
    peer = mapped(arena)
    for offset, length in ((-1, 5), (nbytes - 4, 5), (0, -1), (nbytes + 1, 0)):
        with pytest.raises(ProtocolError, match="of a segment of"):
            peer.view(offset, length)


def test_a_killed_process_leaves_nothing_behind_and_what_is_mapped_stays() -> None:
    """Its descriptors were the only way to its memory; a peer that has mapped it can still read."""
    code = (
        "import sys, time; from dmod.kvstore.transports.segments import Arena; arena = Arena()\n"
        "array = arena.zeros(4096, 'float32'); array[:] = 7; print(arena.descriptor(0)[0], flush=True)\n"
        "time.sleep(600)"
    )
    before = sorted(os.listdir("/dev/shm"))
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        fd = os.open(f"/proc/{owner.pid}/fd/{int(owner.stdout.readline())}", os.O_RDONLY)
        peer = MappedSegment(fd, SEGMENT_NBYTES)
    finally:
        owner.kill()
        owner.communicate()
    assert (np.frombuffer(peer.view(0, 4096 * 4), np.float32) == 7).all()
    assert sorted(os.listdir("/dev/shm")) == before
