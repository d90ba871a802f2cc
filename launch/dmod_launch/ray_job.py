"""The processes of a job as actors in a placement group: where they are, and how they find each other."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmod import __version__
from dmod.base import ClusterError, InvalidArgument
from dmod.config import settings
from dmod_launch.child import Child
from dmod_launch.job import Program, programs
from dmod_launch.ray_child import RayChild, first_line
from dmod_launch.ray_engine import WAIT_S, is_this_machine, place
from dmod_launch.ray_host import ProcessHost

__all__ = ["RayJob", "RayOptions"]

_SHIPPED = ("DMLC_", "DMOD_", "OMP_", "OPENBLAS_", "MKL_", "ONEDNN_", "DNNL_", "KMP_", "PYTHON")
"""Of the launcher's environment, what goes along to other machines; and what the user names besides."""
_START_S = 120.0
"""How long an actor may take to start: Ray may have to copy files to its node first."""


@dataclass(frozen=True)
class RayOptions:
    """What a job takes of a Ray cluster.

    Attributes
    ----------
    cpus_per_worker, gpus_per_worker : float
    resources_per_worker : mapping of str to float
        Further ones, by Ray's names.
    cpus_per_server : float
        0: servers sit beside the workers, and take no place of their own.
    strategy : str
        How Ray spreads what takes resources over nodes: 'SPREAD' or 'PACK', or strictly so.
    directory : str
        Where the processes run, on every node; '' for the launcher's: itself if the cluster is this machine,
        else a copy of it, which Ray takes there.
    ship : bool
        Whether to take a copy in any case.
    wait_s : float
        How long to wait for resources.
    may_grow : bool
        Whether nodes may join the cluster, so that waiting makes sense.
    group : placement group, optional
        One to take resources from, in place of an own one; its bundles from number `first_bundle` are those
        of the workers.
    first_bundle : int
    """

    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    resources_per_worker: Mapping[str, float] | None = None
    cpus_per_server: float = 0.0
    strategy: str = "SPREAD"
    directory: str = ""
    ship: bool = False
    wait_s: float = WAIT_S
    may_grow: bool = True
    group: Any = None
    first_bundle: int = 0

    def worker(self) -> dict[str, float]:
        """What a worker takes."""
        asked = {
            "CPU": self.cpus_per_worker,
            "GPU": self.gpus_per_worker,
            **(self.resources_per_worker or {}),
        }
        for kind, amount in asked.items():
            if not 0 <= amount < 1e6:
                raise InvalidArgument(f"{amount:g} {kind} per worker: expected 0 or more")
        if not any(asked.values()):
            raise InvalidArgument("a worker that takes no resources cannot be placed: --cpus-per-worker 0.1")
        return {kind: amount for kind, amount in asked.items() if amount}


class RayJob:
    """Starts the processes of a job in actors, as often as it is asked to.

    Parameters
    ----------
    ray : module
    options : RayOptions
    command : sequence of str
        What every worker runs; '' first stands for the Python of the node.
    num_workers, num_servers : int
    inherited, extra : mapping
        See `dmod_launch.job.programs`.
    say : callable
        Tells the user.
    channel : bool
        Whether workers exchange messages with the launcher.
    hear : callable, optional
        Is given a worker's rank and its message, and may return an answer.
    """

    def __init__(
        self,
        ray: Any,
        options: RayOptions,
        command: Sequence[str],
        num_workers: int,
        num_servers: int,
        inherited: Mapping[str, str],
        extra: Mapping[str, str],
        say: Callable[[str], None],
        channel: bool = False,
        hear: Callable[[int, bytes], bytes | None] | None = None,
    ):
        self._ray, self._options, self._say = ray, options, say
        self._command, self._shape = tuple(command), (num_workers, num_servers)
        self._inherited, self._extra = inherited, dict(extra)
        self._channel, self._hear = channel, hear
        self._group: Any = None
        self._actors: dict[str, Any] = {}
        self._bundles = [options.worker()] * num_workers
        if options.cpus_per_server:
            self._bundles += [{"CPU": options.cpus_per_server}] * num_servers
        self._check()
        self._is_here = is_this_machine(ray) and not options.ship

    def _check(self) -> None:
        """Complain about what the user has set before anything starts."""
        self._listed({}, None)

    def _listed(self, more: Mapping[str, str], threads: int | None) -> list[Program]:
        """The programs, as they would be on this host; a worker that needs no servers is alone."""
        extra = {**self._extra, **more}
        workers, servers = self._shape
        if (workers, servers) != (1, 0) or not self._channel:
            return programs(self._command, workers, servers, self._inherited, extra, threads=threads)
        environment = {k: v for k, v in self._inherited.items() if not k.startswith("DMLC_")}
        environment.setdefault("PYTHONUNBUFFERED", "1")
        environment.setdefault("DMOD_NUM_THREADS", str(threads or 1))
        return [Program("worker", 0, self._command, environment | extra)]

    # ---- starting

    def start(self, more: Mapping[str, str]) -> list[Program]:
        """Take resources, start the actors, and give the programs that run in them.

        Parameters
        ----------
        more : mapping
            Variables for this start.

        Raises
        ------
        ClusterError
            There are too few resources, an actor cannot be started, or it has another dmod.
        """
        self.release()
        try:
            if self._options.group is None:
                options = self._options
                self._group = place(
                    self._ray, self._bundles, options.strategy, options.wait_s, self._say, options.may_grow
                )
            else:
                self._group = self._options.group
            for name in self._names():
                self._actors[name] = self._actor(name)
            found = self._look()
        except BaseException:
            self.release()
            raise
        return self._programs(found, more)

    def _names(self) -> list[str]:
        workers, servers = self._shape
        return [
            "scheduler",
            *(f"server {i}" for i in range(servers)),
            *(f"worker {i}" for i in range(workers)),
        ]

    def _actor(self, name: str) -> Any:
        role, _, rank_text = name.partition(" ")
        rank, workers = int(rank_text or 0), self._shape[0]
        takes: Mapping[str, float] = {}
        bundle = rank % workers
        if role == "worker":
            takes = self._bundles[rank]
        elif role == "server" and self._options.cpus_per_server:
            bundle = workers + rank
            takes = self._bundles[bundle]
        strategy = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            placement_group=self._group,
            placement_group_bundle_index=self._options.first_bundle + bundle,
        )
        others = {kind: amount for kind, amount in takes.items() if kind not in ("CPU", "GPU")}
        options: dict[str, Any] = {
            "num_cpus": takes.get("CPU", 0),
            "num_gpus": takes.get("GPU", 0),
            "resources": others or None,
            "max_restarts": 0,  # the job starts again as a whole, from a checkpoint
            "max_concurrency": 4,  # reading, while signals and messages come
            "scheduling_strategy": strategy,
        }
        return self._ray.remote(**options)(ProcessHost).remote()

    def _look(self) -> dict[str, dict[str, Any]]:
        """What is where, once all actors are there."""
        found, wrong = {}, []
        asked = {name: actor.where.remote() for name, actor in self._actors.items()}
        for name, answer in asked.items():
            try:
                found[name] = self._ray.get(answer, timeout=_START_S)
            except self._ray.exceptions.GetTimeoutError:
                wrong.append(f"{name}: its actor has not started within {_START_S:g} s")
            except self._ray.exceptions.RayError as error:
                wrong.append(f"{name}: {first_line(error)}; is dmod {__version__} installed on all nodes?")
        for name, there in found.items():
            if there["dmod"] != __version__:
                wrong.append(
                    f"{name}: dmod {there['dmod']} is on {there['host']}, {__version__} here; install one"
                )
        if wrong:
            raise ClusterError("the job cannot start:\n  " + "\n  ".join(wrong))
        return found

    def _programs(self, found: Mapping[str, Mapping[str, Any]], more: Mapping[str, str]) -> list[Program]:
        addresses = {there["address"] for there in found.values()}
        is_one_host = len(addresses) == 1 and len({there["host"] for there in found.values()}) == 1
        lead = "scheduler" if "scheduler" in found else "worker 0"
        root = "127.0.0.1" if is_one_host else str(found[lead]["address"])
        per_host = Counter(there["host"] for name, there in found.items() if name.startswith("worker"))
        cores = {there["host"]: int(there["cores"]) for there in found.values()}
        threads = max(1, min(cores[host] // count for host, count in per_host.items()))
        port = self._ray.get(self._actors[lead].free_port.remote(root), timeout=_START_S)
        listed = self._listed(more, threads)
        if not is_one_host and not settings(listed[0].environment).insecure_network:
            raise ClusterError(
                f"the job runs on {len(addresses)} nodes ({', '.join(sorted(addresses))}), and whoever "
                "reaches their ports could join it: there is no authentication yet. In a network that you "
                "trust, pass --insecure-network"
            )
        return [self._settled(program, found[program.name], root, port, is_one_host) for program in listed]

    def _settled(
        self, program: Program, there: Mapping[str, Any], root: str, port: int, is_one_host: bool
    ) -> Program:
        """A program with the addresses of this start."""
        environment = program.environment
        if not self._is_here:
            environment = {
                name: value
                for name, value in environment.items()
                if name in self._extra or (name.startswith(_SHIPPED) and name != "PYTHONPATH")
            }
        own = {"DMLC_PS_ROOT_URI": root, "DMLC_PS_ROOT_PORT": str(port)} if self._shape[1] else {}
        if not is_one_host:
            own["DMLC_NODE_HOST"] = str(there["address"])
        command = program.command
        if program.role != "worker":
            command = ("", *command[1:])
        return replace(
            program,
            command=command,
            environment=environment | own,
            channel=self._channel and program.role == "worker",
        )

    def start_child(self, program: Program) -> Child:
        """What a supervisor needs to run a program of `start`."""
        hear, rank = self._hear, program.rank or 0
        return RayChild(
            self._ray,
            self._actors[program.name],
            program,
            self._options.directory or (os.getcwd() if self._is_here else ""),
            self._is_here,
            None if hear is None else lambda message: hear(rank, message),
        )

    def actor_of(self, name: str) -> Any:
        """The actor that keeps the process of such a name, as 'worker 0'."""
        return self._actors[name]

    # ---- ending

    def release(self) -> None:
        """Give back all resources; what still runs is killed."""
        for actor in self._actors.values():
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        self._actors = {}
        if self._group is not None and self._options.group is None:
            with contextlib.suppress(Exception):
                self._ray.util.remove_placement_group(self._group)
        self._group = None
