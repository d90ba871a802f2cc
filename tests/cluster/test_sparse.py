"""Modules with row_sparse weights in clusters of processes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import dmod as mx
from tests.cluster.cluster import Cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "module"))

import sparse_cases as cases

PROGRAM = Path(__file__).with_name("sparse.py")


def test_two_workers_have_the_bits_of_one_with_two_devices(tmp_path: Path) -> None:
    name = "embedding momentum"
    with Cluster(tmp_path, 2, 2) as cluster:
        cluster.run_script(PROGRAM, tmp_path, name)
    alone = cases.trained(mx, *cases.CASES[name], context=[mx.cpu(0), mx.cpu(1)])
    for rank in range(2):
        found = np.load(tmp_path / f"sparse{rank}.npz")
        for key, value in alone.items():
            np.testing.assert_array_equal(found[key], np.array(value, "float32"), key)
