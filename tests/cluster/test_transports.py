"""Endpoints, the addresses that nodes listen at, and the directory of their ipc sockets."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dmod.base import InvalidArgument
from dmod.config import Settings
from dmod.kvstore.messages import Member
from dmod.kvstore.transports.addresses import listen_host, scheduler_address, usable_addresses
from dmod.kvstore.transports.base import Endpoint, Transport
from dmod.kvstore.transports.inproc import InprocTransport
from dmod.kvstore.transports.private_dir import PrivateDirectory
from dmod.kvstore.transports.segments import Arena
from dmod.kvstore.transports.shm import ShmTransport
from dmod.kvstore.transports.slow import SlowTransport
from dmod.kvstore.transports.zeromq import ZmqTransport

DEADLINE_S = 20.0


@pytest.mark.parametrize("scheme", ["tcp", "ipc", "shm", "inproc", "slow"])
def test_messages_go_both_ways_whole_and_in_order(scheme: str) -> None:
    transport: Transport = InprocTransport() if scheme == "inproc" else ShmTransport(Arena())
    if scheme == "slow":
        transport, scheme = SlowTransport(transport, 0.002, 1e9), "tcp"
    server, client, directory = transport.endpoint(), transport.endpoint(), PrivateDirectory()
    try:
        names = {"tcp": "tcp://127.0.0.1:0", "ipc": f"ipc://{directory.path}/s"}
        names |= {"shm": f"shm://{directory.path}/s", "inproc": "inproc://s:0"}
        client.connect("the server", server.bind(names[scheme]))
        large = np.arange(300_000, dtype=np.float32)
        for number in range(3):
            client.send("the server", [bytes([number]), memoryview(large).cast("B"), b""])
        for number in range(3):
            got = server.receive(DEADLINE_S)
            assert got is not None
            peer, frames = got
            assert [bytes(frames[0]), bytes(frames[2])] == [bytes([number]), b""]
            np.testing.assert_array_equal(np.frombuffer(frames[1], np.float32), large)
            server.send(peer, [b"answer %d" % number])
            assert client.receive(DEADLINE_S) == ("the server", [b"answer %d" % number])
        client.wake()
        assert client.receive(DEADLINE_S) is None and client.receive(0) is None
        client.send("the server", [b"garbage"])
        peer, _ = server.receive(DEADLINE_S) or (None, [])
        server.drop(peer)
        client.send("the server", [b"more"])
        assert server.receive(0.2) is None and server.rejected == 1
        server.send(b"\0nobody", [b"lost, and no error"])
    finally:
        for endpoint in (server, client):
            endpoint.close(0)
        transport.close()
        directory.close()


@pytest.mark.parametrize("slow", [False, True], ids=["shm", "slow"])
def test_the_end_of_a_link_is_told_once_after_its_messages(slow: bool) -> None:
    transport: Transport = ShmTransport(Arena())
    transport = SlowTransport(transport, 0.01, 1e9) if slow else transport
    server, client, other = (transport.endpoint() for _ in range(3))
    directory = PrivateDirectory()
    try:
        address = server.bind(f"shm://{directory.path}/s")
        for endpoint in (client, other):
            endpoint.connect("the server", address)
            assert endpoint.send("the server", [b"hello"])
        peers = [got[0] for _ in range(2) if (got := server.receive(DEADLINE_S)) is not None]
        for number in range(2):
            client.send("the server", [bytes([number]), bytes(300_000)])
        client.close(DEADLINE_S)
        said = [got for _ in range(3) if (got := server.receive(DEADLINE_S)) is not None]
        assert [[len(frame) for frame in frames] for _, frames in said] == [[1, 300_000], [1, 300_000], []]
        gone = {peer for peer, _ in said}
        assert len(gone) == 1 and server.receive(0) is None
        assert not server.send(gone.pop(), [b"too late"])
        # Who ends a link knows it: only the other one is told, here because it sends.
        server.drop(next(peer for peer in peers if peer != said[0][0]))
        assert server.receive(0) is None
        assert not other.send("the server", [b"more"]) and other.receive(DEADLINE_S) == ("the server", [])
    finally:
        for endpoint in (server, other):
            endpoint.close(0)
        transport.close()
        directory.close()


@pytest.mark.parametrize("kind", [InprocTransport, ZmqTransport, lambda: ShmTransport(Arena())])
def test_whoever_wakes_an_endpoint_need_not_know_whether_it_has_closed(kind: Callable[[], Transport]) -> None:
    transport = kind()
    for _ in range(50):
        endpoint, ended = transport.endpoint(), threading.Event()

        def use(endpoint: Endpoint = endpoint, ended: threading.Event = ended) -> None:
            while not ended.is_set():
                endpoint.receive(DEADLINE_S)
            endpoint.close(0)

        user = threading.Thread(target=use)
        user.start()
        endpoint.wake()
        ended.set()
        endpoint.wake()  # as the user closes it
        user.join(DEADLINE_S)
        assert not user.is_alive()
        endpoint.wake()
    transport.close()


def test_who_was_dropped_cannot_keep_others_waiting() -> None:
    transport = ZmqTransport()
    server, client = transport.endpoint(), transport.endpoint()
    client.connect("the server", server.bind("tcp://127.0.0.1:0"))
    client.send("the server", [b"garbage"])
    peer, _ = server.receive(DEADLINE_S) or (None, [])
    server.drop(peer)
    enough = threading.Event()

    def flood() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not enough.is_set() and time.monotonic() < deadline:
            client.send("the server", [b"more garbage"])

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        assert server.receive(0.01) is None and flooding.is_alive()
    finally:
        enough.set()
        flooding.join()
        for endpoint in (server, client):
            endpoint.close(0)
        transport.close()


def test_a_private_directory_is_removed_also_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stale, foreign, young = tmp_path / "dmod-stale", tmp_path / "dmod-other", tmp_path / "dmod-young"
    for path in (stale, young, foreign):
        path.mkdir()
    for path in (stale, young):
        (path / "lock").touch()
    living = PrivateDirectory()
    assert living.path.parent == tmp_path and living.path.stat().st_mode & 0o777 == 0o700
    for path in (stale, foreign, living.path):
        os.utime(path, (0, 0))
    other = PrivateDirectory()
    assert sorted(tmp_path.iterdir()) == sorted([foreign, young, living.path, other.path])
    living.close()
    other.close()
    assert sorted(tmp_path.iterdir()) == sorted([foreign, young])


def test_nodes_listen_at_named_addresses_of_this_host_only() -> None:
    here = Settings(root_uri="localhost", root_port=9091)
    assert scheduler_address(here) == "tcp://127.0.0.1:9091" and listen_host(here) == "127.0.0.1"
    assert listen_host(Settings(root_uri="127.0.0.1", root_port=1, interface="lo")) == "127.0.0.1"
    network = Settings(root_uri="192.0.2.1", root_port=1, insecure_network=True)
    assert scheduler_address(network) == "tcp://192.0.2.1:1"
    for uri in ("0.0.0.0", "*"):
        with pytest.raises(InvalidArgument, match="every interface"):
            scheduler_address(Settings(root_uri=uri, root_port=1, insecure_network=True))
    with pytest.raises(InvalidArgument, match="DMLC_INTERFACE=nosuch0"):
        listen_host(Settings(root_uri="127.0.0.1", root_port=1, interface="nosuch0"))
    with pytest.raises(InvalidArgument, match=r"DMLC_NODE_HOST=192\.0\.2\.7 .*--insecure-network"):
        listen_host(Settings(root_uri="127.0.0.1", root_port=1, node_host="192.0.2.7"))
    with pytest.raises(InvalidArgument, match="DMLC_PS_ROOT_PORT is not set"):
        scheduler_address(Settings(root_uri="127.0.0.1"))


def test_a_worker_takes_the_fastest_address_that_it_can_use(tmp_path: Path) -> None:
    for name in ("shm", "server"):
        (tmp_path / name).touch()
    addresses = (f"shm://{tmp_path}/shm", f"ipc://{tmp_path}/server", "tcp://127.0.0.1:9")
    here, elsewhere = (Member("server", 0, 1, host, 7, addresses) for host in ("host", "other"))

    def usable(server: Member, transport: str) -> list[str]:
        return [address.partition(":")[0] for address in usable_addresses(server, "host", transport)]

    assert usable(here, "auto") == ["shm", "ipc", "tcp"]
    assert usable(elsewhere, "auto") == ["tcp"]
    assert all(usable(here, only) == [only] for only in ("shm", "ipc", "tcp"))
    assert usable(elsewhere, "shm") == []
    (tmp_path / "shm").unlink()  # another file system, such as a container's
    assert usable(here, "auto") == ["ipc", "tcp"]


def test_a_pretended_network_takes_its_time() -> None:
    transport = SlowTransport(InprocTransport(), 0.03, 1e6)
    server, client = transport.endpoint(), transport.endpoint()
    client.connect("the server", server.bind("inproc://s:0"))
    begin = time.monotonic()
    for number in range(2):
        client.send("the server", [bytes([number]), bytes(20_000)])
    assert server.receive(0.001) is None
    for number in range(2):
        got = server.receive(DEADLINE_S)
        assert got is not None and bytes(got[1][0]) == bytes([number])
        assert time.monotonic() - begin >= 0.03 + (number + 1) * 0.02
