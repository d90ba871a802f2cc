"""Messages between processes of one host over `Link`s, and over tcp and ipc to all others.

An endpoint listens at ``shm://PATH``, a socket in a directory that only its user may enter, and reaches
such an address. Whoever connects must belong to the same user. Everything else is `ZmqEndpoint`'s.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Sequence

import zmq

from dmod.base import ProtocolError
from dmod.kvstore.actions import Peer
from dmod.kvstore.transports.base import Endpoint, Frame
from dmod.kvstore.transports.links import Link
from dmod.kvstore.transports.segments import Arena, process_arena
from dmod.kvstore.transports.zeromq import ZmqEndpoint, ZmqTransport

__all__ = ["SCHEME", "ShmTransport"]

SCHEME = "shm://"
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


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
        self._poller.register(listener.fileno(), zmq.POLLIN)
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
        self._poller.register(link.fileno(), zmq.POLLIN)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(credentials)[1] != os.getuid():
            self.rejected += 1
            sock.close()
            return
        self._accepted += 1
        self._add(self._accepted, sock)

    def _forget(self, peer: Peer, fd: int) -> None:
        """The link of `peer` is closed; what is sent to it from now on is lost."""
        self._poller.unregister(fd)
        self._waiting.discard(fd)
        del self._names[fd]
        if isinstance(peer, int):
            del self._links[peer]

    # ---- messages

    def send(self, peer: Peer, frames: Sequence[Frame]) -> None:
        link = self._links.get(peer)
        if link is None:
            if not isinstance(peer, int):
                super().send(peer, frames)
            return
        if link.closed:
            return
        fd = link.fileno()
        link.send(frames)
        self._watch(peer, link, fd)

    def _watch(self, peer: Peer, link: Link, fd: int) -> None:
        """Let the poller tell when `link` can send again, if it waits for that."""
        if link.closed:
            self._forget(peer, fd)
        elif link.blocked != (fd in self._waiting):
            self._waiting ^= {fd}
            self._poller.modify(fd, zmq.POLLIN | zmq.POLLOUT if link.blocked else zmq.POLLIN)

    def receive(self, timeout_s: float | None) -> tuple[Peer, list[Frame]] | None:
        return self._inbox.popleft() if self._inbox else super().receive(timeout_s)

    def _read(self, source: object) -> tuple[Peer, list[Frame]] | None:
        if not isinstance(source, int):
            return super()._read(source)
        if self._listener is not None and source == self._listener.fileno():
            self._accept()
            return None
        peer = self._names.get(source)
        if peer is None:
            return None
        link = self._links[peer]
        if link.blocked:
            link.flush()
        try:
            messages = [] if link.closed else link.receive()
        except ProtocolError:
            self.rejected += 1
            link.close()
            messages = []
        self._watch(peer, link, source)
        self._inbox.extend((peer, frames) for frames in messages)
        return self._inbox.popleft() if self._inbox else None

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
