"""Jobs of several systems, kept running beside each other so that their measurements can alternate.

A job's workers run one program, wait for requests on their standard input (one JSON object a line) and
answer on their standard output (``@`` and a JSON object). While one job measures, all others sleep in
that wait. Every wait has a deadline, and `with` reaps all processes whatever happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
START_S = 120.0
"""How long a job may take to start: importing MXNet or torch takes seconds on a busy machine."""
ASK_S = 180.0
_LIBRARIES = ("OMP_", "OPENBLAS_", "MKL_", "GOTO_", "DMLC_", "DMOD_", "MXNET_", "PS_")


def environment(threads: int | None, **settings: object) -> dict[str, str]:
    """This process's environment without settings of libraries or jobs; `threads` for all of them."""
    kept = ("DMOD_ORACLE", "DMOD_PEERS")
    own = {k: v for k, v in os.environ.items() if k in kept or not k.startswith(_LIBRARIES)}
    if threads is not None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "DMOD_NUM_THREADS"):
            own[name] = str(threads)
    path = os.pathsep.join(filter(None, (str(ROOT), own.get("PYTHONPATH"))))
    return own | {"PYTHONPATH": path} | {name: str(value) for name, value in settings.items()}


def free_port() -> int:
    """A port of this host that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _prepare(env: dict[str, str]) -> None:
    """Linux: a process that is left behind is killed too; dmod's workers keep to what they would be given."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        if "DMOD_CPUS" in env:
            os.sched_setaffinity(0, map(int, env["DMOD_CPUS"].split(",")))


class _Process:
    def __init__(self, name: str, command: Sequence[str], env: dict[str, str], folder: Path):
        self.name, self._log = name, folder / f"{name.replace(' ', '-')}.log"
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if name.startswith("worker") else log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: _prepare(env),
            )
        self.pending = b""

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def answer(self, deadline: float) -> dict[str, Any]:
        """The next line that begins with @."""
        assert self.popen.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.popen.stdout, selectors.EVENT_READ)
            while True:
                line, newline, rest = self.pending.partition(b"\n")
                if newline:
                    self.pending = rest
                    if line.startswith(b"@"):
                        answer: dict[str, Any] = json.loads(line[1:])
                        return answer
                    continue
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise SystemExit(f"{self.name}: no answer in time; it says:\n{self.said()}")
                data = os.read(self.popen.stdout.fileno(), 1 << 16)
                if not data:
                    raise SystemExit(f"{self.name} has ended; it says:\n{self.said()}")
                self.pending += data


class Job:
    """The processes of one job.

    Parameters
    ----------
    name : str
        What the system is called in results.
    nodes : sequence of (str, command, environment)
        Scheduler and servers.
    workers : sequence of (command, environment)
        They answer ``{"ready": true}`` when they have started.
    """

    def __init__(
        self,
        name: str,
        nodes: Sequence[tuple[str, Sequence[str], dict[str, str]]],
        workers: Sequence[tuple[Sequence[str], dict[str, str]]],
    ):
        self.name = name
        self._nodes, self._workers = nodes, workers
        self._folder = tempfile.TemporaryDirectory()
        self.nodes: list[_Process] = []
        self.workers: list[_Process] = []

    def __enter__(self) -> Job:
        folder = Path(self._folder.name)
        try:
            for name, command, env in self._nodes:
                self.nodes.append(_Process(name, command, env, folder))
            for rank, (command, env) in enumerate(self._workers):
                self.workers.append(_Process(f"worker {rank}", command, env, folder))
            self._answers(START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.workers:
            with contextlib.suppress(OSError):
                process.popen.stdin.close()  # type: ignore[union-attr]  # they end
        deadline = time.monotonic() + 10
        for process in (*self.workers, *self.nodes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.popen.pid, signal.SIGKILL)
            process.popen.wait()
            for pipe in (process.popen.stdin, process.popen.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._folder.cleanup()

    def ask(self, **request: Any) -> list[dict[str, Any]]:
        """Give all workers a request; their answers, by rank."""
        line = json.dumps(request).encode() + b"\n"
        for process in self.workers:
            try:
                assert process.popen.stdin is not None
                process.popen.stdin.write(line)
                process.popen.stdin.flush()
            except OSError:
                raise SystemExit(
                    f"{self.name}: {process.name} has ended; it says:\n{process.said()}"
                ) from None
        return self._answers(ASK_S)

    def _answers(self, timeout_s: float) -> list[dict[str, Any]]:
        deadline = time.monotonic() + timeout_s
        try:
            return [process.answer(deadline) for process in self.workers]
        except SystemExit as error:
            said = "".join(f"\n--- {p.name}\n{p.said()}" for p in (*self.nodes, *self.workers) if p.said())
            raise SystemExit(f"{self.name}: {error}{said}") from None


def parameter_server_job(
    name: str,
    python: str,
    package: str,
    program: Sequence[str],
    num_workers: int,
    num_servers: int,
    threads: int | None,
    **settings: object,
) -> Job:
    """A job of dmod or MXNet: scheduler, servers and workers by their ``DMLC_*`` variables."""
    base = environment(
        threads,
        DMLC_PS_ROOT_URI="127.0.0.1",
        DMLC_PS_ROOT_PORT=free_port(),
        DMLC_NUM_WORKER=num_workers,
        DMLC_NUM_SERVER=num_servers,
        **settings,
    )
    # MXNet serves when it is imported, and that is the end of the process.
    node = [python, "-m", "dmod.kvstore"] if package == "dmod" else [python, "-c", f"import {package}"]
    nodes = [("scheduler", node, base | {"DMLC_ROLE": "scheduler"})]
    for rank in range(num_servers):
        nodes.append((f"server {rank}", node, base | {"DMLC_ROLE": "server", "DMLC_SERVER_ID": str(rank)}))
    workers = []
    shares: list[dict[str, str]] = [{}] * num_workers
    if package == "dmod":
        from dmod_launch.job import worker_shares  # which the workers of others, who import this file, lack

        shares = worker_shares(num_workers, base)
    for rank in range(num_workers):
        role = {"DMLC_ROLE": "worker", "DMLC_WORKER_ID": str(rank), **shares[rank]}
        workers.append(([python, *program], base | role))
    return Job(name, nodes, workers)


def gloo_job(name: str, python: str, program: Sequence[str], num_workers: int, threads: int | None) -> Job:
    """A job of torch processes that meet at one address."""
    base = environment(
        threads,
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=free_port(),
        WORLD_SIZE=num_workers,
        GLOO_SOCKET_IFNAME="lo",
    )
    workers = [([python, *program], base | {"RANK": str(rank)}) for rank in range(num_workers)]
    return Job(name, [], workers)


def requests() -> Iterator[dict[str, Any]]:
    """In a worker: what it is asked, until its standard input ends. Says first that it is ready."""
    answer({"ready": True})
    for line in sys.stdin:
        yield json.loads(line)


def answer(values: dict[str, Any]) -> None:
    """In a worker: answer a request."""
    print("@" + json.dumps(values), flush=True)
