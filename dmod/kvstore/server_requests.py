"""What a server keeps of requests that it has not answered, and of the workers who sent them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from dmod.kvstore.actions import Action, Payload, Peer, Send
from dmod.kvstore.compression import decode_payload
from dmod.kvstore.fields import ENCODED
from dmod.kvstore.messages import (
    Ack,
    Again,
    EndEpoch,
    Error,
    GetStates,
    Init,
    Key,
    Leave,
    Member,
    Message,
    PieceRef,
    Poll,
    Pull,
    PullRows,
    Push,
    PushPull,
    SetOptimizer,
    SetStates,
    SetValues,
)
from dmod.kvstore.rounds import Piece
from dmod.kvstore.standing import Standing

__all__ = ["OpenRequests", "Refused", "Request", "Roster", "joined_arrays", "payload_array"]

CALLS: dict[type[Message], str] = {
    Push: "push",
    PushPull: "pushpull",
    Again: "pushpull",
    Pull: "pull",
    PullRows: "row_sparse_pull",
    Init: "init",
    SetValues: "init",
    SetOptimizer: "set_optimizer",
    EndEpoch: "end_epoch",
    GetStates: "get_states",
    SetStates: "set_states",
    Leave: "leave",
    Poll: "poll",
}
"""The user's call that a request stands for, as it is named in errors."""


class Refused(Exception):
    """A request cannot be done; nothing has been changed."""

    def __init__(self, code: str, text: str):
        super().__init__(text)
        self.code, self.text = code, text[:8192]


@dataclass(eq=False, slots=True)
class Request:
    """A request of a worker.

    Attributes
    ----------
    rounds : dict of Piece to int
        Of Push, Pull and PushPull: the round of each piece, in the message's order.
    unapplied : int
        For how many of these pieces it still waits.
    spans : ndarray, optional
        Of PullRows: which elements.
    standing : Standing, optional
        What an `Again` repeats, or what is now known of a PushPull that announced itself as standing.
    """

    peer: Peer
    rank: int
    message: Any
    payloads: Sequence[Payload] = ()
    rounds: dict[Piece, int] = field(default_factory=dict)
    unapplied: int = 0
    closed: bool = False
    standing: Standing | None = None
    spans: np.ndarray | None = None

    @property
    def what(self) -> str:
        """The call that it stands for: ``pushpull('fc1_weight', ...)``."""
        message = self.message if self.standing is None else self.standing.message
        keys = [message.key] if hasattr(message, "key") else []
        keys += dict.fromkeys(ref.key for ref in getattr(message, "pieces", ()) if isinstance(ref, PieceRef))
        more = ", ..." if len(keys) > 1 else ""
        return f"{CALLS[type(message)]}({repr(keys[0]) + more if keys else ''})"

    def needs(self, piece: Piece) -> int:
        """How many rounds of `piece` have to be applied for the answer.

        For a plain push one fewer than its own: it is acknowledged early, but a fast worker can pile up no
        more than one round ahead of the slowest.
        """
        return self.rounds[piece] - (type(self.message) is Push)

    def awaits(self, piece: Piece) -> bool:
        """Whether `piece` holds up the answer."""
        return piece.applied < self.needs(piece)

    def uses(self, key: Key) -> bool:
        """Whether it is about `key`."""
        return getattr(self.message, "key", None) == key or any(key in piece.keys for piece in self.rounds)


class OpenRequests:
    """The requests that have not been answered, by rank and number."""

    def __init__(self) -> None:
        self._requests: dict[tuple[int, int], Request] = {}

    def find(self, rank: int, number: int) -> Request | None:
        """The request `number` of worker `rank`, if it is open."""
        return self._requests.get((rank, number))

    def open(self, request: Request) -> None:
        """The request cannot be answered yet."""
        self._requests[request.rank, request.message.request] = request

    def close(self, request: Request) -> None:
        """The request is being answered."""
        request.closed, request.payloads = True, ()
        self._requests.pop((request.rank, request.message.request), None)

    def all(self) -> list[Request]:
        """All open requests, in the order in which they came."""
        return list(self._requests.values())

    def of(self, kind: type[Message]) -> list[Request]:
        """The open requests with messages of one kind."""
        return [request for request in self._requests.values() if type(request.message) is kind]

    def using(self, key: Key) -> list[Request]:
        """The open requests that are about `key`."""
        return [request for request in self._requests.values() if request.uses(key)]

    def fail(self, requests: Iterable[Request], refusal: Refused) -> list[Action]:
        """Answer with an error."""
        return self.answer(requests, lambda number: Error(number, refusal.code, refusal.text))

    def acknowledge(self, requests: Iterable[Request]) -> list[Action]:
        """Answer with an Ack."""
        return self.answer(requests, Ack)

    def answer(self, requests: Iterable[Request], make: Any) -> list[Action]:
        """Answer with ``make(number of the request)``."""
        sends: list[Action] = []
        for request in requests:
            self.close(request)
            sends.append(Send(request.peer, make(request.message.request)))
        return sends


class Roster:
    """The workers of the view, and which of them have left."""

    def __init__(self) -> None:
        self.workers: dict[int, Member] = {}
        self.gone: dict[int, str] = {}  # rank -> why

    def others(self, *have: Iterable[int]) -> set[int]:
        """The ranks in none of `have`."""
        return set(self.workers).difference(*have)

    def check_present(self, request: Request, needed: Iterable[int]) -> None:
        """Refuse a request that would wait for a worker who has left."""
        for rank in sorted(self.gone.keys() & set(needed)):
            raise self.gone_refusal(request, rank)

    def gone_refusal(self, request: Request, rank: int) -> Refused:
        """Why a request cannot be done without worker `rank`."""
        member = self.workers[rank]
        who = f"worker {rank} (pid {member.pid} on {member.host})"
        return Refused(
            "peer_lost", f"{request.what} waits for {who}, which has left the job: {self.gone[rank]}"
        )


def payload_array(payload: Payload, dtype: str, piece: Piece, request: Request) -> np.ndarray:
    """A payload as the array of one piece: without a copy, unless it is compressed."""
    if dtype in ENCODED:
        try:
            return decode_payload(payload, dtype, piece.size)
        except ValueError as error:
            raise Refused(
                "invalid", f"{request.what}: piece {piece.number} of {piece.key!r}: {error}"
            ) from None
    try:
        array: np.ndarray = np.frombuffer(payload, dtype)
    except ValueError:  # no whole number of elements
        array = np.empty(0)
    if array.size != piece.size:
        nbytes = memoryview(payload).nbytes  # type: ignore[arg-type]  # numpy's stubs know buffers from 3.12 on
        raise Refused(
            "invalid",
            f"{request.what}: piece {piece.number} of {piece.key!r} came with {nbytes} bytes; it has "
            f"{piece.size} elements of {dtype}",
        )
    return array


def joined_arrays(
    payload: Payload, dtype: str, pieces: Sequence[Piece], request: Request
) -> list[np.ndarray]:
    """The arrays of several pieces in one payload, without a copy."""
    ends = list(accumulate([piece.size for piece in pieces], initial=0))
    nbytes, expected = memoryview(payload).nbytes, ends[-1] * np.dtype(dtype).itemsize  # type: ignore[arg-type]
    if nbytes != expected:
        raise Refused("invalid", f"{request.what}: {nbytes} bytes came for all pieces, expected {expected}")
    array: np.ndarray = np.frombuffer(payload, dtype)
    return [array[low:high] for low, high in pairwise(ends)]
