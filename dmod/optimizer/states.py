"""Optimizer states in a file: plain arrays and plain values, never code.

A file is a prefix of 32 bytes, a msgpack header, padding, and the arrays' raw data, each array at a
multiple of 64 bytes. All numbers are little-endian::

    0   8  magic b"DMODOPT\\n"
    8   4  version, 1
    12  4  bytes of the header
    16  8  bytes of the data
    24  4  crc32 of the first 24 bytes and the header
    28  4  crc32 of the data
    32     header, then zeros up to a multiple of 64, then the data

The reader believes no length before it has compared it with the file's, and no byte without its crc.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
import numpy as np

from dmod.atomic_file import write_atomic
from dmod.base import FormatError, InvalidArgument
from dmod.ndarray.flat import ALIGNMENT, Segment, aligned_zeros
from dmod.optimizer.pickled import looks_pickled, parse_pickle

__all__ = ["OptimizerStates", "StateEntry", "join_flat", "split_flat"]

MAGIC = b"DMODOPT\n"
VERSION = 1
MAX_HEADER = 64 << 20
_PREFIX = struct.Struct("<8sIIQI")
_CRC = struct.Struct("<I")
_START = _PREFIX.size + _CRC.size
_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64")


class StateEntry(NamedTuple):
    """The states of one parameter.

    Attributes
    ----------
    name : str
        The parameter's name; '' if unknown.
    count : int
        Updates so far.
    arrays : tuple of numpy.ndarray
        In the optimizer's order; none for an optimizer without states.
    """

    name: str
    count: int  # type: ignore[assignment]  # hides tuple.count
    arrays: tuple[np.ndarray, ...]


@dataclass
class OptimizerStates:
    """The states of a model's parameters, and, if known, the description of their optimizer.

    Attributes
    ----------
    config : dict or None
        What `Optimizer.to_config` returned.
    entries : dict of int or str to StateEntry
        By parameter index, or by the key that the parameter has in a store.
    """

    config: dict[str, Any] | None = None
    entries: dict[int | str, StateEntry] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        write_atomic(path, self.chunks())

    def to_bytes(self) -> bytes:
        """The file's content."""
        return b"".join(self.chunks())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> OptimizerStates:
        """Read a file: one of ours, or a pickle that MXNet saved, which is read without running it.

        Raises
        ------
        FormatError
            The file is truncated, corrupt or something else; the message has path and byte offset.
        OSError
            The file cannot be read.
        """
        path = os.fspath(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(_START)
            if looks_pickled(prefix):
                return cls._from_pickle(prefix + file.read(), path)
            _check_prefix(prefix, size, path)
            return cls._parse(prefix + file.read(size - len(prefix)), path)

    @classmethod
    def from_bytes(cls, data: bytes, path: str = "optimizer states") -> OptimizerStates:
        """Read a file's content; `path` is what error messages call it."""
        if looks_pickled(data):
            return cls._from_pickle(data, path)
        _check_prefix(data[:_START], len(data), path)
        return cls._parse(data, path)

    @classmethod
    def _from_pickle(cls, data: bytes, path: str) -> OptimizerStates:
        """A file of MXNet's."""
        found = parse_pickle(data, path)
        return cls(
            None, {key: StateEntry("", count, tuple(arrays)) for key, (count, arrays) in found.items()}
        )

    def chunks(self, checksum: bool = True) -> Iterator[bytes | memoryview]:
        """The file's content, in pieces; large ones are views of the states.

        Parameters
        ----------
        checksum : bool
            False leaves out the data's, which takes long; `seal` fills it in.
        """
        rows, arrays, position = [], [], 0
        for index, (name, count, states) in self.entries.items():
            places = []
            for state in states:
                array = np.ascontiguousarray(state, state.dtype.newbyteorder("<"))
                if array.dtype.name not in _DTYPES:
                    raise InvalidArgument(
                        f"optimizer state of {name or index!r}: dtype {array.dtype} is not supported"
                    )
                places.append([array.dtype.name, list(state.shape), position])
                arrays.append((position, array.reshape(-1)))
                position = _aligned(position + array.nbytes)
            rows.append([index, name, count, places])
        header = msgpack.packb({"config": self.config, "entries": rows})
        if len(header) > MAX_HEADER:
            raise InvalidArgument(
                f"optimizer states: a header of {len(header)} bytes, at most {MAX_HEADER} fit"
            )
        data = list(_with_padding(arrays, position))
        crc = 0
        for chunk in data if checksum else ():
            crc = zlib.crc32(chunk, crc)
        start = struct.pack("<8sIIQ", MAGIC, VERSION, len(header), position)
        yield start + _CRC.pack(zlib.crc32(header, zlib.crc32(start))) + _CRC.pack(crc)
        yield header + bytes(-(_START + len(header)) % ALIGNMENT)
        yield from data

    @staticmethod
    def seal(content: memoryview) -> None:
        """Fill in the checksum that ``chunks(checksum=False)`` left out of a file's content."""
        header_nbytes = _PREFIX.unpack_from(content)[2]
        _CRC.pack_into(content, _PREFIX.size, zlib.crc32(content[_aligned(_START + header_nbytes) :]))

    @classmethod
    def _parse(cls, data: bytes, path: str) -> OptimizerStates:
        _, _, header_nbytes, data_nbytes, header_crc = _PREFIX.unpack_from(data)
        header = memoryview(data)[_START : _START + header_nbytes]
        if zlib.crc32(header, zlib.crc32(data[: _PREFIX.size - 4])) != header_crc:
            raise FormatError(f"{path}: offset {_START}: the header is corrupt (its checksum differs)")
        base = _aligned(_START + header_nbytes)
        body = memoryview(data)[base : base + data_nbytes]
        if zlib.crc32(body) != _CRC.unpack_from(data, _PREFIX.size)[0]:
            raise FormatError(f"{path}: offset {base}: the data is corrupt (its checksum differs)")
        try:
            content = msgpack.unpackb(header, strict_map_key=True)
            config, rows = content["config"], content["entries"]
            if config is not None and not isinstance(config, dict):
                raise ValueError("config is not a map")
            entries: dict[int | str, StateEntry] = {}
            end = 0
            for index, name, count, places in rows:
                if (
                    not isinstance(index, int | str)
                    or not isinstance(name, str)
                    or not isinstance(count, int)
                ):
                    raise ValueError("an entry without index, name and count")
                arrays = []
                for place in places:
                    array, end = _array(body, end, *place)
                    arrays.append(array)
                entries[index] = StateEntry(name, count, tuple(arrays))
        except (KeyError, TypeError, ValueError, RecursionError, msgpack.UnpackException) as error:
            raise FormatError(f"{path}: offset {_START}: the header makes no sense: {error}") from None
        return cls(config, entries)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _with_padding(arrays: list[tuple[int, np.ndarray]], end: int) -> Iterator[memoryview | bytes]:
    position = 0
    for start, array in [*arrays, (end, np.empty(0, np.uint8))]:
        if start > position:
            yield bytes(start - position)
        if array.nbytes:
            yield array.view(np.uint8).data
        position = start + array.nbytes


def _array(body: memoryview, end: int, dtype: Any, shape: Any, offset: Any) -> tuple[np.ndarray, int]:
    """The array at `offset`, copied, and where it ends; arrays follow one another, so none is read twice."""
    if dtype not in _DTYPES:
        raise ValueError(f"dtype {dtype!r}")
    if (
        not isinstance(shape, list)
        or not all(isinstance(n, int) and n >= 0 for n in shape)
        or len(shape) > 32
    ):
        raise ValueError(f"shape {shape!r}")
    wanted = np.dtype(dtype).newbyteorder("<")
    nbytes = wanted.itemsize
    for n in shape:
        nbytes *= n
    if not isinstance(offset, int) or offset < end or offset + nbytes > len(body):
        raise ValueError(f"an array of {nbytes} bytes at {offset} of {len(body)}")
    array = np.frombuffer(body[offset : offset + nbytes], wanted).astype(wanted.newbyteorder("="))
    return array.reshape(shape), offset + nbytes


def _check_prefix(prefix: bytes, size: int, path: str) -> None:
    """Compare what the prefix promises with the file's size, before anything is read or allocated."""
    if not prefix.startswith(MAGIC[: len(prefix)]) or not prefix:
        raise FormatError(f"{path}: offset 0: not a file of optimizer states")
    if len(prefix) < _START:
        raise FormatError(f"{path}: offset {size}: truncated, the first {_START} bytes are not all there")
    _, version, header_nbytes, data_nbytes, _ = _PREFIX.unpack_from(prefix)
    if version != VERSION:
        raise FormatError(f"{path}: offset 8: version {version}, this dmod reads version {VERSION}")
    if header_nbytes > MAX_HEADER:
        raise FormatError(
            f"{path}: offset 12: a header of {header_nbytes} bytes, at most {MAX_HEADER} are read"
        )
    expected = _aligned(_START + header_nbytes) + data_nbytes
    if size < expected:
        raise FormatError(f"{path}: offset {size}: truncated, expected {expected} bytes")
    if size > expected:
        raise FormatError(f"{path}: offset {expected}: {size - expected} bytes too many")


def split_flat(
    segments: Sequence[Segment], arrays: Sequence[np.ndarray], count: int, copy: bool = True
) -> dict[int | str, StateEntry]:
    """Entries for the parameters of a flat buffer, from its flat states: copies of them, or views."""
    entries: dict[int | str, StateEntry] = {}
    for s in segments:
        parts = (a[s.start : s.stop].reshape(s.shape) for a in arrays)
        entries[s.index] = StateEntry(s.name, count, tuple(p.copy() if copy else p for p in parts))
    return entries


def join_flat(
    segments: Sequence[Segment],
    size: int,
    dtypes: Sequence[Any],
    entries: Mapping[int | str, StateEntry],
) -> tuple[list[np.ndarray], int]:
    """The inverse of `split_flat`: flat states of `dtypes` and their count (the highest, if they differ).

    Raises
    ------
    InvalidArgument
        A parameter has no entry, or states of another number or shape.
    """
    arrays, count = [aligned_zeros(size, t) for t in dtypes], 0
    for s in segments:
        entry = entries.get(s.index, entries.get(s.name))
        if entry is None:
            raise InvalidArgument(f"optimizer states: none for parameter {s.name!r} (index {s.index})")
        shapes = [a.shape for a in entry.arrays]
        if shapes != [s.shape] * len(arrays):
            raise InvalidArgument(
                f"optimizer states of {s.name!r} (index {s.index}): {len(shapes)} arrays of shapes {shapes}, "
                f"expected {len(arrays)} of shape {s.shape}"
            )
        for flat, array in zip(arrays, entry.arrays, strict=True):
            flat[s.start : s.stop] = array.reshape(-1)
        count = max(count, entry.count)
    return arrays, count
