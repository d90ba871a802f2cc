"""Calls that go out and come back without ceremony: nearly all that a training worker makes.

When a call is a `RepeatedCall`, all of whose servers know it as standing requests, and nothing else goes on,
then a few numbers have to leave and a few to come back. For such a call there is no operation and there are
no requests. As soon as anything else happens, be it another answer, a timer or another call, they are made
(`ExpressOperations._adopt`), and all goes on as it always does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Protocol

from dmod.kvstore.actions import Action, Done, Payload, Peer, Send, Staged, server_peer
from dmod.kvstore.exchange import Entry, Exchange, Unit
from dmod.kvstore.lanes import WANTED_AFTER
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import Again, Message, Same
from dmod.kvstore.operations import Operations, Started, earlier
from dmod.kvstore.outstanding import ClientPiece, Operation, Request
from dmod.kvstore.standing import Repeat

__all__ = ["ExpressOperations", "RepeatedCall", "Trip"]


class Trip(Protocol):
    """What `transports.trips.Trip` is: a way to ask servers for what they know, and back."""

    sent: bool

    @property
    def ended(self) -> bool:
        """Whether it cannot be made again."""

    @property
    def places(self) -> list[int]:
        """What each request has been answered with; 0 for nothing."""

    def is_ready(self) -> bool:
        """Whether it can be made now; then nothing of the last time is left."""

    def send(self, first: int, epoch: int, rounds: Sequence[int]) -> bool:
        """Ask for these rounds, by request numbers from `first` on; whether all has been sent."""

    def await_answers(self, timeout_s: float) -> bool:
        """Wait until all have been answered, or something else has happened; whether all have."""


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
    exchange : Exchange
        What makes its requests in full, and writes the answers into the user's arrays.
    shared : bool
        Whether all servers share memory with this worker: only then they can know it.
    standing : list of (Unit, Repeat)
        Units and repeats, once all servers know them; empty before.
    trip : Trip, optional
        The way that it takes, if all its arrays lie where servers read them.
    times : int
        How often it has been made without one.
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
    trip: Trip | None = None
    times: int = 0

    def asks(self) -> list[tuple[Peer, int]]:
        """Whom it asks, and for which standing request; nobody if anything has to be copied before.

        Nobody either before it has been made some times: many a job is over by then.
        """
        self.times += 1
        if self.times <= WANTED_AFTER or not self.ready() or any(repeat.staged() for repeat in self.repeats):
            return []
        return [(server_peer(unit.server), repeat.number) for unit, repeat in self.standing]

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
    first : int
        The number of the first unit's request; those of the others follow.
    rounds : list of int
        Of each unit.
    """

    __slots__ = ("call", "first", "number", "refreshed", "rounds", "sent", "waiting")

    def __init__(self, number: int, call: RepeatedCall, sent: float, first: int, rounds: list[int]):
        self.number, self.call, self.sent, self.refreshed = number, call, sent, False
        self.first, self.rounds = first, rounds
        self.waiting: dict[int, tuple[Peer, Unit, Repeat, Again, list[Staged]]] = {}
        """What has not been answered, by the number of the request; empty before `write_down`."""

    def advance(self) -> None:
        """Let all pieces be at their rounds, whether they are already or not."""
        for (unit, _), round in zip(self.call.standing, self.rounds, strict=True):
            for piece in unit.pieces:
                piece.round = round

    def write_down(self, epoch: int) -> None:
        """Make the requests: none has been answered."""
        asked = zip(count(self.first), self.call.standing, self.rounds, strict=False)
        self.waiting = {
            number: (
                server_peer(unit.server),
                unit,
                repeat,
                Again(number, repeat.number, epoch, round),
                repeat.staged(),
            )
            for number, (unit, repeat), round in asked
        }

    def sends(self) -> list[Action]:
        """The messages of all requests."""
        return [Send(peer, again, staged) for peer, _, _, again, staged in self.waiting.values()]

    def take(self, peer: Peer, message: Same) -> bool:
        """Make use of an answer; False if it is not one that was waited for, or not understood."""
        found = self.waiting.get(message.request)
        if found is None or found[0] != peer:
            return False
        if not self.call.exchange.deliver_again(found[1], found[2], message.place, self.refreshed):
            return False
        del self.waiting[message.request]
        return True


class ExpressOperations(Operations):
    """Operations, of which repeated calls go without ceremony where they can."""

    def __init__(self, member: MemberState, *, timeout_s: float, wait_s: float):
        super().__init__(member, timeout_s=timeout_s, wait_s=wait_s)
        self._under_way: Express | None = None

    def _express(self, call: RepeatedCall | None, now: float) -> Started | None:
        """Begin a call that is known on all its servers, if nothing else goes on."""
        if call is None or not self._may_leave(call):
            return None
        under_way = self._set_off(call, now)
        under_way.write_down(self.epoch)
        return under_way.number, under_way.sends()

    def _set_off(self, call: RepeatedCall, now: float) -> Express:
        # Ctrl-C may come anywhere: once the call is under way, `go_on` makes good what has been left out.
        rounds = [unit.pieces[0].round + 1 for unit, _ in call.standing]
        first = self._outstanding.next_numbers(len(rounds))
        under_way = Express(self._last_operation + 1, call, now, first, rounds)
        self._last_operation, self._under_way = under_way.number, under_way
        self._advance(under_way)
        return under_way

    def _advance(self, under_way: Express) -> None:
        under_way.advance()
        self._rounds = max(self._rounds, *under_way.rounds)

    def _make_good(self, under_way: Express) -> None:
        """Do, or do again, what belongs to a call that is under way, and make its requests."""
        self._advance(under_way)
        under_way.write_down(self.epoch)

    def _may_leave(self, call: RepeatedCall) -> bool:
        """Whether it is known on all its servers, and nothing else goes on."""
        if (
            self._operations
            or self._backlog
            or self._outstanding.unanswered  # of an operation that has failed, too: it may still be read
            or self._under_way is not None
            or self._ended_by is not None
        ):
            return False
        return self.ready and self._leaving is None and self.error is None and call.ready()

    @property
    def under_way(self) -> Express | None:
        """The call that has left without ceremony, and is not known to be done."""
        return self._under_way

    def set_off(self, call: RepeatedCall, now: float) -> Express | None:
        """Begin a call that goes on a trip, if it may."""
        return self._set_off(call, now) if self._may_leave(call) else None

    def arrived(self, places: Sequence[int]) -> bool:
        """All requests of a trip have been answered; False if `go_on` has to see to them."""
        under_way = self._under_way
        if under_way is None:
            return False
        call = under_way.call
        for (unit, repeat), place in zip(call.standing, places, strict=True):
            if not call.exchange.deliver_again(unit, repeat, place, under_way.refreshed):
                return False
        self._under_way = None
        return True

    def go_on(self, sent: bool, places: Sequence[int], now: float) -> list[Action]:
        """Go on as with any other call: it has been sent, or perhaps not or in part, and answered in part."""
        under_way = self._under_way
        if under_way is None:
            return []
        self._make_good(under_way)
        # What has been sent already is known to its server: it adds nothing twice.
        actions: list[Action] = [] if sent else under_way.sends()
        for number, (unit, _), place in zip(
            count(under_way.first), under_way.call.standing, places, strict=False
        ):
            if place:
                actions += self.on_message(server_peer(unit.server), Same(number, place), [], now)
        return actions

    def _adopt(self) -> None:
        """Go on with the call that is under way as with any other."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return
        if not under_way.waiting:  # it was interrupted
            self._make_good(under_way)
        call = under_way.call
        operation = self._operations[under_way.number] = Operation(under_way.number, call.what)
        for number, (peer, unit, repeat, again, staged) in under_way.waiting.items():
            build, take = call.exchange.request(unit, repeat)
            in_full = partial(call.exchange.again_in_full, unit, repeat)
            request = Request(operation, peer, build, take, unit.pieces, in_full=in_full)
            self._outstanding.adopt(request, number, again, staged, under_way.sent)

    def while_waiting(self) -> None:
        """Do what can be done before an answer comes: the messages have left."""
        under_way = self._under_way
        if under_way is not None:
            for _, repeat in under_way.call.standing:
                repeat.refresh()
            under_way.refreshed = True

    def on_message(
        self, peer: Peer, message: Message, payloads: Sequence[Payload], now: float
    ) -> list[Action]:
        """See `Operations.on_message`."""
        under_way = self._under_way
        if under_way is not None:
            if type(message) is Same and under_way.take(peer, message):
                if under_way.waiting:
                    return []
                self._under_way = None
                return [Done(under_way.number)]
            self._adopt()
        return super().on_message(peer, message, payloads, now)

    def on_disconnect(self, peer: Peer, now: float) -> list[Action]:
        """See `Operations.on_disconnect`."""
        self._adopt()
        return super().on_disconnect(peer, now)

    def on_timer(self, now: float) -> list[Action]:
        """See `MemberState.on_timer`."""
        self._adopt()
        return super().on_timer(now)

    def next_timer(self) -> float | None:
        """See `MemberState.next_timer`."""
        timer = super().next_timer()
        if self._under_way is None:
            return timer
        return earlier(timer, self._under_way.sent + self._outstanding.check_s)

    def leave(self, error: str, now: float) -> Started:
        """See `Operations.leave`."""
        self._adopt()
        return super().leave(error, now)

    def _begin(self, operation: Operation, now: float) -> Started:
        self._adopt()
        return super()._begin(operation, now)
