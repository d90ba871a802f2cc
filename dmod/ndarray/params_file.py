"""MXNet's container of arrays (``.params``): read within bounds, written bit for bit.

The layout, all little-endian: uint64 0x112, uint64 0, uint64 count, the arrays, uint64 count, the
names (uint64 length, bytes). An array is uint32 0xF993FAC9, int32 storage type, int32 ndim, int64
dimensions, int32 device type, int32 device id, int32 dtype flag, data. A sparse one has the shape of
its stored values before its own, dtype flag and shape of each index array after its dtype, and the index
arrays after its data. Two older forms of a dense array are read as well. Nothing is allocated that the
file is not long enough to fill.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dmod.atomic_file import write_atomic
from dmod.base import FormatError, InvalidArgument

__all__ = ["DTYPE_FLAGS", "Stored", "dump_arrays", "parse_arrays", "read_arrays", "write_arrays"]

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
_AUX_COUNT = {"row_sparse": 1, "csr": 2}
_MAX_NDIM = 32


@dataclass(frozen=True)
class Stored:
    """A sparse array as the file has it.

    Attributes
    ----------
    stype : {'row_sparse', 'csr'}
    shape : tuple of int
    data : ndarray
        The stored values.
    aux : list of ndarray
        row_sparse: the numbers of the stored rows. csr: where each row begins, and the columns.
    """

    stype: str
    shape: tuple[int, ...]
    data: np.ndarray
    aux: Sequence[np.ndarray]

    def problem(self) -> str:
        """What is wrong with the indices; empty if nothing is."""
        if self.stype == "row_sparse":
            rows = self.aux[0]
            if self.data.shape[1:] != self.shape[1:] or rows.shape != self.data.shape[:1]:
                return f"values {self.data.shape} and indices {rows.shape} do not fit shape {self.shape}"
            return "" if _within(rows, self.shape[0]) else f"row indices are not below {self.shape[0]}"
        indptr, columns = self.aux
        if len(self.shape) != 2 or self.data.shape != columns.shape or indptr.shape != (self.shape[0] + 1,):
            return f"values {self.data.shape}, indptr {indptr.shape} do not fit shape {self.shape}"
        if indptr[0] != 0 or indptr[-1] != columns.size or (np.diff(indptr) < 0).any():
            return f"indptr does not rise from 0 to {columns.size}"
        return "" if _within(columns, self.shape[1]) else f"column indices are not below {self.shape[1]}"


def _within(indices: np.ndarray, length: int) -> bool:
    return not indices.size or (int(indices.min()) >= 0 and int(indices.max()) < length)


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


def _read_array(cursor: _Cursor) -> np.ndarray | Stored:
    start = cursor.offset
    (magic,) = cursor.unpack("I", "an array's header")
    if magic in (ARRAY_V2_MAGIC, ARRAY_V3_MAGIC):
        (stype,) = cursor.unpack("i", "the storage type")
        if stype in _SPARSE:
            return _read_sparse(cursor, _SPARSE[stype], start)
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
    cursor.unpack("ii", "the device")
    return _values(cursor, shape, _dtype(cursor))


def _dtype(cursor: _Cursor) -> np.dtype:
    (flag,) = cursor.unpack("i", "a dtype")
    if flag not in _DTYPES:
        raise cursor.fail(f"unknown dtype flag {flag}", cursor.offset - 4)
    return _DTYPES[flag]


def _values(cursor: _Cursor, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    data = cursor.take(math.prod(shape) * dtype.itemsize, f"the data of an array of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _read_sparse(cursor: _Cursor, stype: str, start: int) -> Stored:
    stored_shape = _shape(cursor, cursor.unpack("i", "the number of dimensions")[0], "q")
    shape = _shape(cursor, cursor.unpack("i", "the number of dimensions")[0], "q")
    cursor.unpack("ii", "the device")
    dtype = _dtype(cursor)
    aux_forms = []
    for _ in range(_AUX_COUNT[stype]):
        aux_dtype = _dtype(cursor)
        aux_forms.append((aux_dtype, _shape(cursor, cursor.unpack("i", "the number of dimensions")[0], "q")))
    if not shape or any(form.kind not in "iu" or len(dims) != 1 for form, dims in aux_forms):
        raise cursor.fail(f"a {stype} array whose indices are no lists of whole numbers", start)
    data = _values(cursor, stored_shape, dtype)
    stored = Stored(stype, shape, data, [_values(cursor, dims, form) for form, dims in aux_forms])
    if problem := stored.problem():
        raise cursor.fail(f"a {stype} array: {problem}", start)
    return stored


def parse_arrays(
    data: bytes | bytearray | memoryview, path: str = "buffer"
) -> tuple[list[np.ndarray | Stored], list[str]]:
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


def read_arrays(path: str | os.PathLike[str]) -> tuple[list[np.ndarray | Stored], list[str]]:
    """Read a container from the file `path`; see `parse_arrays`."""
    with open(path, "rb") as file:
        return parse_arrays(file.read(), os.fspath(path))


def dump_arrays(arrays: Sequence[np.ndarray | Stored], names: list[str]) -> Iterator[bytes | memoryview]:
    """The container of `arrays`, in chunks; `names` is empty or as long as `arrays`."""
    yield struct.pack("<QQQ", LIST_MAGIC, 0, len(arrays))
    for array in arrays:
        if isinstance(array, Stored):
            yield from _dump_sparse(array)
            continue
        if array.ndim == 0:
            raise InvalidArgument("save: a 0-dimensional array has no place in the file; reshape it to (1,)")
        yield struct.pack("<Ii", ARRAY_V2_MAGIC, 0) + _dims(array.shape)
        yield struct.pack("<iii", 1, 0, _flag(array.dtype))
        yield _bytes(array)
    yield struct.pack("<Q", len(names))
    for name in names:
        raw = name.encode()
        yield struct.pack("<Q", len(raw)) + raw


def _dump_sparse(array: Stored) -> Iterator[bytes | memoryview]:
    stype = next(flag for flag, name in _SPARSE.items() if name == array.stype)
    yield struct.pack("<Ii", ARRAY_V2_MAGIC, stype) + _dims(array.data.shape) + _dims(array.shape)
    yield struct.pack("<iii", 1, 0, _flag(array.data.dtype))
    for aux in array.aux:
        yield struct.pack("<i", _flag(aux.dtype)) + _dims(aux.shape)
    yield _bytes(array.data)
    yield from map(_bytes, array.aux)


def _dims(shape: tuple[int, ...]) -> bytes:
    return struct.pack(f"<i{len(shape)}q", len(shape), *shape)


def _flag(dtype: np.dtype) -> int:
    if dtype.name not in DTYPE_FLAGS:
        raise InvalidArgument(f"save: dtype {dtype} has no place in MXNet's file format")
    return DTYPE_FLAGS[dtype.name]


def _bytes(array: np.ndarray) -> bytes | memoryview:
    return np.ascontiguousarray(array).data.cast("B") if array.size else b""


def write_arrays(
    path: str | os.PathLike[str], arrays: Sequence[np.ndarray | Stored], names: list[str]
) -> None:
    """Write a container to the file `path`, whole or not at all."""
    write_atomic(path, dump_arrays(arrays, names))
