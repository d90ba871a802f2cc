"""`Module.fit` in clusters of processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.cluster import Cluster

MODULES = Path(__file__).with_name("modules.py")


def start(cluster: Cluster, program: str, *arguments: object) -> None:
    cluster.start_nodes()
    for rank in range(cluster.num_workers):
        command = (sys.executable, str(MODULES), program, str(cluster.directory), *map(str, arguments))
        cluster.start(f"worker {rank}", command, DMLC_ROLE="worker", DMLC_WORKER_ID=rank)


def run(directory: Path, program: str, *arguments: object, workers: int = 2, servers: int = 1) -> list[str]:
    with Cluster(directory, workers, servers) as cluster:
        start(cluster, program, *arguments)
        for process in cluster.processes.values():
            assert process.wait() == 0, f"{process.name} has failed:\n{process.output}"
        return [cluster.processes[f"worker {rank}"].output for rank in range(workers)]


def equal(one: Path, other: Path) -> None:
    first, second = np.load(one), np.load(other)
    assert sorted(first.files) == sorted(second.files)
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], name)


def test_workers_with_unequal_numbers_of_batches_end_every_epoch_together(tmp_path: Path) -> None:
    outputs = run(tmp_path, "unequal", 3, 5, servers=2)
    equal(tmp_path / "unequal0.npz", tmp_path / "unequal1.npz")
    (tmp_path / "unequal0.npz").rename(tmp_path / "longer.npz")
    assert "worker 0 had no batch left" in outputs[1] and "Epoch[2] Train-accuracy" in outputs[1]
    run(tmp_path, "unequal", 3, 3)  # what was dropped has left no trace, in no state and no random number
    equal(tmp_path / "longer.npz", tmp_path / "unequal0.npz")


def test_a_job_resumed_from_a_checkpoint_ends_with_the_bits_of_the_whole(tmp_path: Path) -> None:
    run(tmp_path, "train", "whole", 0, 4, servers=2)
    run(tmp_path, "train", "half", 0, 2, servers=2)
    run(tmp_path, "train", "resumed", 2, 4, servers=1)  # states do not depend on the number of servers
    equal(tmp_path / "whole0.npz", tmp_path / "whole1.npz")
    equal(tmp_path / "whole0.npz", tmp_path / "resumed0.npz")
    equal(tmp_path / "whole0.npz", tmp_path / "resumed1.npz")


def test_symbols_that_differ_between_workers_are_named_to_both(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1, DMOD_TIMEOUT_S=3) as cluster:
        start(cluster, "symbols")
        for rank in range(2):
            worker = cluster.processes[f"worker {rank}"]
            assert worker.wait() != 0
            assert "fc1_weight" in worker.output and "(16, 6)" in worker.output, worker.output
            assert "(17, 6)" in worker.output, worker.output


@pytest.mark.parametrize("servers", [1, 2])
def test_two_modules_may_ask_for_the_store_by_name(tmp_path: Path, servers: int) -> None:
    run(tmp_path, "twice", servers=servers)
    for i in range(2):
        equal(tmp_path / f"twice{i}0.npz", tmp_path / f"twice{i}1.npz")
