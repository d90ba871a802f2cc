"""A job whose workers run a function of Python's, in actors of Ray or, if there is only one, right here."""

from __future__ import annotations

import importlib
import inspect
import os
import pickle
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from dmod.base import ClusterError, InvalidArgument
from dmod.config import settings
from dmod_launch.child import Child
from dmod_launch.function import COMMAND, unpacked
from dmod_launch.job import Program
from dmod_launch.ray_job import RayJob, RayOptions
from dmod_launch.restart import Announcer, run_with_restarts
from dmod_launch.supervisor import Failure, Supervisor

__all__ = ["FunctionJob", "Report", "Shipped", "make_directory", "shipped", "text_sink"]


@dataclass(frozen=True)
class Report:
    """How a training stands.

    Attributes
    ----------
    metrics : dict of str to float
    epoch : int or None
    checkpoint : int or None
        The number of the checkpoint of this moment, if one was taken.
    """

    metrics: dict[str, float]
    epoch: int | None
    checkpoint: int | None


class _TextSink:
    """A text stream, such as a notebook's, for bytes."""

    def __init__(self, name: str):
        self._name = name

    def write(self, data: bytes) -> int:
        """Write text."""
        getattr(sys, self._name).write(data.decode(errors="replace"))
        return len(data)

    def flush(self) -> None:
        """Bring it out."""
        getattr(sys, self._name).flush()


def text_sink(name: str) -> BinaryIO:
    """What takes bytes for ``sys.stdout`` or ``sys.stderr``, whatever these are at the time."""
    return cast(BinaryIO, _TextSink(name))


def make_directory(path: Path) -> Path:
    """Make a directory for results, if it is not there.

    Raises
    ------
    InvalidArgument
        It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidArgument(
            f"results cannot go to {path} ({error.strerror}): expected a directory that can be written, see "
            "storage_path"
        ) from None
    return path


@dataclass(frozen=True)
class Shipped:
    """A function and its configuration, as bytes for other processes; nobody else unpacks them.

    Attributes
    ----------
    function, config : bytes
    path : tuple of str
        Where modules are found here, and perhaps there.
    """

    function: bytes
    config: bytes
    path: tuple[str, ...]

    def configured(self, config: Any) -> Shipped:
        """The same function with another configuration."""
        return replace(self, config=importlib.import_module("ray.cloudpickle").dumps(config))


def shipped(function: Callable[..., Any], config: Any) -> Shipped:
    """Make a function and its configuration ready for other processes.

    Raises
    ------
    InvalidArgument
        They cannot be pickled; names the part that is in the way.
    """
    if not callable(function):
        raise InvalidArgument(f"train_fn: expected a function of the configuration, got {function!r}")
    cloudpickle = importlib.import_module("ray.cloudpickle")
    try:
        path = tuple(entry for entry in sys.path if entry and Path(entry).is_dir())
        return Shipped(cloudpickle.dumps(function), cloudpickle.dumps(config), path)
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        raise InvalidArgument(
            f"{name} cannot be sent to other processes: {_culprit(function, config, cloudpickle)}{error}; "
            "make it inside the function"
        ) from None


def _culprit(function: Callable[..., Any], config: Any, cloudpickle: Any) -> str:
    """Which of the variables that a function uses, or of its settings, cannot be pickled."""
    parts: dict[str, Any] = {}
    if inspect.isfunction(function):
        used = inspect.getclosurevars(function)
        parts = {
            f"its variable {name!r}": value for name, value in {**used.globals, **used.nonlocals}.items()
        }
    if isinstance(config, Mapping):
        parts |= {f"config[{name!r}]": value for name, value in config.items()}
    for name, value in parts.items():
        try:
            cloudpickle.dumps(value)
        except Exception:
            return f"{name} is in the way: "
    return ""


class FunctionJob:
    """Runs a function in all workers of a job.

    Parameters
    ----------
    ray : module
    options : RayOptions
    function : Shipped
    num_workers, num_servers : int
        One worker without servers is a process beside this one, unless `options` ask for resources through
        Ray: then in an actor.
    directory : Path
        For results, on storage that all nodes share.
    keep : int or None
        How many checkpoints to keep.
    hear : callable
        Is given every `Report`, in a thread; the worker waits until it returns.
    waits : bool
        See `Context`.
    extra : mapping
        Environment variables.
    log : binary file, optional
        Where the output of the processes goes; default: this one's.
    here : bool
        Whether the only worker runs beside this process.
    checkpoints : Path, optional
        For checkpoints, on such storage; default: 'checkpoints' in `directory`.
    """

    def __init__(
        self,
        ray: Any,
        options: RayOptions,
        function: Shipped,
        num_workers: int,
        num_servers: int,
        directory: Path,
        keep: int | None,
        hear: Callable[[Report], None],
        waits: bool = False,
        extra: Mapping[str, str] | None = None,
        log: BinaryIO | None = None,
        here: bool = False,
        checkpoints: Path | None = None,
    ):
        self._function, self._hear_report = function, hear
        self._context = {
            "directory": directory,
            "checkpoints": checkpoints or directory / "checkpoints",
            "keep": keep,
            "waits": waits,
        }
        self._extra = dict(extra or {})
        self._timeout_s = settings({**os.environ, **self._extra}).timeout_s
        self._log = log
        self.value: Any = None
        self._supervisor: Supervisor | None = None
        self._is_stopped = False
        self._lock = threading.Lock()
        self._job: RayJob | None = None
        if here:
            if num_workers != 1 or num_servers:
                raise InvalidArgument("only one worker without servers runs beside its launcher")
        else:
            self._job = RayJob(
                ray,
                options,
                COMMAND,
                num_workers,
                num_servers,
                os.environ,
                self._extra,
                self.say,
                channel=True,
                hear=self._hear,
            )

    # ---- what comes from the workers

    def _hear(self, rank: int, message: bytes) -> bytes | None:
        """The answer to a worker; None leaves it waiting."""
        said = unpacked(message)
        if said["kind"] == "hello":
            return self._payload()
        if said["kind"] == "value":
            self.value = said["value"]
        else:
            self._hear_report(Report(said["metrics"], said["epoch"], said["checkpoint"]))
            if self._is_stopped:
                return None  # else it would train on until the signal comes
        return b"heard"

    def _payload(self) -> bytes:
        return pickle.dumps(
            {
                "function": self._function.function,
                "config": self._function.config,
                "path": self._function.path,
                "context": self._context,
            }
        )

    def say(self, text: str) -> None:
        """Tell the user."""
        Announcer(self._sink("stderr"), colour=False)(text)

    def _sink(self, name: str) -> BinaryIO:
        return self._log if self._log is not None else text_sink(name)

    # ---- running

    def run(self, max_restarts: int) -> None:
        """Run it to its end.

        Raises
        ------
        ClusterError
            It has failed, once more often than `max_restarts`; or there are too few resources.
        KeyboardInterrupt
            The user has ended it.
        """
        try:
            code = run_with_restarts(self._start, self._supervise, max_restarts, self.say)
        finally:
            if self._job is not None:
                self._job.release()
        supervisor = self._supervisor
        assert supervisor is not None
        if supervisor.interrupted and not self._is_stopped:
            raise KeyboardInterrupt
        if code and not self._is_stopped:
            raise ClusterError(f"the training has failed: {_described(supervisor.failure, code)}")

    def stop(self) -> None:
        """End it; from any thread."""
        with self._lock:
            self._is_stopped = True
            if self._supervisor is not None:
                self._supervisor.interrupt()

    def _start(self, restart: int) -> list[Program]:
        more = {"DMOD_RESTART": str(restart)}
        if self._job is not None:
            return self._job.start(more)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DMLC_")}
        environment |= {"PYTHONUNBUFFERED": "1", **self._extra, **more}
        command = (sys.executable, *COMMAND[1:])
        return [Program("worker", 0, command, environment, channel=True)]

    def _supervise(self, at_once: bool) -> Supervisor:
        starter = self._start_here if self._job is None else self._job.start_child
        supervisor = Supervisor(
            self._timeout_s, self._sink("stdout"), self._sink("stderr"), False, at_once, start=starter
        )
        with self._lock:
            self._supervisor = supervisor
            if self._is_stopped:
                supervisor.interrupt()
        return supervisor

    def _start_here(self, program: Program) -> Child:
        child = Child(program)
        threading.Thread(target=self._answer, args=(child,), name="answers", daemon=True).start()
        return child

    def _answer(self, child: Child) -> None:
        assert child.channel is not None
        with child.channel as channel:
            try:
                while True:
                    answer = self._hear(0, channel.recv_bytes())
                    if answer is not None:
                        channel.send_bytes(answer)
            except (EOFError, OSError):
                pass  # it has ended


def _described(failure: Failure | None, code: int) -> str:
    if failure is None:
        return f"exit status {code}"
    last = f": {failure.last_lines[-1]}" if failure.last_lines else ""
    return f"{failure.process} {failure.how}{last}"
