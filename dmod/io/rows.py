"""Rows of a file, as many at a time as a batch wants, while a thread parses the next chunk."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dmod.base import InvalidArgument
from dmod.io.base import DataIter
from dmod.io.fetching import Fetcher, end_all
from dmod.io.text_parts import Chunk, TextPart

__all__ = ["Block", "CsrRows", "DenseRows", "Rows"]


class Block(Protocol):
    """Consecutive rows in memory."""

    def __len__(self) -> int: ...

    def cut(self, start: int, stop: int) -> Any:
        """Some of the rows, as a block that shares their memory."""

    @classmethod
    def join(cls, blocks: Sequence[Any]) -> Any:
        """Rows one after the other, as one block."""


@dataclass(frozen=True)
class DenseRows:
    """Rows of an array."""

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def cut(self, start: int, stop: int) -> DenseRows:
        """See `Block.cut`."""
        return DenseRows(self.values[start:stop])

    @classmethod
    def join(cls, blocks: Sequence[DenseRows]) -> DenseRows:
        """See `Block.join`."""
        return DenseRows(np.concatenate([block.values for block in blocks]))


@dataclass(frozen=True)
class CsrRows:
    """Rows of a csr array, with a label each."""

    labels: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def cut(self, start: int, stop: int) -> CsrRows:
        """See `Block.cut`."""
        part = slice(self.indptr[start], self.indptr[stop])
        indptr = self.indptr[start : stop + 1] - self.indptr[start]
        return CsrRows(self.labels[start:stop], indptr, self.indices[part], self.values[part])

    @classmethod
    def join(cls, blocks: Sequence[CsrRows]) -> CsrRows:
        """See `Block.join`."""
        ends = np.cumsum([0] + [block.indptr[-1] for block in blocks])
        indptr = [block.indptr[1:] + end for block, end in zip(blocks, ends, strict=False)]
        return CsrRows(
            np.concatenate([block.labels for block in blocks]),
            np.concatenate([np.zeros(1, np.int64), *indptr]),
            np.concatenate([block.indices for block in blocks]),
            np.concatenate([block.values for block in blocks]),
        )


class _Blocks(DataIter):
    """The chunks of a part of some files, parsed."""

    def __init__(self, part: TextPart, parse: Callable[[Chunk], Any]):
        super().__init__()
        self.part, self.parse = part, parse
        self.position = part.begin

    def reset(self) -> None:
        self.position = self.part.begin

    def next(self) -> Any:
        chunk = self.part.read(self.position)
        if chunk is None:
            raise StopIteration
        block = self.parse(chunk)
        self.position = chunk.next
        return block

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        position = state.get("position")
        if not isinstance(position, int) or not self.part.begin <= position <= self.part.end:
            raise InvalidArgument(
                f"{self.part.what}.load_state_dict: byte {position!r} of {self.part.uri}, expected one from "
                f"{self.part.begin} to {self.part.end}; is the state of another file, or of another part?"
            )
        self.position = position


class Rows:
    """The rows of a part of some files, from the first to the last.

    Parameters
    ----------
    part : TextPart
    parse : callable
        Makes a block (`DenseRows`, `CsrRows`) of a `Chunk`; it runs in a thread.
    """

    def __init__(self, part: TextPart, parse: Callable[[Chunk], Any]):
        self._fetcher = Fetcher(_Blocks(part, parse))
        self._ender = weakref.finalize(self, end_all, [self._fetcher])
        self._block: Any = None
        self._block_state = self._fetcher.state
        self._row = 0

    def take(self, count: int) -> Any:
        """The next rows, at most `count`: a block, or None if there are no more.

        Raises
        ------
        FormatError
            What comes next is corrupt.
        """
        found = []
        while count:
            if self._block is None or self._row == len(self._block):
                if not self._next_block():
                    break
                continue
            stop = min(len(self._block), self._row + count)
            found.append(self._block.cut(self._row, stop))
            count -= stop - self._row
            self._row = stop
        if not found:
            return None
        return found[0] if len(found) == 1 else type(found[0]).join(found)

    def _next_block(self) -> bool:
        state = self._fetcher.state  # of before the block that is ready
        answer = self._fetcher.take()
        if isinstance(answer, StopIteration):
            return False
        if isinstance(answer, BaseException):
            raise answer
        self._block, self._row, self._block_state = answer, 0, state
        return True

    def rewind(self) -> None:
        """Go to the first row."""
        self._fetcher.reset()
        self._block, self._row, self._block_state = None, 0, self._fetcher.state

    def state_dict(self) -> dict[str, Any]:
        """Where the next row is: the chunk, and how many of its rows were taken."""
        return {**self._block_state, "row": self._row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where `state` was taken.

        Raises
        ------
        InvalidArgument
            It is of another file.
        """
        row = state.get("row")
        self._fetcher.load_state({"position": state.get("position")}, False)
        self._block, self._row = None, 0
        self._block_state = self._fetcher.state
        if row and (not self._next_block() or len(self._block) < row):
            raise InvalidArgument(
                f"load_state_dict: the state is of row {row} of a chunk that has fewer; is it another file?"
            )
        self._row = row or 0
