"""How records lie in a file.

A record is a magic number, a length with three flag bits, the payload, and zeros up to a multiple of four. A
payload that holds the magic number at a multiple of four is cut there into parts, and the number itself left
out, so that a reader may look for the next record from anywhere in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from dmod.base import FormatError, InvalidArgument

__all__ = [
    "FIRST",
    "HEAD",
    "LAST",
    "MAGIC",
    "MIDDLE",
    "WHOLE",
    "framed",
    "parse_head",
    "read_index",
    "read_record",
]

MAGIC = struct.pack("<I", 0xCED7230A)
HEAD = struct.Struct("<4sI")
# The flag in the upper three bits of the length: a record that is whole, or which part of one it is.
WHOLE, FIRST, MIDDLE, LAST = range(4)
MAX_LENGTH = (1 << 29) - 1


def framed(payload: bytes) -> Iterator[bytes]:
    """The bytes of one record of a file.

    Raises
    ------
    InvalidArgument
        The payload has 2**29 bytes or more, which the format cannot say.
    """
    if len(payload) > MAX_LENGTH:
        raise InvalidArgument(
            f"record of {len(payload)} bytes: the format holds at most {MAX_LENGTH}; cut it into several"
        )
    parts = _parts(payload)
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        flag = (WHOLE if last else FIRST) if i == 0 else (LAST if last else MIDDLE)
        yield HEAD.pack(MAGIC, flag << 29 | len(part))
        yield part
        yield bytes(-len(part) % 4)


def _parts(payload: bytes) -> list[bytes]:
    """The payload, cut where the magic number stands at a multiple of four."""
    parts, start, found = [], 0, payload.find(MAGIC)
    while found >= 0:
        if found % 4:
            found = payload.find(MAGIC, found + 1)
            continue
        parts.append(payload[start:found])
        start = found + 4
        found = payload.find(MAGIC, start)
    return [*parts, payload[start:]]


def read_record(read: Any, where: str, position: int) -> tuple[bytes, int] | None:
    """The payload of the record at `position`, and the position after it; None at the end of the file.

    Parameters
    ----------
    read : callable
        ``read(count, position)`` gives up to `count` bytes from there.
    where : str
        The file's name, for messages.
    position : int

    Raises
    ------
    FormatError
        No record begins there, or the file ends within it; the message has file and offset.
    """
    parts: list[bytes] = []
    start = position
    while True:
        head = read(HEAD.size, position)
        if not head and not parts:
            return None
        flag, length = parse_head(head, where, position)
        if (flag in (WHOLE, FIRST)) != (not parts):
            raise FormatError(f"{where}, offset {position}: part {flag} of a record out of its order")
        part = read(length, position + HEAD.size)
        if len(part) < length:
            raise FormatError(
                f"{where}, offset {start}: the record has {length} bytes from {position + HEAD.size}, "
                f"the file only {len(part)}; it is truncated"
            )
        parts.append(part)
        position += HEAD.size + length + (-length % 4)
        if flag in (WHOLE, LAST):
            return (part if len(parts) == 1 else MAGIC.join(parts)), position


def parse_head(head: bytes, where: str, position: int) -> tuple[int, int]:
    """The flag and the length in the head of a record, or of a part."""
    if len(head) < HEAD.size:
        raise FormatError(f"{where}, offset {position}: the file ends within a record; it is truncated")
    magic, length = HEAD.unpack_from(head)
    flag = length >> 29
    if magic != MAGIC or flag > LAST:
        raise FormatError(
            f"{where}, offset {position}: expected the head of a record (0a23d7ce ...), got "
            f"{head[: HEAD.size].hex()}"
        )
    return flag, length & MAX_LENGTH


def read_index(path: str, key_type: Any = int) -> Iterator[tuple[Any, int]]:
    """Keys and offsets of an index file.

    Raises
    ------
    FormatError
        A line is not a key, a tab and an offset; the message has file and line.
    """
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            key, tab, offset = line.rstrip("\r\n").rpartition("\t")
            try:
                if not tab or int(offset) < 0:
                    raise ValueError
                yield key_type(key), int(offset)
            except ValueError:
                raise FormatError(
                    f"{path}, line {number}: expected a key, a tab and an offset, got {line.rstrip()[:80]!r}"
                ) from None
