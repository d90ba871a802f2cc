"""The compiled loops: they take what is expected and leave everything else where it is."""

from __future__ import annotations

import array
import os
import socket
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from dmod.kvstore.lanes import OTHER, TAKEN, TIMED_OUT, Expected
from dmod.kvstore.messages import Again, Same
from dmod.kvstore.transports.links import head_of_one
from dmod.kvstore.wire import encode

links = pytest.importorskip("dmod.kvstore.transports.compiled_links")

MS = 1_000_000  # nanoseconds
EPOCH, ROUND, STANDING = 3, 5, 2


def packet(message: Again | Same) -> bytes:
    (frame,) = encode(message)
    return head_of_one(len(frame)) + bytes(frame)


class Line:
    """A connection of which one end is looked at by the loops."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.settimeout(10)

    def left(self) -> bytes:
        """What has come and was not taken."""
        try:
            return self.ours.recv(1 << 16)
        except BlockingIOError:
            return b""


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    made = [Line(), Line()]
    yield made
    for line in made:
        line.ours.close()
        line.theirs.close()


def files_of(lines: list[Line]) -> np.ndarray:
    return np.array([[line.ours.fileno(), 1] for line in lines], np.int32)


def expected() -> Expected:
    """Turn 0 of two workers, which both call it STANDING; requests from 7 on mean it."""
    rows = np.full((2, 8), -1, np.int64)
    rows[:, STANDING] = 0, 1
    numbers, turns, since = np.array([STANDING] * 2), np.zeros(2, np.int64), np.array([7, 7])
    arrived, counts = np.zeros((1, 2), np.int64), np.zeros(1, np.int64)
    return Expected(rows, numbers, turns, since, np.array([[EPOCH, ROUND]]), arrived, counts)


# ---- a server


def await_turn(lines: list[Line], table: Expected, ms: int = 0) -> int:
    return int(links.await_turn(files_of(lines), np.array([0, 1]), table, ms * MS))


def test_a_turn_is_complete_when_all_have_asked(lines: list[Line]) -> None:
    table = expected()
    lines[1].theirs.send(packet(Again(9, STANDING, EPOCH, ROUND)))
    assert await_turn(lines, table) == TIMED_OUT
    assert table.arrived.tolist() == [[0, 9]] and lines[1].left() == b""
    lines[0].theirs.send(packet(Again(8, STANDING, EPOCH, ROUND)) + b"what follows")
    assert await_turn(lines, table) == 0
    assert table.arrived.tolist() == [[8, 9]] and table.counts.tolist() == [2]
    assert lines[0].left() == b"what follows"


@pytest.mark.parametrize(
    "message",
    [
        Again(0, STANDING, EPOCH, ROUND),
        Again(6, STANDING, EPOCH, ROUND),  # before it was announced
        Again(8, STANDING + 1, EPOCH, ROUND),
        Again(8, STANDING + 8, EPOCH, ROUND),  # of the same row
        Again(8, STANDING, EPOCH + 1, ROUND),
        Again(8, STANDING, EPOCH, ROUND + 1),
        Same(8, STANDING),
    ],
    ids=str,
)
def test_what_is_not_expected_is_left(lines: list[Line], message: Again | Same) -> None:
    table = expected()
    lines[0].theirs.send(packet(message))
    assert await_turn(lines, table) == OTHER
    assert not table.arrived.any() and lines[0].left() == packet(message)


@pytest.mark.parametrize("number", [0, (1 << 53) + 1, (1 << 63) + 5, (1 << 64) - 1])
def test_numbers_of_any_size_do_no_harm(lines: list[Line], number: int) -> None:
    table, data = expected(), bytearray(packet(Again(8, STANDING, EPOCH, ROUND)))
    for at in range(20, 52, 8):
        wrong = data[:at] + number.to_bytes(8, "little") + data[at + 8 :]
        lines[0].theirs.send(wrong)
        outcome = await_turn(lines, table)
        if at == 20 and 7 <= number < 1 << 63:  # any later request may mean it
            assert outcome == TIMED_OUT and table.arrived[0, 0] == number
            table.arrived[:], table.counts[:] = 0, 0
        else:
            assert outcome == OTHER and not table.arrived.any() and lines[0].left() == wrong


def test_a_repeat_and_the_end_of_a_link_are_for_others(lines: list[Line]) -> None:
    table, data = expected(), packet(Again(8, STANDING, EPOCH, ROUND))
    lines[0].theirs.send(data + data)
    assert await_turn(lines, table) == OTHER and table.arrived.tolist() == [[8, 0]]
    assert lines[0].left() == data
    lines[0].theirs.send(data[:20])  # the rest may follow
    assert await_turn(lines, table) == OTHER and lines[0].left() == data[:20]
    lines[1].theirs.close()
    assert await_turn(lines, table) == OTHER


def test_descriptors_that_follow_stay_with_their_packet(lines: list[Line]) -> None:
    read, write = os.pipe()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read]))]
    lines[0].theirs.send(packet(Again(8, STANDING, EPOCH, ROUND)))
    lines[0].theirs.sendmsg([b"a segment"], rights)
    assert await_turn(lines, expected()) == OTHER
    data, ancillary, _, _ = lines[0].ours.recvmsg(100, socket.CMSG_SPACE(4))
    assert data == b"a segment" and len(ancillary) == 1
    for fd in (read, write, *array.array("i", ancillary[0][2])):
        os.close(fd)


def test_other_files_and_the_deadline_end_the_wait(lines: list[Line]) -> None:
    start = time.monotonic()
    assert await_turn(lines, expected(), ms=30) == TIMED_OUT
    assert 0.02 < time.monotonic() - start < 5
    lines[0].theirs.send(b"x")
    assert links.await_turn(files_of(lines), np.array([-1, 1]), expected(), 0) == OTHER


def test_taking_says_which_turn_is_complete() -> None:
    table = expected()
    assert links.take(1, 9, STANDING, EPOCH, ROUND, table) == TAKEN
    assert links.take(1, 9, STANDING, EPOCH, ROUND, table) == OTHER
    assert links.take(0, 9, STANDING, EPOCH, ROUND, table) == 0


# ---- a worker


WHOSE = np.array([0, 0, 1])


def await_sames(lines: list[Line], places: np.ndarray, spin_ms: int = 0, ms: int = 0) -> int:
    fds = np.array([line.ours.fileno() for line in lines])
    return int(links.await_sames(files_of(lines), fds, 7, WHOSE, places, spin_ms * MS, ms * MS))


def test_requests_leave_with_their_numbers(lines: list[Line]) -> None:
    packets = np.frombuffer(b"".join(packet(Again(0, n, 0, 0)) for n in (4, 5, 6)), np.uint8).reshape(3, -1)
    fds = np.array([line.ours.fileno() for line in lines])
    starts, order, rounds = np.array([0, 2, 3]), np.array([0, 2, 1]), np.array([11, 12, 13])
    assert links.send_agains(fds, starts, order, packets.copy(), rounds, 7, EPOCH) == 2
    sent = [Again(7, 4, EPOCH, 11), Again(9, 5, EPOCH, 13), Again(8, 6, EPOCH, 12)]
    assert lines[0].theirs.recv(1000) == packet(sent[0]) + packet(sent[1])
    assert lines[1].theirs.recv(1000) == packet(sent[2])
    lines[1].theirs.close()
    assert links.send_agains(fds, starts, order, packets.copy(), rounds, 7, EPOCH) == 1


@pytest.mark.parametrize("spin_ms", [0, 50])
def test_answers_are_taken_in_any_order(lines: list[Line], spin_ms: int) -> None:
    places = np.zeros(3, np.int64)
    lines[1].theirs.send(packet(Same(9, 21)))
    lines[0].theirs.send(packet(Same(8, 22)))
    assert await_sames(lines, places, ms=0) == TIMED_OUT and places.tolist() == [0, 22, 21]
    places[:] = 0
    lines[1].theirs.send(packet(Same(9, 21)))
    lines[0].theirs.send(packet(Same(7, 20)))
    late = threading.Timer(0.02, lambda: lines[0].theirs.send(packet(Same(8, 22))))
    late.start()
    assert await_sames(lines, places, spin_ms, ms=10_000) == links.ALL
    late.join()
    assert places.tolist() == [20, 22, 21] and not any(line.left() for line in lines)


@pytest.mark.parametrize("spin_ms", [0, 50])
@pytest.mark.parametrize(
    "message", [Same(6, 20), Same(9, 20), Same(10, 20), Same(7, 0), Again(7, 1, 1, 1)], ids=str
)
def test_other_answers_are_left(lines: list[Line], message: Again | Same, spin_ms: int) -> None:
    places = np.zeros(3, np.int64)
    lines[0].theirs.send(packet(Same(8, 22)) + packet(message))
    assert await_sames(lines, places, spin_ms, ms=10_000) == OTHER
    assert places.tolist() == [0, 22, 0] and lines[0].left() == packet(message)


@pytest.mark.parametrize("spin_ms", [0, 50])
def test_the_end_of_a_link_and_signals_of_other_files_end_the_wait(lines: list[Line], spin_ms: int) -> None:
    places = np.zeros(1, np.int64)
    lines[1].theirs.send(b"wake up")
    fds = np.array([lines[0].ours.fileno()])
    assert links.await_sames(files_of(lines), fds, 7, WHOSE, places, spin_ms * MS, 10_000 * MS) == OTHER
    lines[0].theirs.close()
    assert links.await_sames(files_of(lines[:1]), fds, 7, WHOSE, places, spin_ms * MS, 10_000 * MS) == OTHER
