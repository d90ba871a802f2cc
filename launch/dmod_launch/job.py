"""What the processes of a job are, and the environment by which they find each other."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dmod.base import InvalidArgument
from dmod.config import settings

__all__ = ["Program", "Remote", "programs"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "DMOD_NUM_THREADS")
_OF_ANOTHER_JOB = ("DMLC_RANK", "DMLC_WORKER_ID", "DMLC_SERVER_ID", "DMLC_NODE_HOST", "DMLC_INTERFACE")


@dataclass(frozen=True)
class Remote:
    """Another host, and how a program runs there.

    Attributes
    ----------
    host : str
        As ssh knows it.
    ssh : str
        The command that runs a shell command there.
    python : str
        The interpreter there.
    directory : str
        Where the program runs.
    """

    host: str
    ssh: str
    python: str
    directory: str


@dataclass(frozen=True)
class Program:
    """One process of a job.

    Attributes
    ----------
    role : str
        'worker', 'server' or 'scheduler'.
    rank : int or None
        Its number among those of its role; None for the scheduler.
    command : tuple of str
    environment : dict of str to str
        All of it; on another host, what is added to the environment there.
    remote : Remote or None
        The host that it runs on, if that is another one.
    directory : str
        Where it runs; '' for the launcher's.
    channel : bool
        Whether it exchanges messages with who has started it.
    """

    role: str
    rank: int | None
    command: tuple[str, ...]
    environment: dict[str, str]
    remote: Remote | None = None
    directory: str = ""
    channel: bool = False

    @property
    def name(self) -> str:
        """Such as 'worker 0'."""
        return self.role if self.rank is None else f"{self.role} {self.rank}"


def programs(
    command: Sequence[str],
    num_workers: int,
    num_servers: int,
    inherited: Mapping[str, str],
    extra: Mapping[str, str],
    root: str = "127.0.0.1",
    threads: int | None = None,
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
    """
    if num_workers < 1:
        raise InvalidArgument(f"-n {num_workers}: expected at least one worker")
    if num_servers < 1:
        raise InvalidArgument(
            f"-s {num_servers}: workers that train together need a server: pass -s 1 or more. A program that "
            "uses kvstore 'local' or 'device' is started by itself, without dmod-launch"
        )
    base = {name: value for name, value in inherited.items() if name not in _OF_ANOTHER_JOB}
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
    for rank in range(num_workers):
        role = {"DMLC_ROLE": "worker", "DMLC_WORKER_ID": str(rank)}
        found.append(Program("worker", rank, tuple(command), base | role))
    return found


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
