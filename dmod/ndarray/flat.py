"""Flat buffers: many arrays of one dtype as views into one aligned buffer.

A `FlatLayout` says where each array lies. It is computed from names and shapes alone, so that all
ranks of a job arrive at the same one; what lies between the segments is padding and stays zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmod.base import InvalidArgument

__all__ = ["ALIGNMENT", "FlatLayout", "Segment", "aligned_empty", "aligned_zeros"]

ALIGNMENT = 64
"""Bytes at which every segment starts: a cache line, and the widest vector register."""


def aligned_empty(size: int, dtype: Any, alignment: int = ALIGNMENT) -> np.ndarray:
    """A 1-D array of `size` elements, uninitialised, that starts at a multiple of `alignment` bytes."""
    dtype = np.dtype(dtype)
    nbytes = size * dtype.itemsize
    raw = np.empty(nbytes + alignment, np.uint8)
    skip = -raw.ctypes.data % alignment
    return raw[skip : skip + nbytes].view(dtype)


def aligned_zeros(size: int, dtype: Any) -> np.ndarray:
    """Like `aligned_empty`, filled with zeros."""
    array = aligned_empty(size, dtype)
    array.fill(0)
    return array


@dataclass(frozen=True)
class Segment:
    """One array's place in a flat buffer.

    Attributes
    ----------
    index : int
        The array's number: the one that optimizer states are kept under.
    name : str
    start, stop : int
        The range in elements.
    shape : tuple of int
    """

    index: int
    name: str
    start: int
    stop: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FlatLayout:
    """Where each array lies in a flat buffer of one dtype.

    Examples
    --------
    >>> layout = FlatLayout.plan([(0, 'fc_weight', (2, 3)), (1, 'fc_bias', (2,))], 'float32')
    >>> [(s.name, s.start, s.stop) for s in layout.segments], layout.size
    ([('fc_weight', 0, 6), ('fc_bias', 16, 18)], 32)
    """

    dtype: str
    segments: tuple[Segment, ...]
    size: int

    @classmethod
    def plan(cls, entries: Iterable[tuple[int, str, tuple[int, ...]]], dtype: Any) -> FlatLayout:
        """Lay out arrays ``(index, name, shape)`` one after the other, each aligned."""
        dtype = np.dtype(dtype)
        step = max(1, ALIGNMENT // dtype.itemsize)
        segments, position = [], 0
        for index, name, shape in entries:
            stop = position + int(np.prod(shape, dtype=np.int64))
            segments.append(Segment(index, name, position, stop, tuple(int(n) for n in shape)))
            position = -(-stop // step) * step
        return cls(dtype.name, tuple(segments), position)

    @property
    def nbytes(self) -> int:
        """The size of a buffer in bytes."""
        return self.size * np.dtype(self.dtype).itemsize

    def allocate(self) -> np.ndarray:
        """A zeroed, aligned 1-D buffer for this layout."""
        return aligned_zeros(self.size, self.dtype)

    def views(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays inside `buffer`, by name; they share its memory."""
        if buffer.shape != (self.size,):
            raise InvalidArgument(f"flat buffer: shape {buffer.shape}, the layout has ({self.size},)")
        return {s.name: buffer[s.start : s.stop].reshape(s.shape) for s in self.segments}

    def cut(self, start: int, stop: int) -> tuple[Segment, ...]:
        """The segments, or parts of them, within ``[start, stop)``, counted from `start`.

        A part of an array has the one-dimensional shape of its length.
        """
        parts = []
        for s in self.segments:
            low, high = max(s.start, start), min(s.stop, stop)
            if low < high:
                whole = low == s.start and high == s.stop
                shape = s.shape if whole else (high - low,)
                parts.append(Segment(s.index, s.name, low - start, high - start, shape))
        return tuple(parts)

    def digest(self) -> str:
        """A short fingerprint of dtype, names, shapes and places: equal on all ranks of a job."""
        return hashlib.sha256(repr(self.to_wire()).encode()).hexdigest()[:16]

    def to_wire(self) -> list[Any]:
        """Plain lists, numbers and strings."""
        return [
            self.dtype,
            self.size,
            [[s.index, s.name, s.start, s.stop, list(s.shape)] for s in self.segments],
        ]

    @classmethod
    def from_wire(cls, wire: Any) -> FlatLayout:
        """The inverse of `to_wire`; what does not describe a layout raises `InvalidArgument`."""
        try:
            dtype, size, rows = wire
            segments = tuple(
                Segment(int(i), str(n), int(a), int(b), tuple(map(int, d))) for i, n, a, b, d in rows
            )
            layout = cls(np.dtype(dtype).name, segments, int(size))
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"not a flat layout: {error}") from None
        position = 0
        for s in layout.segments:
            if (
                not position <= s.start <= s.stop <= layout.size
                or int(np.prod(s.shape, dtype=object)) != s.stop - s.start
            ):
                raise InvalidArgument(f"not a flat layout: segment {s.name!r} at [{s.start}, {s.stop})")
            position = s.stop
        return layout
