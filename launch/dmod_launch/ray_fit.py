"""`fit` and `RayCluster`: training functions on a Ray cluster, from Python."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from dmod.base import InvalidArgument
from dmod.config import settings
from dmod.recovery.directory import CheckpointDirectory
from dmod_launch.function_job import FunctionJob, Report, make_directory, shipped, text_sink
from dmod_launch.ray_engine import WAIT_S, cluster
from dmod_launch.ray_job import RayJob, RayOptions
from dmod_launch.restart import Announcer, run_with_restarts
from dmod_launch.supervisor import Supervisor

__all__ = ["RayCluster", "fit"]

_WITHOUT_END = 1 << 30
_NOT_OF_DMOD = ("trainer_resources", "use_tpu", "topology", "label_selector")
"""Of `ray.train.ScalingConfig`: refused rather than left out in silence."""


def fit(
    train_fn: Callable[[Any], Any],
    config: Any = None,
    scaling_config: Any = None,
    run_config: Any = None,
    **options: Any,
) -> Any:
    """Train on Ray: run a function in every worker of a job, and see it through.

    Parameters
    ----------
    train_fn : callable
        Called with `config` in every worker. It makes its store by ``mx.kv.create('dist_sync')``, or 'local'
        if it is the only one, and passes ``**dmod_launch.reporting()`` to its module's `fit`.
    config : object
    scaling_config : ray.train.ScalingConfig, optional
        How many workers, and what each takes. Default: one worker with one CPU.
    run_config : ray.train.RunConfig, optional
        A name and a place for results (`storage_path`, default ``~/ray_results``), which all nodes share; how
        often a failed job is started again (`FailureConfig`); how many checkpoints are kept
        (`CheckpointConfig`). A training of the same name goes on from its newest checkpoint.
    **options
        ``address``, ``num_cpus``: see `RayCluster`; ``num_servers``, ``env``, ``wait_s``: see
        `RayCluster.fit`.

    Returns
    -------
    ray.train.Result
        Metrics of the last epoch, and of all (``metrics_dataframe``, a row per epoch); the newest checkpoint,
        which `mx.mod.Module.load` reads; what `train_fn` returned in worker 0 (``return_value``).

    Raises
    ------
    ClusterError
        The job has failed, or there are too few resources.
    InvalidArgument
        An argument makes no sense, or `train_fn` cannot be sent to other processes.
    """
    connecting = {name: options.pop(name) for name in ("address", "num_cpus") if name in options}
    with RayCluster(**connecting) as connected:
        return connected.fit(train_fn, config, scaling_config, run_config, **options)


class RayCluster:
    """A Ray cluster to run jobs on; as a context, it is left, or ended if it was started here, at the end.

    Parameters
    ----------
    address : str, optional
        'auto' for the cluster that runs on this machine, ``HOST:6379``, or ``ray://HOST:10001``; default: the
        one that this process is connected to, else ``RAY_ADDRESS``, else a new one on this machine.
    num_cpus : int, optional
        Of a new one; default: the processors of this machine.
    """

    def __init__(self, address: str | None = None, num_cpus: int | None = None):
        self._entered = cluster(address, num_cpus)
        self.ray: Any = None
        self._is_own = False

    def __enter__(self) -> RayCluster:
        self.ray, self._is_own = self._entered.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ray = None
        self._entered.__exit__(kind, error, trace)

    def fit(
        self,
        train_fn: Callable[[Any], Any],
        config: Any = None,
        scaling_config: Any = None,
        run_config: Any = None,
        *,
        num_servers: int | None = None,
        env: Mapping[str, str] | None = None,
        wait_s: float = WAIT_S,
    ) -> Any:
        """Run a training function; see `dmod_launch.fit`.

        Parameters
        ----------
        train_fn, config, scaling_config, run_config
            See `dmod_launch.fit`.
        num_servers : int, optional
            Default: as many as workers, none for one worker.
        env : mapping, optional
            Environment variables of the workers and servers.
        wait_s : float
            How long to wait for resources.
        """
        ray = self._connected()
        train = importlib.import_module("ray.train")
        scale = train.ScalingConfig() if scaling_config is None else scaling_config
        plan = _Plan.of(train.RunConfig() if run_config is None else run_config)
        options, workers = _options(scale, scaling_config is not None, wait_s)
        make_directory(plan.directory)
        history = History(plan.directory / "metrics.jsonl")
        job = FunctionJob(
            ray,
            replace(options, directory=plan.working_dir, may_grow=not self._is_own),
            shipped(train_fn, config),
            workers,
            (workers if workers > 1 else 0) if num_servers is None else num_servers,
            plan.directory,
            plan.keep,
            history.add,
            extra={**plan.environment, **(env or {})},
        )
        job.run(plan.max_restarts)
        return _result(train, plan.directory, history, job.value)

    def run(
        self,
        command: Sequence[str],
        num_workers: int,
        num_servers: int | None = None,
        options: RayOptions | None = None,
        *,
        max_restarts: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command in every worker of a job, as ``dmod-launch --launcher ray`` does.

        Parameters
        ----------
        command : sequence of str
        num_workers, num_servers : int
        options : RayOptions, optional
        max_restarts : int
        env : mapping, optional

        Returns
        -------
        int
            The job's exit status.
        """
        ray, extra = self._connected(), dict(env or {})
        out, err = text_sink("stdout"), text_sink("stderr")
        say = Announcer(err, colour=False)
        timeout_s = settings({**os.environ, **extra}).timeout_s
        servers = num_workers if num_servers is None else num_servers
        taken = replace(options or RayOptions(), may_grow=not self._is_own)
        job = RayJob(ray, taken, command, num_workers, servers, os.environ, extra, say)
        try:
            return run_with_restarts(
                lambda restart: job.start({"DMOD_RESTART": str(restart)}),
                lambda at_once: Supervisor(timeout_s, out, err, False, at_once, start=job.start_child),
                max_restarts,
                say,
            )
        finally:
            job.release()

    def _connected(self) -> Any:
        if self.ray is None:
            raise InvalidArgument(
                "RayCluster: expected to be used as a context: with RayCluster() as cluster"
            )
        return self.ray


@dataclass(frozen=True)
class _Plan:
    """What a `ray.train.RunConfig` says."""

    directory: Path
    keep: int | None
    max_restarts: int
    environment: dict[str, str]
    working_dir: str

    @classmethod
    def of(cls, config: Any) -> _Plan:
        for name in ("storage_filesystem", "callbacks"):
            if getattr(config, name, None):
                raise InvalidArgument(f"RunConfig({name}=...): dmod has no use for it; leave it out")
        storage = config.storage_path or "~/ray_results"
        if "://" in str(storage):
            raise InvalidArgument(
                f"RunConfig(storage_path={storage!r}): expected a directory; mount the storage on all nodes"
            )
        failure, keeping = config.failure_config, config.checkpoint_config
        if keeping is not None and keeping.checkpoint_score_attribute:
            raise InvalidArgument(
                "CheckpointConfig(checkpoint_score_attribute=...): dmod keeps the newest checkpoints; "
                "num_to_keep says how many"
            )
        failures = 0 if failure is None else failure.max_failures
        runtime = dict(getattr(config, "worker_runtime_env", None) or {})
        environment = {str(name): str(value) for name, value in (runtime.pop("env_vars", None) or {}).items()}
        working_dir = str(runtime.pop("working_dir", ""))
        if runtime:
            raise InvalidArgument(
                f"RunConfig(worker_runtime_env=...): {', '.join(sorted(runtime))}: expected env_vars and "
                "working_dir only"
            )
        return cls(
            Path(storage).expanduser().absolute() / (config.name or time.strftime("dmod_%Y-%m-%d_%H-%M-%S")),
            2 if keeping is None else keeping.num_to_keep,
            _WITHOUT_END if failures < 0 else failures,
            environment,
            working_dir,
        )


def _options(scale: Any, is_given: bool, wait_s: float) -> tuple[RayOptions, int]:
    """What a `ray.train.ScalingConfig` says: resources, and the number of workers."""
    for name in _NOT_OF_DMOD:
        if getattr(scale, name, None):
            raise InvalidArgument(f"ScalingConfig({name}=...): dmod has no use for it; leave it out")
    workers = scale.num_workers
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InvalidArgument(f"ScalingConfig(num_workers={workers!r}): expected a number, 1 or more")
    each = {"CPU": 1.0, **(scale.resources_per_worker or {})}
    if scale.use_gpu:
        each.setdefault("GPU", 1.0)
    if scale.accelerator_type:
        each[f"accelerator_type:{scale.accelerator_type}"] = 0.001  # Ray's way to ask for a kind
    cpus, gpus = each.pop("CPU"), each.pop("GPU", 0.0)
    strategy = scale.placement_strategy if is_given else "SPREAD"
    return RayOptions(cpus, gpus, each, strategy=strategy, wait_s=wait_s), workers


@dataclass
class History:
    """The reports of a training, one per epoch: those of an earlier run of the same name too.

    Parameters
    ----------
    path : Path
        Where they are kept, a line of JSON for each.
    """

    path: Path
    rows: dict[int, dict[str, float]] = field(default_factory=dict)
    checkpoints: dict[int, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        for line in lines:
            try:
                said = json.loads(line)
                self._note(Report(said["metrics"], said["epoch"], said["checkpoint"]))
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a run that was cut short

    def add(self, report: Report) -> None:
        """Take one; it replaces an earlier one of the same epoch."""
        said = {"epoch": report.epoch, "metrics": report.metrics, "checkpoint": report.checkpoint}
        with self.path.open("a") as file:
            file.write(json.dumps(said) + "\n")
        self._note(report)

    def _note(self, report: Report) -> None:
        epoch = len(self.rows) if report.epoch is None else report.epoch
        self.rows[epoch] = report.metrics
        if report.checkpoint is not None:
            self.checkpoints[report.checkpoint] = report.metrics

    @property
    def last(self) -> dict[str, float]:
        """The metrics of the last epoch, and its number."""
        if not self.rows:
            return {}
        epoch = max(self.rows)
        return {**self.rows[epoch], "epoch": epoch}


def _result(train: Any, directory: Path, history: History, value: Any) -> Any:
    pandas = importlib.import_module("pandas")
    folder = CheckpointDirectory(directory / "checkpoints")
    kept = [manifest.serial for manifest in folder.valid()] if folder.path.exists() else []
    best = [
        (train.Checkpoint(str(folder.folder(serial))), history.checkpoints.get(serial, {}))
        for serial in sorted(kept)
    ]
    rows = [{"epoch": epoch, **history.rows[epoch]} for epoch in sorted(history.rows)]
    return train.Result(
        metrics=history.last,
        checkpoint=best[-1][0] if best else None,
        error=None,
        path=str(directory),
        metrics_dataframe=pandas.DataFrame(rows),
        best_checkpoints=best,
        return_value=value,
    )
