"""MXNet's container of arrays (``.params``): read within bounds, written bit for bit.

The layout, all little-endian: uint64 0x112, uint64 0, uint64 count, the arrays, uint64 count, the
names (uint64 length, bytes). An array is uint32 0xF993FAC9, int32 storage type, int32 ndim, int64
dimensions, int32 device type, int32 device id, int32 dtype flag, data. Two older forms of an array
are read as well. Nothing is allocated that the file is not long enough to fill.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator

import numpy as np

from dmod.atomic_file import write_atomic
from dmod.base import FormatError, InvalidArgument

__all__ = ["DTYPE_FLAGS", "dump_arrays", "parse_arrays", "read_arrays", "write_arrays"]

LIST_MAGIC = 0x112
ARRAY_V1_MAGIC = 0xF993FAC8
ARRAY_V2_MAGIC = 0xF993FAC9
ARRAY_V3_MAGIC = 0xF993FACA

DTYPE_FLAGS = {
    "float32": 0,
    "float64": 1,
    "float16": 2,
    "uint8": 3,
    "int32": 4,
    "int8": 5,
    "int64": 6,
    "bool": 7,
    "int16": 8,
    "uint16": 9,
    "uint32": 10,
    "uint64": 11,
}
_DTYPES = {flag: np.dtype(name) for name, flag in DTYPE_FLAGS.items()}
_SPARSE = {1: "row_sparse", 2: "csr"}
_MAX_NDIM = 32


class _Cursor:
    """A position in a buffer; every read is checked against its end."""

    def __init__(self, data: memoryview, path: str):
        self.data, self.path, self.offset = data, path, 0

    def fail(self, message: str, offset: int | None = None) -> FormatError:
        at = self.offset if offset is None else offset
        return FormatError(f"{self.path}: {message} (at byte {at} of {len(self.data)})")

    def take(self, nbytes: int, what: str) -> memoryview:
        left = len(self.data) - self.offset
        if nbytes > left:
            raise self.fail(f"truncated: {what} needs {nbytes} bytes, {left} are left")
        part = self.data[self.offset : self.offset + nbytes]
        self.offset += nbytes
        return part

    def unpack(self, form: str, what: str) -> tuple[int, ...]:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form), what))

    def count(self, what: str, least_bytes: int) -> int:
        """A uint64 count of things that take at least `least_bytes` each."""
        (count,) = self.unpack("Q", what)
        if count * least_bytes > len(self.data) - self.offset:
            raise self.fail(f"{what} is {count}, more than the file can hold", self.offset - 8)
        return count


def _shape(cursor: _Cursor, ndim: int, code: str) -> tuple[int, ...]:
    if not 0 <= ndim <= _MAX_NDIM:
        raise cursor.fail(f"an array of {ndim} dimensions; at most {_MAX_NDIM} are possible")
    shape = cursor.unpack(f"{ndim}{code}", "a shape")
    if any(n < 0 for n in shape):
        raise cursor.fail(f"shape {shape} has a negative dimension")
    return shape


def _read_array(cursor: _Cursor) -> np.ndarray:
    start = cursor.offset
    (magic,) = cursor.unpack("I", "an array's header")
    if magic in (ARRAY_V2_MAGIC, ARRAY_V3_MAGIC):
        (stype,) = cursor.unpack("i", "the storage type")
        if stype in _SPARSE:
            raise cursor.fail(
                f"a {_SPARSE[stype]} array; this version of dmod reads dense arrays only", start
            )
        if stype != 0:
            raise cursor.fail(f"unknown storage type {stype}", start)
        shape = _shape(cursor, cursor.unpack("i", "the number of dimensions")[0], "q")
    elif magic == ARRAY_V1_MAGIC:
        shape = _shape(cursor, cursor.unpack("I", "the number of dimensions")[0], "q")
    elif magic <= _MAX_NDIM:  # before 0.12 the number of dimensions stood where the magic is now
        shape = _shape(cursor, magic, "I")
    else:
        raise cursor.fail(f"not an array: header {magic:#x}", start)
    if not shape and magic != ARRAY_V3_MAGIC:
        return np.empty((0,), np.float32)  # how MXNet writes an array that was never set
    _device_type, _device_id, flag = cursor.unpack("iii", "device and dtype")
    if flag not in _DTYPES:
        raise cursor.fail(f"unknown dtype flag {flag}", cursor.offset - 4)
    dtype = _DTYPES[flag]
    data = cursor.take(math.prod(shape) * dtype.itemsize, f"the data of an array of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def parse_arrays(data: bytes | memoryview, path: str = "buffer") -> tuple[list[np.ndarray], list[str]]:
    """Read a container from memory.

    Parameters
    ----------
    data : bytes-like
    path : str
        What error messages call it.

    Returns
    -------
    (arrays, names)
        `names` is empty for a file that holds a list.

    Raises
    ------
    FormatError
        With path and byte offset, if the data is not a whole, valid container.
    """
    cursor = _Cursor(memoryview(data).cast("B"), path)
    if len(cursor.data) == 0:
        raise FormatError(f"{path}: the file is empty")
    magic, _reserved = cursor.unpack("QQ", "the header")
    if magic != LIST_MAGIC:
        raise FormatError(
            f"{path}: not a file of arrays: it starts with {magic:#x}, expected {LIST_MAGIC:#x}"
        )
    arrays = [_read_array(cursor) for _ in range(cursor.count("the number of arrays", 4))]
    names = []
    for _ in range(cursor.count("the number of names", 8)):
        raw = cursor.take(cursor.count("the length of a name", 1), "a name")
        try:
            names.append(bytes(raw).decode())
        except UnicodeDecodeError:
            raise cursor.fail("a name that is not UTF-8") from None
    if names and len(names) != len(arrays):
        raise cursor.fail(f"{len(arrays)} arrays but {len(names)} names")
    if cursor.offset != len(cursor.data):
        raise cursor.fail(f"{len(cursor.data) - cursor.offset} bytes follow the end")
    return arrays, names


def read_arrays(path: str | os.PathLike[str]) -> tuple[list[np.ndarray], list[str]]:
    """Read a container from the file `path`; see `parse_arrays`."""
    with open(path, "rb") as file:
        return parse_arrays(file.read(), os.fspath(path))


def dump_arrays(arrays: list[np.ndarray], names: list[str]) -> Iterator[bytes | memoryview]:
    """The container of `arrays`, in chunks; `names` is empty or as long as `arrays`."""
    yield struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays))
    for array in arrays:
        if array.dtype.name not in DTYPE_FLAGS:
            raise InvalidArgument(f"save: dtype {array.dtype} has no place in MXNet's file format")
        if array.ndim == 0:
            raise InvalidArgument("save: a 0-dimensional array has no place in the file; reshape it to (1,)")
        head = struct.pack("<Iii", ARRAY_V2_MAGIC, 0, array.ndim)
        tail = struct.pack(f"<{array.ndim}qiii", *array.shape, 1, 0, DTYPE_FLAGS[array.dtype.name])
        yield head + tail
        yield np.ascontiguousarray(array).data.cast("B") if array.size else b""
    yield struct.pack("<Q", len(names))
    for name in names:
        raw = name.encode()
        yield struct.pack("<Q", len(raw)) + raw


def write_arrays(path: str | os.PathLike[str], arrays: list[np.ndarray], names: list[str]) -> None:
    """Write a container to the file `path`, whole or not at all."""
    write_atomic(path, dump_arrays(arrays, names))
