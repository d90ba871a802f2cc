"""The example of a sparse linear model learns its data, alone and with two workers."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.cluster import Cluster, run_python

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "sparse_linear.py"
SMALL = ["--num-features", "300", "--num-lines", "1000", "--batch-size", "50"]


def test_the_classes_are_learned(tmp_path: Path) -> None:
    assert "1 workers: accuracy 0.9" in run_python(tmp_path, EXAMPLE, *SMALL, "--min-accuracy", "0.93")


def test_two_workers_learn_together(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1) as cluster:
        printed = cluster.run_script(EXAMPLE, *SMALL, "--kv-store", "dist_sync", "--min-accuracy", "0.93")
    assert all("2 workers: accuracy 0.9" in text for text in printed)
