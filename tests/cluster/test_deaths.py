"""A process dies or stops: all others name it within the deadline, and end with an error."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, wait_until
from tests.cluster.relay import Relay

TIMEOUT_S = 2.0
LONG_S = 40.0  # for those who are told by the kernel: nobody waits for this
MARGIN_S = 6.0  # for a busy machine: interpreters have to write a traceback and end


def under_way(cluster: Cluster) -> None:
    workers = [p for name, p in cluster.processes.items() if name.startswith("worker")]
    wait_until(lambda: all(p.has_said("under way") for p in workers), "workers are not under way")


@pytest.mark.parametrize(
    ("program", "victim", "number", "timeout_s"),
    [
        ("rounds", "worker 1", signal.SIGKILL, LONG_S),
        ("rounds", "worker 1", signal.SIGSTOP, TIMEOUT_S),
        ("rounds", "server 0", signal.SIGKILL, LONG_S),
        ("rounds", "scheduler", signal.SIGKILL, TIMEOUT_S),
        ("trips", "worker 1", signal.SIGKILL, LONG_S),
        ("trips", "worker 1", signal.SIGSTOP, TIMEOUT_S),
        ("trips", "server 0", signal.SIGKILL, LONG_S),
        ("trips", "server 0", signal.SIGSTOP, TIMEOUT_S),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else str(value),
)
def test_everyone_names_the_lost_process_and_ends(
    tmp_path: Path, program: str, victim: str, number: signal.Signals, timeout_s: float
) -> None:
    with Cluster(tmp_path, 2, 2, DMOD_TIMEOUT_S=timeout_s) as cluster:
        cluster.start_nodes()
        cluster.start_workers(program)
        under_way(cluster)
        lost = cluster.processes[victim]
        os.kill(lost.pid, number)
        deadline = time.monotonic() + TIMEOUT_S + MARGIN_S
        for name, process in cluster.processes.items():
            if name == victim:
                continue
            code = process.wait(deadline - time.monotonic())
            assert code > 0, f"{name} has ended with {code}"
            assert victim in process.output and "lost" in process.output, f"{name}:\n{process.output}"
            if victim != "scheduler":
                assert f"pid {lost.pid}" in process.output, f"{name}:\n{process.output}"
                why = "silent for" if number == signal.SIGSTOP else "all its connections have ended"
                assert why in process.output, f"{name}:\n{process.output}"
            if name.startswith("worker"):
                assert "in round" in process.output or victim == "scheduler", f"{name}:\n{process.output}"
        if number == signal.SIGSTOP:  # it comes back to a job that is over, and ends too
            os.kill(lost.pid, signal.SIGCONT)
            assert lost.wait(TIMEOUT_S + MARGIN_S) > 0


def test_a_connection_that_is_cut_and_made_again_ends_no_job(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path, 1, 1, DMOD_TIMEOUT_S=TIMEOUT_S) as cluster,
        Relay(int(cluster.env["DMLC_PS_ROOT_PORT"])) as relay,
    ):
        cluster.start_nodes()
        worker = cluster.start_worker(0, "barriers", DMLC_PS_ROOT_PORT=relay.port)

        def passed(count: int) -> None:
            wait_until(lambda: worker.output.count("passed") >= count, f"not {count} barriers were passed")

        passed(1)
        for _ in range(2):
            before = worker.output.count("passed")
            relay.cut()
            passed(before + 100)  # more than may have been on their way back
        (tmp_path / "enough").touch()
        cluster.end_well()


@pytest.mark.parametrize(
    ("then", "code", "reason"),
    [
        ("raise", 1, "ZeroDivisionError: a mistake of mine"),
        ("exit", 3, "worker 1"),
        ("", 0, "worker 1"),
    ],
)
def test_a_worker_that_leaves_while_it_is_needed_is_named(
    tmp_path: Path, then: str, code: int, reason: str
) -> None:
    with Cluster(tmp_path, 2, 1) as cluster:
        cluster.start_nodes()
        other = cluster.start_worker(0, "rounds")
        leaver = cluster.start_worker(1, "rounds", 10, then)
        assert leaver.wait() == code
        assert other.wait(MARGIN_S) == 1  # long before the 10 s after which a silent process is lost
        assert reason in other.output and f"pid {leaver.pid}" in other.output, other.output
        for name in ("scheduler", "server 0"):
            cluster.processes[name].wait(MARGIN_S)
