"""Keeps one process of a job: starts it, and sees to it that nothing of it outlives the job.

Run as a script of its own, with nothing but the standard library, as
``python -I -S keeper.py LIFELINE COMMAND...``. `LIFELINE` is the number of an open pipe. Every byte
that comes through it is a signal for the process and its children; when it closes, because the
launcher wants so or because it is dead, however it died, they are killed. When the process ends by
itself, what it has left behind is killed, and the keeper ends with its exit status.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere a keeper that is killed itself leaves its process running."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _start(command: list[str], lifeline: int) -> int:
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.close(lifeline)
        os.setsid()  # a group of its own, so that its children can be reached, and Ctrl-C does not reach it
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _keep_to_processors()
        if os.getppid() == keeper:  # else it was killed before the line above
            os.execvp(command[0], command)
    except OSError as error:
        hint = f"; did you mean: python {command[0]}" if command[0].endswith(".py") else ""
        os.write(2, f"dmod-launch: cannot run {command[0]}: {error.strerror}{hint}\n".encode())
    finally:
        os._exit(127)


def _keep_to_processors() -> None:
    """Let this process, and all that it starts, run on the processors of ``DMOD_CPUS`` only."""
    numbers = os.environ.get("DMOD_CPUS", "all")
    if numbers != "all" and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, {int(number) for number in numbers.split(",")})
        except (ValueError, OSError):
            pass  # they have been taken away since: any will do


def _signal_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # it has ended, or has not become a group yet


def _kill_descendants() -> None:
    """Kill and reap until no child is left; as subreaper we inherit the children of those that die."""
    while True:
        for path in Path("/proc/self/task").glob("*/children"):
            for pid in path.read_text().split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> int:
    """Keep the process that the arguments name; returns its exit status, 128 + n for signal n."""
    lifeline, command = int(sys.argv[1]), sys.argv[2:]
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    pid = _start(command, lifeline)
    status: int | None = None
    while status is None:
        ready, _, _ = select.select([lifeline, reader], [], [])
        if lifeline in ready:
            numbers = os.read(lifeline, 64)
            for number in numbers or (signal.SIGKILL,):
                _signal_group(pid, number)
            if not numbers:
                os.kill(pid, signal.SIGKILL)
                status = os.waitpid(pid, 0)[1]
        if reader in ready:
            os.read(reader, 64)
            status = _reap(pid)
    _signal_group(pid, signal.SIGKILL)
    _kill_descendants()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _reap(wanted: int) -> int | None:
    """Reap all that have ended; the status of `wanted` if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == wanted:
            return status
        if pid == 0:
            return None


if __name__ == "__main__":
    sys.exit(main())
