"""The messages of the parameter server: one frozen, validated dataclass for each.

A message carries small values only; arrays travel beside it as payload frames (`wire`), of which
`payload_count` says how many belong to it. A field is checked when the message is built, at both
ends, so that a state machine never sees a value outside of its range. What it refuses: code. There
is nothing in any message that the receiver would execute or import.

Who says what to whom::

    node -> scheduler    Join Heartbeat LinkEnded Barrier Leave
    scheduler -> node    Admit Refuse View HeartbeatReply PeerLost Stop, Ack Pending Error
    worker -> server     Hello Init SetValues SetOptimizer Push Pull PullRows PushPull Again EndEpoch
                         GetStates SetStates Poll Leave
    server -> worker     Ack Values Same Dropped EpochDone States Pending Resend Error

A message with a `request` number is a request or the answer to one. The number is the sender's own
and never used twice by one incarnation, so that a repeat is known for what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from dmod.base import ProtocolError
from dmod.kvstore.fields import (
    DTYPES,
    MAX_FRAMES,
    MAX_HEADER_NBYTES,
    MAX_PAYLOAD_NBYTES,
    MAX_TOTAL_NBYTES,
    MODES,
    ROLES,
    Addresses,
    Config,
    Count,
    Counts,
    Cut,
    Cuts,
    Dtypes,
    Encoding,
    ErrorCode,
    Fingerprint,
    Flag,
    FrameCount,
    Incarnation,
    Index,
    Key,
    KeyField,
    LayoutField,
    MaybeRank,
    Member,
    Members,
    Mode,
    Name,
    Names,
    NodeRole,
    PieceRef,
    Pieces,
    Rank,
    Role,
    Seconds,
    Text,
)

__all__ = [
    "DTYPES",
    "MAX_FRAMES",
    "MAX_HEADER_NBYTES",
    "MAX_PAYLOAD_NBYTES",
    "MAX_TOTAL_NBYTES",
    "MESSAGES",
    "MODES",
    "ROLES",
    "SHORT_MESSAGES",
    "Ack",
    "Admit",
    "Again",
    "Barrier",
    "Cut",
    "Dropped",
    "EndEpoch",
    "EpochDone",
    "Error",
    "GetStates",
    "Heartbeat",
    "HeartbeatReply",
    "Hello",
    "Init",
    "Join",
    "Key",
    "Leave",
    "LinkEnded",
    "Member",
    "Message",
    "PeerLost",
    "Pending",
    "PieceRef",
    "Poll",
    "Pull",
    "PullRows",
    "Push",
    "PushPull",
    "Refuse",
    "Resend",
    "Same",
    "SetOptimizer",
    "SetStates",
    "SetValues",
    "States",
    "Stop",
    "Values",
    "View",
]


class Message:
    """What all messages have in common: their fields are checked when they are built."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, check in field_checks(type(self)):
            try:
                object.__setattr__(self, name, check(getattr(self, name)))
            except ValueError as error:
                raise ProtocolError(f"{type(self).__name__}.{name}: {error}") from None

    def payload_count(self) -> int:
        """How many payload frames belong to this message."""
        return 0


_CHECKS: dict[Any, tuple[tuple[str, Callable[[Any], Any]], ...]] = {}


def field_checks(cls: Any) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """The fields of a message class in order, each with its check."""
    if cls not in _CHECKS:
        hints = get_type_hints(cls, include_extras=True)
        _CHECKS[cls] = tuple((f.name, hints[f.name].__metadata__[0]) for f in fields(cls))
    return _CHECKS[cls]


# --- between a node and the scheduler


@dataclass(frozen=True, slots=True)
class Join(Message):
    """A process asks to take part; `rank` None lets the scheduler choose. Repeated until it is answered.

    Other versions read all up to `pid`, see `versions`.
    """

    job: Name
    role: NodeRole
    rank: MaybeRank
    incarnation: Incarnation
    host: Name
    pid: Count
    addresses: Addresses
    version: Name
    num_workers: Count
    num_servers: Count
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Admit(Message):
    """The scheduler has heard the Join and still waits for `missing`."""

    missing: Names


@dataclass(frozen=True, slots=True)
class Refuse(Message):
    """The scheduler does not let the process take part. The same in all versions, see `versions`."""

    reason: Text


@dataclass(frozen=True, slots=True)
class View(Message):
    """All processes of the job; the receiver is number `rank` among those of its role."""

    view: Count
    rank: Rank
    members: Members


@dataclass(frozen=True, slots=True)
class Heartbeat(Message):
    """A sign of life; `view` is the newest view that the sender knows, 0 for none."""

    incarnation: Incarnation
    view: Count


@dataclass(frozen=True, slots=True)
class HeartbeatReply(Message):
    """The scheduler's sign of life."""

    view: Count


@dataclass(frozen=True, slots=True)
class LinkEnded(Message):
    """The sender's link to another process of its host has ended, as it does when that process dies."""

    role: NodeRole
    rank: Rank
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class PeerLost(Message):
    """A process is lost, and the job with it."""

    role: Role
    rank: Rank
    host: Name
    pid: Count
    why: Text
    silent_s: Seconds


@dataclass(frozen=True, slots=True)
class Barrier(Message):
    """A worker has reached the barrier `name` for the `number`th time."""

    request: Count
    name: Name
    number: Count


@dataclass(frozen=True, slots=True)
class Leave(Message):
    """The sender leaves; `error` says what went wrong, '' that all is done. To scheduler and servers."""

    request: Count
    error: Text


@dataclass(frozen=True, slots=True)
class Stop(Message):
    """All workers have left; servers leave too."""

    reason: Text


# --- from a worker to a server


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """The first words on a connection: who is at this end."""

    request: Count
    job: Name
    rank: Rank
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Init(Message):
    """Register a key, on every server; answered when every worker has, and rank 0's `SetValues` are in.

    `order` is the number of the key among the sender's own, from 0: pieces are placed by it, so it
    must agree between workers. `digest` names what the key belongs to, such as a symbol.
    """

    request: Count
    key: KeyField
    order: Count
    layout: LayoutField
    cuts: Cuts
    mode: Mode
    digest: Name


@dataclass(frozen=True, slots=True)
class SetValues(Message):
    """Rank 0's initial values of some pieces of a key, one payload each."""

    request: Count
    key: KeyField
    pieces: Counts

    def payload_count(self) -> int:
        return len(self.pieces)


@dataclass(frozen=True, slots=True)
class SetOptimizer(Message):
    """Install the optimizer, for the `number`th time; it takes effect when every worker has sent the same."""

    request: Count
    number: Count
    config: Config


@dataclass(frozen=True, slots=True)
class Push(Message):
    """Contributions to one round of each of `pieces`, one payload each; answered by Ack.

    `dtype` is that of the payloads: the key's, or the wider one that it is summed in, or how they are
    compressed. With `has_record` the last payload is the sender's recovery record. In a key of mode
    'async' a round is the sender's own. With `joined` one payload holds all contributions, one after the
    other, and one that of the Values too.
    """

    request: Count
    epoch: Count
    dtype: Encoding
    pieces: Pieces
    has_record: Flag
    joined: Flag = False

    def payload_count(self) -> int:
        return (1 if self.joined else len(self.pieces)) + self.has_record


@dataclass(frozen=True, slots=True)
class PushPull(Push):
    """A Push that is answered by Values, once the round of every piece has been applied.

    With `standing` the payloads lie in memory that the server can read at any time, and the sender may ask
    for the same once more by `Again`.
    """

    standing: Count = 0


@dataclass(slots=True)
class Again(Message):
    """The PushPull that was announced as `standing` once more: the same pieces, now all in `round`.

    The payloads are where they were. Answered by Values or `Same`, or by Resend if the server does not
    know the PushPull any more. This message and `Same` are what training repeats at every step, and go
    over the wire in a short form of their own, whose numbers are checked there.
    """

    request: int
    standing: int
    epoch: int
    round: int

    def __post_init__(self) -> None:
        pass


@dataclass(slots=True)
class Same(Message):
    """The answer to Again: the values lie where they lay when a Values said `place`."""

    request: int
    place: int

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Pull(Message):
    """Ask for the values of `pieces` once their rounds have been applied; answered by Values."""

    request: Count
    epoch: Count
    pieces: Pieces
    joined: Flag = False


@dataclass(frozen=True, slots=True)
class PullRows(Pull):
    """Ask for some elements of one piece; the payload says which, as `rows.spans_of_rows` makes it."""

    def payload_count(self) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class EndEpoch(Message):
    """The sender takes part in no further round of `epoch`, in which it did `rounds`."""

    request: Count
    epoch: Count
    rounds: Count


@dataclass(frozen=True, slots=True)
class GetStates(Message):
    """Ask for the optimizer's states of one piece."""

    request: Count
    key: KeyField
    piece: Index


@dataclass(frozen=True, slots=True)
class SetStates(Message):
    """Replace the optimizer's states of one piece: its step count, and one payload for each array."""

    request: Count
    key: KeyField
    piece: Index
    count: Count
    dtypes: Dtypes

    def payload_count(self) -> int:
        return len(self.dtypes)


@dataclass(frozen=True, slots=True)
class Poll(Message):
    """Which of these requests does the server know of? Answered by Pending and Resend."""

    requests: Counts


# --- answers


@dataclass(frozen=True, slots=True)
class Ack(Message):
    """The request has been done."""

    request: Count


@dataclass(frozen=True, slots=True)
class Values(Message):
    """The answer to Pull and PushPull: the values of the pieces asked for, in that order.

    One payload for each of them, or, if they were asked for joined, one for all. With `place` they lie in
    memory that the worker can read at any time, and a `Same` may refer to it.
    """

    request: Count
    num_values: FrameCount
    place: Count = 0

    def payload_count(self) -> int:
        return self.num_values


@dataclass(frozen=True, slots=True)
class Dropped(Message):
    """Rank `ended_by` has ended `epoch`, so the round was dropped, or can't begin."""

    request: Count
    epoch: Count
    ended_by: Rank


@dataclass(frozen=True, slots=True)
class EpochDone(Message):
    """All workers have ended `epoch`; `rounds` says how many rounds each of them did."""

    request: Count
    epoch: Count
    rounds: Counts


@dataclass(frozen=True, slots=True)
class States(Message):
    """The answer to GetStates: the step count, and one payload for each array."""

    request: Count
    count: Count
    dtypes: Dtypes

    def payload_count(self) -> int:
        return len(self.dtypes)


@dataclass(frozen=True, slots=True)
class Pending(Message):
    """The request is known, and waits for `missing` (such as 'worker 1')."""

    request: Count
    missing: Names


@dataclass(frozen=True, slots=True)
class Resend(Message):
    """The server has never seen these requests, or has answered them already: send them again."""

    requests: Counts


@dataclass(frozen=True, slots=True)
class Error(Message):
    """The request failed; nothing of it was done. `request` 0: no request in particular."""

    request: Count
    code: ErrorCode
    text: Text


MESSAGES: dict[int, type[Message]] = dict(
    enumerate(
        (
            *(Join, Admit, Refuse, View, Heartbeat, HeartbeatReply, PeerLost, Barrier, Leave, Stop),
            *(
                Hello,
                Init,
                SetValues,
                SetOptimizer,
                Push,
                PushPull,
                Pull,
                EndEpoch,
                GetStates,
                SetStates,
                Poll,
            ),
            *(Ack, Values, Dropped, EpochDone, States, Pending, Resend, Error, PullRows, LinkEnded),
        ),
        start=1,
    )
)
"""The number by which each message goes on the wire: append, and never reorder."""

SHORT_MESSAGES: dict[int, type[Message]] = {1: Again, 2: Same}
"""The messages with a short form, by its number."""
