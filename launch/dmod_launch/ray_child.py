"""A process of a job in an actor of Ray, as a supervisor sees it: with pipes, signals and an exit status.

A thread asks the actor for output and writes it into pipes, so that a supervisor waits for it as for that of
the processes that it has started itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from dmod_launch.child import Child, is_signal
from dmod_launch.job import Program
from dmod_launch.output import LineRelay
from dmod_launch.ray_host import CHANNEL

__all__ = ["ActorProcess", "RayChild", "first_line"]

_POLL_S = 20.0
"""How long a question may rest with the actor; an answer comes as soon as there is something to say."""
_START_S = 60.0
_END_S = 5.0
_DYING_S = 0.2
"""How long an actor that ends may outlive its process, which it kills first."""


class ActorProcess:
    """What `subprocess.Popen` would be for a process that an actor has started."""

    stdin: IO[bytes] | None = None

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self._ended = threading.Event()
        pipes = {name: os.pipe() for name in ("stdout", "stderr")}
        self.stdout: IO[bytes] | None = os.fdopen(pipes["stdout"][0], "rb", buffering=0)
        self.stderr: IO[bytes] | None = os.fdopen(pipes["stderr"][0], "rb", buffering=0)
        self.sinks = {name: os.fdopen(ends[1], "wb", buffering=0) for name, ends in pipes.items()}

    def poll(self) -> int | None:
        """Its exit status, once it has ended."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, or is given up."""
        if not self._ended.wait(timeout):
            self.end(128 + signal.SIGKILL)
        assert self.returncode is not None
        return self.returncode

    def write(self, name: str, data: bytes) -> None:
        """Pass output on."""
        while data:
            try:
                data = data[self.sinks[name].write(data) :]
            except (OSError, ValueError):
                return  # nobody reads it any more

    def end(self, code: int) -> None:
        """Note how it has ended."""
        if not self._ended.is_set():
            self.returncode = code  # before the pipes close, which is how the supervisor learns of it
            self._ended.set()
            for sink in self.sinks.values():
                sink.close()


class RayChild(Child):
    """A process that an actor keeps.

    Parameters
    ----------
    ray : module
    actor : handle of a `ProcessHost`
    program : Program
    directory : str
        Where it runs; '' for where the actor is.
    whole_environment : bool
        See `ProcessHost.start`.
    hear : callable, optional
        Is given each message of the process, and may return an answer; called in a thread of its own.
    """

    def __init__(
        self,
        ray: Any,
        actor: Any,
        program: Program,
        directory: str,
        whole_environment: bool,
        hear: Callable[[bytes], bytes | None] | None = None,
    ):
        self.program, self.channel = program, None
        self._ray, self._actor, self._hear = ray, actor, hear
        self._lost = ""
        self._closed = self._was_told = False
        self.ended_at: float | None = None
        self.relays: list[LineRelay] = []
        self.process = self._actor_process = ActorProcess()
        try:
            self.process.pid = ray.get(
                actor.start.remote(program, directory, whole_environment), timeout=_START_S
            )
        except ray.exceptions.RayError as error:  # a failure of the job like others: another start may help
            self._lost = f"it cannot be started: {first_line(error)}"
            self._actor_process.end(128 + signal.SIGKILL)
            return
        threading.Thread(target=self._pass_on, name=f"output of {program.name}", daemon=True).start()

    def _pass_on(self) -> None:
        ray, process, code = self._ray, self._actor_process, None
        try:
            while code is None:
                heard, code = ray.get(self._actor.read.remote(_POLL_S))
                for name, data in heard:
                    if name != CHANNEL:
                        process.write(name, data)
                    elif self._hear is not None:
                        answer = self._hear(data)
                        if answer is not None:
                            self._actor.send.remote(answer)
            if is_signal(code) and not self._was_told:
                self._look_for_actor()
        except Exception as error:  # of Ray's many ways to say that an actor is gone
            self._lost = first_line(error)
            code = 128 + signal.SIGKILL
        process.end(code)

    def _look_for_actor(self) -> None:
        """Whether a process that was killed is lost with its actor; raises if so.

        An actor that ends kills its process first, and may still have said so.
        """
        time.sleep(_DYING_S)
        if not self._ray.get(self._actor.is_on_a_node.remote(), timeout=_END_S):
            raise ConnectionError("The node is gone")

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        self._was_told = True
        with contextlib.suppress(Exception):  # it has ended
            self._actor.signal.remote(number)

    def tell(self, line: str) -> None:
        """Write a line to the process's standard input."""
        with contextlib.suppress(Exception):
            self._actor.tell.remote(line)

    @property
    def is_lost(self) -> bool:
        """Whether its actor has ended, or its node."""
        return bool(self._lost)

    @property
    def how(self) -> str:
        """How it has ended."""
        return f"is lost with its actor, or its node ({self._lost})" if self._lost else super().how

    def close_lifeline(self) -> None:
        """Kill what is still there of it; the actor too, if it does not answer."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):
            self._actor.stop.remote()
        if self._actor_process.returncode is None:
            self._give_up = threading.Timer(_END_S, self._lose)
            self._give_up.daemon = True
            self._give_up.start()

    def _lose(self) -> None:
        if self._actor_process.returncode is None:
            with contextlib.suppress(Exception):
                self._ray.kill(self._actor)
            self._lost = self._lost or f"it has not answered for {_END_S:g} s"
            self._actor_process.end(128 + signal.SIGKILL)


def first_line(error: BaseException) -> str:
    """The first sentence of what an error of Ray says, without its names for things, and tracebacks."""
    error = getattr(error, "cause", None) or error
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r" [0-9a-f]{20,}", "", text).split(": ")[0].rstrip(".") if _is_of_actor(error) else text


def _is_of_actor(error: BaseException) -> bool:
    """Whether it says that an actor is gone, or cannot be reached."""
    return type(error).__name__ in ("ActorDiedError", "ActorUnavailableError", "RayActorError")
