"""A worker's end of the parameter server: carries the operations of `ClientState` to the servers and back.

The thread that calls does all the work with the servers itself. A second thread, `_SchedulerLine`,
keeps in touch with the scheduler, so that a worker which computes for long is not taken for dead; what
it hears it hands to the calling thread, which looks at every wait.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from dmod.base import ClusterError, DeadlineError, EpochEnded, MXNetError, NotReadyError, ProtocolError
from dmod.config import Settings
from dmod.kvstore.actions import SCHEDULER, Action, Connect, Done, Exit, Failed, Joined, Lost, Peer, Send
from dmod.kvstore.client_state import ClientState
from dmod.kvstore.express import RepeatedCall, Trip
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import Heartbeat, HeartbeatReply, Member, Message, View
from dmod.kvstore.server import FAREWELL_S, join_message
from dmod.kvstore.transports.addresses import scheduler_address, usable_addresses
from dmod.kvstore.transports.base import Endpoint, Frame, Transport
from dmod.kvstore.transports.segments import process_arena
from dmod.kvstore.transports.shm import SCHEME, ShmTransport
from dmod.kvstore.transports.slow import perhaps_slow
from dmod.kvstore.transports.windows import HostMemory
from dmod.kvstore.wire import decode, encode

__all__ = ["Client"]

_LONGEST_WAIT_S = 1.0
"""A wait looks at its signals and timers at least so often."""

_LONG_WAIT_S = 30.0
"""A wait that takes so long is told of, and then each time that it has taken twice as long."""
_SPIN_S = 0.0002
"""About what a small exchange takes: to sleep and be woken takes 40 us of a small step's 420."""

log = logging.getLogger("dmod.kvstore")
T = TypeVar("T")


class _SchedulerLine(threading.Thread):
    """The connection to the scheduler: sends signs of life, and collects what the scheduler says.

    Parameters
    ----------
    endpoint : Endpoint
        Used by this thread alone, connected to the scheduler.
    heartbeat_s : float
    wake : callable
        Called when something has come.
    """

    def __init__(self, endpoint: Endpoint, heartbeat_s: float, wake: Callable[[], None]):
        super().__init__(name="dmod scheduler line", daemon=True)
        self.inbox: deque[tuple[Message, float]] = deque()
        self.sign_of_life: Sequence[Frame] | None = None  # once joined; before, the state's own Joins serve
        self._endpoint, self._heartbeat_s, self._wake = endpoint, heartbeat_s, wake
        self._outbox: deque[Sequence[Frame]] = deque()
        self._ended = False

    def send(self, frames: Sequence[Frame]) -> None:
        """Send a message to the scheduler; from any thread."""
        self._outbox.append(frames)
        self._endpoint.wake()

    def end(self, timeout_s: float) -> None:
        """Send what is left, close, and end the thread."""
        self._ended = True
        self._endpoint.wake()
        self.join(timeout_s)

    def run(self) -> None:
        """The thread."""
        next_beat = time.monotonic() + self._heartbeat_s
        while not self._ended:
            got = self._endpoint.receive(max(0.0, next_beat - time.monotonic()))
            now = time.monotonic()
            if got is not None:
                self._heard(got[1], now)
            self._flush()
            if now >= next_beat:
                next_beat = now + self._heartbeat_s
                if self.sign_of_life is not None:
                    self._endpoint.send(SCHEDULER, self.sign_of_life)
        self._flush()
        self._endpoint.close(FAREWELL_S)

    def _flush(self) -> None:
        while self._outbox:
            self._endpoint.send(SCHEDULER, self._outbox.popleft())

    def _heard(self, frames: Sequence[Frame], now: float) -> None:
        try:
            message, _ = decode(frames)
        except ProtocolError as error:
            self._endpoint.drop(SCHEDULER)
            log.warning("the scheduler sent something else than a message of ours: %s", error)
            return
        if isinstance(message, HeartbeatReply):
            # Only the last one says anything, and a thread that computes reads none for a while.
            try:
                if isinstance(self.inbox[-1][0], HeartbeatReply):
                    self.inbox[-1] = (message, now)
                    return
            except IndexError:
                pass
        self.inbox.append((message, now))
        self._wake()


class Client:
    """A worker's connection to its job.

    Parameters
    ----------
    settings : Settings
    transport : Transport, optional
        Default: shared memory, ipc and tcp.
    scheduler : str, optional
        Its address; default: as the settings say.

    Raises
    ------
    ClusterError
        The workers, servers and scheduler of the job did not get together, for the reason given.
    """

    def __init__(self, settings: Settings, transport: Transport | None = None, scheduler: str | None = None):
        self._settings = settings
        scheduler = scheduler or scheduler_address(settings)
        join = join_message(settings, "worker", ())
        member = MemberState(
            join,
            timeout_s=settings.timeout_s,
            heartbeat_s=settings.heartbeat_s,
            join_timeout_s=settings.join_timeout_s,
            scheduler=scheduler,
        )
        self.state = ClientState(
            member, unit_bytes=settings.unit_bytes, timeout_s=settings.timeout_s, wait_s=settings.wait_s
        )
        self.member = member
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._results: dict[int, Done | Failed] = {}
        self.interrupted: list[int] = []
        """Operations whose `wait` was interrupted, as by Ctrl-C."""
        self._lost: MXNetError | None = None
        self._exited = self._closed = False
        self._owns_transport = transport is None
        self._transport = transport or perhaps_slow(ShmTransport(), settings)
        self._endpoint = self._transport.endpoint()
        self._endpoint.spin_s = _SPIN_S
        line = self._transport.endpoint()
        line.connect(SCHEDULER, scheduler)
        self._line = _SchedulerLine(line, settings.heartbeat_s, self._endpoint.wake)
        self._line.start()
        atexit.register(self._close_at_exit)
        self._ended_by = ""
        self._end_on_sigterm()
        try:
            self._carry_out(self.state.start(time.monotonic()))
            self._wait(0)
        except BaseException:
            self.close()
            raise

    @property
    def rank(self) -> int:
        """This worker's number."""
        return self.member.rank

    @property
    def view(self) -> View:
        """Who takes part."""
        if self.member.view is None:
            raise NotReadyError("this process has not joined its job yet")
        return self.member.view

    # ---- operations

    def call(self, operation: Callable[..., tuple[int, list[Action]]], *args: Any, **kwargs: Any) -> Any:
        """Do one of `state`'s operations, and wait for its result; `now` is added to the arguments."""
        with self._lock:
            return self.wait([self.begin(operation, *args, **kwargs)])[0]

    def begin(self, operation: Callable[..., tuple[int, list[Action]]], *args: Any, **kwargs: Any) -> int:
        """Begin one of `state`'s operations; returns its number, for `wait`."""
        with self._lock:
            if self._closed:
                raise NotReadyError("the store has been closed; kvstore.create() makes another")
            if self.interrupted:
                self.settle()
            self._read_line()
            before, number = self.state.under_way, None
            try:
                number, actions = operation(*args, now=time.monotonic(), **kwargs)
                self._carry_out(actions)
            except BaseException as error:  # Ctrl-C: what has not left is sent when its server is asked
                left = self.state.under_way
                if number is not None:
                    self.interrupted.append(number)
                elif left is not None and left is not before and not isinstance(error, MXNetError):
                    self.interrupted.append(left.number)
                raise
            return number

    def wait(self, numbers: Sequence[int]) -> list[Any]:
        """The results of operations, in order; of several errors the first is raised, when all have ended."""
        results: list[Any] = []
        error: MXNetError | None = None
        with self._lock:
            try:
                for number in numbers:
                    try:
                        results.append(self._wait(number))
                    except MXNetError as failure:
                        error = error or failure
                        results.append(None)
            except BaseException:  # Ctrl-C: servers go on reading the arrays that have been pushed
                self.interrupted += numbers[len(results) :]
                raise
        if error is not None:
            raise error
        return results

    def repeat(self, entries: tuple[Any, ...]) -> bool:
        """Do a pushpull that has been done with the same tuple before, if it can take the fast way: a `Trip`.

        False, and nothing has happened, if it cannot.
        """
        with self._lock:
            if self._closed or self.interrupted or self._line.inbox or self._lost is not None:
                return False
            call = self.state.repeated(entries)
            if call is None:
                return False
            if call.trip is None or call.trip.ended:
                asks = call.asks()
                call.trip = self._endpoint.trip(asks) if asks else None
            trip = call.trip
            if trip is None or not trip.is_ready():
                return False
            return self._go_on_trip(call, trip)

    def _go_on_trip(self, call: RepeatedCall, trip: Trip) -> bool:
        express, goes_on = None, False
        try:
            express = self.state.set_off(call, time.monotonic())
            if express is None:
                return False
            if trip.send(express.first, self.state.epoch, express.rounds):
                self.state.while_waiting()
                if trip.await_answers(self._wait_s(self.state.next_timer())) and self.state.arrived(
                    trip.places
                ):
                    return True
            goes_on = True
            self._carry_out(self.state.go_on(trip.sent, trip.places, time.monotonic()))
            self._wait(express.number)
        except MXNetError:
            raise
        except BaseException:  # Ctrl-C: servers go on reading the arrays that have been pushed
            left = express if goes_on else self.state.under_way
            if left is not None:
                self.interrupted.append(left.number)
                if not goes_on:
                    self._carry_out(self.state.go_on(trip.sent, trip.places, time.monotonic()))
            raise
        return True

    @property
    def unsettled(self) -> bool:
        """Whether servers may still read arrays of calls that were interrupted, or have failed."""
        return bool(self.interrupted) or self.state.lingering

    def settle(self) -> None:
        """Wait until no server reads arrays of such calls; their results are gone."""
        with self._lock:
            while self.interrupted:
                try:
                    self._wait(self.interrupted[0])
                except EpochEnded:
                    log.debug("a call that was interrupted belonged to an epoch that has ended")
                except MXNetError:
                    self.interrupted.pop(0)
                    raise
                self.interrupted.pop(0)
            deadline = time.monotonic() + self._settings.wait_s
            while self.state.lingering and self._lost is None:
                if time.monotonic() > deadline:
                    raise DeadlineError(
                        "a push that has failed by its deadline is still unanswered, and its gradient may "
                        "not be overwritten: start this job again from a checkpoint"
                    )
                self._step()

    def _wait(self, number: int) -> Any:
        self.state.while_waiting()
        since, say_s = 0.0, _LONG_WAIT_S
        while number not in self._results:
            if self._lost is not None:
                raise self._lost
            self._step()
            since = since or time.monotonic()
            if time.monotonic() - since >= say_s:
                for text in self.state.waits(time.monotonic(), say_s)[:1]:
                    log.warning("%s; it is given up after %g s (DMOD_WAIT_S)", text, self._settings.wait_s)
                say_s *= 2
        result = self._results.pop(number)
        if isinstance(result, Failed):
            raise result.error
        return result.result

    @staticmethod
    def _wait_s(timer: float | None) -> float:
        """How long to wait for the next event, if the next timer is at `timer`."""
        return _LONGEST_WAIT_S if timer is None else min(max(0.0, timer - time.monotonic()), _LONGEST_WAIT_S)

    def _step(self) -> None:
        """Wait for the next event, and let the state have it."""
        timer = self.state.next_timer()
        got = self._endpoint.receive(self._wait_s(timer))
        if self._line.inbox:
            self._read_line()
        now = time.monotonic()
        if got is None:
            if timer is not None and now >= timer:
                self._carry_out(self.state.on_timer(now))
            return
        peer, frames = got
        if not frames:
            self._carry_out(self.state.on_disconnect(peer, now))
            return
        try:
            message, payloads = decode(frames)
        except ProtocolError as error:
            self._endpoint.drop(peer)
            log.warning("%s sent something else than a message of ours: %s", peer, error)
            return
        self._carry_out(self.state.on_message(peer, message, payloads, now))

    def _read_line(self) -> None:
        while self._line.inbox:
            message, arrived = self._line.inbox.popleft()
            self._carry_out(self.state.on_message(SCHEDULER, message, [], arrived))

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if type(action) is Send:
                frames = encode(action.message, action.payloads)
                if action.peer == SCHEDULER:
                    self._line.send(frames)
                else:
                    self._endpoint.send(action.peer, frames)
            elif type(action) is Done or type(action) is Failed:
                self._results[action.operation] = action
            elif isinstance(action, Connect):
                self._connect(action.peer, action.member)
            elif isinstance(action, Joined):
                join = self.member.join
                self._line.sign_of_life = encode(Heartbeat(join.incarnation, action.view.view))
            elif isinstance(action, Lost):
                self._lost = action.error
                log.error("%s", action.error)
            elif isinstance(action, Exit):
                self._exited = True

    def _connect(self, peer: Peer, server: Member) -> None:
        """Connect to a server by the first of its addresses that can be used from here."""
        for address in usable_addresses(server, self.member.join.host, self._settings.transport):
            try:
                self._endpoint.connect(peer, address)
            except OSError as error:
                log.info("%s at %s: %s; trying its next address", peer, address, error.strerror)
                continue
            if address.startswith(SCHEME):
                self.state.share_memory(server.rank, HostMemory(process_arena()))
            return
        raise ClusterError(
            f"server {server.rank} (pid {server.pid} on {server.host}) listens at "
            f"{', '.join(server.addresses) or 'no address'}, none of which this worker can use with "
            f"DMOD_TRANSPORT={self._settings.transport}"
        )

    # ---- the end

    def close(self, error: str = "") -> None:
        """Leave the job, and close all connections; `error` is '' if all is done.

        Never raises: the job may be lost already, and others have been told what there is to tell.
        """
        with self._lock:
            if self._closed or os.getpid() != self._pid:  # a forked child does not leave in its parent's name
                return
            try:
                self._leave(error)
            except MXNetError as reason:
                log.debug("leaving: %s", reason)
            finally:
                self._closed = True
                self._line.end(FAREWELL_S + 1)
                self._endpoint.close(FAREWELL_S)
                if self._owns_transport and not self._line.is_alive():
                    self._transport.close()
                atexit.unregister(self._close_at_exit)

    def _leave(self, error: str) -> None:
        deadline = time.monotonic() + self._settings.timeout_s
        self._carry_out(self.state.leave(error, now=time.monotonic())[1])
        while not self._exited and self._lost is None and time.monotonic() < deadline:
            self._step()

    def _end_on_sigterm(self) -> None:
        """Let SIGTERM end the program as ``sys.exit`` does, unless it says otherwise: the others are told."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            return

        def end(number: int, frame: object) -> None:
            self._ended_by = "it was ended by SIGTERM"
            raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, end)

    def _close_at_exit(self) -> None:
        # Python keeps the exception that ends a script here; an interactive session goes on after one.
        error = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
        text = self._ended_by if error is None else f"{type(error).__name__}: {error}"[:4096]
        self.close(text)
