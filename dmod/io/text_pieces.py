"""A chunk of lines, parsed by several threads: each takes a run of its lines.

What comes out, errors too, is what one thread would find.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dmod.io.image_record_pipeline import usable_cpus
from dmod.io.text_parts import Chunk

__all__ = ["KEPT_BLOCKS", "NUMBER", "Found", "Piece", "Pieces", "joined"]

_LEAST_BYTES = 1 << 16
"""Less is not worth a thread."""
KEPT_BLOCKS = 4
"""Parsed chunks whose memory is kept: one in use, one ready, one that the last batch holds, one more."""
_HARD = 64
NUMBER: Any = re.compile(rb"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?")
"""A number with digits, where there is known to be one."""


@dataclass(frozen=True)
class Piece:
    """Some lines of a text: from `begin` to `end`, in bytes, and how many there are at most."""

    begin: int
    end: int
    lines: int


@dataclass(frozen=True)
class Found:
    """What a parser says of a piece: its status, the rows, and where it stopped; see `text_kernels`."""

    status: int
    rows: int
    position: int


Parser = Callable[[Piece, np.ndarray], tuple[int, int, int, int]]
"""Parses a piece, with an array for the hard numbers; one of `text_kernels`, less its other arguments."""


class Pieces:
    """Threads that parse pieces of chunks."""

    def __init__(self) -> None:
        self._count = usable_cpus()
        self._threads: ThreadPoolExecutor | None = None
        self._pid = 0

    def of(self, chunk: Chunk, source: Any, count_byte: Callable[..., int]) -> list[Piece]:
        """The pieces of a chunk: as many as there are CPUs, if it is large enough.

        `source` is its text for `count_byte`, both of `text_kernels`.
        """
        text, size = chunk.text, chunk.size
        count = max(1, min(self._count, size // _LEAST_BYTES))
        cuts = [0]
        for i in range(1, count):
            at = size * i // count
            cut = text.find(b"\n", at, size) + 1 or text.find(b"\r", at, size) + 1
            if cuts[-1] < cut < size:
                cuts.append(cut)
        cuts.append(size)
        return [Piece(a, b, _lines(chunk.text, a, b, source, count_byte)) for a, b in pairwise(cuts)]

    def parse(
        self, pieces: Sequence[Piece], parsers: Sequence[Parser]
    ) -> tuple[list[Found], list[np.ndarray]]:
        """Parse pieces side by side; what was found, and the hard numbers of each: place and position."""
        if len(pieces) == 1:
            results = [_parsed(pieces[0], parsers[0])]
        else:
            if self._threads is None or self._pid != os.getpid():  # a forked process has no threads
                self._pid = os.getpid()
                self._threads = ThreadPoolExecutor(self._count - 1, thread_name_prefix="dmod-parse")
            others = [
                self._threads.submit(_parsed, piece, parser)
                for piece, parser in zip(pieces[1:], parsers[1:], strict=True)
            ]
            results = [_parsed(pieces[0], parsers[0]), *(other.result() for other in others)]
        return [found for found, _ in results], [hard for _, hard in results]


def _parsed(piece: Piece, parser: Parser) -> tuple[Found, np.ndarray]:
    room = _HARD
    while True:
        hard = np.empty((room, 2), np.int64)
        with np.errstate(all="ignore"):  # numbers that are infinite in float32
            status, rows, position, hards = parser(piece, hard)
        if hards <= room:
            return Found(status, rows, position), hard[:hards]
        room = hards


def _lines(text: bytearray, begin: int, end: int, source: Any, count_byte: Callable[..., int]) -> int:
    """How many lines there are between, empty ones too."""
    count, returns = (int(count_byte(source, begin, end, byte)) for byte in b"\n\r")
    if returns:
        count += returns - text.count(b"\r\n", begin, end)
    return count + (text[end - 1] not in b"\n\r")


def joined(array: np.ndarray, begins: Sequence[int], counts: Sequence[int]) -> np.ndarray:
    """The filled parts of an array, one after the other: a view of it where there are no gaps."""
    together = all(a + n == b for a, n, b in zip(begins, counts, begins[1:], strict=False))
    if together:
        return array[: begins[-1] + counts[-1]]
    return np.concatenate([array[a : a + n] for a, n in zip(begins, counts, strict=True)])
