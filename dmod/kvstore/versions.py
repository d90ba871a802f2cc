"""What processes of different versions can say to each other: so little that it never changes.

In every version a message is a list that begins with the version and the number of the message, and two
messages keep their number and their form::

    Join      [version, 1, job, role, rank, incarnation, host, pid, ...]      what follows may change
    Refuse    [version, 3, reason]

A process of another version than its scheduler asks to join in its own version. The scheduler reads of it
what stands above, and refuses it in that version, so that the process can say what is wrong. Nothing else
goes back and forth between versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dmod.base import ProtocolError
from dmod.kvstore.fields import Count, Name, Text
from dmod.kvstore.messages import Message

__all__ = ["ForeignJoin", "ForeignRefuse", "foreign_frame", "read_foreign"]

_JOIN, _REFUSE = 1, 3
_KNOWN_FIELDS = 6


@dataclass(frozen=True, slots=True)
class ForeignJoin(Message):
    """A process that speaks another version of the protocol asks to take part."""

    version: Count
    role: Name
    host: Name
    pid: Count


@dataclass(frozen=True, slots=True)
class ForeignRefuse(Message):
    """What such a process is told, in its version."""

    version: Count
    reason: Text


def foreign_frame(message: ForeignRefuse) -> list[Any]:
    """The header of a refusal."""
    return [message.version, _REFUSE, message.reason]


def read_foreign(header: list[Any], version: int) -> ForeignJoin:
    """A header of another version than `version`.

    Raises
    ------
    ProtocolError
        It is something else than a Join.
    """
    theirs, number, *values = header
    if type(theirs) is not int or number != _JOIN or len(values) < _KNOWN_FIELDS:
        raise ProtocolError(f"protocol version {str(theirs)[:40]}, expected {version}")
    _, role, _, _, host, pid = values[:_KNOWN_FIELDS]
    return ForeignJoin(theirs, role, host, pid)
