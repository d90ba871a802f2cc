"""Every optimizer under 'dist_sync': on the servers where it runs on flat buffers, else in the workers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.cluster.cluster import Cluster

PROGRAM = Path(__file__).with_name("optimizers.py")


def test_two_workers_give_the_bits_of_one_process_with_every_optimizer(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 2) as cluster:
        cluster.start_nodes()
        for rank in range(2):
            cluster.start_script(rank, PROGRAM, tmp_path / "trained", rank)
        alone = (sys.executable, str(PROGRAM), str(tmp_path / "trained"), "2")
        cluster.start("alone", alone, DMLC_ROLE="")
        cluster.end_well()
    first, *others = (np.load(tmp_path / f"trained{rank}.npz") for rank in range(3))
    for other in others:
        for name in first.files:
            np.testing.assert_array_equal(first[name], other[name], name)
