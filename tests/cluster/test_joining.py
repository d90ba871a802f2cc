"""Joining a job: what goes wrong is said within a deadline, with a remedy."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from dmod.kvstore.wire import PROTOCOL_VERSION
from tests.cluster.cluster import NODE, PROGRAMS, Cluster, wait_until


def refused(cluster: Cluster, name: str, *texts: str) -> None:
    process = cluster.processes[name]
    assert process.wait() == 1, process.output
    for text in texts:
        assert text in process.output, f"{name}: {text!r} is not in:\n{process.output}"


def test_importing_starts_nothing_and_create_serves_in_every_role(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, 1) as cluster:
        importing = (sys.executable, "-c", "import dmod; print('imported')")
        for role in ("server", "scheduler"):
            assert cluster.start(f"importing {role}", importing, DMLC_ROLE=role).wait() == 0
        script = (
            sys.executable,
            str(PROGRAMS),
            "rounds",
            str(tmp_path),
            "5",
        )  # the same for all, as in MXNet
        for role in ("scheduler", "server", "worker"):
            cluster.start(role, script, DMLC_ROLE=role)
        for role in ("scheduler", "server", "worker"):
            process = cluster.processes[role]
            assert process.wait() == 0, process.output
            assert ("under way" in process.output) == (role == "worker")


def test_a_port_in_use_is_named_with_its_variables(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, 1) as cluster, socket.socket() as other:
        other.bind(("127.0.0.1", int(cluster.env["DMLC_PS_ROOT_PORT"])))
        other.listen()
        cluster.start("scheduler", NODE, DMLC_ROLE="scheduler")
        address = f"tcp://127.0.0.1:{cluster.env['DMLC_PS_ROOT_PORT']}"
        refused(cluster, "scheduler", address, "DMLC_PS_ROOT_PORT", "address already in use")


def test_nobody_at_the_other_end(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, 1, DMOD_JOIN_TIMEOUT_S=1) as cluster:
        cluster.start_worker(0, "rounds")
        address = f"tcp://127.0.0.1:{cluster.env['DMLC_PS_ROOT_PORT']}"
        refused(cluster, "worker 0", "after 1 s", address, "DMLC_PS_ROOT_URI")


def test_those_who_are_missing_are_named(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 2, DMOD_JOIN_TIMEOUT_S=2) as cluster:
        cluster.start("scheduler", NODE, DMLC_ROLE="scheduler")
        cluster.start("server 1", NODE, DMLC_ROLE="server", DMLC_SERVER_ID=1)
        cluster.start_worker(0, "rounds")
        for name in cluster.processes:
            refused(cluster, name, "still waiting for", "worker 1", "server 0")


def test_workers_that_compute_differently_are_refused_unless_told(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1, DMOD_JOIN_TIMEOUT_S=30) as cluster:
        cluster.start_nodes()
        ranks = [cluster.start_worker(rank, "rounds", 3, DMOD_NUM_THREADS=rank + 1) for rank in range(2)]
        wait_until(lambda: any(p.has_said("refused") for p in ranks), "nobody has been refused")
        one = next(p for p in ranks if p.has_said("refused"))
        assert one.wait() == 1
        assert "threads is" in one.output and "DMOD_ALLOW_MIXED=1" in one.output, one.output
    with Cluster(tmp_path, 2, 1, DMOD_ALLOW_MIXED=1) as cluster:
        cluster.start_nodes()
        for rank in range(2):
            cluster.start_worker(rank, "rounds", 3, DMOD_NUM_THREADS=rank + 1)
        cluster.end_well()


def test_another_job_s_worker_is_refused(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, 1, DMOD_JOIN_TIMEOUT_S=3) as cluster:
        cluster.start("scheduler", NODE, DMLC_ROLE="scheduler")
        cluster.start_worker(0, "rounds", DMOD_JOB="another")
        refused(cluster, "worker 0", "'another'", "DMOD_JOB")
        pid = cluster.processes["worker 0"].pid
        wait_until(
            lambda: cluster.processes["scheduler"].has_said(f"refused worker 0 (pid {pid} on "), "no word"
        )


def test_a_process_of_another_version_learns_it_at_once_and_the_others_go_on(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, 1, DMOD_JOIN_TIMEOUT_S=60) as cluster:
        cluster.start_nodes()
        other = cluster.start_worker(0, "another_version")
        version = (
            f"dmod protocol 77, and the scheduler has protocol {PROTOCOL_VERSION}; install the same version"
        )
        refused(cluster, "worker 0", "JoinRefusedError", version)
        assert cluster.processes["scheduler"].has_said(f"refused worker (pid {other.pid} on ")
        cluster.start_worker(0, "rounds", 3)
        cluster.end_well()


@pytest.mark.parametrize("role", ["scheduler", "server", "worker"])
def test_other_addresses_than_loopback_need_permission(tmp_path: Path, role: str) -> None:
    with Cluster(tmp_path, 1, 1, DMLC_PS_ROOT_URI="192.0.2.1") as cluster:
        if role == "worker":
            cluster.start_worker(0, "rounds")
        else:
            cluster.start(role, NODE, DMLC_ROLE=role)
        name = "worker 0" if role == "worker" else role
        refused(cluster, name, "DMLC_PS_ROOT_URI=192.0.2.1", "--insecure-network", "DMOD_INSECURE_NETWORK=1")


def test_a_process_without_a_role_learns_how_to_get_one(tmp_path: Path) -> None:
    with Cluster(tmp_path, 1, 1) as cluster:
        cluster.start("worker 0", (sys.executable, str(PROGRAMS), "rounds", str(tmp_path)))
        refused(cluster, "worker 0", "DMLC_ROLE is not set", "dmod-launch")
