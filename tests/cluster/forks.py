"""Python processes that start in milliseconds: forks of a mother that has imported dmod and numba already.

A job of the tests has four processes or more, and starting an interpreter, numpy, dmod and numba's compiler
takes each of them more than a second of processor time, which is most of what such a test would cost. A fork
is from there on what a fresh process is: it has its own session, environment, working directory, output and
``sys.argv``, runs the program as ``__main__`` at the top of its stack, and ends as interpreters end, with
exit functions, excepthook and exit status. Two mothers take turns, so that the processes of a job differ in
the order of their sets, as they do in earnest.

As a script this file is a mother: ``forks.py DESCRIPTOR``, of a socket from which she takes requests.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import itertools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
MAX_REQUEST = 1 << 16


class Fork:
    """A process, with the part of `subprocess.Popen` that tests use.

    Parameters
    ----------
    arguments : sequence of str
        What follows the name of the interpreter: a script, or ``-m`` and a module, and their arguments.
    env : dict of str to str
    output : int
        The descriptor of the file that gets its output and its errors.
    """

    def __init__(self, arguments: Sequence[str], env: dict[str, str], output: int):
        self.returncode: int | None = None
        self._mother = next(_turns)
        self.pid = self._mother.fork({"arguments": list(arguments), "env": env, "cwd": os.getcwd()}, output)

    def poll(self) -> int | None:
        return self._wait_until(0.0)

    def wait(self, timeout: float) -> int:
        code = self._wait_until(time.monotonic() + timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def _wait_until(self, deadline: float) -> int | None:
        while self.returncode is None:
            self.returncode = self._mother.ended.get(self.pid)
            if self.returncode is None and not self._mother.hear(max(0.0, deadline - time.monotonic())):
                break
        return self.returncode


class Mother:
    """The tests' end of a process that forks; she is started when she is needed first, and ends with it."""

    def __init__(self) -> None:
        self.ended: dict[int, int] = {}  # exit status by process, negative for a signal
        self._started: list[int] = []
        self._socket: socket.socket | None = None

    def fork(self, request: dict[str, Any], output: int) -> int:
        """Have a process made; returns its number, once it has a session of its own."""
        if self._socket is None:
            self._begin()
        assert self._socket is not None
        data = json.dumps(request).encode()
        assert len(data) < MAX_REQUEST, "the environment is too large"
        socket.send_fds(self._socket, [data], [output])
        while not self._started:
            self.hear(60.0)
        pid = self._started.pop()
        self.ended.pop(pid, None)  # of an earlier process of that number
        return pid

    def hear(self, timeout: float) -> bool:
        """Take a message from her; whether there was one within `timeout` seconds."""
        assert self._socket is not None
        if not select.select([self._socket], [], [], timeout)[0]:
            return False
        what, pid, code = json.loads(self._socket.recv(MAX_REQUEST) or b'["gone", 0, 0]')
        assert what != "gone", "the process that forks has died"
        if what == "started":
            self._started.append(pid)
        else:
            self.ended[pid] = code
        return True

    def _begin(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        foreign = ("DMLC_", "DMOD_", "COV_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | threads
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env=env | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "launch")])},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        atexit.register(self._end, process)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        assert self._socket is not None
        self._socket.close()  # of which she ends
        process.wait(10)


_turns = itertools.cycle([Mother(), Mother()])


# ---- the mother


def wait_for_request(control: socket.socket) -> dict[str, Any]:
    """Fork for every request; returns it in the new process only."""

    def bury(*_: object) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            control.send(json.dumps(["ended", pid, os.waitstatus_to_exitcode(status)]).encode())

    signal.signal(signal.SIGCHLD, bury)
    while True:
        data, (*descriptors,), _, _ = socket.recv_fds(control, MAX_REQUEST, 1)
        if not data:
            os._exit(0)  # the tests are over
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for standard in (1, 2):
                os.dup2(descriptors[0], standard)
            os.close(descriptors[0])
            control.send(json.dumps(["started", os.getpid(), 0]).encode())
            control.close()
            request: dict[str, Any] = json.loads(data)
            return request
        os.close(descriptors[0])


def prepare() -> None:
    """Import what the programs of the tests import; start numba's compiler, which takes as long again."""
    import numpy as np

    for module in ("dmod", "dmod.kvstore.dist", "dmod.kvstore.scheduler", "dmod.kvstore.server"):
        importlib.import_module(module)
    from dmod.device.compiled_layers import relu

    probe = np.zeros(1, np.float32)
    relu(probe, probe)
    gc.collect()
    gc.freeze()  # pages with what there is now stay shared


def become(request: dict[str, Any]) -> None:
    """Be the process that was asked for."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    first, *rest = request["arguments"]
    paths = [p for p in request["env"].get("PYTHONPATH", "").split(os.pathsep) if p]
    if first == "-m":
        sys.path[:1] = [request["cwd"], *paths]
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[:1] = [str(Path(first).parent), *paths]
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _control = socket.socket(fileno=int(sys.argv[1]))
    prepare()
    become(wait_for_request(_control))
