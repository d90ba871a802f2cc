"""Jobs and sweeps on Ray: three nodes on this machine, which all tests here share."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dmod_launch
from dmod.base import ClusterError
from tests.cluster.cluster import Process, environment, wait_until
from tests.launch.ray_programs import climb, digits, recover

pytest.importorskip("ray", reason="needs Ray: pip install 'dmod[ray]'")
# Ray leaves sockets and log files to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
WORKERS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of a processor each; this process is connected to them."""
    from dmod_launch.ray_engine import load_ray

    ray = load_ray()
    nodes = importlib.import_module("ray.cluster_utils").Cluster()
    try:
        nodes.add_node(include_dashboard=False, **NODE)
        for _ in range(WORKERS - 1):
            nodes.add_node(**NODE)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def launcher(directory: Path, options: str, *command: object) -> Process:
    words = (sys.executable, "-m", "dmod_launch", *options.split(), "--", *map(str, command))
    return Process("launcher", words, environment(PYTHONPATH=f"{ROOT}:{ROOT}/launch"), directory)


def on_ray(cluster: Any, options: str) -> str:
    return f"--launcher ray --address {cluster.address} {options}"


def free_cpus() -> float:
    return float(sys.modules["ray"].available_resources().get("CPU", 0))


@pytest.fixture(scope="module")
def local_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What three workers of a local job end with."""
    process = launcher(
        tmp_path_factory.mktemp("local"),
        f"-n {WORKERS} -s 1",
        sys.executable,
        ROOT / "tests/recovery/program.py",
        "none",
    )
    try:
        assert process.wait() == 0, process.output
        return digest_of(process.output)
    finally:
        process.reap()


def digest_of(output: str) -> str:
    (found,) = {line.split()[-1] for line in output.splitlines() if " digest " in line}
    return found


def test_a_job_has_the_bits_of_a_local_one_in_a_copy_of_its_directory(
    cluster: Any, local_digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "program.py").write_text((ROOT / "tests/recovery/program.py").read_text())
    monkeypatch.chdir(tmp_path / "work")
    process = launcher(
        tmp_path, on_ray(cluster, f"-n {WORKERS} -s 1 --ship"), sys.executable, "program.py", "none"
    )
    try:
        assert process.wait() == 0, process.output
        assert digest_of(process.output) == local_digest
        assert {f"[worker {rank}] digest {local_digest}" for rank in range(WORKERS)} <= set(
            process.output.splitlines()
        )
    finally:
        process.reap()


def test_a_failure_has_the_exit_status_and_the_words_of_a_local_one(cluster: Any, tmp_path: Path) -> None:
    process = launcher(
        tmp_path,
        on_ray(cluster, "-n 2 -s 1 --timeout 0.5"),
        *(sys.executable, HERE / "programs.py", "fail", 1, 7),
    )
    try:
        assert process.wait() == 7, process.output
        last = [line for line in process.output.splitlines() if line.startswith("[")][-1]
        assert last.startswith("[launcher] the job failed: worker 1 ")
        assert "has ended with exit status 7" in last
    finally:
        process.reap()
    wait_until(lambda: free_cpus() == WORKERS, "resources are not given back")


def test_too_few_resources_are_named(cluster: Any, tmp_path: Path) -> None:
    process = launcher(tmp_path, on_ray(cluster, "-n 5 -s 1 --wait-resources 0.2"), "true")
    try:
        assert process.wait() == 1
        assert "asked for 5 CPU (1 + 1 + 1 + 1 + 1), there are 3 on 3 nodes" in process.output
        assert "waited 0.2 s" in process.output
    finally:
        process.reap()


def test_ctrl_c_ends_all_and_the_ray_that_was_started_for_it(tmp_path: Path) -> None:
    process = launcher(
        tmp_path,
        "--launcher ray -n 1 -s 1",
        *(sys.executable, HERE / "programs.py", "for_ever"),
    )
    try:
        wait_until(lambda: process.has_said("[worker 0] pid"), "the worker is not under way")
        worker = int(process.output.split("[worker 0] pid ")[1].split()[0])
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
        assert "Traceback" not in process.output
        assert not Path(f"/proc/{worker}").exists()
    finally:
        process.reap()


def test_a_lost_node_is_replaced_and_the_bits_are_the_same(
    cluster: Any, local_digest: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    ready, results = tmp_path / "ready", []

    def train() -> None:
        results.append(
            dmod_launch.fit(
                recover,
                {"ready": str(ready)},
                ScalingConfig(num_workers=WORKERS, placement_strategy="SPREAD"),
                RunConfig("run", str(tmp_path), failure_config=FailureConfig(max_failures=2)),
                num_servers=1,
            )
        )

    training = threading.Thread(target=train)
    training.start()
    try:
        wait_until(
            lambda: ready.exists() or not training.is_alive(), "no worker has come to its second epoch"
        )
        cluster.remove_node(sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)
        cluster.add_node(**NODE)
    finally:
        training.join()
    (result,) = results
    out = capfd.readouterr()
    assert "is lost with its actor, or its node" in out.err and "restart 1 of 2" in out.err
    assert "Resumed from" in out.err + out.out
    assert result.return_value == local_digest
    assert list(result.metrics_dataframe["epoch"]) == [0, 1, 2]
    assert 0 < result.metrics["train-accuracy"] < 1 and result.metrics["epoch"] == 2
    assert Path(result.checkpoint.path, "model-symbol.json").exists()


def test_a_function_that_fails_is_named(cluster: Any, tmp_path: Path) -> None:
    from ray.train import RunConfig

    with pytest.raises(ClusterError, match="worker 0 has ended with exit status 1: ValueError: this slope"):
        dmod_launch.fit(climb, {"slope": -1}, run_config=RunConfig(storage_path=str(tmp_path)))


# ---- sweeps


def test_no_killed_trial_is_lost_and_the_best_is_that_of_a_serial_loop(cluster: Any, tmp_path: Path) -> None:
    from ray import tune

    victims = {0.1: "process", 0.001: "actor"}
    rates = [0.0001, 0.001, 0.01, 0.1]
    settings = [{"lr": lr, "kill": victims.get(lr, ""), "markers": str(tmp_path)} for lr in rates]
    said: list[str] = []
    found = dmod_launch.sweep(
        lambda config: digits(config["setting"]),
        {"setting": tune.grid_search(settings)},
        max_concurrent=2,
        storage_path=tmp_path,
        name="fifo",
        say=said.append,
    )
    serial = {lr: digits({"lr": lr}) for lr in rates}
    assert len(found.table) == len(said) == len(rates) and set(found.table["epochs_run"]) == {2}
    assert (tmp_path / "process").exists() and (tmp_path / "actor").exists()
    assert found.best.config["setting"]["lr"] == max(rates, key=lambda lr: serial[lr])
    assert not any(found.table["error"])
    written = [path.name for path in found.save()]
    assert written[:2] == ["trials.csv", "curves.png"]
    assert Path(found.best.checkpoint.path).exists()


def test_asha_stops_trials_early_and_one_that_raises_disturbs_none(cluster: Any, tmp_path: Path) -> None:
    from ray import tune

    said: list[str] = []
    found = dmod_launch.sweep(
        climb,
        {"slope": tune.grid_search([8, -1, 4, 2, 1])},
        metric="height",
        scheduler="asha",
        max_concurrent=2,
        max_failures=0,
        storage_path=tmp_path,
        name="asha",
        say=said.append,
    )
    assert found.best.config == {"slope": 8} and found.best.metrics["height"] == 72
    stopped = found.table[(found.table["epochs_run"] < 9) & (found.table["error"] == "")]
    assert len(stopped) >= 2
    (error,) = found.table[found.table["slope"] == -1]["error"]
    assert error.endswith("worker 0 has ended with exit status 1: ValueError: this slope leads down")
    assert sum("this slope leads down" in text for text in said) == 1, said


def test_a_trial_of_several_workers_pauses_and_resumes(cluster: Any, tmp_path: Path) -> None:
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler

    class Pausing(FIFOScheduler):  # type: ignore[misc]
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            return "PAUSE" if result["training_iteration"] == 1 else "CONTINUE"

    found = dmod_launch.sweep(
        digits,
        {"lr": tune.grid_search([0.1, 0.001])},
        num_workers=2,
        num_servers=1,
        scheduler=Pausing(),
        storage_path=tmp_path,
        name="pauses",
        say=lambda text: None,
    )
    assert found.best.config == {"lr": 0.1} and set(found.table["epochs_run"]) == {2}
    logs = [path.read_text() for path in (tmp_path / "pauses" / "trials").glob("*/output.log")]
    assert len(logs) == 2 and all("[worker 0] Resumed from" in text for text in logs)


def test_examples(cluster: Any, tmp_path: Path) -> None:
    address = ["--address", cluster.address, "--results", str(tmp_path)]
    sweep = str(ROOT / "examples" / "ray_sweep.py")
    commands = {
        "fit": [sys.executable, str(ROOT / "examples" / "ray_fit.py"), "--num-epochs", "2", "--name", "fit"],
        "sweep": [sys.executable, sweep, "--num-epochs", "2", "--rates", "0.1", "--sizes", "4", "8"],
        "command": [
            *(sys.executable, "-m", "dmod_launch.sweep_cli", sweep, "--name", "named", "--scheduler", "asha"),
            *("--set", "lr=choice(0.1,0.2)", "--set", "hidden=4", "--set", "epochs=1"),
        ],
    }
    outputs = {}
    for name, command in commands.items():
        done = subprocess.run(
            [*command, *address], capture_output=True, text=True, timeout=150, env=environment(), cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs[name] = done.stdout
    assert "Validation accuracy" in outputs["fit"]
    assert len((tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()) == 2
    first = json.loads((tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["epoch"] == 0 and first["checkpoint"] is not None
    assert "Best: {'lr': 0.1, 'hidden': " in outputs["sweep"]
    assert "Best: {'lr': 0." in outputs["command"] and (tmp_path / "named" / "trials.csv").exists()
