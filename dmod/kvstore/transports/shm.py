"""Messages between processes of one host over `Link`s, and over tcp and ipc to all others.

An endpoint listens at ``shm://PATH``, a socket in a directory that only its user may enter, and reaches
such an address. Whoever connects must belong to the same user. Everything else is `ZmqEndpoint`'s.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zmq

from dmod.base import ProtocolError
from dmod.kvstore.actions import Peer
from dmod.kvstore.transports.base import Endpoint, Frame
from dmod.kvstore.transports.links import Link, credentials
from dmod.kvstore.transports.loading import compiled_links
from dmod.kvstore.transports.segments import Arena, process_arena
from dmod.kvstore.transports.trips import Trip
from dmod.kvstore.transports.zeromq import ZmqEndpoint, ZmqTransport

if TYPE_CHECKING:
    from dmod.kvstore.lanes import Lanes

__all__ = ["SCHEME", "ShmTransport"]

SCHEME = "shm://"

log = logging.getLogger("dmod.kvstore")


class ShmTransport(ZmqTransport):
    """Endpoints that share memory with processes of the same host.

    Parameters
    ----------
    arena : Arena, optional
        The memory that is shared; default: the one of this process.
    """

    def __init__(self, arena: Arena | None = None) -> None:
        super().__init__()
        self.arena = process_arena() if arena is None else arena

    def endpoint(self) -> Endpoint:
        """A new endpoint."""
        return ShmEndpoint(self._context, self.arena)


class _Ended(NamedTuple):
    """What stands among the sources of messages for a link that has ended."""

    peer: Peer


class _Files:
    """What is polled, for the interpreter and for compiled loops."""

    def __init__(self) -> None:
        self.version = 0
        self._poll = select.poll()
        self._events: dict[int, int] = {}
        self._array = np.empty((0, 2), np.int32)

    def register(self, fd: int, events: int) -> None:
        """Look for these events from now on."""
        self._poll.register(fd, events)
        self._events[fd] = events
        self._changed()

    def unregister(self, fd: int) -> None:
        """Look for nothing any more."""
        self._poll.unregister(fd)
        del self._events[fd]
        self._changed()

    def poll(self, timeout_ms: int | None) -> list[tuple[int, int]]:
        """Wait for events."""
        return self._poll.poll(timeout_ms)

    def array(self) -> np.ndarray:
        """Descriptors and events, shape (n, 2); another array when they have changed."""
        return self._array

    def _changed(self) -> None:
        self.version += 1
        self._array = np.array(list(self._events.items()), np.int32).reshape(-1, 2)


class ShmEndpoint(ZmqEndpoint):
    """See `Endpoint`. Connections to us are called by a number."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], arena: Arena):
        super().__init__(context)
        self._arena = arena
        self._listener: socket.socket | None = None
        self._links: dict[Peer, Link] = {}
        self._names: dict[int, Peer] = {}  # by file descriptor
        self._waiting: set[int] = set()  # descriptors of links that cannot send at the moment
        self._inbox: deque[tuple[Peer, list[Frame]]] = deque()
        self._accepted = 0
        self._processors: dict[Peer, frozenset[int]] = {}  # those that peers are kept to
        # ZeroMQ looks at each of its sockets by system calls whenever it polls, even if only links speak.
        # So links are polled by themselves, and ZeroMQ's sockets by the descriptor that each has.
        self._files = _Files()
        self._sockets: set[int] = set()
        self._ranked = (-1, -1)
        self._ranks = np.empty(0, np.int64)  # of the workers behind the files
        self._halves: set[int] = set()  # descriptors of links that have brought a part of a message
        self._stale = False  # whether a socket may be readable though its descriptor is not
        self._poller.unregister(self._wake_reader)
        self._files.register(self._wake_reader, select.POLLIN)

    # ---- connections

    def bind(self, address: str) -> str:
        if not address.startswith(SCHEME):
            return super().bind(address)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(address.removeprefix(SCHEME))
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        self._files.register(listener.fileno(), select.POLLIN)
        return address

    def connect(self, peer: Peer, address: str) -> None:
        """See `Endpoint.connect`; a ``shm://`` address must be there already: OSError if it is not."""
        if not address.startswith(SCHEME):
            super().connect(peer, address)
            return
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address.removeprefix(SCHEME))
        except OSError:
            sock.close()
            raise
        self._add(peer, sock)

    def _add(self, peer: Peer, sock: socket.socket) -> None:
        self._links[peer] = link = Link(sock, self._arena)
        self._names[link.fileno()] = peer
        self._files.register(link.fileno(), select.POLLIN)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if credentials(sock)[1] != os.getuid():
            self.rejected += 1
            sock.close()
            return
        self._accepted += 1
        self._processors[self._accepted] = _processors(credentials(sock)[0])
        self._add(self._accepted, sock)

    def _forget(self, peer: Peer, fd: int) -> None:
        """The link of `peer` is closed; what is sent to it from now on is lost."""
        self._files.unregister(fd)
        self._waiting.discard(fd)
        self._halves.discard(fd)
        del self._names[fd]
        if isinstance(peer, int):
            del self._links[peer], self._processors[peer]

    # ---- messages

    def send(self, peer: Peer, frames: Sequence[Frame]) -> bool:
        link = self._links.get(peer)
        if link is None:
            if isinstance(peer, int):
                return False
            self._stale = True
            return super().send(peer, frames)
        if link.closed:
            return False
        fd = link.fileno()
        link.send(frames)
        self._watch(peer, link, fd)
        return not link.closed

    def _watch(self, peer: Peer, link: Link, fd: int) -> None:
        """Let the poller tell when `link` can send again, if it waits for that."""
        if link.closed:
            self._forget(peer, fd)
            self._ready.append(_Ended(peer))
        elif link.blocked != (fd in self._waiting):
            self._waiting ^= {fd}
            self._files.register(fd, select.POLLIN | select.POLLOUT if link.blocked else select.POLLIN)

    def receive(self, timeout_s: float | None) -> tuple[Peer, list[Frame]] | None:
        if self._inbox:
            return self._inbox.popleft()
        if self._stale or self._ready:
            return super().receive(timeout_s)
        # Nearly always one link has one message, and nothing else has happened.
        files = self._next_files(timeout_s)
        if len(files) == 1 and files[0][0] in self._names and (got := self._read(files[0][0])) is not None:
            return got
        if not files:
            return None
        self._ready.extend([fd for fd, _ in files if fd in self._names])
        rest = [event for event in files if event[0] not in self._names]
        if self._read_signals(self._resolved(rest)) and not self._ready:
            return None
        return super().receive(timeout_s)

    def await_turn(self, lanes: Lanes, timeout_s: float) -> int | None:
        loops = compiled_links()
        if loops is None or not self._is_idle():
            return None
        version = (self._files.version, lanes.version)
        if version != self._ranked:
            self._ranked = version
            peers = [self._names.get(fd) for fd in self._files.array()[:, 0].tolist()]
            self._ranks = np.array([-1 if peer is None else lanes.peers.get(peer, -1) for peer in peers])
        return int(loops.await_turn(self._files.array(), self._ranks, lanes.expected, int(timeout_s * 1e9)))

    def runs_here(self, peer: Peer) -> bool:
        loops = compiled_links()
        return loops is not None and loops.processor() in self._processors.get(peer, ())

    def trip(self, asks: Sequence[tuple[Peer, int]]) -> Trip | None:
        loops, links = compiled_links(), [self._links.get(peer) for peer, _ in asks]
        if loops is None or any(link is None or link.closed for link in links):
            return None
        whom = [(link, number) for link, (_, number) in zip(links, asks, strict=True) if link is not None]
        return Trip(loops, whom, self._files.array, self._is_idle, self.spin_s)

    def _is_idle(self) -> bool:
        """Whether everything that has been read has been seen, and nothing can wait elsewhere."""
        return not (self._inbox or self._stale or self._ready or self._halves)

    def _next_files(self, timeout_s: float | None) -> list[tuple[int, int]]:
        """Wait for the next event; first awake, though whoever wants the processor gets it."""
        if self.spin_s and self._links:
            end = time.monotonic() + (self.spin_s if timeout_s is None else min(self.spin_s, timeout_s))
            while True:
                if files := self._files.poll(0):
                    return files
                if time.monotonic() >= end:
                    break
                os.sched_yield()
        return self._files.poll(None if timeout_s is None else max(0, round(timeout_s * 1000)))

    def _register(self, socket: zmq.Socket[bytes]) -> None:
        super()._register(socket)
        fd = int(socket.getsockopt(zmq.FD))
        self._files.register(fd, select.POLLIN)
        self._sockets.add(fd)
        self._stale = True

    def _poll(self, wait_ms: int | None) -> list[tuple[Any, int]]:
        end = None if wait_ms is None else time.monotonic() + wait_ms / 1000
        while True:
            events: list[tuple[Any, int]] = self._poller.poll(0) if self._stale else []
            self._stale = bool(events)
            files = self._files.poll(0 if events else wait_ms)
            events += self._resolved(files)
            if events or not files or wait_ms == 0:
                return events
            # A descriptor spoke of ZeroMQ's own affairs, such as a new connection: nobody has sent a message.
            wait_ms = None if end is None else max(0, round(1000 * (end - time.monotonic())))

    def _resolved(self, files: list[tuple[int, int]]) -> list[tuple[Any, int]]:
        """Events of file descriptors, with ZeroMQ's sockets for those that belong to them."""
        if self._sockets.isdisjoint([fd for fd, _ in files]):
            return files
        self._stale = True
        return self._poller.poll(0) + [event for event in files if event[0] not in self._sockets]

    def _read(self, source: object) -> tuple[Peer, list[Frame]] | None:
        if not isinstance(source, int):
            if isinstance(source, _Ended):
                return source.peer, []
            self._stale = True
            return super()._read(source)
        peer = self._names.get(source)
        if peer is None:
            if self._listener is not None and source == self._listener.fileno():
                self._accept()
            return None
        link = self._links[peer]
        if link.blocked:
            link.flush()
        try:
            messages = [] if link.closed else link.receive()
        except ProtocolError as error:
            log.warning("dropped the link to process %d of this host: %s", link.peer_pid(), error)
            self.drop(peer)
            return None
        if link.is_halfway != (source in self._halves):
            self._halves ^= {source}
        if link.closed or self._waiting:
            self._watch(peer, link, source)
        if len(messages) == 1:
            return peer, messages[0]
        self._inbox.extend([(peer, frames) for frames in messages])
        return self._inbox.popleft() if messages else None

    def drop(self, peer: Peer) -> None:
        link = self._links.get(peer)
        if link is None:
            super().drop(peer)
            return
        self.rejected += 1
        if not link.closed:
            fd = link.fileno()
            link.close()
            self._forget(peer, fd)

    def close(self, linger_s: float) -> None:
        for link in self._links.values():
            if link.closed:
                continue
            if link.blocked:
                link.linger(linger_s)
            link.close()
        self._links.clear()
        self._names.clear()
        if self._listener is not None:
            path = self._listener.getsockname()
            self._listener.close()
            self._listener = None
            if os.path.exists(path):
                os.unlink(path)
        super().close(linger_s)


def _processors(pid: int) -> frozenset[int]:
    """Those that a process is kept to; none if it may use all."""
    try:
        kept = frozenset(os.sched_getaffinity(pid)) if pid else frozenset()
    except OSError:
        return frozenset()
    return kept if len(kept) < (os.cpu_count() or 1) else frozenset()
