"""`MXRecordIO` and `MXIndexedRecordIO`: files of records, read one after the other or by key."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, TextIO

from dmod.base import FormatError, InvalidArgument, MXNetError, NotReadyError
from dmod.recordio.framing import framed, read_index, read_record

__all__ = ["MXIndexedRecordIO", "MXRecordIO"]


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
