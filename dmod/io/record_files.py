"""Where the records of a part of one or several record files lie, and their payloads.

Files are read by position from one open file each, so any number of threads may read. It knows nothing of
what a record holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dmod.base import FormatError, InvalidArgument, MXNetError
from dmod.recordio.framing import FIRST, HEAD, LAST, MAGIC, WHOLE, parse_head, read_index, read_record

__all__ = ["RecordFiles"]

_BLOCK = 1 << 16  # bytes read at once while looking for the next head


class RecordFiles:
    """The records of part `part_index` of `num_parts` of some record files.

    With an index the records are shared out by number; else the files' bytes are, a record belonging to the
    part in which it begins, as MXNet does both.

    Parameters
    ----------
    path : str
        A record file, several with ``;`` between them, or a directory of them.
    index_path : str
        The index of a single file, or ''. Without one, the heads of the part's records are read once.
    num_parts, part_index : int
    name : str
        Who reads, for messages.

    Attributes
    ----------
    sizes : numpy.ndarray of int64
        Bytes of each record, the head included.

    Raises
    ------
    MXNetError
        A file cannot be opened.
    FormatError
        A file or its index is broken; the message has file and offset.
    InvalidArgument
        There is no such part, or it has no records.
    """

    def __init__(
        self, path: str, index_path: str = "", num_parts: int = 1, part_index: int = 0, name: str = ""
    ):
        if num_parts < 1 or not 0 <= part_index < num_parts:
            raise InvalidArgument(
                f"{name}: part_index={part_index} of num_parts={num_parts}, expected 0 to num_parts - 1"
            )
        self.name = name
        self.paths = _paths(path, name)
        self.index_path = index_path
        self._files = [_open(p, name) for p in self.paths]
        self.file_sizes = [os.fstat(f).st_size for f in self._files]
        try:
            if index_path:
                found = list(self._indexed(num_parts, part_index))
            else:
                found = list(self._scanned(num_parts, part_index))
        except BaseException:
            self.close()
            raise
        if not found:
            self.close()
            raise InvalidArgument(
                f"{name}: no records in part {part_index} of {num_parts} of {', '.join(self.paths)}"
            )
        places = np.array(found, np.int64)
        self._file_of, self._offsets, self.sizes = (np.ascontiguousarray(places[:, i]) for i in range(3))

    def __len__(self) -> int:
        return len(self._offsets)

    def close(self) -> None:
        """Close the files; nothing can be read any more."""
        files, self._files = self._files, []
        for file in files:
            os.close(file)

    def __del__(self) -> None:
        if getattr(self, "_files", None):
            self.close()

    def where(self, record: int) -> str:
        """File and offset of a record, for messages."""
        return f"{self.paths[self._file_of[record]]}, offset {self._offsets[record]}"

    def read(self, record: int) -> bytes:
        """The payload of a record.

        Raises
        ------
        FormatError
            The file has no record there, or ends within it.
        """
        which, offset = int(self._file_of[record]), int(self._offsets[record])
        path, file, size = self.paths[which], self._files[which], int(self.sizes[record])
        try:
            whole = os.pread(file, size, offset)
            if len(whole) == size and size >= HEAD.size:
                flag, length = parse_head(whole, path, offset)
                if flag == WHOLE and HEAD.size + length <= size:
                    return whole[HEAD.size : HEAD.size + length]
            found = read_record(lambda count, at: os.pread(file, count, at), path, offset)
        except OSError as error:
            raise MXNetError(f"{self.name}: {path}, offset {offset}: {error.strerror}") from error
        except FormatError as error:
            raise self._blamed(error) from None
        if found is None:
            raise self._blamed(FormatError(f"{path}, offset {offset}: the file ends before this record"))
        return found[0]

    def first_bytes(self, record: int, count: int) -> bytes:
        """The first `count` bytes of a payload, or all of it: a cheap look at what precedes the picture."""
        which, offset = int(self._file_of[record]), int(self._offsets[record])
        try:
            start = os.pread(self._files[which], min(HEAD.size + count, int(self.sizes[record])), offset)
        except OSError:
            return self.read(record)  # which says what is wrong
        if len(start) == HEAD.size + count and start.startswith(MAGIC):
            flag, length = parse_head(start, self.paths[which], offset)
            if flag == WHOLE and length > count:
                return start[HEAD.size :]
        return self.read(record)

    def _blamed(self, error: FormatError) -> FormatError:
        """The error, with the index that may be to blame."""
        if not self.index_path:
            return FormatError(f"{self.name}: {error}")
        return FormatError(f"{self.name}: {error}; does the index {self.index_path} belong to this file?")

    # ---- where records lie: (file, offset, size)

    def _indexed(self, num_parts: int, part_index: int) -> Iterator[tuple[int, int, int]]:
        if len(self.paths) != 1:
            raise InvalidArgument(
                f"{self.name}: an index for {len(self.paths)} record files; it can be for one"
            )
        try:
            offsets = np.array([offset for _, offset in read_index(self.index_path, str)], np.int64)
        except OSError as error:
            raise MXNetError(f"{self.name}: {self.index_path}: {error.strerror}") from error
        if not len(offsets):
            raise FormatError(
                f"{self.name}: {self.index_path} is empty; make it with dmod-im2rec, or leave it out"
            )
        end = self.file_sizes[0]
        if offsets.max() >= end:
            raise FormatError(
                f"{self.name}: {self.index_path} has a record at offset {offsets.max()}, {self.paths[0]} "
                "only "
                f"{end} bytes; the index does not fit the file"
            )
        ends = np.append(np.unique(offsets), end)
        sizes = ends[np.searchsorted(ends, offsets, "right")] - offsets
        share = -(-len(offsets) // num_parts)
        mine = slice(share * part_index, share * (part_index + 1))
        yield from ((0, int(o), int(s)) for o, s in zip(offsets[mine], sizes[mine], strict=True))

    def _scanned(self, num_parts: int, part_index: int) -> Iterator[tuple[int, int, int]]:
        total = sum(self.file_sizes)
        step = -(-total // num_parts)
        step += -step % 4
        begin, end = min(step * part_index, total), min(step * (part_index + 1), total)
        before = 0
        for which, (file, size) in enumerate(zip(self._files, self.file_sizes, strict=True)):
            low, high = max(begin - before, 0), min(end - before, size)
            before += size
            if low < high:
                start = low if low == 0 else self._next_head(which, low)
                yield from self._heads(which, file, start, high)

    def _heads(self, which: int, file: int, position: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The records that begin from `position` on and before `stop`."""
        path, size = self.paths[which], self.file_sizes[which]
        while position < stop:
            start, flag = position, FIRST
            while flag not in (WHOLE, LAST):
                flag, length = parse_head(
                    os.pread(file, HEAD.size, position), f"{self.name}: {path}", position
                )
                position += HEAD.size + length + (-length % 4)
                if position > size + 3:
                    raise FormatError(
                        f"{self.name}: {path}, offset {start}: the record ends at {position}, the file "
                        f"at {size}; "
                        "it is truncated"
                    )
            yield which, start, min(position, size) - start

    def _next_head(self, which: int, position: int) -> int:
        """The offset of the first record that begins at `position` or later; the file's size if none does.

        The magic number stands nowhere else at a multiple of four: payloads that hold it are cut there.
        """
        position += -position % 4
        file, size = self._files[which], self.file_sizes[which]
        while position < size:
            block = os.pread(file, _BLOCK + HEAD.size, position)
            found = block.find(MAGIC)
            while 0 <= found < _BLOCK:
                if found % 4 == 0 and len(block) - found >= HEAD.size:
                    flag, _ = parse_head(
                        block[found : found + HEAD.size], self.paths[which], position + found
                    )
                    if flag in (WHOLE, FIRST):
                        return position + found
                found = block.find(MAGIC, found + 1)
            position += _BLOCK
        return size


def _paths(path: str, name: str) -> list[str]:
    if not path:
        raise InvalidArgument(f"{name}: path_imgrec is missing; make a record file with dmod-im2rec")
    found: list[str] = []
    for piece in path.split(";"):
        if os.path.isdir(piece):
            found.extend(sorted(str(p) for p in Path(piece).iterdir() if p.suffix == ".rec"))
        elif piece:
            found.append(piece)
    if not found:
        raise InvalidArgument(f"{name}: no .rec file in the directory {path}")
    return found


def _open(path: str, name: str) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise MXNetError(f"{name}: {path}: {error.strerror}") from error
    if os.fstat(file).st_size == 0:
        os.close(file)
        raise FormatError(f"{name}: {path} is empty, expected records")
    return file
