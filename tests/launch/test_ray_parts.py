"""The parts of jobs and sweeps on Ray that need no cluster: versions, options, functions to send."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dmod_launch
from dmod.base import ClusterError, InvalidArgument
from dmod_launch.cli import main
from dmod_launch.function_job import make_directory
from dmod_launch.job import Program
from dmod_launch.ray_child import RayChild
from dmod_launch.ray_engine import check_version, place
from dmod_launch.ray_job import RayOptions
from dmod_launch.sweep_news import kept_by, news
from dmod_launch.sweeping import grid_points, search
from tests.cluster.cluster import free_port


def test_names_that_the_package_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        dmod_launch.no_such_name  # noqa: B018


@pytest.mark.parametrize("version", ["1.13.0", "2.43.9", "3.0.0"])
def test_a_ray_that_does_not_fit_is_refused(version: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"Ray {version} is installed; expected 2\.44 or newer"):
        check_version(version)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--launcher local --address auto", "--address needs --launcher ray"),
        ("--launcher ray --interface eth0", "--interface needs --launcher ssh"),
        ("--launcher local --cpus-per-worker 2", "--cpus-per-worker needs --launcher ray"),
    ],
)
def test_options_of_another_launcher(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["-n", "1", "-s", "1", *options.split(), "true"])
    assert message in capsys.readouterr().err


def test_an_address_where_nobody_answers_is_named_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'dmod[ray]'")
    address = f"127.0.0.1:{free_port()}"
    assert main(["-n", "1", "-s", "1", "--launcher", "ray", "--address", address, "true"]) == 1
    said = capfd.readouterr().err
    assert f"Ray, at address '{address}': nobody answers there" in said and "ray start --head" in said


def test_a_place_for_results_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgument, match=r"results cannot go to .*Not a directory.*storage_path"):
        make_directory(tmp_path / "file" / "run")


class ThreeProcessors:
    """A Ray that has started, as far as `place` asks it before it reserves."""

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3.0}

    available_resources = cluster_resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True}]


def test_resources_that_an_own_ray_will_never_have_are_not_waited_for() -> None:
    with pytest.raises(
        ClusterError, match=r"asked for 4 CPU \(2 \+ 2\), there are 3 on 1 node.*not waited for"
    ):
        place(ThreeProcessors(), [{"CPU": 2}] * 2, "SPREAD", 60.0, print, may_grow=False)


class Answer:
    """What an actor's method gives: a value, or an error."""

    def __init__(self, value: Any):
        self.value = value

    def remote(self, *arguments: Any) -> Any:
        return self.value


class ActorOfAKilledProcess:
    """Tells at once that its process was killed, and then what it knows of its own end."""

    def __init__(self, on_a_node: Any):
        self.start, self.read = Answer(4711), Answer(([], 128 + signal.SIGKILL))
        self.is_on_a_node, self.stop = Answer(on_a_node), Answer(None)


class RayOfValues:
    """A Ray whose answers are there already."""

    class exceptions:
        RayError = ConnectionError

    @staticmethod
    def get(value: Any, timeout: float | None = None) -> Any:
        if isinstance(value, Exception):
            raise value
        return value


@pytest.mark.parametrize(
    ("on_a_node", "how"),
    [
        (True, "was killed by signal 9 (SIGKILL)"),
        (False, "is lost with its actor, or its node (The node is gone)"),
        (ConnectionError("no actor"), "is lost with its actor, or its node (no actor)"),
    ],
)
def test_a_process_that_dies_before_its_actor_is_lost_with_it(on_a_node: Any, how: str) -> None:
    program = Program("worker", 0, ("true",), {})
    child = RayChild(RayOfValues, ActorOfAKilledProcess(on_a_node), program, "", True)
    assert child.process.wait(10) == 128 + signal.SIGKILL
    assert child.how == how and child.is_lost == (on_a_node is not True)
    for pipe in (child.process.stdout, child.process.stderr):
        assert pipe is not None
        pipe.close()


def test_the_order_of_a_grid_is_drawn_where_trials_are_stopped() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'dmod[ray]'")
    space = {"lr": {"grid_search": [1, 2, 3, 4]}, "hidden": {"grid_search": [8, 9]}, "epochs": 3}
    rates = [point["lr"] for point in grid_points(space)]
    assert rates == sorted(rates) and len(rates) == 8
    drawn = [search(space, 1, "asha", None, seed) for seed in (None, 0, 1)]
    orders = [[point["lr"] for point in given["search_alg"]._points_to_evaluate] for given in drawn]
    assert all(sorted(order) == rates != order for order in orders)
    assert orders[0] == orders[1] != orders[2] and {given["num_samples"] for given in drawn} == {8}
    assert search(space, 3, "fifo", None, None)["num_samples"] == 3


def test_checkpoints_are_left_for_those_who_go_on_from_them(tmp_path: Path) -> None:
    curves: dict[str, list[tuple[int, float]]] = {}
    tune = SimpleNamespace(Callback=object)
    scheduler = SimpleNamespace(_perturbation_interval=2, _time_attr="training_iteration")
    assert kept_by(scheduler) == (None, 6)
    hear = news(tune, lambda text: None, "accuracy", curves, keep=2)
    trials = [SimpleNamespace(trial_id=name, checkpoint=None) for name in ("donor", "taker")]
    donor, taker = trials
    for epoch in range(1, 6):
        hear.on_trial_result(epoch, trials, donor, {"training_iteration": epoch, "accuracy": 0.5})
        folder = tmp_path / str(epoch)
        folder.mkdir()
        taken = SimpleNamespace(path=str(folder))
        hear.on_checkpoint(iteration=epoch, trials=trials, trial=donor, checkpoint=taken)
        donor.checkpoint = taken
        taker.checkpoint = taken if epoch == 2 else taker.checkpoint
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["2", "4", "5"]
    assert curves == {"donor": [(epoch, 0.5) for epoch in range(1, 6)]}


def test_what_a_worker_takes() -> None:
    assert RayOptions(2, 1, {"disk": 3}).worker() == {"CPU": 2, "GPU": 1, "disk": 3}
    with pytest.raises(InvalidArgument, match="takes no resources"):
        RayOptions(0).worker()
    with pytest.raises(InvalidArgument, match="-1 GPU per worker"):
        RayOptions(1, -1).worker()


def test_outside_a_job_there_is_nobody_to_report_to() -> None:
    dmod_launch.report({"loss": 1})
    with pytest.raises(InvalidArgument, match="loss='high', expected a number"):
        dmod_launch.report({"loss": "high"})  # type: ignore[dict-item]
    assert dmod_launch.reporting(eval_end_callback=print)["eval_end_callback"] is print
    with pytest.raises(InvalidArgument, match="batch_end_callback"):
        dmod_launch.reporting(batch_end_callback=print)


def test_a_function_that_cannot_be_sent_is_named_with_what_is_in_the_way() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'dmod[ray]'")
    from dmod_launch.function_job import shipped

    lock = threading.Lock()

    def train(config: Any) -> None:
        lock.acquire()

    with pytest.raises(InvalidArgument, match=r"train cannot be sent .*its variable 'lock' is in the way"):
        shipped(train, None)
    with pytest.raises(InvalidArgument, match=r"config\['lock'\] is in the way"):
        shipped(sorted, {"lock": lock})  # Ray replaces `print` by a function of its own
    with pytest.raises(InvalidArgument, match="expected a function"):
        shipped("train", None)  # type: ignore[arg-type]


def test_settings_on_the_command_line() -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'dmod[ray]'")
    from ray import tune

    from dmod_launch.sweep_cli import parse_space

    space = parse_space(
        ["lr=loguniform(1e-3, 1)", "hidden=16,32", "epochs=3", "name=a", "c=choice(x,2)"], tune
    )
    assert space["hidden"] == {"grid_search": [16, 32]} and space["epochs"] == 3 and space["name"] == "a"
    assert space["c"].categories == ["x", 2] and (space["lr"].lower, space["lr"].upper) == (1e-3, 1)
    for text, message in [("lr", "expected NAME=VALUE"), ("lr=exp(1)", "'exp', expected one of uniform")]:
        with pytest.raises(InvalidArgument, match=message):
            parse_space([text], tune)


def test_programs_to_sweep_over(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'dmod[ray]'")
    from dmod_launch.sweep_cli import load_function

    (tmp_path / "program.py").write_text("def train(config): return config\n")
    assert load_function(str(tmp_path / "program.py"))({"a": 1}) == {"a": 1}
    with pytest.raises(InvalidArgument, match="no function 'other'"):
        load_function(f"{tmp_path / 'program.py'}:other")
    with pytest.raises(InvalidArgument, match="no such file"):
        load_function("nowhere.py")


def test_configurations_that_have_no_meaning_here(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'dmod[ray]'")
    from ray.train import CheckpointConfig, RunConfig, ScalingConfig

    from dmod_launch.ray_fit import _options, _Plan

    options, workers = _options(
        ScalingConfig(num_workers=3, use_gpu=True, resources_per_worker={"CPU": 2}), True, 5.0
    )
    assert workers == 3 and options.worker() == {"CPU": 2, "GPU": 1} and options.strategy == "PACK"
    plan = _Plan.of(
        RunConfig("a", str(tmp_path), worker_runtime_env={"env_vars": {"X": "1"}, "working_dir": "/data"})
    )
    assert plan.directory == tmp_path / "a" and plan.environment == {"X": "1"}
    assert plan.working_dir == "/data"
    for config, message in [
        (RunConfig(storage_path="s3://bucket"), "expected a directory"),
        (RunConfig(checkpoint_config=CheckpointConfig(checkpoint_score_attribute="x")), "the newest"),
        (RunConfig(worker_runtime_env={"pip": ["x"]}), "pip: expected env_vars and working_dir only"),
    ]:
        with pytest.raises(InvalidArgument, match=message):
            _Plan.of(config)
