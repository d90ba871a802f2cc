"""What peers or users send wrongly is refused or dropped; servers and other workers stay intact."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import zmq

from tests.cluster.cluster import Cluster, wait_until


def test_shapes_that_differ_between_workers_are_named_to_both(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 2) as cluster:
        cluster.start_nodes()
        workers = cluster.start_workers("shapes")
        for worker in workers:
            assert worker.wait() == 1
        said = [w.output for w in workers if "init('w')" in w.output]
        assert said and all("(3, 4)" in text and "(3, 5)" in text for text in said), said


def test_a_key_pushed_before_init_is_an_error_of_that_worker(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, 1) as cluster:
        cluster.start_nodes()
        (worker,) = cluster.start_workers("unknown_key")
        assert worker.wait() == 1
        assert "UnknownKeyError: push('w'): unknown key: init('w', value) comes first" in worker.output


def tcp_ports_of(pid: int) -> list[int]:
    """The loopback ports that a process listens at."""
    inodes = {os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")}
    ports = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            ports.append(int(fields[1].split(":")[1], 16))
    return ports


def test_garbage_is_dropped_and_counted_and_the_job_goes_on(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1, DMOD_TIMEOUT_S=30) as cluster:
        cluster.start_nodes()
        workers = cluster.start_workers("rounds", 100_000)
        wait_until(lambda: all(w.has_said("under way") for w in workers), "workers are not under way")
        server = cluster.processes["server 0"]
        (port,) = tcp_ports_of(server.pid)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(100))
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):  # the server hangs up
                pass
        context = zmq.Context()
        try:
            for garbage in ([b"\xc1" * 100], [b"", b"x" * 1000], [bytes(10)] * 6000):
                dealer = context.socket(zmq.DEALER)
                dealer.connect(f"tcp://127.0.0.1:{port}")
                dealer.send_multipart(garbage)
                dealer.close(linger=5000)
        finally:
            context.term()
        said = "dropped a connection that sent something else"
        wait_until(lambda: server.output.count(said) >= 2, "the server has said nothing of the garbage")
        assert "one who has not said who it is" in server.output
        assert all(w.popen.poll() is None for w in (*workers, server))
        os.kill(workers[0].pid, signal.SIGINT)  # ends the job in good time
        for process in cluster.processes.values():
            assert process.wait() != 0
        assert "KeyboardInterrupt" in workers[1].output
        count = re.search(r"(\d+) messages from outside were dropped", server.output)
        assert count is not None and int(count[1]) >= 3, server.output
