"""Messages that repeat, sent and awaited by compiled code. Importing this file imports numba.

While a model computes, the caches lose what the interpreter needs for the next message: to take one then
lasts ten times as long as right after another one, 40 us instead of 3. These loops need a few cache lines.
They read from a socket only what they understand, an `Again` or a `Same` that is expected; for whatever else
has come they return, and leave it there.

Sockets do not block, files are those of `poll`: rows of a descriptor, and of the events that are asked for,
with those that have happened in the upper half.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Any

import numpy as np
from numba import types

from dmod.device.compiled_math import compiled
from dmod.kvstore import lanes, wire
from dmod.kvstore.lanes import OTHER, TAKEN, TIMED_OUT, Expected
from dmod.kvstore.transports import links
from dmod.kvstore.transports.links import head_of_one
from dmod.kvstore.wire import SHORT_FORM, SHORT_NBYTES

__all__ = ["ALL", "PACKET_NBYTES", "await_sames", "await_turn", "processor", "send_agains", "take", "try_out"]

ALL = 0
"""What has been awaited has come."""

_HEAD = np.frombuffer(head_of_one(SHORT_NBYTES), np.uint8)
_HEAD_NBYTES = len(_HEAD)
PACKET_NBYTES = _HEAD_NBYTES + SHORT_NBYTES
_KIND, _REQUEST = _HEAD_NBYTES + 1, _HEAD_NBYTES + 8
_AGAIN, _SAME = 1, 2
_POLLIN = 1
_PEEK, _NOSIGNAL = 0x2, 0x4000
_MONOTONIC = 1
_MOST_NBYTES = 64 * PACKET_NBYTES  # read at once

_libc: Any = types.ExternalFunction
_number: Any = types.int32
_pointer: Any = types.voidptr
_size: Any = types.uint64
_length: Any = types.int64
_poll = _libc("poll", _number(_pointer, _size, _number))
_recv = _libc("recv", _length(_number, _pointer, _size, _number))
_send = _libc("send", _length(_number, _pointer, _size, _number))
_clock_gettime = _libc("clock_gettime", _number(_number, _pointer))
_sched_yield = _libc("sched_yield", _number())
_sched_getcpu = _libc("sched_getcpu", _number())

_compiled = partial(compiled, nogil=True, uses=(lanes.__file__, links.__file__, wire.__file__))


@_compiled
def _now():  # type: ignore[no-untyped-def]
    """Nanoseconds of the monotonic clock."""
    spec = np.empty(2, np.int64)
    _clock_gettime(np.int32(_MONOTONIC), spec.ctypes)
    return spec[0] * 1_000_000_000 + spec[1]


@_compiled
def _field(buffer, at):  # type: ignore[no-untyped-def]
    """The number in 8 bytes, the lowest first."""
    value = np.int64(0)
    for i in range(8):
        value |= np.int64(buffer[at + i]) << (8 * i)
    return value


@_compiled
def _set_field(buffer, at, value):  # type: ignore[no-untyped-def]
    for i in range(8):
        buffer[at + i] = (value >> (8 * i)) & 0xFF


@_compiled
def _is_packet(buffer, at, kind):  # type: ignore[no-untyped-def]
    """Whether a packet with one short message of a kind begins here."""
    for i in range(_HEAD_NBYTES):
        if buffer[at + i] != _HEAD[i]:
            return False
    return buffer[at + _HEAD_NBYTES] == SHORT_FORM and buffer[at + _KIND] == kind


@_compiled
def _peek(fd, buffer):  # type: ignore[no-untyped-def]
    """How many bytes can be read, and have been copied to `buffer`."""
    return _recv(np.int32(fd), buffer.ctypes, np.uint64(buffer.size), np.int32(_PEEK))


@_compiled
def _consume(fd, buffer, nbytes):  # type: ignore[no-untyped-def]
    return _recv(np.int32(fd), buffer.ctypes, np.uint64(nbytes), np.int32(0)) == nbytes


@_compiled
def _wait(files, until):  # type: ignore[no-untyped-def]
    """`poll` until a time; how many files something has happened to, less than 0 for a signal."""
    left_ms = max(np.int64(0), (until - _now() + 999_999) // 1_000_000)
    return _poll(files.ctypes, np.uint64(files.shape[0]), np.int32(left_ms))


# ---- a server


@_compiled
def processor():  # type: ignore[no-untyped-def]
    """The number of the one that this thread runs on."""
    return _sched_getcpu()


@_compiled
def take(rank, request, number, epoch, round, expected):  # type: ignore[no-untyped-def]
    """An `Again` has come: the turn that it completes, TAKEN, or OTHER, and nothing is done.

    `expected` is that of `lanes.Lanes`. Request 0 cannot be told from none.
    """
    row = expected.rows[rank, number % expected.rows.shape[1]]
    if row < 0 or expected.numbers[row] != number or request <= 0 or request < expected.since[row]:
        return OTHER
    turn = expected.turns[row]
    rounds, arrived, counts = expected.rounds, expected.arrived, expected.counts
    if rounds[turn, 0] != epoch or rounds[turn, 1] != round or arrived[turn, rank] != 0:
        return OTHER
    arrived[turn, rank] = request
    counts[turn] += 1
    if counts[turn] < arrived.shape[1]:
        return TAKEN
    return turn


@_compiled
def _take_all(fd, rank, buffer, expected):  # type: ignore[no-untyped-def]
    """What a worker's link has, up to what completes a turn."""
    nbytes, at, outcome = _peek(fd, buffer), 0, TAKEN
    while outcome == TAKEN and at + PACKET_NBYTES <= nbytes and _is_packet(buffer, at, _AGAIN):
        request, number = _field(buffer, at + _REQUEST), _field(buffer, at + _REQUEST + 8)
        epoch, round = _field(buffer, at + _REQUEST + 16), _field(buffer, at + _REQUEST + 24)
        outcome = take(rank, request, number, epoch, round, expected)
        if outcome == OTHER:
            break
        at += PACKET_NBYTES
    if at == 0 or not _consume(fd, buffer, at):
        return OTHER
    return TAKEN if outcome == OTHER else outcome


@_compiled
def await_turn(files, ranks, expected, timeout_ns):  # type: ignore[no-untyped-def]
    """Take what workers send, until a turn is complete: its number, TIMED_OUT or OTHER.

    Parameters
    ----------
    files : ndarray of int32, shape (n, 2)
    ranks : ndarray of int64, shape (n,)
        The worker behind each, or -1.
    expected : Expected
        `Lanes.expected`.
    timeout_ns : int
    """
    buffer = np.empty(_MOST_NBYTES, np.uint8)
    until = _now() + timeout_ns
    while True:
        happened = _wait(files, until)
        if happened <= 0:
            return TIMED_OUT if happened == 0 else OTHER
        for i in range(files.shape[0]):
            events = files[i, 1] >> 16
            if events == 0:
                continue
            if events != _POLLIN or ranks[i] < 0:
                return OTHER
            outcome = _take_all(files[i, 0], ranks[i], buffer, expected)
            if outcome != TAKEN:
                return outcome


# ---- a worker


@_compiled
def send_agains(fds, starts, order, packets, rounds, first, epoch):  # type: ignore[no-untyped-def]
    """Send packets over several links; returns to how many of these, in order, they have gone.

    It is ``-1 - i`` if no more than a part has gone over link ``i``.

    Parameters
    ----------
    fds : ndarray of int64, shape (L,)
    starts : ndarray of int64, shape (L + 1,)
        Which packets are whose.
    order : ndarray of int64, shape (U,)
        Which request each packet is.
    packets : ndarray of uint8, shape (U, PACKET_NBYTES)
        Requests, epochs and rounds are filled in.
    rounds : ndarray of int64, shape (U,)
        Of each request.
    first, epoch : int
        The first request's number, and what all have in common.
    """
    for k in range(packets.shape[0]):
        packet = packets[k]
        _set_field(packet, _REQUEST, first + order[k])
        _set_field(packet, _REQUEST + 16, epoch)
        _set_field(packet, _REQUEST + 24, rounds[order[k]])
    for i in range(fds.shape[0]):
        part = packets[starts[i] : starts[i + 1]]
        nbytes = part.size
        sent = _send(np.int32(fds[i]), part.ctypes, np.uint64(nbytes), np.int32(_NOSIGNAL))
        if sent != nbytes:
            return i if sent < 0 else -1 - i
    return fds.shape[0]


@_compiled
def _take_sames(fd, link, buffer, first, whose, places):  # type: ignore[no-untyped-def]
    """How many answers link number `link` has brought; less than 0 for something else."""
    nbytes, at, count = _peek(fd, buffer), 0, 0
    while at + PACKET_NBYTES <= nbytes and _is_packet(buffer, at, _SAME):
        unit, place = _field(buffer, at + _REQUEST) - first, _field(buffer, at + _REQUEST + 8)
        if unit < 0 or unit >= places.size or whose[unit] != link or places[unit] != 0 or place <= 0:
            break
        places[unit] = place
        count, at = count + 1, at + PACKET_NBYTES
    if at > 0 and _consume(fd, buffer, at):
        return count
    return 0 if nbytes < 0 else OTHER


@_compiled
def await_sames(files, fds, first, whose, places, spin_ns, timeout_ns):  # type: ignore[no-untyped-def]
    """Wait until all requests have been answered: ALL, TIMED_OUT or OTHER.

    Parameters
    ----------
    files : ndarray of int32, shape (n, 2)
    fds : ndarray of int64, shape (L,)
        The links that answers come by, all of them among the files.
    first : int
        The number of the first request.
    whose : ndarray of int64, shape (U,)
        By which link each answer comes.
    places : ndarray of int64, shape (U,)
        0; an answer is written here.
    spin_ns : int
        So long it stays awake, though whoever wants the processor gets it.
    timeout_ns : int
    """
    buffer = np.empty(_MOST_NBYTES, np.uint8)
    left = places.size
    begin = _now()
    while _now() - begin < spin_ns:
        for i in range(fds.shape[0]):
            count = _take_sames(fds[i], i, buffer, first, whose, places)
            if count < 0:
                return OTHER
            left -= count
        if left == 0:
            return ALL
        _sched_yield()
    while True:
        happened = _wait(files, begin + timeout_ns)
        if happened <= 0:
            return TIMED_OUT if happened == 0 else OTHER
        for i in range(files.shape[0]):
            events = files[i, 1] >> 16
            if events == 0:
                continue
            link = -1
            for k in range(fds.shape[0]):
                if fds[k] == files[i, 0]:
                    link = k
            if link < 0 or events != _POLLIN:
                return OTHER
            count = _take_sames(files[i, 0], link, buffer, first, whose, places)
            if count <= 0:
                return OTHER
            left -= count
        if left == 0:
            return ALL


def try_out() -> None:
    """Call each loop, which compiles it; OSError if they do not do what they should."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        packets = np.zeros((1, PACKET_NBYTES), np.uint8)
        packets[0, :_HEAD_NBYTES], packets[0, _HEAD_NBYTES], packets[0, _KIND] = _HEAD, SHORT_FORM, _AGAIN
        starts, fds, places = np.array([0, 1]), np.array([ours.fileno()]), np.zeros(1, np.int64)
        files = np.array([[theirs.fileno(), _POLLIN]], np.int32)
        rows, (numbers, turns, since, counts) = np.zeros((1, 4), np.int64), np.zeros((4, 1), np.int64)
        expected = Expected(
            rows, numbers, turns, since, np.array([[3, 5]]), np.zeros((1, 1), np.int64), counts
        )
        sent = send_agains(fds, starts, np.array([0]), packets, np.array([5]), 7, 3)
        outcomes = [await_turn(files, np.array([0]), expected, 0) for _ in range(2)]
        outcomes.append(take(0, 7, 0, 3, 5, expected))
        whose = np.array([0])
        outcomes += [await_sames(files, fds, 7, whose, places, 0, 0)]
        ours.send(packets.tobytes())
        outcomes += [await_sames(files, np.array([theirs.fileno()]), 7, whose, places, 0, 0)]
        if [sent, *outcomes, expected.arrived[0, 0]] != [1, 0, TIMED_OUT, OTHER, TIMED_OUT, OTHER, 7]:
            raise OSError(f"compiled loops: {sent}, {outcomes}, {expected.arrived}")
        processor()
