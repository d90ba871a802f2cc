"""A part of text files, in chunks of whole lines; the parts are those that MXNet reads.

All files of a list or directory count as one run of bytes. A part begins with the first line that begins
after its share of the bytes does, so that every line is in exactly one part.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from dmod.base import FormatError, InvalidArgument, MXNetError

__all__ = ["CHUNK_BYTES", "PADDING", "Chunk", "TextPart", "check_part"]

CHUNK_BYTES = 1 << 22
"""How much is read and parsed at a time; a longer line is read whole all the same."""
PADDING = b"\n" * 8
"""What follows the lines of a chunk: so the last one ends, and eight bytes can be read from any place."""
_NEWLINES = b"\r\n"


@dataclass(frozen=True)
class Chunk:
    """Some lines of a file; they stay in memory until the next ones are read.

    Attributes
    ----------
    text : bytearray
        The lines, and after them `PADDING` and other bytes.
    size : int
        How many bytes the lines have.
    path : str
    offset : int
        Where in the file they begin, bytes.
    next : int
        Where the next chunk begins, in bytes from the beginning of the first file.
    """

    text: bytearray
    size: int
    path: str
    offset: int
    next: int

    def error(self, position: int, message: str) -> FormatError:
        """An error about what stands at `position` of `text`; it names the line."""
        try:
            with open(self.path, "rb") as file:
                lines = _count_lines(file.read(self.offset + position))
        except OSError:  # it is gone by now
            return FormatError(f"{self.path}, byte {self.offset + position}: {message}")
        return FormatError(f"{self.path}, line {lines + 1}: {message}")


def _last_end(text: bytearray, end: int) -> int:
    """Where the last line before `end` ends; -1 if none does."""
    near = max(0, end - (1 << 12))  # in most files it is here, and a search for what isn't takes long
    cut = max(text.rfind(b"\n", near, end), text.rfind(b"\r", near, end))
    return cut if cut >= 0 else max(text.rfind(b"\n", 0, end), text.rfind(b"\r", 0, end))


def _count_lines(text: bytes) -> int:
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


def check_part(what: str, num_parts: int, part_index: int) -> None:
    """Refuse parts that there cannot be.

    Raises
    ------
    InvalidArgument
    """
    if num_parts < 1 or not 0 <= part_index < num_parts:
        raise InvalidArgument(
            f"{what}: part_index={part_index} of num_parts={num_parts}, expected 0 <= part_index < num_parts"
        )


class TextPart:
    """One of `num_parts` parts of the lines of some files.

    Parameters
    ----------
    uri : str
        A file, a directory (all files in it, by name), or several of them with ``;`` between them.
    num_parts, part_index : int
    what : str
        Who reads, for errors.

    Raises
    ------
    MXNetError
        There is no such file.
    FormatError
        The files are empty.
    """

    def __init__(self, uri: str, num_parts: int, part_index: int, what: str):
        self.what = what
        self.uri = uri
        self._text = bytearray()
        check_part(what, num_parts, part_index)
        self._paths, self._sizes = _files(uri, what)
        self._starts = [sum(self._sizes[:i]) for i in range(len(self._sizes))]
        total = sum(self._sizes)
        if total == 0:
            raise FormatError(f"{what}: {uri} is empty")
        step = -(-total // num_parts)
        self.begin = self._line_begin(min(step * part_index, total))
        self.end = self._line_begin(min(step * (part_index + 1), total))

    def read(self, position: int) -> Chunk | None:
        """The chunk that begins at `position`; None at the end of the part.

        Raises
        ------
        MXNetError
            The file is gone, or cannot be read.
        FormatError
            It is shorter than it was.
        """
        if position >= self.end:
            return None
        path, offset, file_end = self._place(position)
        stop = min(file_end, self.end)
        wanted = min(CHUNK_BYTES, stop - position)
        self._read(path, offset, 0, wanted)
        size = wanted
        if position + wanted < stop:
            cut = _last_end(self._text, size)
            while cut < 0 and position + size < stop:  # a line longer than a chunk
                more = min(CHUNK_BYTES, stop - position - size)
                self._read(path, offset + size, size, more)
                found = [self._text.find(end, size, size + more) for end in (b"\n", b"\r")]
                cut = min((at for at in found if at >= 0), default=-1)
                size += more
            if cut >= 0:
                size = cut + 1
        if offset == 0 and self._text.startswith(b"\xef\xbb\xbf"):
            self._text[:3] = b"   "  # a byte order mark
        self._text[size : size + len(PADDING)] = PADDING
        return Chunk(self._text, size, path, offset, position + size)

    def _read(self, path: str, offset: int, at: int, count: int) -> None:
        """Bytes of a file to a place of `_text`, with room behind them."""
        if at + count + len(PADDING) > len(self._text):  # not in place: others may look at the old one
            self._text = self._text[:at] + bytes(count + len(PADDING))
        with memoryview(self._text) as text:
            self._fill(path, offset, text[at : at + count])

    def _place(self, position: int) -> tuple[str, int, int]:
        """The file that has `position`, where in it that is, and where the file ends."""
        for path, start, size in zip(self._paths, self._starts, self._sizes, strict=True):
            if position < start + size:
                return path, position - start, start + size
        raise AssertionError(position)

    def _line_begin(self, position: int) -> int:
        """Where the first line begins after `position`; `position` if a file begins or all end there."""
        if position in self._starts or position == sum(self._sizes):
            return position
        path, offset, file_end = self._place(position)
        in_line = True
        while position < file_end:
            text = self._bytes(path, offset, min(1 << 16, file_end - position))
            for byte in text:
                if byte in _NEWLINES:
                    in_line = False
                elif not in_line:
                    return position
                position += 1
            offset += len(text)
        return position

    def _bytes(self, path: str, offset: int, count: int) -> bytes:
        text = bytearray(count)
        self._fill(path, offset, memoryview(text))
        return bytes(text)

    def _fill(self, path: str, offset: int, text: memoryview) -> None:
        """Read as many bytes of a file as there is room for."""
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                count = file.readinto(text)
                size = os.fstat(file.fileno()).st_size
        except OSError as error:
            raise MXNetError(f"{self.what}: cannot read {path}: {error.strerror or error}") from error
        if count < len(text):
            raise FormatError(
                f"{self.what}: {path} ends at byte {size}, it was longer when it was opened; "
                "is it being written?"
            )


def _files(uri: str, what: str) -> tuple[list[str], list[int]]:
    """The paths and sizes in bytes of the files that are not empty."""
    paths: list[str] = []
    for part in filter(None, uri.split(";")):
        try:
            inside: Sequence[str] = sorted(os.listdir(part)) if os.path.isdir(part) else ()
        except OSError as error:
            raise MXNetError(f"{what}: cannot read {part}: {error.strerror or error}") from error
        names = [os.path.join(part, name) for name in inside] if os.path.isdir(part) else [part]
        paths += [name for name in names if name == part or os.path.isfile(name)]
    if not paths:
        raise MXNetError(f"{what}: there are no files in {uri!r}")
    sizes = []
    for path in paths:
        try:
            sizes.append(os.stat(path).st_size)
        except OSError as error:
            raise MXNetError(f"{what}: cannot read {path}: {error.strerror or error}") from error
    found = [(path, size) for path, size in zip(paths, sizes, strict=True) if size]
    return [path for path, _ in found], [size for _, size in found]
