"""Windows: arrays whose pages are a peer's, until this process writes to them, or hides them again."""

from __future__ import annotations

import mmap
import os

import numpy as np
import pytest

from dmod.kvstore.transports import windows
from dmod.kvstore.transports.segments import Arena, MappedSegment
from dmod.kvstore.transports.windows import HostMemory, Shown, Window, open_window

PAGE = mmap.PAGESIZE // 4
"""Elements of a page."""


class Peer:
    """A server's array, and how this process sees it."""

    def __init__(self, size: int):
        self.arena = Arena()
        array = self.arena.zeros(size, "float32")
        assert array is not None
        self.array = array
        place = self.arena.find(array.__array_interface__["data"][0], array.nbytes)
        assert place is not None
        fd, nbytes = self.arena.descriptor(place[0])
        self.segment = MappedSegment(os.dup(fd), nbytes)
        self.value = np.frombuffer(self.segment.view(*place[1:]), np.float32)


def window(size: int) -> np.ndarray:
    return np.asarray(Window(size * 4)).view(np.float32)


def show(out: np.ndarray, value: np.ndarray, key: str = "w") -> Shown | None:
    return HostMemory(Arena()).show(key, out, value)


@pytest.mark.parametrize("size", [PAGE, 3 * PAGE, 3 * PAGE + 5])
def test_what_a_peer_writes_is_seen_at_once(size: int) -> None:
    peer, out = Peer(size), window(size)
    view = out[1:3]
    open_window(out, "w")
    assert show(out, peer.value) is not None
    peer.array[:] = np.arange(size)
    np.testing.assert_array_equal(out, peer.array)
    np.testing.assert_array_equal(view, [1, 2])


def test_what_is_written_to_a_window_stays_here_until_it_is_refreshed() -> None:
    peer, out = Peer(5 * PAGE), window(5 * PAGE)
    open_window(out, "w")
    shown = show(out, peer.value)
    assert shown is not None
    shown.refresh()
    for page in (0, 1, 3):
        out[page * PAGE] = 7
    peer.array[:] = 2
    assert [out[page * PAGE] for page in range(5)] == [7, 7, 2, 7, 2] and (peer.value == 2).all()
    shown.refresh()
    assert (out == 2).all()
    peer.array[:] = 3
    assert (out == 3).all()


def test_a_part_that_is_hidden_keeps_what_was_seen_and_the_rest_goes_on() -> None:
    peer, out = Peer(4 * PAGE), window(4 * PAGE)
    open_window(out, "w")
    parts = [slice(0, 2 * PAGE), slice(2 * PAGE, 4 * PAGE)]
    first, _ = [show(out[part], peer.value[part]) for part in parts]
    assert first is not None
    peer.array[:] = 1
    first.hide()
    first.hide()
    peer.array[:] = 2
    assert (out[parts[0]] == 1).all() and (out[parts[1]] == 2).all()
    open_window(out, "another")
    peer.array[:] = 3
    assert (out[parts[0]] == 1).all() and (out[parts[1]] == 2).all()


def test_what_is_no_window_or_none_of_this_key_or_cuts_pages_is_left_alone() -> None:
    peer, out = Peer(4 * PAGE), window(3 * PAGE)
    assert show(out, peer.value[: 3 * PAGE]) is None  # nobody has opened it
    open_window(out, "w")
    assert show(out, peer.value[: 3 * PAGE], "another") is None
    assert show(out, peer.value[1 : 3 * PAGE + 1]) is None
    assert show(out[1:], peer.value[1 : 3 * PAGE]) is None
    assert show(out[: PAGE + 1], peer.value[: PAGE + 1]) is None
    assert show(out, np.ones(3 * PAGE, np.float32)) is None
    assert show(np.zeros(PAGE, np.float32), peer.value[:PAGE]) is None
    assert (out == 0).all()


def test_where_the_kernel_does_not_tell_of_pages_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    peer, out = Peer(PAGE), window(PAGE)
    open_window(out, "w")
    monkeypatch.setattr(windows, "_pagemap", lambda: -1)
    assert show(out, peer.value) is None


def test_what_is_shown_outlives_its_peer() -> None:
    peer, out = Peer(PAGE), window(PAGE)
    open_window(out, "w")
    peer.array[:] = 4
    assert show(out, peer.value) is not None
    del peer
    assert (out == 4).all()
    out += 1
    assert (out == 5).all()
