"""Jobs and sweeps on Ray: a cluster on this machine, which all tests here share."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod_launch
from dmod.base import ClusterError
from dmod.device.kernels import compiled_kernels
from dmod_launch.cli import main
from dmod_launch.function_job import shipped
from dmod_launch.ray_job import RayOptions
from dmod_launch.sweep_cli import main as sweep_main
from dmod_launch.sweep_trial import TrialMixin, TrialSettings
from tests.cluster.cluster import Process, environment, wait_until
from tests.launch.ray_programs import digits, digits_of, recover

pytest.importorskip("ray", reason="needs Ray: pip install 'dmod[ray]'")

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MEMORY = {"object_store_memory": 80 << 20}
CPUS, WORKERS = 3, 2
PROGRAM = ROOT / "tests/recovery/program.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A node with three processors, to which this process is connected; jobs there do without numba."""
    from dmod_launch.ray_engine import load_ray

    ray = load_ray()
    nodes = importlib.import_module("ray.cluster_utils").Cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMOD_NUMBA", "0")  # importing it takes each process longer than all that it computes
        compiled_kernels.cache_clear()
        try:
            nodes.add_node(include_dashboard=False, num_cpus=CPUS, **MEMORY)
            ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()
    compiled_kernels.cache_clear()


def launcher(directory: Path, options: str, *command: object) -> Process:
    words = (sys.executable, "-m", "dmod_launch", *options.split(), "--", *map(str, command))
    return Process(
        "launcher", words, environment(PYTHONPATH=f"{ROOT}:{ROOT}/launch", DMOD_NUMBA=0), directory
    )


def free_cpus() -> float:
    return float(sys.modules["ray"].available_resources().get("CPU", 0))


@pytest.fixture(scope="module")
def local_digest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the workers of a local job end with."""
    directory = tmp_path_factory.mktemp("local")
    process = launcher(directory, f"-n {WORKERS} -s 1", sys.executable, PROGRAM, "none")
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
    (tmp_path / "work" / "program.py").write_text(PROGRAM.read_text())
    monkeypatch.chdir(tmp_path / "work")
    options = f"--launcher ray --address {cluster.address} -n {WORKERS} -s 1 --ship"
    process = launcher(tmp_path, options, sys.executable, "program.py", "none")
    try:
        assert process.wait() == 0, process.output
        assert digest_of(process.output) == local_digest
        assert {f"[worker {rank}] digest {local_digest}" for rank in range(WORKERS)} <= set(
            process.output.splitlines()
        )
    finally:
        process.reap()


def test_a_failure_has_the_exit_status_and_the_words_of_a_local_one(
    cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    options = "--launcher ray -n 2 -s 1 --timeout 0.5"
    assert main([*options.split(), "--", sys.executable, str(HERE / "programs.py"), "fail", "1", "7"]) == 7
    last = [line for line in capfd.readouterr().err.splitlines() if line.startswith("[")][-1]
    assert last.startswith("[launcher] the job failed: worker 1 ")
    assert "has ended with exit status 7" in last
    wait_until(lambda: free_cpus() == CPUS, "resources are not given back")


def test_too_few_resources_are_named(cluster: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--launcher", "ray", "-n", "5", "-s", "1", "--wait-resources", "0.2", "--", "true"]) == 1
    said = capfd.readouterr().err
    assert "asked for 5 CPU (1 + 1 + 1 + 1 + 1), there are 3 on 1 node, 3 of them free" in said
    assert "waited 0.2 s" in said


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


def test_a_lost_node_does_not_change_the_bits(
    cluster: Any, local_digest: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    results = []

    def train() -> None:
        results.append(
            dmod_launch.fit(
                recover,
                {"directory": str(tmp_path)},
                ScalingConfig(num_workers=WORKERS, placement_strategy="SPREAD"),
                RunConfig("run", str(tmp_path), failure_config=FailureConfig(max_failures=2)),
                num_servers=1,
            )
        )

    nodes = [cluster.add_node(num_cpus=1, **MEMORY) for _ in range(2)]
    training = threading.Thread(target=train)
    training.start()
    said = [tmp_path / f"{rank}.node" for rank in range(WORKERS)]
    try:
        wait_until(
            lambda: all(path.exists() for path in said) or not training.is_alive(),
            "the workers have not come to their second epoch",
        )
        used = {int(path.read_text()) for path in said}
        assert len(used) == WORKERS  # they are spread, so one of them is not on the first node
        lost = next(node for node in nodes if node.all_processes["raylet"][0].process.pid in used)
        cluster.remove_node(lost, allow_graceful=False)
        nodes.remove(lost)
    finally:
        training.join()
        for node in nodes:
            cluster.remove_node(node, allow_graceful=False)
    (result,) = results
    out = capfd.readouterr()
    assert "is lost with its actor, or its node" in out.err and "restart 1 of 2" in out.err
    assert "Resumed from" in out.err + out.out
    assert result.return_value == local_digest
    assert list(result.metrics_dataframe["epoch"]) == [0, 1, 2]
    logged = set(re.findall(r"\[worker \d\] .*Epoch\[2\] Train-accuracy=(\S+)", out.err + out.out))
    assert logged == {f"{result.metrics['train-accuracy']:.6f}"}  # of the data of all workers
    assert Path(result.checkpoint.path, "model-symbol.json").exists()


def test_a_function_that_fails_is_named(cluster: Any, tmp_path: Path) -> None:
    from ray.train import RunConfig

    with pytest.raises(ClusterError, match="worker 0 has ended with exit status 1: ValueError: this way"):
        dmod_launch.fit(digits, {"lr": -1}, run_config=RunConfig(storage_path=str(tmp_path)))


# ---- sweeps


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with digits; importing scikit-learn would take each trial longer than its training."""
    from sklearn.datasets import load_digits

    found, path = load_digits(), tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, data=found.data.astype("float32") / 16, label=found.target.astype("float32"))
    return str(path)


RATES = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]


def test_no_killed_trial_is_lost_and_the_best_is_that_of_a_serial_loop(
    cluster: Any, data: str, tmp_path: Path
) -> None:
    from ray import tune

    victims = {0.1: "process", 0.001: "actor"}
    settings = [
        {"lr": lr, "data": data, "kill": victims.get(lr, ""), "markers": str(tmp_path)} for lr in RATES
    ]
    said: list[str] = []
    found = dmod_launch.sweep(
        digits_of,
        {"setting": tune.grid_search(settings)},
        max_concurrent=2,
        storage_path=tmp_path,
        name="fifo",
        say=said.append,
    )
    serial = {lr: digits({"lr": lr, "data": data}) for lr in RATES}
    assert len(found.table) == len(said) == len(RATES) and set(found.table["epochs_run"]) == {2}
    assert (tmp_path / "process").exists() and (tmp_path / "actor").exists()
    best = max(RATES, key=lambda lr: serial[lr])
    assert found.best.config["setting"]["lr"] == best
    assert found.best.metrics["validation-accuracy"] == pytest.approx(serial[best])
    assert not any(found.table["error"])
    written = [path.name for path in found.save()]
    assert written[:2] == ["trials.csv", "curves.png"]
    assert Path(found.best.checkpoint.path).exists()


def test_asha_stops_half_of_the_trials_and_one_that_raises_disturbs_none(
    cluster: Any, data: str, tmp_path: Path
) -> None:
    from ray import tune

    said: list[str] = []
    found = dmod_launch.sweep(
        digits,
        {"lr": tune.grid_search([*RATES, -1]), "data": data, "epochs": 9},
        scheduler="asha",
        max_concurrent=2,
        max_failures=0,
        storage_path=tmp_path,
        name="asha",
        say=said.append,
    )
    assert found.best.config["lr"] == 1 and found.best.metrics["training_iteration"] == 9
    stopped = found.table[(found.table["epochs_run"] < 9) & (found.table["error"] == "")]
    assert len(stopped) >= len(RATES) / 2, found.table
    (error,) = found.table[found.table["lr"] == -1]["error"]
    assert error.endswith("worker 0 has ended with exit status 1: ValueError: this way leads up")
    assert sum("this way leads up" in text for text in said) == 1, said


class Trial(TrialMixin):
    """What Tune's schedulers work with, in this process and without Tune."""

    def __init__(self, name: str, config: dict[str, Any], settings: TrialSettings):
        self.trial_id = name
        self.setup(config, settings)


def test_a_trial_goes_on_with_the_checkpoint_and_other_settings_of_a_better_one(
    cluster: Any, data: str, tmp_path: Path
) -> None:
    settings = TrialSettings(shipped(digits, None), 1, 0, RayOptions(), tmp_path, 1)
    config = {"data": data, "epochs": 3}
    trials = [Trial(f"trial{lr}", {"lr": lr, **config}, settings) for lr in (0.3, 0.0001)]
    better, worse = trials
    try:
        first = [trial.step() for trial in trials]
        better.save_checkpoint(str(tmp_path / "given"))
        assert worse.reset_config({"lr": 0.5, **config})
        worse.load_checkpoint(str(tmp_path / "given"))
        worse.save_checkpoint(str(tmp_path / "again"))
        Trial(worse.trial_id, config, settings).cleanup()  # as Tune makes actors that it has no use for
        second = [trial.step() for trial in trials]
    finally:
        for trial in trials:
            trial.cleanup()
    assert (tmp_path / "again/checkpoint-000001/manifest.json").exists()
    assert [said["epoch"] for said in first + second] == [0, 0, 1, 1]
    assert first[1]["validation-accuracy"] < 0.1 and second[1]["validation-accuracy"] > 0.7
    assert "[worker 0] Resumed from" in (tmp_path / "trials" / worse.trial_id / "output.log").read_text()


def test_population_based_training(cluster: Any, data: str, tmp_path: Path) -> None:
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    found = dmod_launch.sweep(
        digits,
        {"lr": tune.grid_search([0.3, 0.0001]), "data": data, "epochs": 3},
        scheduler=PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=2,
            hyperparam_mutations={"lr": tune.loguniform(0.0001, 1)},
            resample_probability=0,
            synch=True,
        ),
        storage_path=tmp_path,
        name="pbt",
        say=lambda text: None,
    )
    assert len(set(found.table["trial"])) == 2 and set(found.table["error"]) == {""}
    donor, taker = sorted(found.curves, key=lambda trial: -found.curves[trial][1][1])
    rows = found.table.set_index("trial")
    assert rows["lr"][donor] == 0.3 and rows["epochs_run"][donor] == 3
    assert found.curves[donor][1][1] > 0.8 and found.curves[taker][1][1] < 0.1
    assert list(Path(found.best.checkpoint.path).glob("*/manifest.json"))
    (log,) = (tmp_path / "pbt" / "trials" / taker).iterdir()  # no working copies are left
    if (
        len(found.curves[taker]) == 2
    ):  # on a busy machine, seldom: nothing was left to be done when it took over
        assert rows["epochs_run"][taker] == 2 and rows["lr"][taker] == 0.3
        return
    epochs, values = zip(*found.curves[taker], strict=True)
    assert epochs == (1, 2, 3) and values[2] > 0.8 and rows["epochs_run"][taker] == 3
    assert rows["lr"][taker] in (0.3 * 0.8, 0.3 * 1.2)
    assert "checkpoint-000002: epoch 2, batch 0" in log.read_text()
    assert f"learning_rate 0.3 then, {rows['lr'][taker]:g} now" in log.read_text()


def test_a_trial_of_several_workers_pauses_and_resumes(cluster: Any, data: str, tmp_path: Path) -> None:
    from ray.tune.schedulers import FIFOScheduler

    class Pausing(FIFOScheduler):  # type: ignore[misc]
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            return "PAUSE" if result["training_iteration"] == 1 else "CONTINUE"

    found = dmod_launch.sweep(
        digits,
        {"lr": 0.1, "data": data},
        num_workers=2,
        num_servers=1,
        scheduler=Pausing(),
        storage_path=tmp_path,
        name="pauses",
        say=lambda text: None,
    )
    assert list(found.table["epochs_run"]) == [2]
    (log,) = (tmp_path / "pauses" / "trials").glob("*/output.log")
    assert "[worker 0] Resumed from" in log.read_text()


def test_examples(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    results = ["--results", str(tmp_path)]
    fit, sweep = (str(ROOT / "examples" / f"ray_{name}.py") for name in ("fit", "sweep"))

    def output_of(*command: str) -> str:
        monkeypatch.setattr(sys, "argv", [*command, *results])
        runpy.run_path(command[0], run_name="__main__")
        return capfd.readouterr().out

    assert "Validation accuracy" in output_of(fit, "--num-epochs", "2", "--name", "fit")
    lines = (tmp_path / "fit" / "metrics.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 2 and first["epoch"] == 0 and first["checkpoint"] is not None
    said = output_of(sweep, "--num-epochs", "1", "--rates", "0.1", "--sizes", "4")
    assert "Best: {'lr': 0.1, 'hidden': 4" in said
    settings = ["--set", "lr=choice(0.1,0.2)", "--set", "hidden=4", "--set", "epochs=1"]
    assert sweep_main([sweep, "--name", "named", "--scheduler", "asha", *settings, *results]) == 0
    assert "Best: {'lr': 0." in capfd.readouterr().out and (tmp_path / "named" / "trials.csv").exists()
