"""What a state machine asks its surroundings to do.

The states of this package do no I/O and know no clock: an event goes in (a message, a timer, a call),
a list of these comes out, to be carried out in order.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from dmod.base import MXNetError
from dmod.kvstore.messages import Member, Message, View

__all__ = [
    "SCHEDULER",
    "Action",
    "Connect",
    "Done",
    "Exit",
    "Failed",
    "Joined",
    "Lost",
    "Outgoing",
    "Payload",
    "Peer",
    "Send",
    "Staged",
    "server_peer",
]

Peer: TypeAlias = Hashable
"""Whom a message goes to or came from: a name that the transport chose, or one of the two below."""
Payload: TypeAlias = "memoryview | np.ndarray | bytes"
"""One payload frame: any C-contiguous buffer. The receiver reads it, and never writes to it."""


@dataclass(eq=False, slots=True)
class Staged:
    """A payload that is copied to where its receiver can read it, when its message leaves.

    So the first message is on its way while the array of the next one is being copied. It is copied once: a
    message that is sent again must not bring what its user has written to the array in the meantime.
    """

    slot: np.ndarray
    source: np.ndarray | Sequence[np.ndarray]  # several are joined
    filled: bool = False

    def fill(self) -> np.ndarray:
        """The copy."""
        if self.filled:
            return self.slot
        self.filled = True
        if isinstance(self.source, np.ndarray):
            self.slot[...] = self.source
        else:
            np.concatenate(self.source, out=self.slot)
        return self.slot


Outgoing: TypeAlias = "memoryview | np.ndarray | bytes | Staged"
"""A payload that has not left yet."""


SCHEDULER = "scheduler"
"""What every node calls its connection to the scheduler."""


def server_peer(rank: int) -> str:
    """What a worker calls its connection to server `rank`."""
    return f"server {rank}"


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message.

    The payloads are borrowed: they stay as they are until the answer to the message has arrived,
    or, if the message is itself an answer, until its receiver's next request on the same piece.
    """

    peer: Peer
    message: Message
    payloads: Sequence[Outgoing] = ()


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection to a server, which will be called `peer`."""

    peer: Peer
    member: Member


@dataclass(frozen=True, slots=True)
class Joined:
    """This node has a rank, and all others are there."""

    view: View


@dataclass(frozen=True, slots=True)
class Done:
    """The operation `operation` of a client has completed."""

    operation: int
    result: Any = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The operation `operation` of a client has failed: raise `error` to whoever waits for it."""

    operation: int
    error: MXNetError = field(compare=False)


@dataclass(frozen=True, slots=True)
class Lost:
    """The job is lost; all operations have failed, and all later ones will, with `error`."""

    error: MXNetError = field(compare=False)


@dataclass(frozen=True, slots=True)
class Exit:
    """Flush what is still to be sent, close, and end; with `error` None all is well."""

    error: MXNetError | None = field(default=None, compare=False)


Action: TypeAlias = Send | Connect | Joined | Done | Failed | Lost | Exit
