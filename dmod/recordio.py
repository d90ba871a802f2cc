"""``mx.recordio``: files of records, as MXNet writes and reads them.

A record is a magic number, a length with three flag bits, the payload, and zeros up to a multiple of four. A
payload that holds the magic number at a multiple of four is cut there into parts, and the number itself left
out, so that a reader may look for the next record from anywhere in the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np

from dmod.base import FormatError, InvalidArgument, MXNetError, NotReadyError

__all__ = [
    "IRHeader",
    "MXIndexedRecordIO",
    "MXRecordIO",
    "pack",
    "pack_img",
    "unpack",
    "unpack_img",
]

MAGIC = struct.pack("<I", 0xCED7230A)
HEAD = struct.Struct("<4sI")
# The flag in the upper three bits of the length: a record that is whole, or which part of one it is.
WHOLE, FIRST, MIDDLE, LAST = range(4)
MAX_LENGTH = (1 << 29) - 1
_LABELLED = struct.Struct("<IfQQ")
_JPEG_FORMATS = (".jpg", ".jpeg")


def opencv() -> ModuleType:
    """OpenCV, which decodes and encodes pictures here as it does in MXNet.

    Raises
    ------
    MXNetError
        It is not installed; the message says how to install it.
    """
    try:
        import cv2
    except ImportError as error:
        raise MXNetError(
            f"pictures need OpenCV ({error}); install it with: pip install dmod[image]"
        ) from None
    return cv2


# ---- framing


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


# ---- files


class MXRecordIO:
    """Reads or writes records one after the other.

    Parameters
    ----------
    uri : str
        Path of the file.
    flag : {'r', 'w'}

    Raises
    ------
    MXNetError
        The file cannot be opened.

    Examples
    --------
    >>> import tempfile
    >>> path = tempfile.mkdtemp() + '/a.rec'
    >>> record = MXRecordIO(path, 'w')
    >>> record.write(b'first')
    >>> record.close()
    >>> record = MXRecordIO(path, 'r')
    >>> record.read(), record.read()
    (b'first', None)
    >>> record.close()
    """

    def __init__(self, uri: str, flag: str):
        self.uri = os.fspath(uri)
        self.flag = flag
        self.is_open = False
        self.writable = False
        self.pid: int | None = None
        self._file: BinaryIO | None = None
        self._position = 0
        self.open()

    def open(self) -> None:
        """Open the file; one that is written becomes empty."""
        if self.flag not in ("r", "w"):
            raise InvalidArgument(f"Invalid flag {self.flag}: expected 'r' or 'w'")
        self.writable = self.flag == "w"
        try:
            self._file = open(self.uri, "wb" if self.writable else "rb")  # noqa: SIM115  (close() closes it)
        except OSError as error:
            raise MXNetError(f"{self.uri}: {error.strerror}") from error
        self._position = 0
        self.pid = os.getpid()
        self.is_open = True

    def close(self) -> None:
        """Close the file; what was written is then in it."""
        if self._file is None:
            return
        file, self._file = self._file, None
        self.is_open = False
        self.pid = None
        file.close()

    def reset(self) -> None:
        """Go to the first record; a file that is written becomes empty."""
        self.close()
        self.open()

    def write(self, buf: bytes) -> None:
        """Append a record with the payload `buf`."""
        file = self._usable(True, "write()")
        if not isinstance(buf, (bytes, bytearray, memoryview)):
            raise TypeError(f"{self.uri}: write() needs bytes, got {type(buf).__name__}")
        for chunk in framed(bytes(buf)):
            file.write(chunk)
            self._position += len(chunk)

    def read(self) -> bytes | None:
        """The next record's payload; None after the last."""
        file = self._usable(False, "read()")

        def at(count: int, position: int) -> bytes:
            if file.tell() != position:
                file.seek(position)
            return file.read(count)

        found = read_record(at, self.uri, self._position)
        if found is None:
            return None
        payload, self._position = found
        return payload

    def _usable(self, writing: bool, what: str) -> BinaryIO:
        """The open file, if this process opened it for that use."""
        if self._file is None:
            raise NotReadyError(f"{self.uri}: {what} after close(); open() or reset() opens it again")
        if self.writable != writing:
            needed = "w" if writing else "r"
            raise NotReadyError(f"{self.uri}: {what}, but opened with {self.flag!r}; open it with {needed!r}")
        if self.pid != os.getpid():
            # A file's position is shared with the parent: both would read at wrong places.
            raise NotReadyError(
                f"{self.uri}: {what} in a process forked from the one that opened it; call reset() first"
            )
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        if self.writable and self.is_open:
            raise NotReadyError(f"{self.uri}: open for writing, which a pickled copy would empty; close() it")
        return {**vars(self), "_file": None, "pid": None}

    def __setstate__(self, d: dict[str, Any]) -> None:
        vars(self).update(d)
        if self.is_open:
            self.open()

    def __del__(self) -> None:
        # Attributes may be missing if the constructor failed.
        if getattr(self, "_file", None) is not None:
            self.close()


class MXIndexedRecordIO(MXRecordIO):
    """Reads or writes records by key, with an index file of lines ``key <tab> offset``.

    Parameters
    ----------
    idx_path : str
        Path of the index.
    uri : str
        Path of the record file.
    flag : {'r', 'w'}
    key_type : type
        What makes a key of a piece of text.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> record = MXIndexedRecordIO(folder + '/a.idx', folder + '/a.rec', 'w')
    >>> record.write_idx(7, b'seven')
    >>> record.close()
    >>> record = MXIndexedRecordIO(folder + '/a.idx', folder + '/a.rec', 'r')
    >>> record.keys, record.read_idx(7)
    ([7], b'seven')
    >>> record.close()
    """

    def __init__(self, idx_path: str, uri: str, flag: str, key_type: Any = int):
        self.idx_path = os.fspath(idx_path)
        self.key_type = key_type
        self.idx: dict[Any, int] = {}
        self.keys: list[Any] = []
        self.fidx: TextIO | None = None
        super().__init__(uri, flag)

    def open(self) -> None:
        """Open both files."""
        super().open()
        self.idx, self.keys = {}, []
        try:
            if self.writable:
                self.fidx = open(self.idx_path, "w", encoding="utf-8")  # noqa: SIM115
                return
            for key, offset in read_index(self.idx_path, self.key_type):
                self.idx[key] = offset
                self.keys.append(key)
        except OSError as error:
            super().close()
            raise MXNetError(f"{self.idx_path}: {error.strerror}") from error
        except BaseException:
            super().close()
            raise

    def close(self) -> None:
        """Close both files."""
        super().close()
        if self.fidx is not None:
            self.fidx.close()
            self.fidx = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "fidx": None}

    def seek(self, idx: Any) -> None:
        """Go to the record with the key `idx`."""
        if self.is_open and not self.writable and self.pid != os.getpid():
            self.reset()  # where the next read begins is said below
        self._usable(False, "seek()")
        if idx not in self.idx:
            raise KeyError(f"{self.idx_path}: no key {idx!r} among its {len(self.idx)}")
        self._position = self.idx[idx]

    def tell(self) -> int:
        """The offset at which the next record will be written."""
        self._usable(True, "tell()")
        return self._position

    def read_idx(self, idx: Any) -> bytes:
        """The payload of the record with the key `idx`.

        Raises
        ------
        KeyError
            The index has no such key.
        FormatError
            The file has no record where the index says.
        """
        self.seek(idx)
        payload = self.read()
        if payload is None:
            raise FormatError(
                f"{self.uri}: ends at or before offset {self.idx[idx]}, where {self.idx_path} has the record "
                f"{idx!r}; the index does not fit the file"
            )
        return payload

    def write_idx(self, idx: Any, buf: bytes) -> None:
        """Append a record under the key `idx`."""
        key = self.key_type(idx)
        position = self.tell()
        self.write(buf)
        assert self.fidx is not None  # open whenever the record file is open for writing
        self.fidx.write(f"{key}\t{position}\n")
        self.idx[key] = position
        self.keys.append(key)


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


# ---- labelled records


class IRHeader(NamedTuple):
    """What stands before the picture in a record.

    Attributes
    ----------
    flag : int
        How many labels there are beyond the one in the header: 0, or the length of the array.
    label : float or array of float32
    id : int
        The picture's number, up to 2**64 - 1.
    id2 : int
    """

    flag: int
    label: Any
    id: int
    id2: int


def pack(header: IRHeader, s: bytes) -> bytes:
    """The payload of a record with `header` and the bytes `s`.

    Examples
    --------
    >>> header, s = unpack(pack(IRHeader(0, [1, 2], 2574, 0), b'picture'))
    >>> header.label.tolist(), header.id, s
    ([1.0, 2.0], 2574, b'picture')
    """
    header = IRHeader(*header)
    labels = b""
    if isinstance(header.label, (int, float, np.number)):
        flag, first = 0, float(header.label)
    else:
        array = np.asarray(header.label, dtype="<f4")
        flag, first, labels = array.size, 0.0, array.tobytes()
    try:
        head = _LABELLED.pack(flag, first, int(header.id), int(header.id2))
    except struct.error:
        raise InvalidArgument(
            f"IRHeader: id={header.id}, id2={header.id2}: expected whole numbers from 0 to 2**64 - 1"
        ) from None
    if not isinstance(s, (bytes, bytearray, memoryview)):
        raise TypeError(f"pack() needs bytes, got {type(s).__name__}")
    return head + labels + bytes(s)


def unpack(s: bytes) -> tuple[IRHeader, bytes]:
    """The header and the remaining bytes of a record's payload.

    Raises
    ------
    FormatError
        `s` is shorter than a header with its labels.
    """
    if len(s) < _LABELLED.size:
        raise FormatError(f"record of {len(s)} bytes: an IRHeader takes {_LABELLED.size}")
    flag, label, number, number2 = _LABELLED.unpack_from(s)
    if not flag:
        return IRHeader(0, label, number, number2), s[_LABELLED.size :]
    end = _LABELLED.size + 4 * flag
    if len(s) < end:
        raise FormatError(f"record of {len(s)} bytes: an IRHeader with {flag} labels takes {end}")
    labels = np.frombuffer(s, "<f4", flag, _LABELLED.size).copy()
    return IRHeader(flag, labels, number, number2), s[end:]


def pack_img(header: IRHeader, img: np.ndarray, quality: int = 95, img_fmt: str = ".jpg") -> bytes:
    """The payload of a record with a picture.

    Parameters
    ----------
    header : IRHeader
    img : numpy.ndarray
        Of shape (height, width) or (height, width, channels), uint8, channels in OpenCV's order (blue first).
    quality : int
        For JPEG 1 to 100, for PNG the compression, 1 to 9.
    img_fmt : str
        '.jpg', '.png' or another ending that OpenCV knows.
    """
    cv2 = opencv()
    parameters: list[int] = []
    if img_fmt.lower() in _JPEG_FORMATS:
        parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    elif img_fmt.lower() == ".png":
        parameters = [cv2.IMWRITE_PNG_COMPRESSION, quality]
    try:
        done, encoded = cv2.imencode(img_fmt, img, parameters)
    except cv2.error as error:
        raise InvalidArgument(f"pack_img: no {img_fmt!r} picture can be made of this: {error}") from None
    if not done:
        raise InvalidArgument(f"pack_img: OpenCV could not encode the picture as {img_fmt!r}")
    return pack(header, encoded.tobytes())


def unpack_img(s: bytes, iscolor: int = -1) -> tuple[IRHeader, np.ndarray]:
    """The header and the decoded picture of a record's payload.

    Parameters
    ----------
    s : bytes
    iscolor : int
        1 for colour, 0 for grey, -1 for what the picture is.

    Returns
    -------
    header : IRHeader
    img : numpy.ndarray
        uint8, of shape (height, width[, channels]), channels in OpenCV's order (blue first).

    Raises
    ------
    FormatError
        The bytes after the header are no picture that OpenCV can decode.
    """
    header, encoded = unpack(s)
    img = opencv().imdecode(np.frombuffer(encoded, np.uint8), iscolor) if encoded else None
    if img is None:
        raise FormatError(f"record with id {header.id}: its {len(encoded)} bytes are no picture")
    return header, img
