"""Compression and 'dist_async' in clusters of processes."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.cluster import Cluster

PROGRAM = Path(__file__).with_name("store_api.py")


def run(directory: Path, program: str, num_servers: int, **settings: object) -> list[str]:
    with Cluster(directory, 2, num_servers, PYTHONPATH=PROGRAM.parents[2], **settings) as cluster:
        return cluster.run_script(PROGRAM, program, directory)


def test_compressed_gradients_have_mxnet_s_sums_and_fewer_bytes(tmp_path: Path) -> None:
    run(tmp_path, "compressed", 2, DMOD_TRANSPORT="tcp")


def test_keys_that_differ_between_workers_are_named(tmp_path: Path) -> None:
    run(tmp_path, "different_keys", 1, DMOD_WAIT_S=1)


def test_fit_reports_the_metrics_of_all_workers(tmp_path: Path) -> None:
    outputs = run(tmp_path, "figures", 1)
    assert all("metric largest is this worker's own" in output for output in outputs)


def test_dist_async_applies_pushes_as_they_come(tmp_path: Path) -> None:
    run(tmp_path, "asynchronous", 1)
