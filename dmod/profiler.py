"""``mx.profiler``: what a program spends its time on, as a trace for Chrome and as a table.

While the profiler runs, the steps of executors, the operations of key-value stores and the operators of
``mx.nd`` are wrapped in stop-watches. While it does not, they are as they were, so that it costs nothing.
A trace is read with ``chrome://tracing``, or https://ui.perfetto.dev.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import dmod.ndarray.invoke as invoking
from dmod.atomic_file import write_atomic
from dmod.base import InvalidArgument
from dmod.config import settings
from dmod.executor import Executor
from dmod.executor.plan import Plan
from dmod.kvstore.base import KVStore
from dmod.registry import nearest

__all__ = [
    "Counter",
    "Domain",
    "Event",
    "Frame",
    "Marker",
    "Task",
    "dump",
    "dump_profile",
    "dumps",
    "pause",
    "profiler_set_config",
    "profiler_set_state",
    "resume",
    "set_config",
    "set_kvstore_handle",
    "set_state",
]

_OPTIONS: dict[str, Any] = {
    "filename": "profile.json",
    "profile_all": False,
    "profile_symbolic": False,
    "profile_imperative": False,
    "profile_memory": False,
    "profile_api": False,
    "continuous_dump": False,
    "dump_period": 1.0,
    "aggregate_stats": False,
    "profile_process": "worker",
}
_STORE_OPERATIONS = (
    *("init", "push", "pull", "pushpull", "broadcast", "row_sparse_pull", "init_flat", "pushpull_flat"),
    *("end_epoch", "barrier", "set_optimizer", "get_optimizer_states", "set_optimizer_states"),
)
_SORT_BY = ("total", "avg", "min", "max", "count")


class _Recording:
    """The events that were recorded, and sums of their times by category and name."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.sums: dict[tuple[str, str], list[int]] = {}  # count, total, least, most, in nanoseconds
        # Traces of several processes lie side by side by the clock on the wall, durations do not use it.
        self.offset_ns = time.time_ns() - time.perf_counter_ns()
        self._lock = threading.Lock()

    def add(self, kind: str, category: str, name: str, start_ns: int, **more: Any) -> None:
        """Note an event; see the Trace Event Format for kinds."""
        microseconds = (start_ns + self.offset_ns) / 1000
        event = {"name": name, "cat": category, "ph": kind, "ts": microseconds, "pid": os.getpid()}
        self.events.append({**event, "tid": threading.get_native_id(), **more})

    def span(self, category: str, name: str, start_ns: int, args: dict[str, Any]) -> None:
        """Note something that began at `start_ns` and has ended now."""
        duration = time.perf_counter_ns() - start_ns
        self.add("X", category, name, start_ns, dur=duration / 1000, args=args)
        with self._lock:
            sums = self.sums.setdefault((category, name), [0, 0, duration, duration])
            sums[0] += 1
            sums[1] += duration
            sums[2], sums[3] = min(sums[2], duration), max(sums[3], duration)


def _timed(
    action: Callable[[], Any], finish: Callable[[], None], title: tuple[str, str]
) -> Callable[[], Any]:
    """A plan's step with a stop-watch; `finish` waits until the device has done it."""
    args = {"node": title[1]} if title[1] else {}

    def step() -> None:
        start_ns = time.perf_counter_ns()
        action()
        finish()
        _profiler.recording.span("operator", title[0], start_ns, args)

    return step


def _timed_method(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: KVStore, *args: Any, **kwargs: Any) -> Any:
        start_ns = time.perf_counter_ns()
        try:
            return method(self, *args, **kwargs)
        finally:
            key = kwargs.get("key", kwargs.get("name", args[0] if args else None))
            known: dict[str, Any] = {"store": self.type}
            if isinstance(key, (int, str, list, tuple)):
                known["key"] = key
            _profiler.recording.span("kvstore", f"KVStore.{name}", start_ns, known)

    return run


class _Profiler:
    """The state of profiling in this process, and the wrappers that are in place."""

    def __init__(self) -> None:
        self.options = dict(_OPTIONS)
        self.recording = _Recording()
        self.is_running = False
        self.is_paused = False
        self._undo: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def switch(self, running: bool, paused: bool) -> None:
        """Change the state; wrappers are in place while it runs and is not paused."""
        with self._lock:
            self.is_running, self.is_paused = running, paused
            if running and not paused and not self._undo:
                self._install()
            elif not (running and not paused):
                while self._undo:
                    self._undo.pop()()

    def _install(self) -> None:
        options = self.options
        everything = options["profile_all"] or not (
            options["profile_symbolic"] or options["profile_imperative"]
        )
        if everything or options["profile_symbolic"]:
            self._wrap_plans()
        if everything or options["profile_imperative"]:
            self._wrap_arrays()
        self._wrap_stores()

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append(functools.partial(setattr, owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _wrap_plans(self) -> None:
        original = Executor.plan
        seen: dict[int, weakref.ref[Plan]] = {}

        @functools.wraps(original)
        def plan_of(executor: Executor, is_train: bool) -> Plan:
            plan = original(executor, is_train)
            known = seen.get(id(plan))
            if known is None or known() is not plan:
                seen[id(plan)] = weakref.ref(plan)
                self._undo.append(_wrapped_plan(plan, executor._backend.synchronize))
            return plan

        self._replace(Executor, "plan", plan_of)

    def _wrap_arrays(self) -> None:
        original = invoking._compute

        @functools.wraps(original)
        def compute(call: Any) -> Any:
            start_ns = time.perf_counter_ns()
            results = original(call)
            call.memory.synchronize()
            self.recording.span("imperative", call.op.name, start_ns, {})
            return results

        self._replace(invoking, "_compute", compute)

    def _wrap_stores(self) -> None:
        import dmod.kvstore.dist
        import dmod.kvstore.local  # noqa: F401  (`create` imports them late)

        todo: list[type] = [KVStore]
        while todo:
            kind = todo.pop()
            todo.extend(kind.__subclasses__())
            for name in _STORE_OPERATIONS:
                if name in vars(kind):
                    self._replace(kind, name, _timed_method(vars(kind)[name], name))


def _wrapped_plan(plan: Plan, finish: Callable[[], None]) -> Callable[[], None]:
    """Put stop-watches around a plan's steps; returns what takes them away."""
    forward, backward, alive = plan.forward, plan.backward, weakref.ref(plan)
    plan.forward = [_timed(s, finish, t) for s, t in zip(forward, plan.forward_titles, strict=True)]
    plan.backward = [_timed(s, finish, t) for s, t in zip(backward, plan.backward_titles, strict=True)]
    del plan

    def undo() -> None:
        plan = alive()
        if plan is not None:
            plan.forward, plan.backward = forward, backward

    return undo


_profiler = _Profiler()


def _check_process(call: str, profile_process: str) -> None:
    if profile_process == "server":
        raise InvalidArgument(
            f"{call}: profile_process='server': a worker cannot profile servers; what it waits for them "
            "is in its own profile"
        )
    if profile_process != "worker":
        raise InvalidArgument(f"{call}: profile_process={profile_process!r}, expected 'worker'")


# ---- settings and state


def set_config(**kwargs: Any) -> None:
    """Choose what to record, before `set_state`.

    Parameters
    ----------
    filename : str
        Where `dump` writes the trace; default: profile.json.
    profile_symbolic : bool
        Record the steps of executors.
    profile_imperative : bool
        Record the operators of ``mx.nd``.
    profile_all : bool
        Record both; so does giving neither. Operations of key-value stores are always recorded.
    profile_memory, profile_api, continuous_dump, dump_period, aggregate_stats
        Accepted: memory is planned at bind (`Executor.debug_str`), there is no C API, and sums for `dumps`
        are always kept.
    profile_process : {'worker'}

    Raises
    ------
    InvalidArgument
        An option is unknown, or asks for a profile of servers.
    """
    for name in kwargs:
        if name not in _OPTIONS:
            raise InvalidArgument(f"profiler.set_config: no option {name!r}{nearest(name, _OPTIONS)}")
    _check_process("profiler.set_config", kwargs.get("profile_process", "worker"))
    _profiler.options.update(kwargs)


def set_state(state: str = "stop", profile_process: str = "worker") -> None:
    """Start or stop the profiler.

    Parameters
    ----------
    state : {'run', 'stop'}
    profile_process : {'worker'}

    Examples
    --------
    >>> from dmod.ndarray.ndarray import ones
    >>> set_config(profile_imperative=True)
    >>> set_state('run')
    >>> _ = (ones((2, 2)) + 1).reshape((4,)).asnumpy()
    >>> set_state('stop')
    >>> _ = dumps(reset=True)
    """
    if state not in ("run", "stop"):
        raise InvalidArgument(f"profiler.set_state({state!r}): expected 'run' or 'stop'")
    _check_process("profiler.set_state", profile_process)
    _profiler.switch(state == "run", False)


def pause(profile_process: str = "worker") -> None:
    """Record nothing until `resume`."""
    _check_process("profiler.pause", profile_process)
    _profiler.switch(_profiler.is_running, True)


def resume(profile_process: str = "worker") -> None:
    """Go on after `pause`."""
    _check_process("profiler.resume", profile_process)
    _profiler.switch(_profiler.is_running, False)


def profiler_set_config(mode: str = "symbolic", filename: str = "profile.json") -> None:
    """The old form of `set_config`.

    Parameters
    ----------
    mode : {'symbolic', 'imperative', 'api', 'memory', 'all'}
    filename : str
    """
    set_config(**{**_OPTIONS, f"profile_{mode}": True, "filename": filename})


def profiler_set_state(state: str = "stop") -> None:
    """The old name of `set_state`."""
    set_state(state)


def set_kvstore_handle(handle: Any) -> None:
    """Accepted: stores are found without it."""


# ---- results


def dump(finished: bool = True, profile_process: str = "worker") -> None:
    """Write what was recorded to the file of `set_config`, as a Chrome trace.

    Parameters
    ----------
    finished : bool
        Stop the profiler and forget the events; else the next dump has them, too.
    profile_process : {'worker'}
    """
    _check_process("profiler.dump", profile_process)
    if finished:
        _profiler.switch(False, False)
    recording = _profiler.recording
    read = settings()
    title = f"{read.role or 'process'}{'' if read.rank is None else f' {read.rank}'}"
    name = {"name": "process_name", "ph": "M", "pid": os.getpid(), "args": {"name": title}}
    trace = {"traceEvents": [name, *recording.events], "displayTimeUnit": "ms"}
    write_atomic(os.fspath(_profiler.options["filename"]), [json.dumps(trace).encode()])
    if finished:
        recording.events = []


def dump_profile() -> None:
    """The old name of `dump`."""
    dump(True)


def dumps(reset: bool = False, format: str = "table", sort_by: str = "total", ascending: bool = False) -> str:
    """Times summed by operator and operation, in milliseconds.

    Parameters
    ----------
    reset : bool
        Begin the sums anew.
    format : {'table', 'json'}
    sort_by : {'total', 'avg', 'min', 'max', 'count'}
    ascending : bool

    Returns
    -------
    str
    """
    if format not in ("table", "json"):
        raise InvalidArgument(f"profiler.dumps: format={format!r}, expected 'table' or 'json'")
    if sort_by not in _SORT_BY:
        raise InvalidArgument(f"profiler.dumps: sort_by={sort_by!r}, expected one of {', '.join(_SORT_BY)}")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (category, name), (count, total, least, most) in list(_profiler.recording.sums.items()):
        times = {"Total": total, "Min": least, "Max": most, "Avg": total / count}
        row = {"Count": count, **{key: round(ns / 1e6, 4) for key, ns in times.items()}}
        found.setdefault(category, {})[name] = row
    for category, rows in found.items():
        order = sorted(rows.items(), key=lambda item: item[1][sort_by.capitalize()], reverse=not ascending)
        found[category] = dict(order)
    if reset:
        _profiler.recording.sums = {}
    if format == "json":
        return json.dumps({"Time": found, "Memory": {}, "Unit": {"Time": "ms", "Memory": "kB"}}, indent=4)
    return _table(found)


def _table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    heads = ("Name", "Total Count", "Time (ms)", "Min Time (ms)", "Max Time (ms)", "Avg Time (ms)")
    widths = (28, 12, 16, 16, 16, 16)

    def line(cells: Any) -> str:
        first, *rest = (str(cell) for cell in cells)
        return f"{first:<{widths[0]}}" + "".join(f" {c:>{w}}" for c, w in zip(rest, widths[1:], strict=True))

    lines = ["", "Profile Statistics:"]
    for category, rows in found.items():
        lines += [category, "=" * 17, line(heads), line("-" * len(head) for head in heads)]
        for name, row in rows.items():
            times = [f"{row[key]:.4f}" for key in ("Total", "Min", "Max", "Avg")]
            lines.append(line([name, row["Count"], *times]))
        lines.append("")
    return "\n".join(lines)


# ---- events of the program's own


class Domain:
    """A category of a program's own events.

    Parameters
    ----------
    name : str

    Examples
    --------
    >>> with Domain('training').new_task('first epoch'):
    ...     pass
    """

    def __init__(self, name: str):
        self.name = name

    def __str__(self) -> str:
        return self.name

    def new_task(self, name: str) -> Task:
        """A `Task` of this domain."""
        return Task(self, name)

    def new_frame(self, name: str) -> Frame:
        """A `Frame` of this domain."""
        return Frame(self, name)

    def new_counter(self, name: str, value: float | None = None) -> Counter:
        """A `Counter` of this domain."""
        return Counter(self, name, value)

    def new_marker(self, name: str) -> Marker:
        """A `Marker` of this domain."""
        return Marker(self, name)


class _Span:
    """Something that begins and ends; usable in a with statement."""

    def __init__(self, category: str, name: str):
        self.name = name
        self._category = category
        self._start_ns: int | None = None

    def __str__(self) -> str:
        return self.name

    def __enter__(self) -> Any:
        self.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.stop()

    def start(self) -> None:
        """Begin."""
        self._start_ns = time.perf_counter_ns()

    def stop(self) -> None:
        """End; it is recorded if the profiler runs."""
        if self._start_ns is not None and _is_recording():
            _profiler.recording.span(self._category, self.name, self._start_ns, {})
        self._start_ns = None


def _is_recording() -> bool:
    return _profiler.is_running and not _profiler.is_paused


class Task(_Span):
    """A unit of work.

    Parameters
    ----------
    domain : Domain
    name : str
    """

    def __init__(self, domain: Domain, name: str):
        super().__init__(str(domain), name)


class Frame(_Span):
    """One pass through something that repeats.

    Parameters
    ----------
    domain : Domain
    name : str
    """

    def __init__(self, domain: Domain, name: str):
        super().__init__(str(domain), name)


class Event(_Span):
    """A stretch of time.

    Parameters
    ----------
    name : str
    """

    def __init__(self, name: str):
        super().__init__("event", name)


class Counter:
    """A number that changes; ``counter += 1`` works.

    Parameters
    ----------
    domain : Domain
    name : str
    value : number, optional
        The first one.
    """

    def __init__(self, domain: Domain, name: str, value: float | None = None):
        self.name = name
        self._category = str(domain)
        self._value: float = 0
        if value is not None:
            self.set_value(value)

    def __str__(self) -> str:
        return self.name

    def set_value(self, value: float) -> None:
        """Set it."""
        self._value = value
        if _is_recording():
            now = time.perf_counter_ns()
            _profiler.recording.add("C", self._category, self.name, now, args={self.name: value})

    def increment(self, delta: float = 1) -> None:
        """Add to it."""
        self.set_value(self._value + delta)

    def decrement(self, delta: float = 1) -> None:
        """Take from it."""
        self.set_value(self._value - delta)

    def __iadd__(self, delta: float) -> Counter:
        self.increment(delta)
        return self

    def __isub__(self, delta: float) -> Counter:
        self.decrement(delta)
        return self


class Marker:
    """A point in time.

    Parameters
    ----------
    domain : Domain
    name : str
    """

    def __init__(self, domain: Domain, name: str):
        self.name = name
        self._category = str(domain)

    def __str__(self) -> str:
        return self.name

    def mark(self, scope: str = "process") -> None:
        """Record it.

        Parameters
        ----------
        scope : {'process', 'thread', 'global', 'task', 'marker'}
            How far the line reaches that a viewer draws.
        """
        if _is_recording():
            letter = {"global": "g", "thread": "t"}.get(scope, "p")
            now = time.perf_counter_ns()
            _profiler.recording.add("i", self._category, self.name, now, s=letter)
