"""benchmarks/step_time.py and profile_plan.py run, and what they count is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import step_time
from benchmarks.step_workloads import WORKLOADS, gigaflops, make_data

FOLDER = Path(step_time.__file__).parent


def run(script: str, *args: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *args],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_step_time_measures_dmod_and_names_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    missing = str(tmp_path / "none")
    text = run(
        "step_time.py", "--workloads", "mlp", "--threads", "1", "--rounds", "1", "--json", str(file),
        DMOD_ORACLE=missing, DMOD_PEERS=missing,
    )  # fmt: skip
    for system in ("mxnet", "torch", "torch.compile", "jax"):
        assert f"left out: {system};" in text
    (result,) = json.loads(file.read_text())["results"]
    figures = result["systems"]["dmod"]
    assert len(figures["runs_ms"]) == 1 and figures["ms"] > 0 and figures["first_step_s"] > 0
    assert result["ratios"] == {} and result["sgemm_limit_ms"] > 0
    assert "| MLP 784-128-64-10, b64 | 1" in text


def test_a_system_that_fails_is_an_error_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"nothing, mlp: ended\n(.|\n)*KeyError: 'nothing'"):
        step_time.Runner("nothing", "mlp", 1, sys.executable)


def test_settings_of_other_libraries_are_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("DMOD_NUMBA", "0")
    environ = step_time.environ_for(2)
    assert "OPENBLAS_CORETYPE" not in environ and "DMOD_NUMBA" not in environ
    assert environ["DMOD_NUM_THREADS"] == environ["OMP_NUM_THREADS"] == "2"


def test_the_products_of_a_step_are_counted() -> None:
    forward = 64 * (784 * 128 + 128 * 64 + 64 * 10)
    assert gigaflops(WORKLOADS["mlp"]) * 1e9 == 2 * (3 * forward - 64 * 784 * 128)
    assert gigaflops(WORKLOADS["resnet20"]) == pytest.approx(7.8, rel=0.02)  # 41 M multiply-adds an image
    assert gigaflops(WORKLOADS["lstm"]) == pytest.approx(6 * 700 * (2 * 2 * 200 * 800 + 200 * 10000) / 1e9)


@pytest.mark.parametrize("workload", sorted(WORKLOADS))
def test_data_has_the_workloads_shape(workload: str) -> None:
    work = WORKLOADS[workload]
    data, label = make_data(work, 2)
    assert data.shape == (2 * work.batch, *work.shape) and data.dtype == label.dtype == "float32"
    assert label.max() < work.classes


def test_profile_plan_lists_every_step() -> None:
    text = run("profile_plan.py", "mlp", "--runs", "2", DMOD_NUM_THREADS="1")
    assert "SoftmaxOutput" in text and "_backward_SoftmaxOutput" in text and "update   sgd" in text
    assert "intermediate results take" in text
