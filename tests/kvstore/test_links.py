"""Connections that share memory: what is copied, what is refused, and that nobody waits for a reader."""

from __future__ import annotations

import array as arrays
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgpack
import numpy as np
import pytest

from dmod.base import ProtocolError
from dmod.kvstore.transports.links import Link
from dmod.kvstore.transports.segments import Arena
from dmod.kvstore.transports.shm import ShmTransport

DEADLINE_S = 20.0


class Pair:
    """Two ends of one link, each with an arena."""

    def __init__(self) -> None:
        sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.arenas = [Arena(), Arena()]
        self.a, self.b = (Link(s, arena) for s, arena in zip(sockets, self.arenas, strict=True))

    def carry(self, frames: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """Send a message from a to b."""
        self.a.send(frames)
        while not (messages := self.b.receive()):
            self.a.flush()
        [message] = messages
        return message


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.a.close()
    pair.b.close()


def test_arrays_in_shared_memory_are_referred_to_and_others_copied(pair: Pair) -> None:
    shared = pair.arenas[0].zeros(10_000, "float32")
    assert shared is not None
    private: np.ndarray = np.zeros(10_000, np.float32)
    got = pair.carry([b"header", memoryview(shared).cast("B"), memoryview(private).cast("B"), b""])
    shared[:], private[:] = 1, 1
    assert bytes(got[0]) == b"header" and len(got[3]) == 0
    assert np.frombuffer(got[1], np.float32).all() and not np.frombuffer(got[2], np.float32).any()
    part = pair.carry([memoryview(shared[5000:7000]).cast("B")])  # the segment is known by now
    assert len(part[0]) == 8000 and np.frombuffer(part[0], np.float32).all()


def test_frames_arrive_whole_whatever_their_sizes(pair: Pair) -> None:
    rng = np.random.default_rng(0)
    for sizes in ([1] * 1000, [1024] * 1000, [3_000_000, 5, 200_000], [0, 1, 1 << 18, (1 << 18) - 1]):
        sent: list[bytes | memoryview] = [rng.bytes(size) for size in sizes]
        assert [bytes(frame) for frame in pair.carry(sent)] == sent


def test_a_sender_does_not_wait_for_the_reader(pair: Pair) -> None:
    sent: list[list[bytes | memoryview]] = [[bytes([i]), bytes([i]) * 700_000] for i in range(10)]
    shared = pair.arenas[0].zeros(5000, "uint8")
    assert shared is not None
    for message in sent:
        pair.a.send(message)
    pair.a.send([memoryview(shared)])  # its descriptor waits as well
    assert pair.a.blocked
    got: list[list[bytes | memoryview]] = []
    while len(got) < 11:
        got += pair.b.receive()
        pair.a.flush()
    assert [[bytes(frame) for frame in message] for message in got[:10]] == sent
    assert bytes(got[10][0]) == bytes(5000) and not pair.a.blocked


def packet(listed: object, inline: bytes = b"") -> bytes:
    head = listed if isinstance(listed, bytes) else msgpack.packb(listed)
    return len(head).to_bytes(4, "little") + len(inline).to_bytes(4, "little") + head + inline


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 64,
        packet(b"\xc1"),
        packet(7),
        packet([[], [5]], b"abc"),
        packet([[], [-1]]),
        packet([[], [[0, 0, 4096]]]),  # a segment that nobody has announced
        packet([[[0, 4096]], []]),  # an announcement without a descriptor
        packet([[], [[0, 0]]]),
        packet([[], ["text"]]),
        packet([{}, None]),
    ],
)
def test_whoever_does_not_keep_to_the_protocol_is_refused(pair: Pair, data: bytes) -> None:
    pair.a._socket.send(data)
    with pytest.raises(ProtocolError):
        pair.b.receive()


def test_descriptors_of_something_else_are_refused_and_closed(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(8192))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, arrays.array("i", [fd, fd]))
    pair.a._socket.sendmsg([packet([[[0, 8192]], [[0, 0, 8192]]])], [rights])
    with pytest.raises(ProtocolError, match="segment"):
        pair.b.receive()
    pair.b.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1  # less the socket
    os.close(fd)


def test_an_endpoint_drops_bad_peers_and_other_users_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transport = ShmTransport(Arena())
    server, client, stranger = transport.endpoint(), transport.endpoint(), transport.endpoint()
    bad = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        address = server.bind(f"shm://{tmp_path}/s")
        with pytest.raises(FileNotFoundError):
            client.connect("nobody", f"{address}2")
        bad.connect(str(tmp_path / "s"))
        bad.send(b"\xff" * 64)
        client.connect("server", address)
        client.send("server", [b"hello"])
        peer, frames = server.receive(DEADLINE_S) or (None, [])
        assert bytes(frames[0]) == b"hello" and server.rejected == 1
        assert f"dropped the link to process {os.getpid()} of this host: a packet of" in caplog.text
        assert bad.recv(1) == b""  # closed
        user = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
        stranger.connect("server", address)
        stranger.send("server", [b"let me in"])
        assert server.receive(0.1) is None and server.rejected == 2
        server.drop(peer)
        server.send(peer, [b"to nobody, and no error"])
        assert client.receive(DEADLINE_S) == ("server", [])  # the end of the link
        client.send("server", [b"to nobody either"])
    finally:
        bad.close()
        for endpoint in (server, client, stranger):
            endpoint.close(0)
        transport.close()
    assert not (tmp_path / "s").exists()
