"""Starts a job that has failed again: it goes on from its newest checkpoint, and nobody has to be there."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO

from dmod_launch.job import Program
from dmod_launch.output import prefix
from dmod_launch.supervisor import Supervisor

__all__ = ["Announcer", "run_with_restarts"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Before the first restart, and at most; each pause is twice the one before."""
STEADY_S = 600.0
"""A job that ran so long has recovered: the next pause is the first again."""


class Announcer:
    """Writes the launcher's own lines.

    Parameters
    ----------
    sink : binary file
    colour : bool
    """

    def __init__(self, sink: BinaryIO, colour: bool):
        self._sink, self._label = sink, prefix("launcher", None, colour)

    def __call__(self, text: str) -> None:
        for line in text.splitlines():
            self._sink.write(self._label + line.encode(errors="replace") + b"\n")
        self._sink.flush()


def run_with_restarts(
    start: Callable[[int], Sequence[Program]],
    supervise: Callable[[bool], Supervisor],
    max_restarts: int,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Run a job until it ends well, has failed once more than `max_restarts` times, or is interrupted.

    Parameters
    ----------
    start : callable
        Gives the programs of the job, with addresses and a name of its own, for the n-th restart.
    supervise : callable
        Makes a supervisor; its argument is whether a failure ends all processes at once.
    max_restarts : int
    say : callable
        Tells the user.
    pause : callable
        Waits for some seconds.

    Returns
    -------
    int
        The exit status of the last run.
    """
    pause_s = FIRST_PAUSE_S
    restart = 0
    while True:
        began = time.monotonic()
        supervisor = supervise(restart < max_restarts)
        code = supervisor.run(start(restart))
        if code == 0 or supervisor.interrupted or restart == max_restarts:
            if code and restart:
                say(f"given up after {restart} restart{'s' if restart > 1 else ''}")
            return code
        if time.monotonic() - began > STEADY_S:
            pause_s = FIRST_PAUSE_S
        restart += 1
        failure = supervisor.failure
        if failure is not None and failure.last_lines:
            say("\n    ".join((f"{failure.process} said last:", *failure.last_lines)))
        where = "the job goes on from its newest checkpoint"
        say(f"restart {restart} of {max_restarts} in {pause_s:g} s; {where}")
        try:
            pause(pause_s)
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
