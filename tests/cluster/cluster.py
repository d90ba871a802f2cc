"""Real processes for tests: a scheduler, servers and workers that are reaped whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.cluster.forks import Fork

PROGRAMS = Path(__file__).with_name("programs.py")
NODE = (sys.executable, "-m", "dmod.kvstore")
DEADLINE_S = 60.0
"""Of waits that do not test a deadline: long enough for a busy machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**settings: object) -> dict[str, str]:
    """This process's environment, without any job's variables, and `settings`."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("DMLC_", "DMOD_"))}
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return base | threads | {name: str(value) for name, value in settings.items()}


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll `condition`; fails, naming `what`, when `deadline_s` have passed."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"after {deadline_s:g} s: {what}"
        time.sleep(0.02)


class Process:
    """One process, in a group of its own, with its output in a file."""

    def __init__(self, name: str, command: tuple[str, ...], env: dict[str, str], directory: Path):
        self.name, self._path = name, directory / f"{name.replace(' ', '')}.log"
        self.popen: subprocess.Popen[bytes] | Fork
        with self._path.open("wb") as log:
            if command[0] == sys.executable and command[1] != "-c":
                self.popen = Fork(command[1:], env, log.fileno())
            else:
                self.popen = subprocess.Popen(
                    command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def output(self) -> str:
        return self._path.read_text(errors="replace")

    def has_said(self, text: str) -> bool:
        return text in self.output

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        try:
            return self.popen.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} is there after {deadline_s:g} s; it says:\n{self.output}"
            ) from None

    def reap(self) -> None:
        if self.popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended in this moment
                os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(DEADLINE_S)


def run_python(directory: Path, *arguments: object, **settings: object) -> str:
    """Run a script, or ``-m`` and a module, and see it end well; what it said.

    Parameters
    ----------
    directory : Path
        For a log of it.
    *arguments
        Of the interpreter.
    **settings
        Environment variables.
    """
    process = Process("python", (sys.executable, *map(str, arguments)), environment(**settings), directory)
    try:
        assert process.wait(2 * DEADLINE_S) == 0, process.output
        return process.output
    finally:
        process.reap()


class Cluster:
    """The processes of one job; `with` reaps them.

    Parameters
    ----------
    directory : Path
        For logs and results.
    num_workers, num_servers : int
    settings
        Further environment variables of all processes.
    """

    def __init__(self, directory: Path, num_workers: int, num_servers: int, **settings: object):
        self.directory = directory
        self.env = environment(
            DMLC_PS_ROOT_URI="127.0.0.1",
            DMLC_PS_ROOT_PORT=free_port(),
            DMLC_NUM_WORKER=num_workers,
            DMLC_NUM_SERVER=num_servers,
        ) | {name: str(value) for name, value in settings.items()}
        self.num_workers, self.num_servers = num_workers, num_servers
        self.processes: dict[str, Process] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.reap()
        if error is not None:
            error.add_note("\n".join(f"--- {p.name}\n{p.output}" for p in self.processes.values()))

    def start_nodes(self) -> None:
        """The scheduler and the servers."""
        self.start("scheduler", NODE, DMLC_ROLE="scheduler")
        for rank in range(self.num_servers):
            self.start(f"server {rank}", NODE, DMLC_ROLE="server", DMLC_SERVER_ID=rank)

    def start_workers(self, program: str, *arguments: object) -> list[Process]:
        """Workers that run a function of programs.py."""
        return [self.start_worker(rank, program, *arguments) for rank in range(self.num_workers)]

    def start_worker(self, rank: int, program: str, *arguments: object, **settings: object) -> Process:
        return self.start_script(rank, PROGRAMS, program, self.directory, *arguments, **settings)

    def start_script(self, rank: int, script: Path, *arguments: object, **settings: object) -> Process:
        """A worker that runs a script."""
        command = (sys.executable, str(script), *map(str, arguments))
        return self.start(f"worker {rank}", command, DMLC_ROLE="worker", DMLC_WORKER_ID=rank, **settings)

    def start(self, name: str, command: tuple[str, ...], **settings: object) -> Process:
        env = self.env | {key: str(value) for key, value in settings.items()}
        self.processes[name] = Process(name, command, env, self.directory)
        return self.processes[name]

    def run(self, program: str, *arguments: object) -> None:
        """Start all, with a function of programs.py in the workers, and see them all end well."""
        self.run_script(PROGRAMS, program, self.directory, *arguments)

    def run_script(self, script: Path, *arguments: object) -> list[str]:
        """Start all, with a script in the workers, and see them all end well; what the workers said."""
        self.start_nodes()
        workers = [self.start_script(rank, script, *arguments) for rank in range(self.num_workers)]
        self.end_well()
        return [worker.output for worker in workers]

    def end_well(self) -> None:
        """See all processes end with exit status 0."""
        for process in self.processes.values():
            assert process.wait() == 0, f"{process.name} has failed:\n{process.output}"
