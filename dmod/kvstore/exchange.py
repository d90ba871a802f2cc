"""Pushes and pulls: which pieces of which keys travel together, and where their bytes come from and go to.

A training step asks for the same keys every time, so how they are cut and joined is worked out once, as a
list of `Unit`, and kept; a call fills in arrays and rounds.

Towards a server that shares memory with this process, large arrays are not sent but referred to. An array
of a pushpull which lies in shared memory is read by the server where it is, until the answer has come.
Any other one is copied first, to slots which a key has two of: a push is acknowledged before its round
has been applied, but at most one round before, so while one slot is still being read the other is free.

Small arrays of a call with many are joined: they travel as one payload, and come back as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np

from dmod.kvstore.actions import Outgoing, Payload, Staged
from dmod.kvstore.compression import Compressor
from dmod.kvstore.messages import Again, Key, Message, PieceRef, Pull, Push, PushPull, Same, Values
from dmod.kvstore.outstanding import Build, ClientPiece, Take
from dmod.kvstore.parts import ClientKey, joined
from dmod.kvstore.standing import Repeat

__all__ = ["Entry", "Exchange", "SharedMemory", "Unit", "plan_units"]

JOINED_TO_NBYTES = 1 << 16
"""Larger ones are not joined: copying them would cost more than a payload of their own."""

Entry = tuple[ClientKey, "np.ndarray | None", Sequence[np.ndarray]]
"""A key, the array to push, and where to write the values; each whole, and 1-D."""


class Shown(Protocol):
    """What `transports.windows.Shown` is: an array of this process that is a server's memory."""

    def refresh(self) -> None:
        """Give up what this process has written there since."""

    def hide(self) -> None:
        """Be private memory again."""


class SharedMemory(Protocol):
    """What `transports.windows.HostMemory` is: memory that this process and servers of its host share."""

    def empty(self, size: int, dtype: np.dtype) -> np.ndarray | None:
        """An uninitialised 1-D array, or None if there is no memory for it."""

    def owns(self, array: np.ndarray) -> bool:
        """Whether an array lies where servers can read it."""

    def shows(self, key: Key, out: np.ndarray) -> bool:
        """Whether `out` is one that `show` is meant for."""

    def show(self, key: Key, out: np.ndarray, value: np.ndarray) -> Shown | None:
        """Have `out` be the memory of `value`, which a server keeps for `key`; None if that cannot be."""


@dataclass(frozen=True, eq=False)
class Unit:
    """Pieces of one server that travel together.

    Attributes
    ----------
    server : int
    dtype : str
        Of the arrays that are pushed.
    pieces : tuple of ClientPiece
    places : tuple of (int, slice)
        For each piece which entry of the call it belongs to, and where it lies in its arrays.
    joined : bool
        Whether they are one payload.
    """

    server: int
    dtype: str
    pieces: tuple[ClientPiece, ...]
    places: tuple[tuple[int, slice], ...]
    joined: bool = False
    slots: list[np.ndarray | None] = field(default_factory=lambda: [None, None])

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """Where each piece lies in the joined payload."""
        ends = list(accumulate([cut.stop - cut.start for _, cut in self.places], initial=0))
        return tuple([slice(*pair) for pair in pairwise(ends)])

    @property
    def size(self) -> int:
        """Elements of all pieces."""
        return sum([piece.stop - piece.start for piece in self.pieces])


def plan_units(entries: Sequence[Entry], unit_bytes: int, joins: bool = True) -> list[Unit]:
    """How these entries, or any others with the same keys and dtypes, travel; small pieces joined, or not."""
    groups: dict[tuple[int, str, str, bool], list[tuple[ClientPiece, int, slice, int]]] = {}
    for i, (key, array, _) in enumerate(entries):
        dtype = key.dtype if array is None else array.dtype
        for piece in key.pieces:
            nbytes = (piece.stop - piece.start) * dtype.itemsize
            place = (piece, i, slice(piece.start, piece.stop), nbytes)
            kind = (piece.server, dtype.name, key.dtype.name, joins and nbytes <= JOINED_TO_NBYTES)
            groups.setdefault(kind, []).append(place)
    units = []
    for (server, name, _, small), group in groups.items():
        for together in joined([nbytes for *_, nbytes in group], unit_bytes):
            chosen = [group[i] for i in together]
            pieces = tuple([piece for piece, *_ in chosen])
            places = tuple([(i, cut) for _, i, cut, _ in chosen])
            units.append(Unit(server, name, pieces, places, small and len(pieces) > 1))
    # Servers take turns, so that each has something to do from the beginning.
    turn: dict[int, int] = {}
    order: dict[Unit, int] = {}
    for unit in units:
        turn[unit.server] = order[unit] = turn.get(unit.server, 0) + 1
    return sorted(units, key=order.__getitem__)


class Exchange:
    """One push, pull or pushpull.

    Parameters
    ----------
    call : {'push', 'pull', 'pushpull'}
    entries : sequence of Entry
    begins : callable
        Is told a request's highest round when it leaves, 0 for a pull, and says which epoch it is.
    shared : dict of int to SharedMemory
        The servers that share memory with this process.
    record : bytes, optional
    compressor : Compressor, optional
    """

    def __init__(
        self,
        call: str,
        entries: Sequence[Entry],
        begins: Callable[[int], int],
        shared: dict[int, SharedMemory],
        record: bytes | None = None,
        compressor: Compressor | None = None,
    ):
        self._call, self._entries, self._begins, self._shared = call, entries, begins, shared
        self._record, self._compressor = record, compressor

    def request(self, unit: Unit, repeat: Repeat | None = None) -> tuple[Build, Take]:
        """A unit's request, and what makes use of its answer.

        With `repeat` the same arrays have been, or will be, exchanged again.
        """
        return partial(self._build, unit, repeat), partial(self._take, unit, repeat)

    def again_in_full(
        self, unit: Unit, repeat: Repeat, message: Again, staged: Sequence[Outgoing]
    ) -> tuple[Message, Sequence[Outgoing]]:
        """The whole request that `message` stood for, which has staged these payloads."""
        refs = tuple([PieceRef(piece.key, piece.number, message.round) for piece in unit.pieces])
        joins = self._joins(unit)
        full = PushPull(message.request, message.epoch, unit.dtype, refs, False, joins, repeat.number)
        return full, repeat.in_full(staged)

    def _build(self, unit: Unit, repeat: Repeat | None, number: int) -> tuple[Message, Sequence[Outgoing]]:
        if self._call == "pull":
            refs = tuple([PieceRef(piece.key, piece.number, piece.round) for piece in unit.pieces])
            return Pull(number, self._begins(0), refs, self._joins(unit)), ()
        for piece in unit.pieces:
            piece.round += 1
        rounds = {piece.round for piece in unit.pieces}
        epoch = self._begins(max(rounds))
        if repeat is not None and repeat.known and len(rounds) == 1:
            return Again(number, repeat.number, epoch, rounds.pop()), repeat.staged()
        refs = tuple([PieceRef(piece.key, piece.number, piece.round) for piece in unit.pieces])
        payloads: list[Outgoing] = self._payloads(unit)
        if repeat is not None:
            repeat.payloads = payloads
            standing = repeat.number if self._all_shared(unit, payloads) else 0
            return PushPull(number, epoch, unit.dtype, refs, False, self._joins(unit), standing), payloads
        record, self._record = self._record, None  # it travels once
        if record is not None:
            payloads = [*payloads, record]
        kind = Push if self._call == "push" else PushPull
        encoding = unit.dtype if self._compressor is None else self._compressor.encoding
        return kind(number, epoch, encoding, refs, record is not None, self._joins(unit)), payloads

    def _all_shared(self, unit: Unit, payloads: Sequence[Outgoing]) -> bool:
        """Whether the server can read all payloads where they lie."""
        memory = self._shared.get(unit.server)
        arrays = [payload.slot if isinstance(payload, Staged) else payload for payload in payloads]
        return memory is not None and all(isinstance(a, np.ndarray) and memory.owns(a) for a in arrays)

    def _joins(self, unit: Unit) -> bool:
        return unit.joined and self._compressor is None  # what is compressed keeps a rest of each piece

    def _payloads(self, unit: Unit) -> list[Outgoing]:
        entries, memory = self._entries, self._shared.get(unit.server)
        if self._joins(unit):
            return [self._joined(unit, memory)]
        payloads: list[Outgoing] = []
        for piece, (i, cut) in zip(unit.pieces, unit.places, strict=True):
            array = entries[i][1]
            assert array is not None
            part = array if cut.stop - cut.start == array.size else array[cut]
            if self._compressor is not None:
                payloads.append(self._compressor.encode((piece.key, piece.number), part))
            elif memory is None:
                payloads.append(part)
            else:
                payloads.append(self._shareable(part, piece, memory))
        return payloads

    def _shareable(self, part: np.ndarray, piece: ClientPiece, memory: SharedMemory) -> Outgoing:
        if self._call == "pushpull" and memory.owns(part):
            return part
        slot = piece.slots[0]
        if slot is None or slot.dtype != part.dtype:
            slot = piece.slots[0] = memory.empty(part.size, part.dtype)
        if self._call == "push":
            piece.slots.reverse()  # this one may be read until the answer to the push after the next
        return part if slot is None else Staged(slot, part)

    def _joined(self, unit: Unit, memory: SharedMemory | None) -> Outgoing:
        slot, dtype = unit.slots[0], np.dtype(unit.dtype)
        if slot is None:
            slot = None if memory is None else memory.empty(unit.size, dtype)
            slot = unit.slots[0] = np.empty(unit.size, dtype) if slot is None else slot
        if self._call == "push":
            unit.slots.reverse()  # as in `_shareable`
            for piece in unit.pieces:  # which outlive the unit
                piece.pushed = (slot, piece.pushed[0])
        cuts = []
        for i, cut in unit.places:
            array = self._entries[i][1]
            assert array is not None
            cuts.append(array if cut.stop - cut.start == array.size else array[cut])
        return Staged(slot, cuts)

    def _take(
        self, unit: Unit, repeat: Repeat | None, message: Message, payloads: Sequence[Payload]
    ) -> bool | None:
        """Write the values that a unit was answered with into the user's arrays: all of them, or none.

        False if the answer refers to what this worker does not know.
        """
        if isinstance(message, Same):
            return repeat is not None and self.deliver_again(unit, repeat, message.place)
        if isinstance(message, Values):
            take = self._joined_values if self._joins(unit) else self._values
            values = take(unit, payloads)
            if repeat is not None:
                repeat.hide()
                repeat.remember(message.place, values)
            self.deliver(unit, values)
        return None

    def _values(self, unit: Unit, payloads: Sequence[Payload]) -> list[np.ndarray]:
        values = []
        for piece, (i, _), payload in zip(unit.pieces, unit.places, payloads, strict=True):
            value = np.frombuffer(payload, self._entries[i][0].dtype)
            if value.size != piece.stop - piece.start:
                raise ValueError(f"{value.size} elements for piece {piece.number} of {piece.key!r}")
            values.append(value)
        return values

    def _joined_values(self, unit: Unit, payloads: Sequence[Payload]) -> list[np.ndarray]:
        (payload,) = payloads
        joined = np.frombuffer(payload, self._entries[unit.places[0][0]][0].dtype)
        if joined.size != unit.size:
            raise ValueError(f"{joined.size} elements for {len(unit.pieces)} pieces of {unit.size}")
        return [joined[span] for span in unit.spans]

    def deliver_again(self, unit: Unit, repeat: Repeat, place: int, refreshed: bool = False) -> bool:
        """Write the values at a place that is known into the user's arrays; False if it is not known.

        Arrays in windows are that place from the second time on, and nothing is written; they may have been
        refreshed since the request has left.
        """
        if repeat.place == place and repeat.shown:
            if not refreshed:
                repeat.refresh()
            return True
        values = repeat.values.get(place)
        if values is None:
            return False
        repeat.hide()
        if repeat.stays_at(place) and self._show(unit, repeat, values):
            return True
        self.deliver(unit, values)
        return True

    def _show(self, unit: Unit, repeat: Repeat, values: Sequence[np.ndarray]) -> bool:
        memory = self._shared.get(unit.server)
        if memory is None or self._joins(unit):
            return False
        for (i, cut), value in zip(unit.places, values, strict=True):
            for out in self._entries[i][2]:
                shown = memory.show(self._entries[i][0].key, out[cut], value)
                if shown is None:
                    repeat.hide()
                    return False
                repeat.shown.append(shown)
        return True

    def deliver(self, unit: Unit, values: Sequence[np.ndarray]) -> None:
        """Write the values of a unit into the user's arrays."""
        entries = self._entries
        for (i, cut), value in zip(unit.places, values, strict=True):
            for out in entries[i][2]:
                if value.size == out.size:
                    out[...] = value
                else:
                    out[cut] = value
