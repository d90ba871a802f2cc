"""Memory that processes of one host share: an `Arena` hands out arrays, a `MappedSegment` is a peer's.

A segment is a memfd: memory with a file descriptor and no name. It goes to another process as a
descriptor over a Unix-domain socket, and ceases to exist with the last process that has it, however that
ends; so nothing can leak, go stale, or be unlinked under somebody, and the size of /dev/shm does not
matter. Seals keep peers from shrinking it (reading would be a SIGBUS then) and from writing to it.

Pages are reserved before they are handed out. Where there are none the arena says so once and gives
nothing, and arrays lie in private memory, whose contents travel through the socket.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import threading
import weakref
from functools import cache
from typing import Any

import numpy as np

from dmod.base import ProtocolError
from dmod.config import settings
from dmod.ndarray.flat import ALIGNMENT, aligned_empty, aligned_zeros

__all__ = [
    "Arena",
    "Block",
    "MappedSegment",
    "Place",
    "gradient_buffer",
    "mapped_segment",
    "process_arena",
    "shared_empty",
]

SEGMENT_NBYTES = 64 << 20
"""Size of a segment, unless one array needs more. Only pages that are handed out take memory."""
_PAGE = mmap.PAGESIZE
"""Larger arrays have pages of their own: peers can map them by themselves."""
_F_ADD_SEALS, _F_GET_SEALS = 1033, 1034
_F_SEAL_SHRINK, _F_SEAL_GROW, _F_SEAL_FUTURE_WRITE = 0x2, 0x4, 0x10

log = logging.getLogger("dmod.kvstore")

Place = tuple[int, int, int]
"""Where bytes lie: the number of a segment among its owner's, the offset, how many."""


class _Segment:
    """A memfd of ours, mapped."""

    def __init__(self, number: int, nbytes: int):
        self.number, self.nbytes = number, nbytes
        self.reserved = self.used = 0
        self.fd = os.memfd_create("dmod", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, nbytes)
            fcntl.fcntl(self.fd, _F_ADD_SEALS, _F_SEAL_SHRINK | _F_SEAL_GROW)
            self.memory = mmap.mmap(self.fd, nbytes)
            try:
                fcntl.fcntl(self.fd, _F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
            except OSError:
                pass  # Linux before 5.1: peers map it read-only of their own accord
        except BaseException:
            os.close(self.fd)
            raise
        self.address = int(np.frombuffer(self.memory, np.uint8).__array_interface__["data"][0])

    def reserve(self, end: int) -> None:
        """Have pages up to `end`; OSError if there is no memory for them."""
        if end > self.reserved:
            end = -(-end // _PAGE) * _PAGE
            os.posix_fallocate(self.fd, self.reserved, end - self.reserved)
            self.reserved = end


class Block:
    """A part of a segment; it goes back to its arena when the last array in it is gone."""

    __slots__ = ("__array_interface__", "_arena", "_place", "_segment")

    def __init__(self, arena: Arena, segment: _Segment, place: Place):
        self._arena, self._segment, self._place = arena, segment, place
        self.__array_interface__ = {
            "data": (segment.address + place[1], False),
            "shape": (place[2],),
            "typestr": "|u1",
            "version": 3,
        }

    def __del__(self) -> None:
        self._arena._returned.append(self._place)  # appending is all that is safe in a finaliser


class Arena:
    """Shared memory of this process.

    Parameters
    ----------
    limit_nbytes : int, optional
        Most bytes to take; default: what the system gives.
    """

    def __init__(self, limit_nbytes: int | None = None):
        self._limit = limit_nbytes
        self._segments: list[_Segment] = []
        self._free: dict[int, list[Place]] = {}  # by size: buffers of a model come in few sizes
        self._returned: list[Place] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._said_full = False

    @property
    def nbytes(self) -> int:
        """The bytes reserved so far."""
        return sum(segment.reserved for segment in self._segments)

    def empty(self, size: int, dtype: Any) -> np.ndarray | None:
        """An uninitialised 1-D array that peers can map, aligned; None if there is no memory for it."""
        dtype = np.dtype(dtype)
        nbytes = size * dtype.itemsize
        alignment = ALIGNMENT if nbytes < _PAGE else _PAGE
        nbytes = -(-max(1, nbytes) // alignment) * alignment
        if os.getpid() != self._pid:
            return None  # a forked child's segments would be its parent's too
        with self._lock:
            block = self._block(nbytes)
        return None if block is None else np.asarray(block)[: size * dtype.itemsize].view(dtype)

    def zeros(self, size: int, dtype: Any) -> np.ndarray | None:
        """Like `empty`, filled with zeros."""
        array = self.empty(size, dtype)
        if array is not None:
            array.fill(0)
        return array

    def _block(self, nbytes: int) -> Block | None:
        while self._returned:
            place = self._returned.pop()
            self._free.setdefault(place[2], []).append(place)
        if free := self._free.get(nbytes):
            place = free.pop()
            return Block(self, self._segments[place[0]], place)
        try:
            segment, start = self._with_room(nbytes)
            segment.reserve(start + nbytes)
        except (OSError, ValueError) as error:  # ValueError: mmap's, of a size that is out of range
            if not self._said_full:
                self._said_full = True
                log.warning(
                    "no shared memory for %d more bytes (%d are in use): %s; what does not fit into it "
                    "travels through sockets, which is slower",
                    nbytes,
                    self.nbytes,
                    getattr(error, "strerror", None) or error,
                )
            return None
        place = (segment.number, start, nbytes)
        segment.used = start + nbytes
        return Block(self, segment, place)

    def _with_room(self, nbytes: int) -> tuple[_Segment, int]:
        if self._limit is not None and self.nbytes + nbytes > self._limit:
            raise OSError(f"DMOD_SHM_BYTES={self._limit}")
        alignment = _PAGE if nbytes % _PAGE == 0 else ALIGNMENT
        for segment in self._segments:
            start = -(-segment.used // alignment) * alignment
            if start + nbytes <= segment.nbytes:
                return segment, start
        size = max(SEGMENT_NBYTES, -(-nbytes // _PAGE) * _PAGE)
        self._segments.append(_Segment(len(self._segments), size))
        return self._segments[-1], 0

    def find(self, address: int, nbytes: int) -> Place | None:
        """Where the bytes at an address lie; None if they are not ours."""
        for segment in self._segments:
            offset = address - segment.address
            if offset >= 0 and offset + nbytes <= segment.used:
                return (segment.number, offset, nbytes)
        return None

    def owns(self, array: np.ndarray) -> bool:
        """Whether a contiguous array lies here."""
        if not self._segments:
            return False
        return self.find(array.__array_interface__["data"][0], array.nbytes) is not None

    def descriptor(self, number: int) -> tuple[int, int]:
        """The file descriptor of a segment, and its size."""
        segment = self._segments[number]
        return segment.fd, segment.nbytes


class MappedSegment:
    """A segment of a peer, to read from.

    Parameters
    ----------
    fd : int
        The segment's from now on, whatever happens.
    nbytes : int
        The size that the peer has announced.

    Raises
    ------
    ProtocolError
        It is smaller, or could become so.
    """

    def __init__(self, fd: int, nbytes: int):
        try:
            if fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK == 0 or os.fstat(fd).st_size < nbytes:
                raise ProtocolError(f"a segment that is not one of {nbytes} bytes for good")
            self._memory = memoryview(mmap.mmap(fd, nbytes, prot=mmap.PROT_READ))
        except (OSError, ValueError) as error:
            os.close(fd)
            raise ProtocolError(f"a segment of {nbytes} bytes that cannot be mapped: {error}") from None
        except ProtocolError:
            os.close(fd)
            raise
        self.fd, self.nbytes = fd, nbytes
        self.address = int(np.frombuffer(self._memory, np.uint8).__array_interface__["data"][0])
        _MAPPED[self.address] = self

    def __del__(self) -> None:
        if (fd := getattr(self, "fd", -1)) >= 0:
            os.close(fd)  # what has been mapped stays

    def view(self, offset: int, nbytes: int) -> memoryview:
        """The bytes at a place; ProtocolError if it lies outside."""
        if not 0 <= offset <= offset + nbytes <= self.nbytes:
            raise ProtocolError(f"bytes {offset} to {offset + nbytes} of a segment of {self.nbytes}")
        return self._memory[offset : offset + nbytes]


_MAPPED: weakref.WeakValueDictionary[int, MappedSegment] = weakref.WeakValueDictionary()


def mapped_segment(array: np.ndarray) -> MappedSegment | None:
    """The peer's segment that an array lies in."""
    address = array.__array_interface__["data"][0]
    for segment in _MAPPED.values():
        if segment.address <= address and address + array.nbytes <= segment.address + segment.nbytes:
            return segment
    return None


@cache
def process_arena() -> Arena:
    """The arena of this process."""
    return Arena(settings().shm_bytes)


def shared_empty(size: int, dtype: Any) -> np.ndarray:
    """An uninitialised 1-D array that other processes can map, or a private one if there is no memory."""
    array = process_arena().empty(size, dtype)
    return aligned_empty(size, dtype) if array is None else array


def gradient_buffer(size: int, dtype: Any) -> np.ndarray:
    """A 1-D array of zeros for gradients; in a worker's process where the servers of this host can read it.

    Everywhere else, with ``DMOD_TRANSPORT`` ipc or tcp, and where there is no shared memory left, it is
    private.
    """
    config = settings()
    if config.role == "worker" and config.transport in ("auto", "shm"):
        array = process_arena().zeros(size, dtype)
        if array is not None:
            return array
    return aligned_zeros(size, dtype)
