"""Batches of the rows of files, as MXNet's file iterators make them.

With ``round_batch``, an epoch's last batch is filled up with the first rows, and the next epoch goes on
after these. Without, the batch is filled up with what stood in those places in the batch before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument
from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.io.rows import Rows

__all__ = ["RowBatches"]


class RowBatches(DataIter):
    """Batches of rows.

    Parameters
    ----------
    name : str
        For errors.
    rows : Rows
    label_rows : Rows, optional
        The labels of the rows, if they are in files of their own.
    batch_size : int
    round_batch : bool
    convert : callable
        From a block of rows, and one of labels or None, to lists of arrays: ``(data, label)``.
    provide_data, provide_label : list of DataDesc
    """

    peekable = True

    def __init__(
        self,
        name: str,
        rows: Rows,
        label_rows: Rows | None,
        batch_size: int,
        round_batch: bool,
        convert: Callable[[Any, Any], tuple[list[Any], list[Any]]],
        provide_data: list[DataDesc],
        provide_label: list[DataDesc],
    ):
        super().__init__(batch_size)
        self.name = name
        self.round_batch = round_batch
        self.provide_data, self.provide_label = provide_data, provide_label
        self._sources = [rows] if label_rows is None else [rows, label_rows]
        self._convert = convert
        self._number = 0  # of the next row
        self._padded = False  # the epoch's last batch was filled up
        self._last: tuple[list[Any], Any] | None = None  # the last batch's blocks and rows' numbers
        self._before: dict[str, Any] | None = None  # where the last batch began

    def reset(self) -> None:
        """Begin the next epoch: where the last batch ended, if the first rows filled it up."""
        if not (self._padded and self.round_batch):
            self._rewind()
        self._padded = False

    def _rewind(self) -> None:
        for source in self._sources:
            source.rewind()
        self._number = 0

    def next(self) -> DataBatch:
        """The next batch; see `DataIter.next`."""
        if self._padded:
            raise StopIteration
        before = None if self.round_batch else self._place()
        blocks = self._take(self.batch_size)
        if blocks is None:
            raise StopIteration
        count = len(blocks[0])
        index = np.arange(self._number, self._number + count, dtype=np.uint64)
        self._number += count
        pad = self.batch_size - count
        if pad:
            blocks, index = self._filled(blocks, index, pad)
            self._padded = True
        self._last, self._before = (blocks, index), before
        data, label = self._convert(blocks[0], blocks[1] if len(blocks) > 1 else None)
        return DataBatch(data, label, pad, index)

    def _take(self, count: int) -> list[Any] | None:
        blocks = [source.take(count) for source in self._sources]
        if blocks[0] is None:
            return None
        if blocks[-1] is None or len(blocks[-1]) < len(blocks[0]):
            raise FormatError(
                f"{self.name}: the label file has {self._number + len(blocks[-1] or ())} rows, the data file "
                "has more"
            )
        return blocks

    def _filled(self, blocks: list[Any], index: Any, pad: int) -> tuple[list[Any], Any]:
        """A whole batch, of the last rows and `pad` others."""
        if self.round_batch:
            self._rewind()
            more = self._take(pad)
            assert more is not None  # there were rows before
            if len(more[0]) < pad:
                raise InvalidArgument(
                    f"{self.name}: batch_size={self.batch_size} with {self._number + len(more[0])} rows; use "
                    "smaller batches"
                )
            self._number = pad
            others = np.arange(pad, dtype=np.uint64)
        else:
            filled = self.batch_size - pad
            last = self._last
            if last is None:  # there is no whole batch
                last = (
                    [_repeated(block, self.batch_size) for block in blocks],
                    np.resize(index, self.batch_size),
                )
            more = [block.cut(filled, self.batch_size) for block in last[0]]
            others = last[1][filled:]
        joined = [type(block).join([block, other]) for block, other in zip(blocks, more, strict=True)]
        return joined, np.concatenate([index, others])

    # ---- states

    def _place(self) -> dict[str, Any]:
        return {
            "rows": [source.state_dict() for source in self._sources],
            "number": self._number,
            "padded": self._padded,
        }

    def state_dict(self) -> dict[str, Any]:
        """See `DataIter.state_dict`."""
        return {**self._place(), "before": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`."""
        if set(state) != {"rows", "number", "padded", "before"} or len(state["rows"]) != len(self._sources):
            raise InvalidArgument(f"{self.name}.load_state_dict: the state is of another iterator")
        self._last = self._before = None
        if state["before"] is not None:  # the last batch may be needed to fill up the next
            self._go(state["before"])
            self.next()
        self._go(state)

    def _go(self, place: dict[str, Any]) -> None:
        for source, rows in zip(self._sources, place["rows"], strict=True):
            source.load_state_dict(rows)
        self._number, self._padded = int(place["number"]), bool(place["padded"])


def _repeated(block: Any, count: int) -> Any:
    """The rows of a block again and again, until there are `count`."""
    return type(block).join([block] * -(-count // len(block))).cut(0, count)
