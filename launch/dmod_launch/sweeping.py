"""`sweep`: many trainings with different settings, by Ray Tune, some of them at a time."""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmod.base import ClusterError, InvalidArgument
from dmod_launch.function_job import make_directory, shipped
from dmod_launch.ray_engine import cluster
from dmod_launch.ray_job import RayOptions
from dmod_launch.sweep_news import Curves, kept_by, news
from dmod_launch.sweep_results import SweepResult
from dmod_launch.sweep_trial import TrialSettings, remove_working_copies, trial_class

__all__ = ["sweep"]

_WITHOUT_END = 1_000_000
"""Epochs; Tune's own choice ends the best trials after 100."""


def sweep(
    train_fn: Callable[[dict[str, Any]], Any],
    space: Mapping[str, Any],
    *,
    metric: str = "validation-accuracy",
    mode: str = "max",
    num_samples: int = 1,
    scheduler: Any = None,
    search_alg: Any = None,
    max_concurrent: int | None = None,
    num_workers: int = 1,
    num_servers: int | None = None,
    cpus_per_worker: float = 1.0,
    gpus_per_worker: float = 0.0,
    max_failures: int = 2,
    seed: int | None = None,
    time_budget_s: float | None = None,
    name: str | None = None,
    storage_path: str | os.PathLike[str] = "~/ray_results",
    address: str | None = None,
    num_cpus: int | None = None,
    say: Callable[[str], None] | None = None,
) -> SweepResult:
    """Train with many settings, and find the best.

    Parameters
    ----------
    train_fn : callable
        Called with the settings of a trial, in every worker of it; as `dmod_launch.fit` takes it.
    space : mapping
        Settings, or how Tune chooses them: ``ray.tune.loguniform(1e-3, 1)``, ``grid_search([16, 32])``.
    metric, mode : str
        What makes a trial the best: the last value that it reports, 'max' or 'min'.
    num_samples : int
        How often settings are drawn; for a grid, how often it is run.
    scheduler : str or ray.tune.schedulers.TrialScheduler, optional
        What stops and pauses trials: 'fifo' (default) lets each run to its end, 'asha' stops those that are
        behind after 1, 3, 9, ... epochs. One of Tune's own, such as `PopulationBasedTraining`, needs
        ``time_attr="training_iteration"``, which counts epochs.
    search_alg : ray.tune.search.Searcher, optional
    max_concurrent : int, optional
        How many at a time; default: as many as there are resources for.
    num_workers, num_servers : int
        Of each trial. With more than one worker (servers: as many, by default) it is a ``dist_sync`` job in a
        placement group of its own.
    cpus_per_worker, gpus_per_worker : float
        A worker computes with as many threads as it has CPUs.
    max_failures : int
        How often a trial that fails is started again, from its newest checkpoint.
    seed : int, optional
        For the same settings again, and the order of a grid under a scheduler that stops trials.
    time_budget_s : float, optional
        No trial is started after so many seconds, and those that run are stopped.
    name, storage_path : str
        Results go to a directory of this name there; all nodes share it.
    address, num_cpus
        See `dmod_launch.RayCluster`.
    say : callable, optional
        Is told how trials end; default: prints it.

    Returns
    -------
    SweepResult
        Of all trials, those that have failed too.

    Raises
    ------
    InvalidArgument
        An argument makes no sense, or `train_fn` cannot be sent to other processes.
    ClusterError
        No trial could be run: there are too few resources for one, or all have failed.
    """
    if mode not in ("min", "max"):
        raise InvalidArgument(f"sweep: mode={mode!r}, expected 'min' or 'max'")
    for what, value in (("num_samples", num_samples), ("num_workers", num_workers)):
        if value < 1:
            raise InvalidArgument(f"sweep: {what}={value}, expected 1 or more")
    if max_failures < 0:
        raise InvalidArgument(f"sweep: max_failures={max_failures}, expected 0 or more")
    servers = (num_workers if num_workers > 1 else 0) if num_servers is None else num_servers
    options = RayOptions(cpus_per_worker, gpus_per_worker)
    directory = Path(storage_path).expanduser().absolute() / (
        name or time.strftime("sweep_%Y-%m-%d_%H-%M-%S")
    )
    make_directory(directory)
    tell = say or (lambda text: print(text, file=sys.stderr, flush=True))
    with cluster(address, num_cpus) as (ray, _):
        tune = importlib.import_module("ray.tune")
        _check_room(ray, [options.worker()] * num_workers)
        settings = TrialSettings(
            shipped(train_fn, None), num_workers, servers, options, directory, max(1, int(cpus_per_worker))
        )
        trainable = tune.with_resources(
            tune.with_parameters(trial_class(tune), settings=settings),
            _resources(tune, options, num_workers, servers),
        )
        curves: Curves = {}
        num_to_keep, left = kept_by(scheduler)
        tuner = tune.Tuner(
            trainable,
            param_space=dict(space),
            tune_config=tune.TuneConfig(
                metric=metric,
                mode=mode,
                scheduler=_scheduler(tune, scheduler),
                **search(space, num_samples, scheduler, search_alg, seed),
                reuse_actors=True,
                max_concurrent_trials=max_concurrent,
                time_budget_s=time_budget_s,
                trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=directory.name,
                storage_path=str(directory.parent),
                failure_config=tune.FailureConfig(max_failures=max_failures),
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=1,
                    num_to_keep=num_to_keep,
                ),
                callbacks=[news(tune, tell, metric, curves, left)],
                verbose=0,
            ),
        )
        try:
            with _fewer_words():
                grid = tuner.fit()
        finally:
            remove_working_copies(directory)
        result = SweepResult.of(grid, metric, mode, directory, curves)
    for trial, error in zip(result.table["trial"], result.table["error"], strict=True):
        if error:  # which Tune has at hand only now
            tell(f"trial_{trial}: failed: {error}")
    if result.best is None:
        errors = sorted({str(error) for error in result.table["error"] if error})
        silent = "they have ended without: does the function pass **dmod_launch.reporting() to fit?"
        raise ClusterError(f"no trial has reported {metric!r}: " + ("; ".join(errors) or silent))
    return result


def _resources(tune: Any, options: RayOptions, num_workers: int, num_servers: int) -> Any:
    """What a trial takes: its worker's share, or an empty place and those of its workers."""
    if num_workers == 1 and num_servers == 0:
        return tune.PlacementGroupFactory([options.worker()])
    return tune.PlacementGroupFactory([{}, *[options.worker()] * num_workers], strategy="PACK")


def _check_room(ray: Any, bundles: list[dict[str, float]]) -> None:
    """Refuse trials that this cluster can never run; it does not know of nodes to come."""
    total = ray.cluster_resources()
    for kind in sorted({kind for bundle in bundles for kind in bundle}):
        asked = sum(bundle.get(kind, 0) for bundle in bundles)
        if asked > total.get(kind, 0):
            raise ClusterError(
                f"too few resources: a trial asks for {asked:g} {kind}, the cluster has "
                f"{total.get(kind, 0):g}; waited 0 s. Ask for less (num_workers, "
                "cpus_per_worker, gpus_per_worker), or add nodes"
            )


def _scheduler(tune: Any, scheduler: Any) -> Any:
    if scheduler in (None, "fifo"):
        return None
    if scheduler == "asha":
        return tune.schedulers.ASHAScheduler(
            time_attr="training_iteration", grace_period=1, reduction_factor=3, max_t=_WITHOUT_END
        )
    if isinstance(scheduler, str):
        raise InvalidArgument(f"sweep: scheduler={scheduler!r}, expected 'fifo', 'asha' or one of Ray Tune's")
    return scheduler


def search(
    space: Mapping[str, Any], num_samples: int, scheduler: Any, search_alg: Any, seed: int | None
) -> dict[str, Any]:
    """How settings are chosen: arguments for Tune.

    A scheduler that stops trials compares each with those before it. In the order of a grid these are often
    worse, as with ever larger learning rates, and none would be stopped: so the order is drawn.
    """
    if search_alg is not None:
        return {"search_alg": search_alg, "num_samples": num_samples}
    choose = importlib.import_module("ray.tune.search.basic_variant").BasicVariantGenerator
    points = [] if scheduler in (None, "fifo") else grid_points(space) * num_samples
    if len(points) <= num_samples:  # no grid
        return {"search_alg": choose(random_state=seed), "num_samples": num_samples}
    random.Random(seed or 0).shuffle(points)
    return {"search_alg": choose(points, random_state=seed), "num_samples": len(points)}


def grid_points(space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points of all grids of a space, in order.

    Examples
    --------
    >>> grid_points({'lr': {'grid_search': [0.1, 0.2]}, 'hidden': {'grid_search': [8]}, 'epochs': 3})
    [{'lr': 0.1, 'hidden': 8}, {'lr': 0.2, 'hidden': 8}]
    """
    grids = {
        name: value["grid_search"]
        for name, value in space.items()
        if isinstance(value, Mapping) and set(value) == {"grid_search"}
    }
    return [dict(zip(grids, values, strict=True)) for values in itertools.product(*grids.values())]


@contextmanager
def _fewer_words() -> Iterator[None]:
    """Leave out what Tune says while it runs: its tables, and a traceback for every trial that fails."""
    logger, variable = logging.getLogger("ray"), "RAY_AIR_NEW_OUTPUT"
    level, before = logger.level, os.environ.get(variable)
    logger.setLevel(logging.CRITICAL)
    os.environ[variable] = "0"  # Tune's newer output knows no silence
    try:
        yield
    finally:
        logger.setLevel(level)
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before
