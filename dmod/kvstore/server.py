"""A server process: carries events from its connections to `ServerState`, and actions back.

The loop that does so, `run_node`, is the scheduler's too.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from dmod.base import ClusterError, MXNetError, ProtocolError
from dmod.config import Settings
from dmod.kvstore.actions import SCHEDULER, Action, Exit, Lost, Peer, Send
from dmod.kvstore.fingerprint import VERSION, fingerprint
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import Heartbeat, Join, Message
from dmod.kvstore.patient_maker import PatientMaker
from dmod.kvstore.server_state import ServerState
from dmod.kvstore.server_turns import ServerTurns
from dmod.kvstore.transports.addresses import listen_host, scheduler_address, tcp_address
from dmod.kvstore.transports.base import Endpoint, Transport
from dmod.kvstore.transports.loading import compiled_links
from dmod.kvstore.transports.private_dir import PrivateDirectory
from dmod.kvstore.transports.segments import process_arena, shared_empty
from dmod.kvstore.transports.shm import SCHEME, ShmTransport
from dmod.kvstore.transports.slow import perhaps_slow
from dmod.kvstore.wire import decode, encode

__all__ = ["FAREWELL_S", "join_message", "run_node", "run_server", "serve"]

FAREWELL_S = 1.0
"""How long the last words of a process may take to leave."""
_OVERDUE_S = 0.2
"""By so much a timer may be late while messages keep coming in."""
_LONGEST_WAIT_S = 0.25
"""After so long the loop looks whether a signal wants this process to end."""

log = logging.getLogger("dmod.kvstore")


class NodeState(Protocol):
    """What the loop needs of a state."""

    def on_timer(self, now: float) -> list[Action]: ...

    def next_timer(self) -> float | None: ...

    def name_of(self, peer: Peer) -> str: ...


OnMessage = Callable[[Peer, Message, Sequence[Any], float], list[Action]]
OnPeer = Callable[[Peer, float], list[Action]]


def join_message(settings: Settings, role: str, addresses: Sequence[str]) -> Join:
    """How this process introduces itself to the scheduler."""
    return Join(
        job=settings.job,
        role=role,
        rank=settings.rank,
        incarnation=1 + secrets.randbits(62),
        host=socket.gethostname(),
        pid=os.getpid(),
        addresses=tuple(addresses),
        version=VERSION,
        num_workers=settings.num_workers,
        num_servers=settings.num_servers,
        fingerprint=fingerprint(settings),
    )


def run_node(
    endpoint: Endpoint,
    state: NodeState,
    on_message: OnMessage,
    on_stop: Callable[[str, float], list[Action]],
    actions: list[Action],
    stopped: Callable[[], str] = lambda: "",
    news: Callable[[], list[Action]] = list,
    on_disconnect: OnPeer = lambda peer, now: [],
    on_unreachable: OnPeer = lambda peer, now: [],
    turns: ServerTurns | None = None,
) -> None:
    """Carry messages and timers to `state` and its actions out, until it exits.

    Parameters
    ----------
    on_message : callable
        The state's, with the peer, the message, its payloads and the time.
    on_stop : callable
        The state's, with the reason and the time, when `stopped` gives one.
    actions : list of Action
        What to do first.
    stopped : callable
        Why this process must end, such as a signal that came; '' if it need not.
    news : callable
        What has become known otherwise than by messages has led to these actions.
    on_disconnect, on_unreachable : callable
        The state's, with a peer whose link has ended, or that a message could not be sent to, and the time.
    turns : ServerTurns, optional
        The state, if it says by lanes what it expects.

    Raises
    ------
    MXNetError
        The job has failed, for the reason that the state gives.
    Exception
        A mistake of ours: the others are told of it, as of any error that ends a process.
    """
    try:
        error = _run(
            endpoint, state, on_message, on_stop, actions, stopped, news, on_disconnect, on_unreachable, turns
        )
    except Exception as mistake:
        _tell(endpoint, on_stop, f"{type(mistake).__name__}: {mistake}")
        raise
    if error is not None:
        raise error


def _tell(endpoint: Endpoint, on_stop: Callable[[str, float], list[Action]], reason: str) -> None:
    """Say why this process ends, as far as it still can."""
    try:
        for action in on_stop(reason, time.monotonic()):
            if isinstance(action, Send):
                endpoint.send(action.peer, encode(action.message, action.payloads))
    except Exception as error:
        log.debug("nobody could be told of %s: %s", reason, error)


def _run(
    endpoint: Endpoint,
    state: NodeState,
    on_message: OnMessage,
    on_stop: Callable[[str, float], list[Action]],
    actions: list[Action],
    stopped: Callable[[], str],
    news: Callable[[], list[Action]],
    on_disconnect: OnPeer,
    on_unreachable: OnPeer,
    turns: ServerTurns | None,
) -> MXNetError | None:
    """See `run_node`; returns why the job has failed, None if it has ended well."""
    lost: Lost | None = None
    unreachable: list[Peer] = []
    while True:
        for action in actions:
            if isinstance(action, Send):
                if not endpoint.send(action.peer, encode(action.message, action.payloads)):
                    unreachable.append(action.peer)
            elif isinstance(action, Lost):
                lost = action
            elif isinstance(action, Exit):
                return action.error or (None if lost is None else lost.error)
        if unreachable:
            now = time.monotonic()
            actions = [action for peer in unreachable for action in on_unreachable(peer, now)]
            unreachable.clear()
            if actions:
                continue
        actions = news() or _next_actions(endpoint, state, on_message, on_disconnect, turns)
        if not actions and (reason := stopped()):
            actions, stopped = on_stop(reason, time.monotonic()), lambda: ""


def _next_actions(
    endpoint: Endpoint,
    state: NodeState,
    on_message: OnMessage,
    on_disconnect: OnPeer,
    turns: ServerTurns | None,
) -> list[Action]:
    timer = state.next_timer()
    timeout_s = _LONGEST_WAIT_S if timer is None else min(timer - time.monotonic(), _LONGEST_WAIT_S)
    if timeout_s < -_OVERDUE_S:
        return state.on_timer(time.monotonic())
    if turns is not None and turns.lanes.is_open:
        turn = endpoint.await_turn(turns.lanes, timeout_s)
        if turn is not None and turn >= 0:
            return _others_first(endpoint, turns.end_lane(turn))
        timeout_s = timeout_s if turn is None else 0.0
    elif turns is not None and turns.lanes.wanted and (loops := compiled_links()) is not None:
        turns.lanes.take = loops.take
    got = endpoint.receive(timeout_s)
    now = time.monotonic()
    if got is None:
        # The connections are drained, so that a process that was stopped for a while does not take
        # the silence of others for death.
        return state.on_timer(now) if timer is not None and now >= timer else []
    peer, frames = got
    if not frames:
        return on_disconnect(peer, now)
    try:
        message, payloads = decode(frames)
    except ProtocolError as error:
        endpoint.drop(peer)
        who = state.name_of(peer)
        log.warning(
            "dropped a connection that sent something else than a message of ours: %s: %s", who, error
        )
        return []
    return on_message(peer, message, payloads, now)


def _others_first(endpoint: Endpoint, actions: list[Action]) -> list[Action]:
    """Answers to workers, in such an order that nobody waits for another one's step.

    Whoever is woken on this processor may get it at once, and compute for milliseconds.
    """
    return sorted(actions, key=lambda action: isinstance(action, Send) and endpoint.runs_here(action.peer))


def serve(
    settings: Settings,
    endpoint: Endpoint,
    scheduler: str,
    addresses: Sequence[str],
    stopped: Callable[[], str] = lambda: "",
) -> None:
    """Be a server that listens at `endpoint`, until the job is over."""
    member = MemberState(
        join_message(settings, "server", addresses),
        timeout_s=settings.timeout_s,
        heartbeat_s=settings.heartbeat_s,
        join_timeout_s=settings.join_timeout_s,
        scheduler=scheduler,
    )

    def show_life() -> None:
        if member.view is not None:
            endpoint.send(SCHEDULER, encode(Heartbeat(member.join.incarnation, member.view.view)))

    make = PatientMaker(show_life, settings.heartbeat_s)
    shared = any(address.startswith(SCHEME) for address in addresses)
    state = (
        ServerState(member, make, shared_empty, process_arena().owns) if shared else ServerState(member, make)
    )
    endpoint.connect(SCHEDULER, scheduler)
    try:
        run_node(
            endpoint,
            state,
            state.on_message,
            state.leave,
            state.start(time.monotonic()),
            stopped,
            on_disconnect=state.on_disconnect,
            turns=state,
        )
    finally:
        if endpoint.rejected:
            log.warning("server: %d messages from outside were dropped", endpoint.rejected)


def _keep_freed_memory() -> None:
    """Let glibc keep the memory of messages: giving it back and faulting it in again costs up to half
    of a round (0.6 ms against 0.6 to 1.4 ms, 2 workers, 437 KB, ipc)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3
        mallopt(mmap_threshold, 32 << 20)
        mallopt(trim_threshold, 256 << 20)
        mallopt(top_pad, 8 << 20)


def run_server(
    settings: Settings, transport: Transport | None = None, stopped: Callable[[], str] = lambda: ""
) -> None:
    """Listen as the settings say, and serve.

    Raises
    ------
    InvalidArgument
        The settings do not say where, or say something that is not permitted.
    ClusterError
        The job has failed.
    """
    scheduler, host = scheduler_address(settings), listen_host(settings)
    _keep_freed_memory()
    _let_others_compute()
    wanted = settings.transport
    directory = PrivateDirectory() if wanted != "tcp" else None
    transport = transport or perhaps_slow(ShmTransport(), settings)
    endpoint = transport.endpoint()
    try:
        addresses = []
        if directory is not None and wanted in ("auto", "shm"):
            addresses.append(endpoint.bind(f"{SCHEME}{directory.path}/shm"))
        if directory is not None and wanted in ("auto", "ipc"):
            addresses.append(endpoint.bind(f"ipc://{directory.path}/server"))
        if wanted in ("auto", "tcp"):
            addresses.append(_bound(endpoint, tcp_address(host, 0)))
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not go over it while workers wait
        serve(settings, endpoint, scheduler, addresses, stopped)
    finally:
        endpoint.close(FAREWELL_S)
        transport.close()
        if directory is not None:
            directory.close()


def _let_others_compute() -> None:
    """Do not interrupt a worker that computes here, when another one's gradient comes: it is waited for."""
    if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _bound(endpoint: Endpoint, address: str) -> str:
    try:
        return endpoint.bind(address)
    except OSError as error:
        raise ClusterError(
            f"the server cannot listen at {address}: {error.strerror}; DMLC_NODE_HOST or DMLC_INTERFACE "
            "names an address of this host"
        ) from None
