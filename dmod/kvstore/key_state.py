"""A key on a server: what the workers have said of it, and whether they agree."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dmod.kvstore.messages import Init, Key
from dmod.kvstore.rounds import FreeBuffers, Piece
from dmod.kvstore.sharding import MAX_PIECE_NBYTES
from dmod.kvstore.tree import sum_dtype
from dmod.ndarray.flat import FlatLayout

__all__ = ["KeyState", "bad_cuts", "difference"]


@dataclass(eq=False)
class KeyState:
    """One key.

    Attributes
    ----------
    init : Init
        What the first worker said.
    by : int
        That worker's rank.
    pieces : dict
        The pieces that this server keeps, by number.
    known : set of int
        The ranks that have initialised the key.
    failure : tuple of (code, text), or None
        Why the key cannot be used any more.
    """

    init: Init
    by: int
    pieces: dict[int, Piece]
    known: set[int] = field(default_factory=set)
    failure: tuple[str, str] | None = None

    @classmethod
    def made_from(cls, init: Init, rank: int, server: int, num_workers: int, free: FreeBuffers) -> KeyState:
        """A key as worker `rank` describes it, on server number `server`."""
        pieces = {
            number: Piece(init.key, number, cut.start, cut.stop, init.layout.dtype, num_workers, free)
            for number, cut in enumerate(init.cuts)
            if cut.server == server
        }
        if init.mode == "async":
            for piece in pieces.values():
                piece.turns = {}
        return cls(init, rank, pieces)

    @property
    def key(self) -> Key:
        """Its name."""
        return self.init.key

    @property
    def has_values(self) -> bool:
        """Whether rank 0's values are in, or none are needed."""
        return self.init.mode == "sum" or all(piece.value is not None for piece in self.pieces.values())

    def ready(self, num_workers: int) -> bool:
        """Whether all workers have initialised the key."""
        return self.failure is None and len(self.known) == num_workers and self.has_values


def bad_cuts(init: Init, num_servers: int) -> str:
    """What is wrong with the pieces that a worker has cut a key into; '' if nothing is."""
    limit = MAX_PIECE_NBYTES // sum_dtype(init.layout.dtype).itemsize
    position = 0
    for number, cut in enumerate(init.cuts):
        if cut.start != position or not 0 < cut.stop - cut.start <= limit or cut.server >= num_servers:
            return (
                f"piece {number} is [{cut.start}, {cut.stop}) on server {cut.server}; expected it to begin "
                f"at {position}, to have 1 to {limit} elements, and one of {num_servers} servers"
            )
        position = cut.stop
    if position != init.layout.size:
        return f"the pieces end at {position}, the key at {init.layout.size}"
    return ""


def difference(theirs: Init, ours: Init) -> str:
    """The first thing in which two workers' descriptions of a key differ; '' if they agree.

    It reads ``'fc1_weight': shape (3, 4), but (4, 3)``: theirs first.
    """
    if theirs.layout != ours.layout:
        return _layout_difference(theirs.layout, ours.layout)
    for name, what in (
        ("digest", "another network: symbol digest"),
        ("mode", "mode"),
        ("order", "initialised as number"),
        ("cuts", "cut into units (is DMOD_UNIT_BYTES the same everywhere?)"),
    ):
        a, b = getattr(theirs, name), getattr(ours, name)
        if a != b:
            if name == "cuts":
                a, b = f"{len(a)} pieces", f"{len(b)} pieces, or others"
            return f"{what} {a}, but {b}"
    return ""


def _layout_difference(theirs: FlatLayout, ours: FlatLayout) -> str:
    if theirs.dtype != ours.dtype:
        return f"dtype {np.dtype(theirs.dtype).name}, but {np.dtype(ours.dtype).name}"
    for a, b in zip(theirs.segments, ours.segments, strict=False):
        if a.name != b.name:
            return f"array {a.index} is {a.name!r}, but {b.name!r}"
        if a.shape != b.shape:
            return f"{a.name!r}: shape {a.shape}, but {b.shape}"
        if a != b:
            places = f"[{a.start}, {a.stop}), but {b.index} at [{b.start}, {b.stop})"
            return f"{a.name!r}: number {a.index} at {places}"
    if len(theirs.segments) != len(ours.segments):
        return f"{len(theirs.segments)} arrays, but {len(ours.segments)}"
    return f"{theirs.size} elements, but {ours.size}"
