"""A whole cluster in one process: seeded, on a clock of its own, over a network that misbehaves.

Every message goes through the wire format. It may be delayed (and so overtake another), repeated or
lost. Payloads are handed over by reference and read when the message arrives, as a transport without
copies would: where a state machine writes to a buffer too early, the sums come out wrong.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmod.kvstore.actions import SCHEDULER, Connect, Done, Exit, Failed, Lost, Send
from dmod.kvstore.client_state import ClientState
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import Join, Push
from dmod.kvstore.scheduler_state import SchedulerState
from dmod.kvstore.server_state import ServerState
from dmod.kvstore.tree import tree_sum
from dmod.kvstore.wire import decode, encode

Program = Callable[["Worker"], Generator[Any, Any, None]]


class Momentum:
    """A small optimizer of one piece: what `FlatUpdater` is to the real server."""

    def __init__(self, config, segments, size, dtype):
        self.rate, self.momentum = config["rate"], config.get("momentum", 0.0)
        self.state = np.zeros(size, dtype)
        self.count = 0

    def update(self, weight, grad):
        self.count += 1
        self.state *= self.momentum
        self.state += grad
        weight -= self.rate * self.state

    def get_states(self):
        return [self.state]

    def set_states(self, arrays, count):
        self.state[:] = arrays[0]
        self.count = count


CHAOS = {"drop": 0.08, "repeat": 0.15, "slow_s": 0.2}
"""A network that loses, repeats and reorders messages."""


def values_of_epochs(grads, sizes, mode, config):
    """The values of all keys after each epoch, computed without a cluster.

    `grads` are by epoch, round, key, worker and element, of which a key uses as many as its size says.
    """
    values = [np.zeros(size, "f4") for size in sizes]
    updaters = [Momentum(config, (), size, "f4") for size in sizes]
    after = []
    for rounds in grads:
        for of_keys in rounds:
            for value, updater, of_workers in zip(values, updaters, of_keys, strict=True):
                total = tree_sum([grad[: value.size] for grad in of_workers])
                if mode == "sum":
                    value[:] = total
                else:
                    updater.update(value, total)
        after.append([value.copy() for value in values])
    return after


class Memory:
    """Shared memory: what lies in it is read where it is, also long after it has been sent."""

    def __init__(self):
        self.arrays = []

    def empty(self, size, dtype):
        self.arrays.append(np.empty(size, dtype))
        return self.arrays[-1]

    def owns(self, array):
        return any(np.shares_memory(array, mine) for mine in self.arrays)

    def shows(self, key, out):
        return True

    def show(self, key, out, value):
        return Shown(out, value)


class Shown:
    """An array that is a server's: what the server holds when the worker goes on is what it reads."""

    def __init__(self, out, value):
        self.out, self.value = out, value
        self.refresh()

    def refresh(self):
        self.out[...] = self.value

    def hide(self):
        pass


@dataclass
class Process:
    """One process of the cluster."""

    name: str
    state: Any
    routes: dict[Any, str] = field(default_factory=dict)  # what it calls a peer -> process name
    alive: bool = True
    timer: float | None = None
    exit: Exit | None = None
    exited_at: float | None = None
    lost: Lost | None = None


@dataclass
class Worker(Process):
    """A worker, which runs a program: a generator that yields operations and receives results."""

    program: Generator[Any, Any, None] | None = None
    waits_for: tuple[int, ...] = (0,)
    waits_for_list: bool = False
    finished: dict[int, Done | Failed] = field(default_factory=dict)
    error: BaseException | None = None
    error_at: float | None = None
    now: Callable[[], float] = lambda: 0.0

    @property
    def client(self) -> ClientState:
        """The state machine."""
        return self.state


class Simulator:
    """A cluster of `num_workers` and `num_servers`.

    Parameters
    ----------
    seed : int
    program : callable
        Run by every worker: ``program(worker)`` is a generator, in which
        ``result = yield worker.client.push(...)`` waits for an operation, and a list of them for all. When it
        returns the worker leaves; what it raises it leaves with.
    drop, repeat : float
        The shares of messages that are lost, and that come twice.
    slow_s : float
        Most seconds that a message takes.
    shared : bool
        Whether servers read what workers push where it lies. Then they are linked, too: either end hears
        at once that the other one has ended, however it did.
    lanes : bool
        Whether servers expect what repeats.
    """

    def __init__(
        self,
        seed: int,
        num_workers: int,
        num_servers: int,
        program: Program,
        *,
        drop: float = 0.0,
        repeat: float = 0.0,
        slow_s: float = 0.05,
        unit_bytes: int = 256,
        timeout_s: float = 10.0,
        wait_s: float = 600.0,
        fingerprints: dict[int, dict[str, str]] | None = None,
        shared: bool = False,
        lanes: bool = False,
    ):
        self.random = random.Random(seed)
        self.drop, self.repeat, self.slow_s = drop, repeat, slow_s
        self.now, self.shared, self.lanes = 100.0, shared, lanes
        self.processes: dict[str, Process] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._settings = {"timeout_s": timeout_s, "heartbeat_s": timeout_s / 10, "join_timeout_s": 60.0}
        self.sizes = (num_workers, num_servers)
        scheduler = SchedulerState("job", "1", num_workers, num_servers, timeout_s=timeout_s)
        self.processes[SCHEDULER] = Process(SCHEDULER, scheduler)
        for i in range(num_servers):
            name = f"server process {i}"
            self.processes[name] = Process(name, self._server(i, name))
        for i in range(num_workers):
            name = f"worker process {i}"
            member = self._member("worker", i, name, (fingerprints or {}).get(i, {}))
            client = ClientState(member, unit_bytes=unit_bytes, timeout_s=timeout_s, wait_s=wait_s)
            for server in range(num_servers if shared else 0):
                client.share_memory(server, Memory())
            worker = Worker(name, client, now=lambda: self.now)
            worker.program = program(worker)
            self.processes[name] = worker
        for process in self.processes.values():
            process.routes[SCHEDULER] = SCHEDULER
            self._at(self.now + self.random.random(), lambda p=process: self._act(p, p.state.start(self.now)))

    @property
    def workers(self) -> list[Worker]:
        """The workers, by process."""
        return [p for p in self.processes.values() if isinstance(p, Worker)]

    def ranked(self) -> list[Worker]:
        """The workers, by rank."""
        return sorted(self.workers, key=lambda w: w.client.member.rank)

    def _server(self, number, name):
        member = self._member("server", number, name)
        server = ServerState(member, Momentum, shared=lambda array: self.shared)
        if self.lanes:
            from dmod.kvstore.transports.compiled_links import take

            server.lanes.take = take.py_func
        return server

    def _member(self, role, number, name, fingerprint=None):
        # Every second process asks for a rank; the others take what is left.
        rank = number if number % 2 else None
        incarnation = self.random.getrandbits(62) + 1
        join = Join(
            "job",
            role,
            rank,
            incarnation,
            "host",
            1000 + number,
            (name,),
            "1",
            *self.sizes,
            fingerprint or {},
        )
        return MemberState(join, **self._settings)

    def kill(self, name: str, at: float) -> None:
        """`name` stops for good: it neither says nor hears anything any more."""

        def die() -> None:
            self.processes[name].alive = False
            self._end_links(self.processes[name])

        self._at(at, die)

    def run(self, deadline_s: float = 300.0) -> None:
        """Until every process has ended; an AssertionError after `deadline_s` on the cluster's clock."""
        end = self.now + deadline_s
        while self._events and any(p.alive and p.exit is None for p in self.processes.values()):
            time, _, event = heapq.heappop(self._events)
            assert time <= end, f"still running: {[p.name for p in self.processes.values() if not p.exit]}"
            self.now = max(self.now, time)
            event()

    def run_without_errors(self) -> None:
        """`run`; then raise what a worker's program has raised."""
        self.run()
        for worker in self.workers:
            if worker.error is not None:
                raise worker.error

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._count), event))

    def _running(self, process: Process) -> bool:
        return process.alive and process.exit is None

    def _act(self, process: Process, actions: list[Any]) -> None:
        """Carry out what a state machine asks for; then its invariants must hold."""
        for action in actions:
            if isinstance(action, Send):
                self._send(process, action)
            elif isinstance(action, Connect):
                process.routes[action.peer] = action.member.addresses[0]
            elif isinstance(action, Exit):
                process.exit, process.exited_at = action, self.now
                self._end_links(process)
            elif isinstance(action, Lost):
                process.lost = action
            elif isinstance(action, Done | Failed):
                assert action.operation not in process.finished, "an operation has ended twice"
                process.finished[action.operation] = action
        process.state.check_invariants()
        if isinstance(process, Worker):
            self._step(process)
        self._set_timer(process)

    def _step(self, worker: Worker) -> None:
        """Let a worker's program go on as far as it can."""
        while worker.program is not None and all(number in worker.finished for number in worker.waits_for):
            ends = [worker.finished[number] for number in worker.waits_for]
            failed = next((end.error for end in ends if isinstance(end, Failed)), None)
            results = [end.result for end in ends if isinstance(end, Done)]
            try:
                if failed is not None:
                    started = worker.program.throw(failed)
                elif worker.waits_for == (0,):
                    started = next(worker.program)
                else:
                    started = worker.program.send(results if worker.waits_for_list else results[0])
            except StopIteration:
                worker.program = None
                started = worker.client.leave("", self.now)
            except Exception as error:
                worker.program, worker.error, worker.error_at = None, error, self.now
                started = worker.client.leave(f"{type(error).__name__}: {error}", self.now)
            worker.waits_for_list = isinstance(started, list)
            all_started = started if isinstance(started, list) else [started]
            worker.waits_for = tuple(number for number, _ in all_started)
            for _, actions in all_started:
                self._act(worker, actions)

    def _end_links(self, ended: Process) -> None:
        """Those who share memory with a process are told that it has ended."""
        for worker in self.workers if self.shared else ():
            for peer, name in worker.routes.items():
                server = self.processes[name]
                if peer != SCHEDULER and ended in (worker, server):
                    other, called = (server, worker.name) if ended is worker else (worker, peer)
                    self._at(self.now + 0.001 * self.random.random(), self._telling(other, called))

    def _telling(self, process: Process, peer: Any) -> Callable[[], None]:
        def tell() -> None:
            if self._running(process):
                self._act(process, process.state.on_disconnect(peer, self.now))

        return tell

    def _send(self, process: Process, action: Send) -> None:
        name = process.routes.get(action.peer, action.peer)
        if process.name == SCHEDULER and not self._running(self.processes[name]):
            self._at(self.now, lambda: self._unreachable(process, action.peer))
            return
        frames = encode(action.message, action.payloads)
        copies = 2 if self.random.random() < self.repeat else 1
        for _ in range(copies):
            if self.random.random() >= self.drop:
                delay = self.slow_s * self.random.random() ** 2
                self._at(self.now + delay, lambda: self._deliver(process.name, name, frames))

    def _unreachable(self, scheduler: Process, peer: Any) -> None:
        if self._running(scheduler):
            self._act(scheduler, scheduler.state.on_unreachable(peer, self.now))

    def _deliver(self, source: str, name: str, frames: list[Any]) -> None:
        process = self.processes[name]
        if not self._running(process):
            return
        message, payloads = decode(frames)
        if type(message) is Push and not self.shared:  # read after they have been acknowledged
            payloads = [memoryview(bytes(payload)) for payload in payloads]
        peers = {address: peer for peer, address in process.routes.items()}
        peer = peers.get(source, source)
        if name == SCHEDULER:
            self._act(process, process.state.on_message(peer, message, self.now))
        else:
            self._act(process, process.state.on_message(peer, message, payloads, self.now))

    def _set_timer(self, process: Process) -> None:
        time = process.state.next_timer()
        if time is not None and time != process.timer:
            process.timer = time
            self._at(time, lambda: self._timer(process, time))

    def _timer(self, process: Process, time: float) -> None:
        if process.timer == time:
            process.timer = None
            if self._running(process):
                self._act(process, process.state.on_timer(self.now))
                following = process.state.next_timer()
                assert following is None or following > self.now, f"{process.name}: a timer that never ends"
