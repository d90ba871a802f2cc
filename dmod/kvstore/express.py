"""Calls that go out and come back without ceremony: nearly all that a training worker makes.

When a call is a `RepeatedCall`, all of whose servers know it as standing requests, and nothing else goes on,
then a few numbers have to leave and a few to come back. For such a call there is no operation and there are
no requests. As soon as anything else happens, be it another answer, a timer or another call, they are made
(`ClientState._adopt`), and all goes on as it always does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dmod.kvstore.exchange import Entry, Exchange, Unit
from dmod.kvstore.messages import Again, Same
from dmod.kvstore.outstanding import ClientPiece
from dmod.kvstore.standing import Repeat

__all__ = ["Express", "RepeatedCall"]


@dataclass(eq=False, slots=True)
class RepeatedCall:
    """A pushpull that is made again and again with the same tuple of entries.

    Attributes
    ----------
    what : str
        As it is named in errors.
    entries : tuple
        What the user gave: as long as it is kept here, no other one has its id.
    checked, units : list
        What has been found out about them.
    repeats : list of Repeat
        Of each unit.
    pushes : int
        How many plain pushes there had been: they change places with what is announced.
    shared : bool
        Whether all servers share memory with this worker: only then they can know it.
    standing : list of (Unit, Repeat)
        Units and repeats, once all servers know them; empty before.
    """

    what: str
    entries: tuple[object, ...]
    checked: list[Entry]
    units: list[Unit]
    repeats: list[Repeat]
    pushes: int
    exchange: Exchange
    shared: bool
    standing: list[tuple[Unit, Repeat]] = field(default_factory=list)

    def ready(self) -> bool:
        """Whether all servers know it, and all pieces of each unit are at the same round."""
        if not self.standing:
            if not self.shared or not all(repeat.known for repeat in self.repeats):
                return False
            self.standing = list(zip(self.units, self.repeats, strict=True))
        return all(_even(unit.pieces) for unit, _ in self.standing)


def _even(pieces: Sequence[ClientPiece]) -> bool:
    return len(pieces) == 1 or len({piece.round for piece in pieces}) == 1


class Express:
    """One such call that is under way.

    Parameters
    ----------
    number : int
        The operation's.
    call : RepeatedCall
    sent : float
        When.
    """

    __slots__ = ("call", "number", "sent", "waiting")

    def __init__(self, number: int, call: RepeatedCall, sent: float):
        self.number, self.call, self.sent = number, call, sent
        self.waiting: dict[int, tuple[Unit, Repeat, Again]] = {}
        """What has not been answered, by the number of the request."""

    def take(self, message: Same) -> bool:
        """Make use of an answer; False if it is not one that was waited for, or not understood."""
        found = self.waiting.get(message.request)
        values = None if found is None else found[1].values.get(message.place)
        if found is None or values is None:
            return False
        self.call.exchange.deliver(found[0], values)
        del self.waiting[message.request]
        return True
