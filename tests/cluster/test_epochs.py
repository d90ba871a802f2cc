"""Workers with unequal numbers of batches end their epochs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.cluster.cluster import Cluster


def test_the_shorter_epoch_ends_it_for_all_and_nothing_of_it_is_half_applied(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 2, DMOD_UNIT_BYTES=1 << 14) as cluster:
        cluster.run("epochs", 3, 5)
        outputs = [cluster.processes[f"worker {rank}"].output for rank in range(2)]
    for output in outputs:
        assert "epoch 0: 3 rounds" in output and "epoch 1: 3 rounds" in output, output
    unequal, equal = tmp_path / "unequal.npz", tmp_path / "rank0.npz"
    equal.rename(unequal)
    with Cluster(tmp_path, 2, 1) as cluster:
        cluster.run("epochs", 3, 3)
    weights = [np.load(path)["weights"] for path in (unequal, tmp_path / "rank1.npz")]
    np.testing.assert_array_equal(*weights)
