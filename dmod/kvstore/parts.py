"""What travels in a client's requests: pieces of the user's arrays, cut, joined and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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
)
from dmod.kvstore.outstanding import Build, ClientPiece, Take
from dmod.kvstore.tree import sum_dtype
from dmod.ndarray.flat import FlatLayout

__all__ = [
    "ClientKey",
    "PieceStates",
    "check_array",
    "check_entry",
    "init_builder",
    "joined",
    "states_getter",
    "states_setter",
    "values_builders",
]

MAX_PIECES = 256
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
    shape: tuple[int] = field(init=False)
    dtype: np.dtype[Any] = field(init=False)
    chars: str = field(init=False)
    """The kinds of arrays that can be pushed, by numpy's letters: names of dtypes are slow to make."""

    def __post_init__(self) -> None:
        self.shape, self.dtype = (self.layout.size,), np.dtype(self.layout.dtype)
        self.chars = self.dtype.char + sum_dtype(self.dtype).char


def check_array(what: str, key: ClientKey, array: np.ndarray | None, chars: str) -> None:
    """Raise `InvalidArgument` for an array that cannot travel as `key`."""
    if array is None:
        raise InvalidArgument(f"{what}: rank 0 has to give values")
    if array.shape != key.shape or array.dtype.char not in chars:
        raise InvalidArgument(
            f"{what}: {array.dtype} {array.shape} for {key.key!r}, initialised as {key.dtype} {key.shape}"
        )
    if not array.flags.c_contiguous:
        raise InvalidArgument(f"{what}: the array for {key.key!r} is not contiguous")


def check_entry(
    what: str, call: str, known: ClientKey, array: np.ndarray | None, outs: Sequence[np.ndarray]
) -> None:
    """Raise `InvalidArgument` for what cannot be pushed to or pulled from a key."""
    if call != "pull":
        check_array(what, known, array, known.chars)
    for out in outs:
        check_array(what, known, out, known.dtype.char)
        if not out.flags.writeable:
            raise InvalidArgument(f"{what}: the array for {known.key!r} cannot be written to")
    if call != "push" and not outs:
        raise InvalidArgument(f"{what}: no array to write {known.key!r} to")


def joined(sizes: Sequence[int], unit_bytes: int) -> list[range]:
    """What travels together, by position: about `unit_bytes` of neighbours."""
    units: list[range] = []
    start = nbytes = 0
    for i, size in enumerate(sizes):
        if i > start and (nbytes + size > unit_bytes or i - start >= MAX_PIECES):
            units.append(range(start, i))
            start, nbytes = i, 0
        nbytes += size
    if sizes:
        units.append(range(start, len(sizes)))
    return units


def init_builder(
    key: Key, order: int, layout: FlatLayout, cuts: tuple[Cut, ...], mode: str, digest: str
) -> Build:
    """The request that describes a key to a server."""
    return lambda request: (Init(request, key, order, layout, cuts, mode, digest), ())


def values_builders(key: Key, pieces: list[ClientPiece], values: np.ndarray, unit_bytes: int) -> list[Build]:
    """Requests which send the initial `values` of `pieces`."""

    def builder(unit: list[ClientPiece]) -> Build:
        numbers = tuple(piece.number for piece in unit)
        payloads: list[Payload] = [values[piece.start : piece.stop] for piece in unit]
        return lambda request: (SetValues(request, key, numbers), payloads)

    sizes = [(piece.stop - piece.start) * values.itemsize for piece in pieces]
    return [builder([pieces[i] for i in unit]) for unit in joined(sizes, unit_bytes)]


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
