"""States as bytes: msgpack with arrays, tuples and large integers, and a checksum around it.

A packed state is 8 bytes of magic, 8 bytes of length, 4 bytes of crc32 and the msgpack data; numbers are
little-endian. Reading never runs anything.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import msgpack
import numpy as np

from dmod.base import FormatError, InvalidArgument

__all__ = ["pack", "unpack"]

MAGIC = b"DMODSTA\n"
_HEAD = struct.Struct("<8sQI")
_ARRAY, _TUPLE, _INTEGER = 1, 2, 3
_MAX_DEPTH = 64


def pack(state: Any) -> bytes:
    """The bytes of a state: None, bool, int, float, str, bytes, array, and lists, tuples, dicts of such.

    Raises
    ------
    InvalidArgument
        The state has something else in it, or nests more than 64 deep.
    """
    data = _packed(state, 0)
    return _HEAD.pack(MAGIC, len(data), zlib.crc32(data)) + data


def unpack(data: bytes | memoryview, path: str = "state") -> Any:
    """The state from its bytes.

    Raises
    ------
    FormatError
        They are truncated, corrupt, or something else; the message has `path` and the byte offset.
    """
    if len(data) < _HEAD.size or bytes(data[: len(MAGIC)]) != MAGIC:
        raise FormatError(f"{path}: offset 0: not a packed state of {_HEAD.size} bytes or more")
    _, nbytes, checksum = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if nbytes != len(body):
        raise FormatError(f"{path}: offset {_HEAD.size}: {len(body)} bytes, expected {nbytes}: truncated?")
    if zlib.crc32(body) != checksum:
        raise FormatError(f"{path}: offset {_HEAD.size}: corrupt (its checksum differs)")
    try:
        return _unpacked(body, 0)
    except (TypeError, ValueError, RecursionError, msgpack.UnpackException) as error:
        raise FormatError(f"{path}: offset {_HEAD.size}: makes no sense: {error}") from None


def _packed(value: Any, depth: int) -> bytes:
    if depth > _MAX_DEPTH:
        raise InvalidArgument(f"a state nested more than {_MAX_DEPTH} deep")

    def other(found: Any) -> Any:
        if isinstance(found, np.ndarray) and not found.dtype.hasobject:
            plain: np.ndarray = np.ascontiguousarray(found)
            return msgpack.ExtType(
                _ARRAY, msgpack.packb([found.dtype.str, list(found.shape)]) + plain.tobytes()
            )
        if isinstance(found, np.generic):
            return found.item()
        if isinstance(found, tuple):
            return msgpack.ExtType(_TUPLE, _packed(list(found), depth + 1))
        if isinstance(found, int):
            return msgpack.ExtType(_INTEGER, str(int(found)).encode())
        if isinstance(found, float):  # a subclass, such as numpy.float64
            return float(found)
        if isinstance(found, str):
            return str(found)
        raise InvalidArgument(
            f"a state has a {type(found).__name__} in it; expected numbers, text, bytes, arrays, lists, dicts"
        )

    try:
        data: bytes = msgpack.packb(value, default=other, strict_types=True)
    except InvalidArgument:
        raise
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"a state that cannot be packed: {error}") from error
    return data


def _unpacked(data: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")

    def extension(code: int, body: bytes) -> Any:
        if code == _ARRAY:
            return _array(body)
        if code == _TUPLE:
            return tuple(_unpacked(body, depth + 1))
        if code == _INTEGER:
            return int(body.decode("ascii"))
        raise ValueError(f"extension {code}")

    return msgpack.unpackb(data, ext_hook=extension, strict_map_key=False)


def _array(body: bytes) -> np.ndarray:
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(body)
    dtype, shape = unpacker.unpack()
    if not isinstance(dtype, str) or np.dtype(dtype).hasobject:
        raise ValueError(f"dtype {dtype!r}")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"shape {shape!r}")
    return np.frombuffer(body, dtype, offset=unpacker.tell()).reshape(shape).copy()
