"""Runs the processes of a job: relays their output, and ends them all when one fails.

Each process runs under a keeper of its own (`keeper`), which ends it when the launcher dies. The
scheduler is told at once which processes have ended, on its standard input.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from dmod_launch.chaos import Saboteur
from dmod_launch.child import Child, is_signal, start_child
from dmod_launch.job import Program
from dmod_launch.output import LineRelay, prefix

__all__ = ["Failure", "Supervisor"]

_VERDICT = re.compile(r"dmod scheduler: (.*)")
MARGIN_S = 2.0
"""What a process may need, beyond the time to notice that another is dead, to say so and to end; less, if
that time is shorter."""
TERM_S, KILL_S = 1.5, 1.5
"""From SIGINT to SIGTERM, and from SIGTERM to SIGKILL: together within the 5 s that Ctrl-C may take."""
DRAIN_S = 1.0
"""How long to wait for the end of the output of a process that has ended."""
POLL_S = 0.05
"""How often to look after processes outside of the main thread, which alone hears that one has ended."""
SAME_FAILURE_S = 1.0
"""Failures within this time count as one: which of them was noticed first is chance."""


@dataclass(frozen=True)
class Failure:
    """The end of the process that failed first.

    Attributes
    ----------
    process : str
        Such as 'worker 0'.
    how : str
        Such as 'was killed by signal 9 (SIGKILL)' or 'has ended with exit status 1'.
    last_lines : tuple of str
        What it said last, its errors rather than its output.
    """

    process: str
    how: str
    last_lines: tuple[str, ...]


class Supervisor:
    """Runs programs until all have ended.

    Parameters
    ----------
    timeout_s : float
        The time within which the processes of the job notice the death of one of them.
    stdout, stderr : binary file
        Where their lines go.
    colour : bool
        Whether prefixes are coloured.
    at_once : bool
        Whether a failure ends all others at once, rather than leaving them time to notice: for a job that
        is going to be started again.
    saboteur : Saboteur, optional
        Kills one of the processes.
    start : callable
        Starts a program: here, on another host, or in an actor.

    Attributes
    ----------
    interrupted : bool
        Whether a signal ended the job.
    """

    def __init__(
        self,
        timeout_s: float,
        stdout: BinaryIO,
        stderr: BinaryIO,
        colour: bool,
        at_once: bool = False,
        saboteur: Saboteur | None = None,
        start: Callable[[Program], Child] = start_child,
    ):
        self._start_child = start
        self._timeout_s, self._at_once, self._saboteur = timeout_s, at_once, saboteur
        self._margin_s = min(MARGIN_S, timeout_s)
        self._sinks = {"stdout": stdout, "stderr": stderr}
        self._colour = colour
        self._children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._hears_signals = True
        self._wake_up, self._waking = -1, threading.Lock()
        self._code = 0
        self._failed_at: float | None = None
        self.interrupted = False
        self._told_to_end = False  # all that are left, by a signal
        self._workers_gone = False
        self._ending: list[tuple[float, int]] = []  # when to send which signal to all that are left
        self._culprit: Child | None = None
        self._sabotaged: Child | None = None
        self._failed: list[Child] = []  # by themselves, in the order in which that was noticed
        self._verdict = ""  # what the scheduler says of the first loss

    def run(self, programs: Sequence[Program]) -> int:
        """Start `programs`, and see them through.

        Returns
        -------
        int
            0 if all ended well, or else the exit status of the first that failed; 128 + n if that was
            signal n, or if signal n ended the launcher.
        """
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self._wake_up = writer
        caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
        before, before_fd = {}, -1
        self._hears_signals = threading.current_thread() is threading.main_thread()
        if self._hears_signals:
            before = {number: signal.signal(number, self._note_signal) for number in caught}
            before_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._selector.register(reader, selectors.EVENT_READ, None)
        try:
            self._start(programs)
            if self._saboteur is not None and self._at_once:  # else nothing would start the job again
                self._saboteur.begin(time.monotonic())
            while any(child.ended_at is None for child in self._children):
                self._step(reader)
            self._drain()
            self._name_culprit()
        except BrokenPipeError:
            self._code = self._code or 128 + signal.SIGPIPE
        finally:
            for child in self._children:
                child.close_lifeline()
            for child in self._children:
                child.process.wait()
            if self._hears_signals:
                signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            with self._waking:
                self._wake_up = -1
            os.close(reader)
            os.close(writer)
        return self._code

    def interrupt(self) -> None:
        """End all processes, as SIGTERM for the launcher does; from any thread."""
        with self._waking:
            self._signals.append(signal.SIGTERM)
            if self._wake_up >= 0:
                os.write(self._wake_up, b"\0")

    @property
    def failure(self) -> Failure | None:
        """The first failure, once `run` has returned."""
        child = self._culprit
        if child is None:
            return None
        said = next((relay.last for relay in reversed(child.relays) if relay.last), ())
        return Failure(child.program.name, child.how, tuple(line.decode(errors="replace") for line in said))

    def _start(self, programs: Sequence[Program]) -> None:
        for program in programs:
            child = self._start_child(program)
            self._children.append(child)
            label = prefix(program.role, program.rank, self._colour)
            for name, pipe in (("stdout", child.process.stdout), ("stderr", child.process.stderr)):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
                is_scheduler = program.role == "scheduler"
                relay = LineRelay(self._sinks[name], label, self._hear_verdict if is_scheduler else None)
                child.relays.append(relay)
                self._selector.register(pipe, selectors.EVENT_READ, relay)

    def _note_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self._signals.append(number)

    # ---- events

    def _step(self, wakeups: int) -> None:
        now, wait_s = time.monotonic(), None
        if self._ending:
            wait_s = max(0.0, self._ending[0][0] - now)
        elif self._saboteur is not None:
            wait_s = self._saboteur.due_in(now)
        if not self._hears_signals:
            wait_s = POLL_S if wait_s is None else min(wait_s, POLL_S)
        for key, _ in self._selector.select(wait_s):
            if key.data is None:
                os.read(wakeups, 4096)
            else:
                self._relay(key)
        self._look_after_children()
        while self._signals:
            self._interrupt(self._signals.pop(0))
        self._send_due_signals()
        if self._saboteur is not None and not self._ending:
            self._sabotage(self._saboteur)

    def _sabotage(self, saboteur: Saboteur) -> None:
        if saboteur.due_in(time.monotonic()) != 0:
            return
        running = [child for child in self._children if child.ended_at is None]
        victim = saboteur.choose(running, lambda child: child.program.name)
        if victim is not None:
            self._say(f"chaos: killing {victim.program.name} with signal 9")
            self._sabotaged = victim
            victim.signal(signal.SIGKILL)

    def _relay(self, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(key.fd, 1 << 16)
        except BlockingIOError:
            return
        if data:
            key.data.feed(data)
            return
        self._selector.unregister(key.fileobj)
        key.data.finish()
        key.fileobj.close()  # type: ignore[union-attr]

    def _look_after_children(self) -> None:
        for child in self._children:
            if child.ended_at is None and child.process.poll() is not None:
                child.ended_at = time.monotonic()
                self._tell_scheduler(child)
                self._note_end(child)
        running = [child for child in self._children if child.ended_at is None]
        if running and not self._workers_gone and all(child.program.role != "worker" for child in running):
            # The servers end when all workers have left; those of a program that never joined do not. After
            # a failure, such as a mistyped script, there is nobody left to wait for.
            self._workers_gone = True
            if not self._told_to_end:
                self._end_within(self._margin_s)

    def _tell_scheduler(self, child: Child) -> None:
        """So that the others need not wait until its silence has become long enough.

        Who ends well has left the job, or never joined it, as programs do that use no store.
        """
        role = child.program.role
        if role == "scheduler" or child.code == 0:
            return
        line = f"{role} {child.program.rank} it {child.how} at {time.strftime('%H:%M:%S')}"
        self._children[0].tell(line)

    def _hear_verdict(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        if not self._verdict and (found := _VERDICT.match(text)):
            self._verdict = found[1]

    def _note_end(self, child: Child) -> None:
        code = child.code
        if code == 0 or self.interrupted or (self._told_to_end and self._failed_at is None):
            return
        assert child.ended_at is not None
        if not self._told_to_end:
            self._failed.append(child)
        if self._failed_at is None:
            self._code, self._failed_at = code, child.ended_at
            if self._at_once:
                self._say(f"{child.program.name} {child.how}; ending the others")
                self._be_brief(c for c in self._children if c is not child)
                self._mute_consequences(child)
                self._end_within(0)
                return
            rest_s = self._timeout_s + self._margin_s
            self._say(f"{child.program.name} {child.how}; the others get {rest_s:g} s to end")
            self._end_within(rest_s)
            return
        # Whoever gives up because of another's failure ends with 1, and may have been faster.
        if self._code == 1 and child.ended_at - self._failed_at < SAME_FAILURE_S and not self._told_to_end:
            self._code = code
        if not self._told_to_end:
            self._say(f"{child.program.name} {child.how}")

    def _name_culprit(self) -> None:
        """The last line says whose failure was the first; whatever the others have said of it is above."""
        if self.interrupted or not self._failed:
            return
        killed = next((c for c in self._failed if is_signal(c.code)), None)
        named = next((c for c in self._failed if self._verdict.startswith(f"{c.program.name} ")), None)
        culprit = self._culprit = killed or named or self._failed[0]
        if not is_signal(self._code):
            self._code = culprit.code
        text = f"{culprit.program.name} {culprit.how}"
        if culprit is self._sabotaged:
            pass  # who has done it is said already
        elif culprit is killed and culprit.code == 128 + signal.SIGKILL and not culprit.is_lost:
            text += "; if nobody has done that, the machine may have run out of memory"
        elif culprit is named:
            text = self._verdict
        elif self._verdict:
            text += f"; {self._verdict}"
        if not self._at_once:
            self._say(f"the job failed: {text}")
        elif text != f"{self._failed[0].program.name} {self._failed[0].how}":  # which is said already
            self._say(f"it began with {text}" if culprit is not self._failed[0] else text)

    def _mute_consequences(self, culprit: Child) -> None:
        """Leave out what follows from the end of `culprit`, as far as it can be nothing else."""
        for child in self._children:
            if child is culprit:
                continue
            output, errors = child.relays
            if child.program.role != "worker":
                output.muted = errors.muted = True  # nothing of the user's
            elif is_signal(culprit.code):
                errors.muted = True  # who was killed has not failed because of another one

    @staticmethod
    def _be_brief(children: Iterable[Child]) -> None:
        """Leave out the tracebacks of processes that end because they are told to."""
        for child in children:
            for relay in child.relays:
                relay.brief = True

    # ---- ending

    def _end_within(self, rest_s: float) -> None:
        at = time.monotonic() + rest_s
        self._ending = [(at, signal.SIGTERM), (at + KILL_S, signal.SIGKILL)]

    def _interrupt(self, number: int) -> None:
        """A signal for the launcher is one for all; the second one leaves them no time."""
        now = time.monotonic()
        if self._failed_at is None:
            self._failed_at, self._code = now, 128 + number
        if self.interrupted:
            self._ending = [(now, signal.SIGKILL)]
            return
        self.interrupted = True
        self._be_brief(self._children)
        self._say(f"{signal.Signals(number).name}: ending all processes")
        self._ending = [
            (now, number),
            (now + TERM_S, signal.SIGTERM),
            (now + TERM_S + KILL_S, signal.SIGKILL),
        ]

    def _send_due_signals(self) -> None:
        while self._ending and self._ending[0][0] <= time.monotonic():
            _, number = self._ending.pop(0)
            if self._workers_gone and not (self._told_to_end or self._failed_at or self.interrupted):
                self._say(
                    "all workers have ended, but none has used the servers of this job: does the program "
                    "train with kvstore='dist_sync', or another 'dist' store?"
                )
            self._told_to_end = True
            for child in self._children:
                if child.ended_at is not None:
                    continue
                if number == signal.SIGKILL:
                    self._say(f"{child.program.name} has not ended: killed")
                    child.close_lifeline()
                else:
                    child.signal(number)

    def _drain(self) -> None:
        """Relay what is still in the pipes."""
        deadline = time.monotonic() + DRAIN_S
        while len(self._selector.get_map()) > 1 and time.monotonic() < deadline:
            for key, _ in self._selector.select(deadline - time.monotonic()):
                if key.data is not None:
                    self._relay(key)
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.data.finish()

    def _say(self, text: str) -> None:
        sink = self._sinks["stderr"]
        sink.write(prefix("launcher", None, self._colour) + text.encode() + b"\n")
        sink.flush()
