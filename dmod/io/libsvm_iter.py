"""`LibSVMIter`: csr batches of the lines of LibSVM files."""

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
from dmod.io.rows import CsrRows, Rows
from dmod.io.text_parts import Chunk, TextPart
from dmod.io.text_pieces import KEPT_BLOCKS, NUMBER, Found, Piece, Pieces, joined
from dmod.io.wrapping import MXDataIter
from dmod.ndarray.ndarray import NDArray
from dmod.ndarray.sparse_array import CSRNDArray

__all__ = ["LibSVMIter"]


def LibSVMIter(
    *,
    data_libsvm: str,
    data_shape: Any,
    batch_size: int,
    label_libsvm: str = "NULL",
    label_shape: Any = (1,),
    num_parts: int = 1,
    part_index: int = 0,
    round_batch: bool = True,
    prefetch_buffer: int = 4,
    ctx: str = "gpu",
    dtype: str | None = None,
    data_name: str = "data",
    label_name: str = "softmax_label",
    **ignored: Any,
) -> MXDataIter:
    """Batches, as csr arrays, of the lines of LibSVM files: ``label index:value index:value ...``.

    Indices count from 0. What stands behind ``#``, weights (``label:weight``) and
    ``qid:number`` are passed over. Files are read and parsed in chunks of 4 MB, the next one in a thread.

    Parameters
    ----------
    data_libsvm : str
        A file, a directory (all its files), or several of them with ``;`` between them.
    data_shape : tuple of one int
        The number of columns.
    batch_size : int
    label_libsvm : str
        Likewise a file, whose ``index:value`` pairs are the labels, as csr. Without it the label is what
        stands first in a line of the data, and dense.
    label_shape : tuple of one int
        The number of columns of `label_libsvm`.
    num_parts, part_index : int
        Into how many parts the lines are divided (by bytes; not evenly), and which one to read.
    round_batch : bool
        Must be true: the first lines fill up the last batch, and the next epoch goes on after them.
    prefetch_buffer, ctx
        Accepted for MXNet's sake.
    dtype : {None, 'float32'}
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
        A line is corrupt, or has an index beyond `data_shape` (MXNet goes on with memory that isn't its own);
        the message names file and line. It comes with the batch that the line belongs to, or earlier.
    """
    what = "LibSVMIter"
    ignore_rest(what, ignored)
    one_dtype(what, dtype, ("float32",))
    width, label_width = (
        shape_of(what, name, shape)
        for name, shape in (("data_shape", data_shape), ("label_shape", label_shape))
    )
    if len(width) != 1 or len(label_width) != 1:
        raise InvalidArgument(
            f"{what}: data_shape={data_shape}, label_shape={label_shape}, expected one axis"
        )
    if not round_batch:
        raise InvalidArgument(
            f"{what}: round_batch=False is not supported, as in MXNet; use round_batch=True"
        )
    size = batch_of(what, batch_size)
    has_labels = label_libsvm not in ("NULL", "", None)
    if not has_labels and label_width != (1,):
        raise InvalidArgument(f"{what}: label_shape={label_shape} without label_libsvm, expected (1,)")
    if has_labels and num_parts != 1:
        raise InvalidArgument(
            f"{what}: num_parts with label_libsvm: parts are made by bytes, so the two files' are not "
            "of the same lines; cut the files into one per part"
        )
    rows = Rows(TextPart(data_libsvm, num_parts, part_index, what), _parser(width[0]))
    labels = Rows(TextPart(label_libsvm, 1, 0, what), _parser(label_width[0])) if has_labels else None

    def csr(block: CsrRows, columns: int) -> CSRNDArray:
        return CSRNDArray(block.values, [block.indptr, block.indices], (size, columns), cpu())

    def convert(data: CsrRows, label: CsrRows | None) -> tuple[list[NDArray], list[NDArray]]:
        own = NDArray(data.labels, cpu()) if label is None else csr(label, label_width[0])
        return [csr(data, width[0])], [own]

    label_desc = DataDesc("softmax_label", (size, *label_width) if has_labels else (size,), np.float32)
    batches = RowBatches(
        what, rows, labels, size, True, convert, [DataDesc("data", (size, *width), np.float32)], [label_desc]
    )
    return MXDataIter(batches, data_name, label_name)


def _parser(width: int) -> Callable[[Chunk], CsrRows]:
    """Makes csr rows of a chunk of lines."""
    from dmod.io import text_kernels as kernels  # where numba is imported: only for those who read such files

    pieces = Pieces()
    label_room, index_room = Room(np.float32, KEPT_BLOCKS), Room(np.int64, KEPT_BLOCKS)
    room = Room(np.float32, KEPT_BLOCKS)

    def parse(chunk: Chunk) -> CsrRows:
        text = kernels.as_text(chunk.text)
        parts = pieces.of(chunk, text, kernels.count_byte)
        lines = [part.lines for part in parts]
        pairs = [int(kernels.count_byte(text, part.begin, part.end, ord(":"))) for part in parts]
        rows_at, pairs_at = ([sum(counts[:i]) for i in range(len(counts))] for counts in (lines, pairs))
        labels, indices, values = (
            label_room.take(sum(lines)),
            index_room.take(sum(pairs)),
            room.take(sum(pairs)),
        )
        arrays = [
            (labels[r : r + n], np.empty(n + 1, np.int64), indices[p : p + count], values[p : p + count])
            for r, n, p, count in zip(rows_at, lines, pairs_at, pairs, strict=True)
        ]
        parsers = [partial(_parse_piece, kernels.parse_libsvm, text, own, width) for own in arrays]
        results, hards = pieces.parse(parts, parsers)
        for found in results:
            if found.status != kernels.DONE:
                raise error_of(chunk, found)
        for (own_labels, _, _, own_values), hard in zip(arrays, hards, strict=True):
            for place, at in hard:
                number = kernels.exact_number(NUMBER.match(chunk.text, at)[0])
                (own_labels if place < 0 else own_values)[-1 - place if place < 0 else place] = number
        ends = [own[1][: found.rows + 1] for own, found in zip(arrays, results, strict=True)]
        rows, counts = [found.rows for found in results], [int(end[-1]) for end in ends]
        indptr = np.concatenate([[0], *(end[1:] + sum(counts[:i]) for i, end in enumerate(ends))])
        return CsrRows(
            joined(labels, rows_at, rows),
            indptr,
            joined(indices, pairs_at, counts),
            joined(values, pairs_at, counts),
        )

    def error_of(chunk: Chunk, found: Found) -> FormatError:
        shown = (bytes(chunk.text[found.position : min(found.position + 40, chunk.size)]).split() or [b""])[0]
        pair = shown.decode("utf-8", "replace")
        return chunk.error(
            found.position,
            {
                kernels.BAD_NUMBER: f"{pair!r}, expected a label and index:value pairs of numbers",
                kernels.OUT_OF_RANGE: f"{pair!r}: the index is not below {width}, the data_shape; do "
                "the file's indices begin at 1? MXNet's begin at 0",
                kernels.TWICE: f"{pair!r}: the line has this index already",
            }[found.status],
        )

    return parse


def _parse_piece(parse: Any, text: Any, arrays: Any, width: int, piece: Piece, hard: np.ndarray) -> Any:
    return parse(text, piece.begin, piece.end, *arrays, width, hard)
