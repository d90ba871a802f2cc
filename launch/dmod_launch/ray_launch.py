"""``dmod-launch --launcher ray``: a job on a Ray cluster, or on one started for it on this machine."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dmod.base import ClusterError
from dmod_launch.child import Child
from dmod_launch.job import Program
from dmod_launch.ray_engine import cluster
from dmod_launch.ray_job import RayJob, RayOptions
from dmod_launch.restart import run_with_restarts
from dmod_launch.supervisor import Supervisor

__all__ = ["RAY_ONLY", "add_ray_options", "launch", "ray_options"]

RAY_ONLY = (
    "address",
    "cpus_per_worker",
    "gpus_per_worker",
    "cpus_per_server",
    "strategy",
    "ship",
    "wait_resources",
)
"""The options of `add_ray_options`, as attributes."""


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options for Ray."""
    group = parser.add_argument_group("for --launcher ray")
    option = group.add_argument
    option(
        "--address",
        metavar="ADDRESS",
        help="of the cluster: auto for the one that runs on this machine, HOST:6379, or ray://HOST:10001; "
        "default: RAY_ADDRESS, or one that is started on this machine for the job",
    )
    option("--cpus-per-worker", type=float, metavar="C", help="default: 1")
    option("--gpus-per-worker", type=float, metavar="G", help="default: 0")
    option("--cpus-per-server", type=float, metavar="C", help="default: 0, servers sit beside the workers")
    option(
        "--strategy",
        choices=["SPREAD", "PACK", "STRICT_SPREAD", "STRICT_PACK"],
        help="how workers lie on the nodes; default: SPREAD, on as many as there are",
    )
    option(
        "--ship",
        action="store_true",
        help="run in a copy of this directory, which Ray takes to the nodes, also if they are this machine",
    )
    option("--wait-resources", type=float, metavar="S", help="how long to wait for resources; default: 60")


def ray_options(arguments: argparse.Namespace) -> RayOptions:
    """What these options say."""
    given = {
        "cpus_per_worker": arguments.cpus_per_worker,
        "gpus_per_worker": arguments.gpus_per_worker,
        "cpus_per_server": arguments.cpus_per_server,
        "strategy": arguments.strategy,
        "wait_s": arguments.wait_resources,
    }
    return RayOptions(
        directory=arguments.remote_dir,
        ship=arguments.ship,
        **{name: value for name, value in given.items() if value is not None},
    )


def launch(
    address: str | None,
    options: RayOptions,
    command: Sequence[str],
    num_workers: int,
    num_servers: int,
    inherited: Mapping[str, str],
    extra: Mapping[str, str],
    supervise: Callable[[bool, Callable[[Program], Child]], Supervisor],
    max_restarts: int,
    say: Callable[[str], None],
) -> int:
    """Run a job on Ray; returns its exit status, as `run_with_restarts` does.

    Parameters
    ----------
    address : str, optional
        See `dmod_launch.ray_engine.cluster`.
    options : RayOptions
    command, num_workers, num_servers, inherited, extra
        See `dmod_launch.job.programs`.
    supervise : callable
        Makes a supervisor; its arguments are whether a failure ends all processes at once, and what starts a
        program.
    max_restarts : int
    say : callable

    Raises
    ------
    InvalidArgument
        An argument makes no sense, or Ray is missing.
    """
    try:
        with cluster(address, ship=options.ship) as (ray, is_own):
            options = replace(options, may_grow=not is_own)
            job = RayJob(ray, options, command, num_workers, num_servers, inherited, extra, say)
            try:
                return run_with_restarts(
                    lambda restart: job.start({"DMOD_RESTART": str(restart)}),
                    lambda at_once: supervise(at_once, job.start_child),
                    max_restarts,
                    say,
                )
            finally:
                job.release()
    except ClusterError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
