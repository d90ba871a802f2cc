"""The benchmarks of the store run, and count what they say; how fast is none of a test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kvstore import figures
from benchmarks.kvstore_shapes import WORKLOADS, resnet50

ROOT = Path(__file__).resolve().parents[2]


def result_of(path: Path, name: str, *options: str) -> dict:
    command = [sys.executable, str(ROOT / "benchmarks" / name), "--only-dmod", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--json", str(path), *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text())["results"]


def test_the_store_s_benchmark_times_every_workload_and_both_ways_to_call(tmp_path: Path) -> None:
    options = ("--divide", "400", "--transports", "auto", "--optimizers", "sum")
    results = result_of(tmp_path / "kvstore.json", "kvstore.py", *options)
    for workload in WORKLOADS:
        assert results["sum"][workload].keys() == {"dmod auto, flat", "dmod auto, keys"}
        assert all(row["median_ms"] >= row["min_ms"] > 0 for row in results["sum"][workload].values())


def test_the_scaling_benchmark_compares_a_job_with_independent_processes(tmp_path: Path) -> None:
    results = result_of(tmp_path / "scaling.json", "scaling.py", "--models", "small MLP", "--batches", "8")
    row = results["small MLP"]["dmod"]
    assert row["share"] == pytest.approx(row["together"] / row["alone"], rel=0.05)


def test_ratios_are_taken_within_a_round() -> None:
    runs = {"dmod": [1.0, 4.0, 2.0], "MXNet 1.9.1": [10.0, 8.0, 10.0]}
    assert figures(runs)["dmod"] == {"median_ms": 2000.0, "min_ms": 1000.0, "of_mxnet": 0.2}


def test_the_shapes_are_resnet_50_s() -> None:
    shapes = resnet50()
    sizes = [1] * len(shapes)
    for i, shape in enumerate(shapes.values()):
        for axis in shape:
            sizes[i] *= axis
    assert (len(shapes), sum(sizes)) == (161, 25_557_032)
