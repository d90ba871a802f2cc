"""A cluster within one process: endpoints of threads that hand each other copies of their messages."""

from __future__ import annotations

import errno
import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence

from dmod.kvstore.actions import Peer
from dmod.kvstore.transports.base import Endpoint, Frame, Transport

__all__ = ["InprocTransport"]


class InprocTransport(Transport):
    """Endpoints that reach each other by address; share one transport between the nodes of a cluster."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bound: dict[str, InprocEndpoint] = {}
        self.numbers = itertools.count(1)

    def endpoint(self) -> Endpoint:
        """A new endpoint."""
        return InprocEndpoint(self)

    def close(self) -> None:
        """Nothing is left to free."""


class InprocEndpoint(Endpoint):
    """An endpoint with an inbox; see `Endpoint`."""

    def __init__(self, hub: InprocTransport):
        self._hub = hub
        self._changed = threading.Condition(hub.lock)
        self._inbox: deque[tuple[Peer, list[Frame]]] = deque()
        self._routes: dict[Peer, tuple[InprocEndpoint, Peer] | str] = {}
        self._dropped: set[Peer] = set()
        self._woken = self._closed = False

    def bind(self, address: str) -> str:
        with self._hub.lock:
            if address.endswith(":0"):
                address = f"{address[:-1]}{next(self._hub.numbers)}"
            if address in self._hub.bound:
                raise OSError(errno.EADDRINUSE, "address already in use")
            self._hub.bound[address] = self
            return address

    def connect(self, peer: Peer, address: str) -> None:
        with self._hub.lock:
            self._routes[peer] = address

    def send(self, peer: Peer, frames: Sequence[Frame]) -> bool:
        copies: list[Frame] = [bytes(frame) for frame in frames]
        with self._hub.lock:
            route = self._routes.get(peer)
            if isinstance(route, str):
                route = self._reach(peer, route)
            if route is None:
                return True  # nobody is there yet; whoever waits for an answer asks again
            other, name = route
            if other._closed:
                return False
            if name not in other._dropped:
                other._inbox.append((name, copies))
                other._changed.notify()
            return True

    def _reach(self, peer: Peer, address: str) -> tuple[InprocEndpoint, Peer] | None:
        other = self._hub.bound.get(address)
        if other is None:
            return None
        name = f"inproc {next(self._hub.numbers)}"
        self._routes[peer], other._routes[name] = (other, name), (self, peer)
        return other, name

    def receive(self, timeout_s: float | None) -> tuple[Peer, list[Frame]] | None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._inbox and not self._woken:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            self._woken = False
            return self._inbox.popleft() if self._inbox else None

    def drop(self, peer: Peer) -> None:
        self.rejected += 1
        self._dropped.add(peer)

    def wake(self) -> None:
        with self._changed:
            self._woken = True
            self._changed.notify()

    def close(self, linger_s: float) -> None:
        with self._hub.lock:
            self._closed = True
            for address in [a for a, e in self._hub.bound.items() if e is self]:
                del self._hub.bound[address]
