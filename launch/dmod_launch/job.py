"""What the processes of a job are, and the environment by which they find each other."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence

from dmod.base import InvalidArgument
from dmod.config import settings
from dmod_launch.program import Program, Remote

__all__ = ["Program", "Remote", "programs", "worker_shares"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "DMOD_NUM_THREADS")
_OF_ANOTHER_JOB = ("DMLC_RANK", "DMLC_WORKER_ID", "DMLC_SERVER_ID", "DMLC_NODE_HOST", "DMLC_INTERFACE")


def programs(
    command: Sequence[str],
    num_workers: int,
    num_servers: int,
    inherited: Mapping[str, str],
    extra: Mapping[str, str],
    root: str = "127.0.0.1",
    threads: int | None = None,
    bind: bool = False,
) -> list[Program]:
    """The processes of a job on this host.

    Parameters
    ----------
    command : sequence of str
        What every worker runs.
    num_workers, num_servers : int
    inherited : mapping
        The launcher's environment. Its ``DMLC_*`` addresses and ranks are those of another job.
    extra : mapping
        Settled by the user; goes before all else.
    root : str
        The address of this host at which the scheduler listens.
    threads : int, optional
        Of each process, unless `inherited` says; default: the cores of this host, divided by the workers.
    bind : bool
        Whether each worker keeps to its share of this host's cores, unless ``DMOD_CPUS`` is 'all'.
    """
    if num_workers < 1:
        raise InvalidArgument(f"-n {num_workers}: expected at least one worker")
    if num_servers < 1:
        raise InvalidArgument(
            f"-s {num_servers}: workers that train together need a server: pass -s 1 or more. A program that "
            "uses kvstore 'local' or 'device' is started by itself, without dmod-launch"
        )
    base = {name: value for name, value in inherited.items() if name not in _OF_ANOTHER_JOB}
    if base.get("DMOD_CPUS") != "all":
        base.pop("DMOD_CPUS", None)
    base.setdefault("PYTHONUNBUFFERED", "1")  # lines come when they are written, and survive a kill
    for name in _THREADS:
        base.setdefault(name, str(threads or max(1, _cores() // num_workers)))
    base |= {
        "DMLC_PS_ROOT_URI": root,
        "DMLC_PS_ROOT_PORT": str(_free_port(root)),
        "DMLC_NUM_WORKER": str(num_workers),
        "DMLC_NUM_SERVER": str(num_servers),
        "DMOD_JOB": secrets.token_hex(8),
    }
    base |= extra
    settings(base)  # complain about what the user has set once, rather than once per process
    node = (sys.executable, "-m", "dmod.kvstore")
    role = {"DMLC_ROLE": "scheduler", "DMOD_DEATHS_ON_STDIN": "1"}
    found = [Program("scheduler", None, node, base | role)]
    for rank in range(num_servers):
        role = {"DMLC_ROLE": "server", "DMLC_SERVER_ID": str(rank)}
        found.append(Program("server", rank, node, base | role))
    shares = worker_shares(num_workers, base) if bind else [{}] * num_workers
    for rank in range(num_workers):
        role = {"DMLC_ROLE": "worker", "DMLC_WORKER_ID": str(rank), **shares[rank]}
        found.append(Program("worker", rank, tuple(command), base | role))
    return found


def worker_shares(num_workers: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """``DMOD_CPUS`` for each worker: the processors that it keeps to.

    Servers wake their workers at the same moment, and the system may then let two of them share a processor
    while another one is idle; with the small steps of training that happens again and again. Nothing is set
    where workers want more threads than their share has processors, or have been told to use all.
    """
    known = hasattr(os, "sched_getaffinity")
    processors = sorted(os.sched_getaffinity(0)) if known else []
    size = len(processors) // num_workers
    threads = settings(environment).num_threads or 1
    if environment.get("DMOD_CPUS") == "all" or num_workers < 2 or size < threads:
        return [{}] * num_workers
    return [
        {"DMOD_CPUS": ",".join(map(str, processors[rank * size : (rank + 1) * size]))}
        for rank in range(num_workers)
    ]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
