"""A process of a job: under a keeper, here or on another host, reached through a lifeline.

A lifeline is a pipe. A byte in it is a signal for the process; when it closes, the keeper kills it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Protocol

from dmod_launch.output import LineRelay
from dmod_launch.program import Program, Remote
from dmod_launch.remote import header, remote_command

__all__ = ["CHANNEL", "Child", "RemoteChild", "Running", "is_signal", "start_child"]

CHANNEL = "DMOD_LAUNCH_CHANNEL"
"""Names the descriptor of the socket over which a process exchanges messages with who has started it."""


class Running(Protocol):
    """What a supervisor needs of a process: a part of `subprocess.Popen`."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


def start_child(program: Program) -> Child:
    """Start a program where it is to run."""
    return Child(program) if program.remote is None else RemoteChild(program, program.remote)


def is_signal(code: int) -> bool:
    """Whether an exit status says that a signal has ended a process."""
    return code > 128 and code - 128 in {number.value for number in signal.Signals}


class Child:
    """A process under its keeper, on this host.

    Parameters
    ----------
    program : Program

    Attributes
    ----------
    channel : Connection or None
        Exchanges messages with the process, if its program has a channel.
    """

    def __init__(self, program: Program):
        self.program = program
        self.channel: Connection | None = None
        environment, theirs = program.environment, None
        lifeline, self._lifeline = os.pipe()
        if program.channel:
            ours, theirs = socket.socketpair()
            self.channel = Connection(ours.detach())
            environment = environment | {CHANNEL: str(theirs.fileno())}
        try:
            keeper = str(Path(__file__).with_name("keeper.py"))
            # -I and -S: nothing of the user's environment takes part, and it starts in 10 ms.
            command = [sys.executable, "-I", "-S", keeper, str(lifeline), *program.command]
            self.process: Running = subprocess.Popen(
                command,
                env=environment,
                cwd=program.directory or None,
                stdin=subprocess.PIPE if program.role == "scheduler" else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[lifeline, *([] if theirs is None else [theirs.fileno()])],
                start_new_session=True,
            )
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)
            if theirs is not None:
                theirs.close()
        self.ended_at: float | None = None
        self.relays: list[LineRelay] = []  # of its output, of its errors

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        try:
            os.write(self._lifeline, bytes([number]))
        except OSError:
            pass  # it has ended

    def tell(self, line: str) -> None:
        """Write a line to the process's standard input, if it is read."""
        if self.process.stdin is None or self.process.stdin.closed:
            return
        try:
            self.process.stdin.write(line.encode(errors="replace") + b"\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended

    @property
    def is_lost(self) -> bool:
        """Whether it has ended because what kept it has, such as its node."""
        return False

    @property
    def code(self) -> int:
        """Its exit status, 128 + n for signal n."""
        code = self.process.returncode
        assert code is not None
        return code if code >= 0 else 128 - code

    @property
    def how(self) -> str:
        """How it has ended."""
        if not is_signal(self.code):
            return f"has ended with exit status {self.code}"
        return f"was killed by signal {self.code - 128} ({signal.Signals(self.code - 128).name})"

    def close_lifeline(self) -> None:
        """Kill what is still there of it."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


class RemoteChild(Child):
    """A process under its keeper on another host; the lifeline is the standard input of ssh.

    Parameters
    ----------
    program : Program
    remote : Remote
    """

    def __init__(self, program: Program, remote: Remote):
        self.program, self.channel = program, None
        lifeline, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                remote_command(remote.ssh, remote.host, remote.python),
                stdin=lifeline,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)
        self.ended_at: float | None = None
        self.relays: list[LineRelay] = []
        start = header("keeper.py", program.command, remote.directory, program.environment)
        with contextlib.suppress(BrokenPipeError), open(self._lifeline, "wb", closefd=False) as file:
            file.write(start)
