"""The scheduler process: listens where all others look for it, and runs `SchedulerState`."""

from __future__ import annotations

import errno
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dmod.base import ClusterError
from dmod.config import Settings
from dmod.kvstore.actions import Action, Peer, Send
from dmod.kvstore.fingerprint import VERSION
from dmod.kvstore.messages import Join, Message, Refuse
from dmod.kvstore.scheduler_state import SchedulerState
from dmod.kvstore.server import FAREWELL_S, run_node
from dmod.kvstore.transports.addresses import scheduler_address
from dmod.kvstore.transports.base import Endpoint, Transport
from dmod.kvstore.transports.slow import perhaps_slow
from dmod.kvstore.transports.zeromq import ZmqTransport
from dmod.kvstore.versions import ForeignJoin, ForeignRefuse

__all__ = ["run_scheduler", "schedule"]

log = logging.getLogger("dmod.kvstore")


def schedule(settings: Settings, endpoint: Endpoint, stopped: Callable[[], str] = lambda: "") -> None:
    """Be the scheduler of a job at `endpoint`, which listens already, until the job is over."""
    state = SchedulerState(
        settings.job,
        VERSION,
        settings.num_workers,
        settings.num_servers,
        timeout_s=settings.timeout_s,
        join_timeout_s=settings.join_timeout_s,
        allow_mixed=settings.allow_mixed,
        told_of_deaths=settings.deaths_on_stdin,
    )

    def on_message(peer: Peer, message: Message, payloads: Sequence[Any], now: float) -> list[Action]:
        actions = state.on_message(peer, message, now)
        if isinstance(message, Join | ForeignJoin):
            _log_refusals(message, actions)
        return actions

    deaths: deque[str] = deque()
    if settings.deaths_on_stdin:
        threading.Thread(
            target=_read_deaths, args=(sys.stdin, deaths, endpoint.wake), name="dmod deaths", daemon=True
        ).start()

    def news() -> list[Action]:
        while deaths:
            role, rank, why = deaths.popleft().split(" ", 2)
            if actions := state.on_death(role, int(rank), why, time.monotonic()):
                return actions
        return []

    run_node(
        endpoint,
        state,
        on_message,
        state.stop,
        state.start(time.monotonic()),
        stopped,
        news,
        on_unreachable=state.on_unreachable,
    )


def _log_refusals(join: Join | ForeignJoin, actions: Sequence[Action]) -> None:
    for action in actions:
        if isinstance(action, Send) and isinstance(action.message, Refuse | ForeignRefuse):
            rank = "" if isinstance(join, ForeignJoin) or join.rank is None else f" {join.rank}"
            who = f"{join.role}{rank} (pid {join.pid} on {join.host})"
            log.warning("the scheduler has refused %s: %s", who, action.message.reason)


def _read_deaths(lines: Iterable[str], deaths: deque[str], wake: Callable[[], None]) -> None:
    """What the launcher says of processes that have ended: ``worker 1 it was killed by signal 9``."""
    for line in lines:
        role, _, rest = line.strip().partition(" ")
        if role in ("worker", "server") and rest.partition(" ")[0].isdecimal() and " " in rest:
            deaths.append(line.strip())
            wake()


def run_scheduler(
    settings: Settings, transport: Transport | None = None, stopped: Callable[[], str] = lambda: ""
) -> None:
    """Listen at `DMLC_PS_ROOT_URI` and `DMLC_PS_ROOT_PORT`, and schedule.

    Raises
    ------
    ClusterError
        The address cannot be listened at, or the job has failed.
    InvalidArgument
        The settings are incomplete, or name an address that is not permitted.
    """
    address = scheduler_address(settings)
    transport = transport or perhaps_slow(ZmqTransport(), settings)
    endpoint = transport.endpoint()
    try:
        try:
            endpoint.bind(address)
        except OSError as error:
            raise ClusterError(_cannot_listen(address, error)) from None
        schedule(settings, endpoint, stopped)
    finally:
        endpoint.close(FAREWELL_S)
        transport.close()


def _cannot_listen(address: str, error: OSError) -> str:
    text = f"the scheduler cannot listen at {address} (DMLC_PS_ROOT_URI, DMLC_PS_ROOT_PORT): {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return f"{text}: end the process that listens there, or choose another DMLC_PS_ROOT_PORT"
    return f"{text}: DMLC_PS_ROOT_URI must be an address of the host that runs the scheduler"
