"""`CSVIter`: batches of the lines of CSV files."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument
from dmod.context import cpu
from dmod.io.base import DataDesc
from dmod.io.buffers import Room
from dmod.io.file_options import batch_of, ignore_rest, one_dtype, shape_of
from dmod.io.row_batches import RowBatches
from dmod.io.rows import DenseRows, Rows
from dmod.io.text_parts import Chunk, TextPart
from dmod.io.text_pieces import KEPT_BLOCKS, NUMBER, Found, Piece, Pieces, joined
from dmod.io.wrapping import MXDataIter
from dmod.ndarray.ndarray import NDArray

__all__ = ["CSVIter"]


def CSVIter(
    *,
    data_csv: str,
    data_shape: Any,
    batch_size: int,
    label_csv: str = "NULL",
    label_shape: Any = (1,),
    round_batch: bool = True,
    num_parts: int = 1,
    part_index: int = 0,
    prefetch_buffer: int = 4,
    ctx: str = "gpu",
    dtype: str | None = None,
    data_name: str = "data",
    label_name: str = "softmax_label",
    **ignored: Any,
) -> MXDataIter:
    """Batches of the lines of CSV files.

    Files are read and parsed in chunks of 4 MB, the next one in a thread; batches within a chunk share its
    memory. Empty lines are passed over.

    Parameters
    ----------
    data_csv : str
        A file, a directory (all its files), or several of them with ``;`` between them.
    data_shape : tuple of int
        Of one line.
    batch_size : int
    label_csv : str
        Likewise, for the labels; without them these are 0.
    label_shape : tuple of int
        Of one line of `label_csv`.
    round_batch : bool
        Whether the first lines fill up the last batch, and the next epoch goes on after them. Else the last
        batch keeps what stood in these places before.
    num_parts, part_index : int
        Into how many parts the lines are divided (by bytes; not evenly), and which one to read.
    prefetch_buffer, ctx
        Accepted for MXNet's sake.
    dtype : {None, 'float32', 'int32', 'int64'}
        Of data and labels; default: float32.
    data_name, label_name : str
    **ignored
        MXNet ignores what it doesn't know; so does this, with a warning.

    Returns
    -------
    MXDataIter

    Raises
    ------
    MXNetError
        A file cannot be read.
    FormatError
        A line is no list of numbers, or not of as many as `data_shape` has; the message names file and line.
        It comes with the batch that the line belongs to, or earlier.
    """
    ignore_rest("CSVIter", ignored)
    number = one_dtype("CSVIter", dtype, ("float32", "int32", "int64"))
    shape, label_of = (
        shape_of("CSVIter", "data_shape", data_shape),
        shape_of("CSVIter", "label_shape", label_shape),
    )
    size = batch_of("CSVIter", batch_size)
    part = TextPart(data_csv, num_parts, part_index, "CSVIter")
    has_labels = label_csv not in ("NULL", "", None)
    if has_labels and num_parts != 1:
        raise InvalidArgument(
            "CSVIter: num_parts with label_csv: parts are made by bytes, so the two files' are not of "
            "the same lines; cut the files into one per part"
        )
    labels = Rows(TextPart(label_csv, 1, 0, "CSVIter"), _parser(label_of, number)) if has_labels else None
    batch_label = (size,) if label_of == (1,) else (size, *label_of)
    zeros = np.zeros(batch_label, number)

    def convert(data: DenseRows, label: DenseRows | None) -> tuple[list[NDArray], list[NDArray]]:
        values = zeros if label is None else label.values.reshape(batch_label)
        return [NDArray(data.values.reshape(size, *shape), cpu())], [NDArray(values, cpu())]

    batches = RowBatches(
        "CSVIter",
        Rows(part, _parser(shape, number)),
        labels,
        size,
        bool(round_batch),
        convert,
        [DataDesc("data", (size, *shape), number.type)],
        [DataDesc("softmax_label", batch_label, number.type)],
    )
    return MXDataIter(batches, data_name, label_name)


def _parser(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Callable[[Chunk], DenseRows]:
    """Makes rows of numbers of a chunk of lines."""
    from dmod.io import text_kernels as kernels  # where numba is imported: only for those who read such files

    columns = int(np.prod(shape))
    limits = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if dtype.kind == "i" else (0, 0)
    pieces = Pieces()
    room = Room(dtype, KEPT_BLOCKS)

    def parse(chunk: Chunk) -> DenseRows:
        text = kernels.as_text(chunk.text)
        parts = pieces.of(chunk, text, kernels.count_byte)
        most = [min(part.lines, (part.end - part.begin) // columns + 1) for part in parts]
        begins = [sum(most[:i]) for i in range(len(most))]
        values = room.take(sum(most) * columns).reshape(-1, columns)
        outs = [values[a : a + n] for a, n in zip(begins, most, strict=True)]
        parsers = [partial(_parse_piece, kernels.parse_csv, text, out, limits) for out in outs]
        results, hards = pieces.parse(parts, parsers)
        for found in results:
            if found.status != kernels.DONE:
                raise error_of(chunk, found)
        for out, hard in zip(outs, hards, strict=True):
            for place, at in hard:
                out.reshape(-1)[place] = kernels.exact_number(NUMBER.match(chunk.text, at)[0])
        return DenseRows(joined(values, begins, [found.rows for found in results]))

    def error_of(chunk: Chunk, found: Found) -> FormatError:
        shown = bytes(chunk.text[found.position : min(found.position + 40, chunk.size)]).split(b"\n")[0]
        line = shown.decode("utf-8", "replace").rstrip()
        cell = line.split(",")[0].rstrip()
        return chunk.error(
            found.position,
            {
                kernels.BAD_NUMBER: f"{cell!r} is no number",
                kernels.OUT_OF_RANGE: f"{cell!r} is out of the range of {dtype}",
                kernels.BAD_WIDTH: f"expected {columns} numbers for shape {shape}, got {line!r}",
            }[found.status],
        )

    return parse


def _parse_piece(
    parse: Any, text: Any, out: np.ndarray, limits: tuple[int, int], piece: Piece, hard: np.ndarray
) -> Any:
    return parse(text, piece.begin, piece.end, out, *limits, hard)
