"""A network that is only pretended, for tests and benchmarks: with latency and a limited bandwidth.

Every message says when its last byte arrives, and is kept until then: what a node sends leaves byte by byte,
one message after the other, and so does what arrives at one. All nodes of a job pretend the same network, on
one host, whose processes have one clock. Nobody waits while a message is on its way, as with real networks.
"""

from __future__ import annotations

import heapq
import struct
import time
from collections.abc import Sequence

from dmod.config import Settings
from dmod.kvstore.actions import Peer
from dmod.kvstore.transports.base import Endpoint, Frame, Transport

__all__ = ["SlowTransport", "perhaps_slow"]

_EARLY_S = 1e-3
"""ZeroMQ waits for whole milliseconds: it may be back so much too early."""
_STAMP = struct.Struct("<dQ")  # when the last byte arrives, and how many there are


def perhaps_slow(transport: Transport, settings: Settings) -> Transport:
    """`transport`, behind the network that ``DMOD_TEST_NETWORK`` pretends, if it does."""
    return transport if settings.test_network is None else SlowTransport(transport, *settings.test_network)


class SlowTransport(Transport):
    """Endpoints of another transport behind a pretended network.

    Parameters
    ----------
    transport : Transport
    latency_s : float
    bytes_per_s : float
        Of each node, in each direction.
    """

    def __init__(self, transport: Transport, latency_s: float, bytes_per_s: float):
        self._transport, self._latency_s, self._bytes_per_s = transport, latency_s, bytes_per_s

    def endpoint(self) -> Endpoint:
        """A new endpoint."""
        return SlowEndpoint(self._transport.endpoint(), self._latency_s, self._bytes_per_s)

    def close(self) -> None:
        """See `Transport.close`."""
        self._transport.close()


class SlowEndpoint(Endpoint):
    """See `Endpoint`."""

    def __init__(self, endpoint: Endpoint, latency_s: float, bytes_per_s: float):
        self._endpoint, self._latency_s, self._bytes_per_s = endpoint, latency_s, bytes_per_s
        self._sent_at = self._received_at = 0.0  # when the last message will have left, and arrived
        self._arriving: list[tuple[float, int, Peer, list[Frame]]] = []
        self._count = 0

    @property
    def rejected(self) -> int:  # type: ignore[override]
        """See `Endpoint`."""
        return self._endpoint.rejected

    def bind(self, address: str) -> str:
        return self._endpoint.bind(address)

    def connect(self, peer: Peer, address: str) -> None:
        self._endpoint.connect(peer, address)

    def send(self, peer: Peer, frames: Sequence[Frame]) -> bool:
        nbytes = sum(len(frame) for frame in frames)
        self._sent_at = max(time.monotonic(), self._sent_at) + nbytes / self._bytes_per_s
        return self._endpoint.send(peer, [_STAMP.pack(self._sent_at + self._latency_s, nbytes), *frames])

    def receive(self, timeout_s: float | None) -> tuple[Peer, list[Frame]] | None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            if self._arriving and self._arriving[0][0] <= now:
                _, _, peer, frames = heapq.heappop(self._arriving)
                return peer, frames
            ends = [] if deadline is None else [deadline]
            ends += [self._arriving[0][0]] if self._arriving else []
            got = self._endpoint.receive(max(0.0, min(ends) - now) if ends else None)
            if got is not None:
                self._keep(*got)
            elif not self._arriving or time.monotonic() < self._arriving[0][0] - _EARLY_S:
                return None  # woken, or too late

    def _keep(self, peer: Peer, frames: list[Frame]) -> None:
        # What is no message, but the end of a link, comes after what has been sent through it.
        arrives, nbytes = _STAMP.unpack(frames[0]) if frames else (self._received_at, 0)
        self._received_at = max(arrives, self._received_at + nbytes / self._bytes_per_s)
        self._count += 1
        heapq.heappush(self._arriving, (self._received_at, self._count, peer, frames[1:]))

    def drop(self, peer: Peer) -> None:
        self._endpoint.drop(peer)

    def wake(self) -> None:
        self._endpoint.wake()

    def close(self, linger_s: float) -> None:
        self._endpoint.close(linger_s)
