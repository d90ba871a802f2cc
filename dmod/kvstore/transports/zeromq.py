"""Frames over tcp and ipc (Unix-domain sockets), by ZeroMQ.

A node listens with one ROUTER socket and opens a DEALER socket for each connection. Frames of
`COPY_BELOW_NBYTES` and more are neither copied when sent nor when received.

A connection that breaks is made again by ZeroMQ. It introduces itself by the same name then, 16 random bytes,
so that to the other end it is still the same peer; what was under way is lost, and asked for again.

Who waits sleeps at once. Spinning for 0.2 ms first was measured and rejected: with as many processes as
cores it takes the core away from whom it waits for (a round of 437 KB, 2 workers and a server on 2
cores: 0.64 ms without, 0.80 with). So was spinning for 0.1 ms with sched_yield (4 bytes over shared memory:
0.34 and 0.89 ms without, 0.75 and 1.64 with).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import zmq

from dmod.kvstore.actions import Peer
from dmod.kvstore.messages import MAX_FRAMES, MAX_PAYLOAD_NBYTES, MAX_TOTAL_NBYTES
from dmod.kvstore.transports.base import Endpoint, Frame, Transport

__all__ = ["ZmqTransport"]

COPY_BELOW_NBYTES = 1 << 16
"""A copy of less than this is cheaper than ZeroMQ's bookkeeping of a borrowed frame (pyzmq's own measure)."""
RECONNECT_MS = 50
_LONGEST_DRAIN_S = 0.1
"""So long after its deadline `receive` still reads what nobody wants, to find what others want behind it."""
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL


class ZmqTransport(Transport):
    """ZeroMQ's context, with one I/O thread."""

    def __init__(self) -> None:
        self._context = zmq.Context(io_threads=1)

    def endpoint(self) -> Endpoint:
        """A new endpoint."""
        return ZmqEndpoint(self._context)

    def close(self) -> None:
        """Wait for what the closed endpoints still have to send, as long as their `linger_s` allows."""
        self._context.term()


class ZmqEndpoint(Endpoint):
    """See `Endpoint`. Connections to us are called by the routing id with which they introduce themselves."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]):
        self._context = context
        self._poller = zmq.Poller()
        self._wake_reader, writer = os.pipe()
        os.set_blocking(self._wake_reader, False)
        os.set_blocking(writer, False)
        self._wake_writer: int | None = writer  # None once closed: its number may be another file's by then
        self._wake_lock = threading.RLock()  # a signal handler may wake whoever is just waking
        self._poller.register(self._wake_reader, zmq.POLLIN)
        self._router: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._dealers: dict[Peer, zmq.Socket[bytes]] = {}
        self._peers: dict[zmq.Socket[bytes], Peer] = {}
        self._ready: deque[object] = deque()
        self._dropped: set[Peer] = set()

    # ---- connections

    def bind(self, address: str) -> str:
        if self._router is None:
            self._router = self._socket(zmq.ROUTER)
            self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # the old connection may not have been missed yet
            self._monitor = self._router.get_monitor_socket(_REFUSED)
            self._register(self._monitor)
        self._allow_ipv6(self._router, address)
        try:
            self._router.bind(f"{address[:-2]}:*" if address.endswith(":0") else address)
        except zmq.ZMQError as error:
            raise OSError(error.errno, str(error.strerror).lower()) from None
        return self._router.getsockopt_string(zmq.LAST_ENDPOINT)

    def connect(self, peer: Peer, address: str) -> None:
        dealer = self._socket(zmq.DEALER)
        dealer.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        dealer.setsockopt(zmq.ROUTING_ID, b"\1" + os.urandom(15))  # names that begin with 0 are ZeroMQ's own
        self._allow_ipv6(dealer, address)
        dealer.connect(address)
        self._dealers[peer], self._peers[dealer] = dealer, peer

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD_NBYTES)
        socket.setsockopt(zmq.SNDHWM, 0)  # the protocol bounds what is under way
        socket.setsockopt(zmq.LINGER, 0)
        self._register(socket)
        return socket

    def _register(self, socket: zmq.Socket[bytes]) -> None:
        self._poller.register(socket, zmq.POLLIN)

    @staticmethod
    def _allow_ipv6(socket: zmq.Socket[bytes], address: str) -> None:
        if address.startswith("tcp://["):
            socket.setsockopt(zmq.IPV6, 1)

    # ---- messages

    def send(self, peer: Peer, frames: Sequence[Frame]) -> bool:
        socket = self._dealers.get(peer)
        try:
            if socket is None:
                if self._router is None or not isinstance(peer, bytes):
                    return False  # nobody of that name has ever come
                socket = self._router
                socket.send(peer, zmq.SNDMORE | zmq.NOBLOCK)
            for frame in frames[:-1]:
                socket.send(frame, zmq.SNDMORE | zmq.NOBLOCK, len(frame) < COPY_BELOW_NBYTES)
            socket.send(frames[-1], zmq.NOBLOCK, len(frames[-1]) < COPY_BELOW_NBYTES)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False  # the connection is gone; whether that matters is for the scheduler to find out
        return True

    def receive(self, timeout_s: float | None) -> tuple[Peer, list[Frame]] | None:
        # One message from each socket that has one, then the poller again: nobody is starved.
        end = None if timeout_s is None else time.monotonic() + timeout_s
        wait_ms = None if timeout_s is None else max(0, round(timeout_s * 1000))
        woken = False
        while True:
            while self._ready:
                got = self._read(self._ready.popleft())
                if got is not None:
                    return got
            if woken:
                return None
            events = self._poll(wait_ms)
            if not events:
                return None
            woken = self._read_signals(events)
            if end is not None:  # what comes next may be nobody's, such as that of peers who were dropped
                left_s = end - time.monotonic()
                if left_s < -_LONGEST_DRAIN_S:
                    return None
                wait_ms = max(0, round(left_s * 1000))

    def _poll(self, wait_ms: int | None) -> list[tuple[Any, int]]:
        """What has something to be read, a socket or a file descriptor; nothing after `wait_ms`."""
        return self._poller.poll(wait_ms)

    def _read_signals(self, events: list[tuple[Any, int]]) -> bool:
        """Note which sockets have messages, and read the rest; returns whether somebody wants us awake."""
        woken = False
        for source, _ in events:
            if source is self._monitor:
                assert self._monitor is not None
                self._monitor.recv_multipart()
                self.rejected += 1  # bytes that are not ZeroMQ's protocol; the connection has been closed
            elif source == self._wake_reader:
                woken = True
                try:
                    os.read(self._wake_reader, 4096)
                except BlockingIOError:
                    pass
            else:
                self._ready.append(source)
        return woken

    def _read(self, socket: object) -> tuple[Peer, list[Frame]] | None:
        """One whole message; None if there is none, or one that nobody wants."""
        assert isinstance(socket, zmq.Socket)
        try:
            frame = socket.recv(zmq.NOBLOCK, False)
        except zmq.Again:
            return None
        peer = self._peers.get(socket)
        parts = []
        if peer is None:
            peer = frame.bytes
        else:
            parts.append(frame)
        count, nbytes = 1, 0
        while frame.more:
            frame = socket.recv(zmq.NOBLOCK, False)
            count, nbytes = count + 1, nbytes + len(frame)
            if count <= MAX_FRAMES + 1 and nbytes <= MAX_TOTAL_NBYTES + MAX_PAYLOAD_NBYTES:
                parts.append(frame)
        if peer in self._dropped:
            return None
        if len(parts) < count - 1:
            self.drop(peer)
            return None
        return peer, [part.buffer for part in parts]

    def drop(self, peer: Peer) -> None:
        self.rejected += 1
        if peer not in self._dealers:
            self._dropped.add(peer)

    def wake(self) -> None:
        with self._wake_lock:  # the thread that uses this endpoint may be about to close it
            if self._wake_writer is None:
                return
            try:
                os.write(self._wake_writer, b"\0")
            except BlockingIOError:
                pass  # the pipe is full: it will wake

    def close(self, linger_s: float) -> None:
        if self._monitor is not None and self._router is not None:
            self._router.disable_monitor()
            self._monitor.close(linger=0)
        for socket in (*self._dealers.values(), self._router):
            if socket is not None:
                socket.close(linger=round(linger_s * 1000))
        self._dealers.clear()
        self._router = None
        with self._wake_lock:
            writer, self._wake_writer = self._wake_writer, None
        if writer is not None:
            os.close(self._wake_reader)
            os.close(writer)
