"""Jobs over several hosts: the scheduler here, workers and servers there, by ssh."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dmod import __version__
from dmod.base import InvalidArgument
from dmod.kvstore.transports.addresses import interface_address
from dmod_launch.hosts import Host, place
from dmod_launch.job import Program, Remote, programs
from dmod_launch.preflight import Checked, check_hosts
from dmod_launch.remote import SSH

__all__ = ["SshOptions", "ssh_programs"]

_SHIPPED = ("DMLC_", "DMOD_", "OMP_", "OPENBLAS_", "MKL_", "PYTHON")


@dataclass(frozen=True)
class SshOptions:
    """How to reach hosts, and how they reach each other.

    Attributes
    ----------
    hosts : tuple of Host
    interface : str
        The network interface that all processes listen on; '' for the one by which hosts reach this one.
    ssh : str
        The command that runs a shell command on a host.
    python : str
        The interpreter on the hosts; '' for the path of this one.
    directory : str
        The directory that programs run in there; '' for that of the launcher.
    """

    hosts: tuple[Host, ...]
    interface: str = ""
    ssh: str = SSH
    python: str = ""
    directory: str = ""


def ssh_programs(
    options: SshOptions,
    command: Sequence[str],
    num_workers: int,
    num_servers: int,
    inherited: Mapping[str, str],
    extra: Mapping[str, str],
) -> Callable[[Mapping[str, str]], list[Program]]:
    """Check the hosts, and give what makes the processes of a job on them, for each start.

    Parameters
    ----------
    options : SshOptions
    command, num_workers, num_servers, inherited, extra
        As `dmod_launch.job.programs` takes them; of the environment, variables of dmod, Python and the
        numbers of threads go along, and those in `extra`.

    Returns
    -------
    callable
        From more variables, a job's programs, with addresses of its own.

    Raises
    ------
    InvalidArgument
        The hosts have too few slots, or the launcher's address is not known.
    ClusterError
        A host cannot be reached, lacks dmod, or another host cannot reach it.
    """
    worker_hosts, server_hosts = place(options.hosts, num_workers, num_servers)
    used = [host for host in options.hosts if host in {*worker_hosts, *server_hosts}]
    root = interface_address(options.interface) if options.interface else _route_to(used[0].name)
    python = options.python or sys.executable
    directory = options.directory or os.getcwd()
    names = [host.name for host in used]
    checked = {
        found.name: found
        for found in check_hosts(names, options.ssh, python, directory, root, options.interface, __version__)
    }
    threads = _threads(worker_hosts, checked)

    def start(more: Mapping[str, str]) -> list[Program]:
        base = programs(
            command, num_workers, num_servers, inherited, {**extra, **more}, root=root, threads=threads
        )
        return [_moved(program) for program in base]

    def _moved(program: Program) -> Program:
        if program.role == "scheduler":
            return replace(program, environment=program.environment | {"DMLC_NODE_HOST": root})
        host = (worker_hosts if program.role == "worker" else server_hosts)[program.rank or 0]
        shipped = {
            name: value
            for name, value in program.environment.items()
            if name in extra or (name.startswith(_SHIPPED) and name != "PYTHONPATH")
        }
        shipped["DMLC_NODE_HOST"] = checked[host.name].address
        own = program.command
        if program.role == "server":
            own = (python, *own[1:])
        return replace(
            program,
            command=own,
            environment=shipped,
            remote=Remote(host.name, options.ssh, python, directory),
        )

    return start


def _route_to(name: str) -> str:
    """The address of this host that a host sees."""
    host = name.rpartition("@")[2]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing: asks for the route
            probe.connect((host, 9))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise InvalidArgument(
            f"by which address {host} reaches this host is not known ({error.strerror or error}): "
            "name the network interface with --interface"
        ) from None


def _threads(worker_hosts: Sequence[Host], checked: Mapping[str, Checked]) -> int:
    """How many threads each worker gets: as many on all hosts, since equal bits need equal numbers."""
    counts = Counter(host.name for host in worker_hosts)
    return max(1, min(checked[name].cores // count for name, count in counts.items()))
