"""What travels in a client's requests: pieces of the user's arrays, cut, joined and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dmod.base import InvalidArgument
from dmod.kvstore.actions import Payload
from dmod.kvstore.messages import (
    Cut,
    GetStates,
    Init,
    Key,
    Message,
    SetStates,
    SetValues,
    States,
    Values,
)
from dmod.kvstore.outstanding import Build, ClientPiece, Take
from dmod.kvstore.tree import sum_dtype
from dmod.ndarray.flat import FlatLayout

__all__ = [
    "ClientKey",
    "Part",
    "PieceStates",
    "check_array",
    "check_entry",
    "init_builder",
    "joined",
    "part_taker",
    "states_getter",
    "states_setter",
    "values_builders",
]

MAX_PIECES = 1024
"""Most pieces of one message: small keys travel together, but not so many that a reply takes long."""


@dataclass
class PieceStates:
    """The optimizer's states of one piece of a key: elements ``[start, stop)`` of its buffer."""

    key: Key
    piece: int
    start: int
    stop: int
    count: int
    arrays: list[np.ndarray]


@dataclass(eq=False)
class ClientKey:
    """A key as its user sees it."""

    key: Key
    layout: FlatLayout
    mode: str
    pieces: list[ClientPiece]


@dataclass(eq=False)
class Part:
    """One piece's share of a push or pull: views of the user's arrays."""

    piece: ClientPiece
    dtype: str  # the key's
    array: np.ndarray | None = None
    outs: list[np.ndarray] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """How much of it travels, in one direction."""
        one = self.array if self.array is not None else self.outs[0]
        return one.nbytes


def check_array(
    what: str, key: Key, array: np.ndarray | None, layout: FlatLayout, dtypes: tuple[str, ...]
) -> None:
    """Raise `InvalidArgument` for an array that cannot travel as (part of) `key`."""
    if array is None:
        raise InvalidArgument(f"{what}: rank 0 has to give values")
    if array.shape != (layout.size,) or array.dtype.name not in dtypes:
        raise InvalidArgument(
            f"{what}: {array.dtype} {array.shape} for {key!r}, initialised as {layout.dtype} ({layout.size},)"
        )
    if not array.flags.c_contiguous:
        raise InvalidArgument(f"{what}: the array for {key!r} is not contiguous")


def check_entry(
    what: str, call: str, known: ClientKey, array: np.ndarray | None, outs: Sequence[np.ndarray]
) -> None:
    """Raise `InvalidArgument` for what cannot be pushed to or pulled from a key."""
    dtype = known.layout.dtype
    if call != "pull":
        check_array(what, known.key, array, known.layout, (dtype, sum_dtype(dtype).name))
    for out in outs:
        check_array(what, known.key, out, known.layout, (dtype,))
        if not out.flags.writeable:
            raise InvalidArgument(f"{what}: the array for {known.key!r} cannot be written to")
    if call != "push" and not outs:
        raise InvalidArgument(f"{what}: no array to write {known.key!r} to")


def joined(parts: list[Part], unit_bytes: int) -> list[list[Part]]:
    """Parts that travel together, in order: about `unit_bytes` of them."""
    units: list[list[Part]] = []
    nbytes = 0
    for part in parts:
        if not units or nbytes + part.nbytes > unit_bytes or len(units[-1]) >= MAX_PIECES:
            units.append([])
            nbytes = 0
        units[-1].append(part)
        nbytes += part.nbytes
    return units


def part_taker(unit: list[Part]) -> Take:
    """Writes the values that a request was answered with into the user's arrays: all of them, or none."""

    def take(message: Message, payloads: Sequence[Payload]) -> None:
        if not isinstance(message, Values):
            return
        values = [np.frombuffer(p, part.dtype) for part, p in zip(unit, payloads, strict=True)]
        for part, value in zip(unit, values, strict=True):
            if value.size != part.piece.stop - part.piece.start:
                raise ValueError(f"{value.size} elements for piece {part.piece.number} of {part.piece.key!r}")
        for part, value in zip(unit, values, strict=True):
            for out in part.outs:
                out[...] = value

    return take


def init_builder(
    key: Key, order: int, layout: FlatLayout, cuts: tuple[Cut, ...], mode: str, digest: str
) -> Build:
    """The request that describes a key to a server."""
    return lambda request: (Init(request, key, order, layout, cuts, mode, digest), ())


def values_builders(key: Key, pieces: list[ClientPiece], values: np.ndarray, unit_bytes: int) -> list[Build]:
    """Requests which send the initial `values` of `pieces`."""

    def builder(unit: list[Part]) -> Build:
        numbers = tuple(part.piece.number for part in unit)
        payloads: list[Payload] = [part.array for part in unit if part.array is not None]
        return lambda request: (SetValues(request, key, numbers), payloads)

    parts = [Part(piece, values.dtype.name, values[piece.start : piece.stop]) for piece in pieces]
    return [builder(unit) for unit in joined(parts, unit_bytes)]


def states_getter(piece: ClientPiece, states: dict[ClientPiece, PieceStates]) -> tuple[Build, Take]:
    """The request for the states of a piece, and what puts its answer into `states`."""

    def take(message: Message, payloads: Sequence[Payload]) -> None:
        assert isinstance(message, States)
        arrays = [np.frombuffer(p, d).copy() for p, d in zip(payloads, message.dtypes, strict=True)]
        states[piece] = PieceStates(piece.key, piece.number, piece.start, piece.stop, message.count, arrays)

    return lambda request: (GetStates(request, piece.key, piece.number), ()), take


def states_setter(state: PieceStates) -> Build:
    """The request that replaces the states of a piece."""
    dtypes = tuple(array.dtype.name for array in state.arrays)
    arrays = [np.ascontiguousarray(array) for array in state.arrays]
    SetStates(0, state.key, state.piece, state.count, dtypes)  # what cannot be sent raises here
    return lambda request: (SetStates(request, state.key, state.piece, state.count, dtypes), arrays)
