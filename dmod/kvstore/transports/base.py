"""What carries frames between processes: endpoints that listen, connect, send and receive.

An endpoint knows nothing of messages: a message is a list of frames to it. It never waits for a peer
to read. One thread uses an endpoint; `wake` alone may be called from others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from dmod.kvstore.actions import Peer

if TYPE_CHECKING:
    from dmod.kvstore.lanes import Lanes
    from dmod.kvstore.transports.trips import Trip

__all__ = ["Endpoint", "Frame", "Transport"]

Frame: TypeAlias = bytes | memoryview


class Endpoint(ABC):
    """One node's connections.

    Attributes
    ----------
    rejected : int
        How many messages from outside were dropped for what they were.
    spin_s : float
        How long `receive` looks for messages of this host's processes again and again before it sleeps.
    """

    rejected: int = 0
    spin_s: float = 0.0

    @abstractmethod
    def bind(self, address: str) -> str:
        """Listen at `address`, such as ``tcp://127.0.0.1:0``; returns it with what was left open filled in.

        Raises
        ------
        OSError
            The address is in use, or is none of this machine's.
        """

    @abstractmethod
    def connect(self, peer: Peer, address: str) -> None:
        """Open a connection that `send` and `receive` call `peer`; the other end may start later."""

    @abstractmethod
    def send(self, peer: Peer, frames: Sequence[Frame]) -> bool:
        """Send a message. Large frames are borrowed until they have left.

        A peer that is gone is no error: the answer is False if the connection to it is known to have ended.
        """

    @abstractmethod
    def receive(self, timeout_s: float | None) -> tuple[Peer, list[Frame]] | None:
        """The next message; None after `timeout_s`, or earlier because of `wake`.

        A message without frames is the end of a link to a process of this host (`shm`): that process has
        closed it, or has died. It comes once, after all messages of the link. Over ZeroMQ there is no such
        news, since a connection that has ended there is made again.
        """

    def runs_here(self, peer: Peer) -> bool:
        """Whether `peer` is a process that is kept to the processor on which this one is just running."""
        return False

    def trip(self, asks: Sequence[tuple[Peer, int]]) -> Trip | None:
        """A way to ask these peers for these standing requests, if there is a faster one than `send`."""
        return None

    def await_turn(self, lanes: Lanes, timeout_s: float) -> int | None:
        """The number of the next turn for which all have come, TIMED_OUT, or OTHER, which is for `receive`.

        It takes what is expected by lanes, and nothing else, much faster than `receive`; None if it cannot
        at the moment, and has not waited.
        """
        return None

    @abstractmethod
    def drop(self, peer: Peer) -> None:
        """Count a message of `peer` as rejected, and hear nothing from it any more."""

    @abstractmethod
    def wake(self) -> None:
        """Let a `receive` that waits return, or the next one not wait; from any thread, also once closed."""

    @abstractmethod
    def close(self, linger_s: float) -> None:
        """Close all connections, after giving what was sent `linger_s` to leave."""


class Transport(ABC):
    """Makes the endpoints of one process; closed after all of them."""

    @abstractmethod
    def endpoint(self) -> Endpoint:
        """A new endpoint."""

    @abstractmethod
    def close(self) -> None:
        """Free what the endpoints shared."""
