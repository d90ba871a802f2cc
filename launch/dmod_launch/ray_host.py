"""What an actor of Ray does for a job: it keeps one process, under a keeper, and passes its output on.

The process is not the actor's own, so a program that crashes, or calls ``os._exit``, takes no supervision
with it; and when the actor dies, however it dies, its keeper ends the process. An actor imports nothing of
dmod, which would take it longer than Ray does to start it.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import re
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from dmod_launch.child import Child
from dmod_launch.program import Program

__all__ = ["CHANNEL", "ProcessHost", "installed_version"]

CHANNEL = "channel"
_CHUNK = 1 << 16
_AT_ONCE = 64
"""How many chunks go in one answer: with `_CHUNK`, 4 MiB at most."""
_OF_RAY = ("PYTHONBREAKPOINT", "SPT_NOENV")
_OF_KERNELS = ("DMLC_", "DMOD_", "OMP_", "OPENBLAS_", "MKL_", "GOTO_", "ONEDNN_", "DNNL_", "KMP_", "NUMBA_")
"""Set for the actor by Ray, or for Ray by whoever has started it: not the job's."""


def installed_version() -> str:
    """The version of the dmod that a process here would import; '' if there is none."""
    spec = importlib.util.find_spec("dmod")
    if spec is None or spec.origin is None:
        return ""
    found = re.search(r'^__version__ = "(.+)"$', Path(spec.origin).read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


class ProcessHost:
    """Keeps one process of a job; its methods are called from the launcher, through Ray."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._node_process = os.getppid()
        self._heard: queue.Queue[tuple[str, bytes]] = queue.Queue(maxsize=_AT_ONCE)
        self._open = 0

    def where(self) -> dict[str, Any]:
        """Where the actor is, and what there is."""
        ray = sys.modules["ray"]
        return {
            "address": ray.util.get_node_ip_address(),
            "host": socket.gethostname(),
            "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1,
            "dmod": installed_version(),
            "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "pid": os.getpid(),
        }

    def free_port(self, host: str) -> int:
        """A port at which nobody listens here."""
        with socket.socket() as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])

    def start(self, program: Program, directory: str, whole_environment: bool) -> int:
        """Start a program.

        Parameters
        ----------
        program : Program
        directory : str
            Where it runs; '' for where the actor is, which is where Ray has put the files that were sent.
        whole_environment : bool
            Whether the program's is all that it gets, or is added to this node's.

        Returns
        -------
        int
            The keeper's process id.
        """
        environment = program.environment
        if not whole_environment:
            environment = {
                name: value
                for name, value in os.environ.items()
                if not name.startswith(_OF_KERNELS) and name not in _OF_RAY
            } | environment
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        if devices:  # those that Ray has given to this actor
            environment = environment | {"CUDA_VISIBLE_DEVICES": devices}
        command = program.command
        if command[0] == "":  # this Python, wherever it lies on this node
            command = (sys.executable, *command[1:])
        child = Child(replace(program, environment=environment, command=command, directory=directory))
        self._child = child
        for name, pipe in (("stdout", child.process.stdout), ("stderr", child.process.stderr)):
            assert pipe is not None
            self._open += 1
            threading.Thread(target=self._pass_on, args=(name, pipe.fileno()), daemon=True).start()
        if child.channel is not None:
            self._open += 1
            threading.Thread(target=self._pass_messages, args=(child.channel,), daemon=True).start()
        return child.process.pid

    def _pass_on(self, name: str, descriptor: int) -> None:
        while data := os.read(descriptor, _CHUNK):
            self._heard.put((name, data))
        self._heard.put((name, b""))

    def _pass_messages(self, channel: Any) -> None:
        try:
            while True:
                self._heard.put((CHANNEL, channel.recv_bytes()))
        except (EOFError, OSError):
            self._heard.put((CHANNEL, b""))

    def read(self, wait_s: float) -> tuple[list[tuple[str, bytes]], int | None]:
        """What has come from the process, waiting `wait_s` for it; and its exit status, after all else."""
        assert self._child is not None
        heard: list[tuple[str, bytes]] = []
        while self._open and len(heard) < _AT_ONCE:
            try:
                name, data = self._heard.get(timeout=0 if heard else wait_s)
            except queue.Empty:
                return heard, None
            if data:
                heard.append((name, data))
            else:
                self._open -= 1
        if self._open:
            return heard, None
        self._child.process.wait()
        return heard, self._child.code

    def is_on_a_node(self) -> bool:
        """Whether the node's own process, whose child this one is, is still there."""
        return os.getppid() == self._node_process

    def send(self, message: bytes) -> None:
        """Send a message to the process."""
        assert self._child is not None and self._child.channel is not None
        try:
            self._child.channel.send_bytes(message)
        except OSError:
            pass  # it has ended

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._child is not None
        self._child.tell(line)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._child is not None
        self._child.signal(number)

    def stop(self) -> None:
        """Kill what is still there of it."""
        if self._child is not None:
            self._child.close_lifeline()
