"""A client's requests: in what order they leave, which are unanswered, when to ask again.

Requests on the same piece leave one after the other, in the order in which they were made, each when
its predecessor has been answered; servers rely on it, since it lets them answer from their own buffers
without a copy. Among requests that may leave, those of higher priority come first. Answers may arrive
in any order.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmod.kvstore.actions import Outgoing, Payload, Peer, Send
from dmod.kvstore.messages import Again, Key, Message, PieceRef, Poll

__all__ = ["ClientPiece", "InFull", "Operation", "Outstanding", "Request"]


@dataclass(eq=False, slots=True)
class ClientPiece:
    """A piece as its user sees it: where it is, and the requests that wait for each other on it."""

    key: Key
    number: int
    start: int
    stop: int
    server: int
    round: int = 0  # contributed to, in this epoch
    queue: deque[Request] = field(default_factory=deque)
    slots: list[np.ndarray | None] = field(default_factory=lambda: [None, None])  # see `exchange`
    pushed: tuple[np.ndarray | None, np.ndarray | None] = (
        None,
        None,
    )  # joined with others; may still be read


@dataclass(eq=False, slots=True)
class Operation:
    """One call of the user, made of requests; it is done when all of them have been answered."""

    number: int
    what: str  # as it is named in errors: pushpull('w')
    requests: list[Request] = field(default_factory=list)
    fence: bool = False  # it begins when all earlier ones are done, and no later one begins before it is
    begin: Callable[[], None] | None = None  # makes the requests, if that has to wait for the beginning
    result: Callable[[], Any] | None = None
    unanswered: int = 0
    dropped_by: int | None = None  # the rank that ended the epoch
    closed: bool = False


Build = Callable[[int], tuple[Message, Sequence[Outgoing]]]
"""Makes the message with a request number, when it leaves: only then its rounds are known."""
Take = Callable[[Message, Sequence[Payload]], "bool | None"]
"""Makes use of the answer; False if it has to be asked for again, in full."""
InFull = Callable[[Again, Sequence[Outgoing]], tuple[Message, Sequence[Outgoing]]]
"""Makes the whole message for which an `Again` stood, which had these payloads staged."""


@dataclass(eq=False, slots=True)
class Request:
    """One message to one peer, and what becomes of its answer."""

    operation: Operation
    peer: Peer
    build: Build
    take: Take | None = None
    pieces: Sequence[ClientPiece] = ()
    priority: int = 0
    in_full: InFull | None = None
    number: int = 0
    message: Message | None = None
    payloads: Sequence[Outgoing] = ()
    blocked: int = 0  # pieces on which another request comes first
    sent: float = 0.0
    next_check: float = 0.0
    asked: float | None = None  # when we first asked after it without having heard from the peer since
    missing: tuple[str, ...] = ()  # whom the peer says it waits for

    @property
    def rounds(self) -> list[int]:
        """The rounds of its pieces, in their order."""
        if isinstance(self.message, Again):
            return [self.message.round] * len(self.pieces)
        refs = getattr(self.message, "pieces", ())
        return [ref.round for ref in refs if isinstance(ref, PieceRef)]


class Outstanding:
    """All requests of a client.

    Parameters
    ----------
    check_s : float
        After so many seconds without an answer the peer is asked what it knows of a request.
    """

    def __init__(self, check_s: float):
        self.check_s = check_s
        self.unanswered: dict[int, Request] = {}  # sent, by number
        self._number = 0
        self._made = 0
        self._ready: list[tuple[int, int, Request]] = []
        self._asked = False  # whether any request has been asked after
        self._next_check: float | None = None  # no request has to be asked after before then

    def add(self, request: Request) -> None:
        """A request is to be sent as soon as its pieces are free."""
        request.operation.requests.append(request)
        request.operation.unanswered += 1
        for piece in request.pieces:
            request.blocked += bool(piece.queue)
            piece.queue.append(request)
        if not request.blocked:
            self._make_ready(request)

    def next_numbers(self, count: int) -> int:
        """The first number for requests that leave without having been added: `adopt` may add them later."""
        self._number += count
        return self._number - count + 1

    @property
    def lingering(self) -> bool:
        """Whether a server may still read arrays of an operation that has failed."""
        return any(request.operation.closed and request.pieces for request in self.unanswered.values())

    def adopt(
        self, request: Request, number: int, message: Message, payloads: Sequence[Outgoing], sent: float
    ) -> None:
        """A request that has left as `message`, with nothing else under way on its pieces."""
        request.operation.requests.append(request)
        request.operation.unanswered += 1
        for piece in request.pieces:
            piece.queue.append(request)
        request.number, request.message, request.payloads = number, message, payloads
        request.sent, request.next_check = sent, sent + self.check_s
        if self._next_check is None or request.next_check < self._next_check:
            self._next_check = request.next_check
        self.unanswered[number] = request

    def sends(self, now: float) -> Iterator[Send]:
        """The messages that may leave now, those of the highest priority first."""
        while self._ready:
            request = heapq.heappop(self._ready)[2]
            self._number += 1
            request.number = self._number
            request.message, request.payloads = request.build(self._number)
            self.unanswered[self._number] = request
            yield self.send(request, now)

    def send(self, request: Request, now: float) -> Send:
        """The message of a request, for the first time or again."""
        assert request.message is not None
        request.sent = request.sent or now
        request.next_check = now + self.check_s
        if self._next_check is None:
            self._next_check = request.next_check
        return Send(request.peer, request.message, request.payloads)

    def send_in_full(self, request: Request, now: float) -> Send:
        """The message of a request again; what it only hinted at is said."""
        if isinstance(request.message, Again) and request.in_full is not None:
            request.message, request.payloads = request.in_full(request.message, request.payloads)
        return self.send(request, now)

    def answered(self, request: Request) -> None:
        """The answer has come: the next request on each of its pieces may leave."""
        self.unanswered.pop(request.number, None)
        request.operation.unanswered -= 1
        request.payloads = ()
        for piece in request.pieces:
            piece.queue.popleft()
            if piece.queue:
                following = piece.queue[0]
                following.blocked -= 1
                if not following.blocked:
                    self._make_ready(following)

    def withdraw(self, operation: Operation) -> None:
        """Forget the requests of a failed operation which have not left; answers to others are ignored."""
        waiting = [r for r in operation.requests if not r.number]
        for request in waiting:
            operation.unanswered -= 1
            for piece in request.pieces:
                first = piece.queue[0] is request
                piece.queue.remove(request)
                if first and piece.queue:
                    piece.queue[0].blocked -= 1
                    if not piece.queue[0].blocked:
                        self._make_ready(piece.queue[0])
        self._ready = [entry for entry in self._ready if entry[2] not in waiting]
        heapq.heapify(self._ready)

    def heard(self, peer: Peer) -> None:
        """The peer has said something, whatever it was."""
        if not self._asked:
            return
        self._asked = False
        for request in self.unanswered.values():
            if request.peer == peer:
                request.asked = None
            elif request.asked is not None:
                self._asked = True

    def checks(self, now: float) -> list[Send]:
        """Ask again for what has not been answered for long: small messages again, large ones by Poll."""
        sends: list[Send] = []
        polls: dict[Peer, list[int]] = {}
        for request in self.unanswered.values():
            if now < request.next_check:
                continue
            if request.asked is None:
                request.asked = now
                self._asked = True
            if request.payloads:
                polls.setdefault(request.peer, []).append(request.number)
                request.next_check = now + self.check_s
            else:
                sends.append(self.send(request, now))
        self._next_check = min((request.next_check for request in self.unanswered.values()), default=None)
        return sends + [Send(peer, Poll(tuple(numbers))) for peer, numbers in polls.items()]

    def next_check(self) -> float | None:
        """When to call `checks` next: it may have nothing to say then, but not earlier either."""
        return self._next_check if self.unanswered else None

    def check_invariants(self) -> None:
        """Raise AssertionError where this contradicts itself."""
        for number, request in self.unanswered.items():
            assert request.number == number and request.message is not None
            assert all(piece.queue[0] is request for piece in request.pieces)
        busy = [piece for request in self.unanswered.values() for piece in request.pieces]
        assert len(busy) == len(set(busy)), "two requests on one piece at the same time"

    def _make_ready(self, request: Request) -> None:
        self._made += 1
        heapq.heappush(self._ready, (-request.priority, self._made, request))
