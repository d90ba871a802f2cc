"""Memory of this process whose pages can be a peer's: what a server writes is read where it lies.

A `Window` is private memory at an address that never changes, so that compiled steps and views into it stay
good. Once it has been opened for a key, the pages under the key's pieces are replaced by those of the
server's segment, and nothing has to be copied any more. They are mapped privately: what this process writes
to them it writes to copies of its own, which nobody else sees, and which the next answer of the server makes
an end of, as a pull does of what was written before it.

Whether a page has been copied the kernel says in ``/proc/self/pagemap``. Where it does not, windows stay
what they were, and values are copied.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import weakref
from functools import cache
from typing import Any

import numpy as np

from dmod.config import settings
from dmod.kvstore.transports.segments import Arena, MappedSegment, mapped_segment
from dmod.ndarray.flat import aligned_zeros

__all__ = ["HostMemory", "Shown", "Window", "open_window", "open_windows", "weights_buffer"]

_PAGE = mmap.PAGESIZE
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value
_DONTNEED, _HUGEPAGE, _POPULATE_READ = 4, 14, 22
_HUGE_NBYTES = 4 << 20
_ENTRY_NBYTES = 8
_STATE_SHIFT = 61  # of an entry of pagemap: its upper bits are present, swapped, and part of a file
_OF_FILE = 0b001
_PRESENT_OF_FILE = 0b101


class Window:
    """Page-aligned private memory, zero, of which parts can be made to show a peer's segment.

    Parameters
    ----------
    nbytes : int

    Raises
    ------
    OSError
        There is no memory for it.

    Attributes
    ----------
    key : int or str, optional
        What it is open for.
    """

    def __init__(self, nbytes: int):
        self.nbytes = nbytes
        self._mapped = -(-nbytes // _PAGE) * _PAGE
        self.address = _mmap(None, self._mapped, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        if self._mapped >= _HUGE_NBYTES:
            _libc().madvise(self.address, self._mapped, _HUGEPAGE)
        self.key: int | str | None = None
        self._shown: set[tuple[int, int]] = set()
        self.__array_interface__ = {
            "data": (self.address, False),
            "shape": (nbytes,),
            "typestr": "|u1",
            "version": 3,
        }
        _WINDOWS.add(self)

    @property
    def shown_nbytes(self) -> int:
        """So much of it is a peer's."""
        return sum(nbytes for _, nbytes in self._shown)

    def __del__(self) -> None:
        if (address := getattr(self, "address", 0)) and _libc is not None:
            _libc().munmap(address, self._mapped)

    def show(self, offset: int, nbytes: int, segment: MappedSegment, at: int) -> bool:
        """Have `nbytes` from `offset` be those from `at` of a segment; False where pages do not allow it."""
        is_last = offset + nbytes == self.nbytes
        if offset % _PAGE or at % _PAGE or (nbytes % _PAGE and not is_last) or _pagemap() < 0:
            return False
        whole = -(-nbytes // _PAGE) * _PAGE
        if at + whole > segment.nbytes:
            return False
        try:
            _mmap(self.address + offset, whole, mmap.MAP_PRIVATE | _MAP_FIXED, segment.fd, at)
        except OSError:
            return False
        self._shown.add((offset, whole))
        _libc().madvise(self.address + offset, whole, _POPULATE_READ)  # or page by page, when they are read
        return True

    def hide(self, offset: int, nbytes: int) -> None:
        """Have private memory there again, with what was to be seen last."""
        part = (offset, -(-nbytes // _PAGE) * _PAGE)
        if part not in self._shown:
            return
        before = ctypes.string_at(self.address + offset, part[1])
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        _mmap(self.address + offset, part[1], flags, -1, 0)
        ctypes.memmove(self.address + offset, before, part[1])
        self._shown.discard(part)

    def close(self) -> None:
        """Hide everything; nothing is shown until it is opened again."""
        self.key = None
        for offset, nbytes in list(self._shown):
            self.hide(offset, nbytes)


_WINDOWS: weakref.WeakSet[Window] = weakref.WeakSet()


class Shown:
    """An array in a window that shows a server's values.

    Parameters
    ----------
    window : Window
    offset, nbytes : int
        Where it lies there.
    """

    def __init__(self, window: Window, offset: int, nbytes: int):
        self._window, self._offset, self._nbytes = window, offset, nbytes
        self._address = window.address + offset
        self._entries = bytearray(_ENTRY_NBYTES * -(-nbytes // _PAGE))
        self._states = np.frombuffer(self._entries, np.uint64)
        self._faults = -1  # of this process, when its pages were looked at

    def refresh(self) -> None:
        """Give up the copies of pages to which this process has written.

        The first write to a page is a page fault. In most steps there is none, and no page is looked at.
        """
        usage = resource.getrusage(resource.RUSAGE_SELF)
        faults = usage.ru_minflt + usage.ru_majflt
        if faults != self._faults:
            self._drop_copies()
            self._faults = faults  # only now: it may have been interrupted

    def _drop_copies(self) -> None:
        os.preadv(_pagemap(), [self._entries], self._address // _PAGE * _ENTRY_NBYTES)
        states = self._states >> np.uint64(_STATE_SHIFT)
        if states.min() == states.max() == _PRESENT_OF_FILE:
            return
        copied = np.flatnonzero((states != 0) & (states & np.uint64(_OF_FILE) == 0))
        for run in np.split(copied, np.flatnonzero(np.diff(copied) > 1) + 1):
            if len(run):
                address, nbytes = self._address + int(run[0]) * _PAGE, len(run) * _PAGE
                _libc().madvise(address, nbytes, _DONTNEED)
                _libc().madvise(address, nbytes, _POPULATE_READ)

    def hide(self) -> None:
        """Be an array in private memory again."""
        self._window.hide(self._offset, self._nbytes)


def weights_buffer(size: int, dtype: Any) -> np.ndarray:
    """A 1-D array of zeros for what servers send back; in a worker's process a `Window`.

    Everywhere else, with ``DMOD_TRANSPORT`` ipc or tcp, and if it is less than a page, it is plain memory.
    """
    config, dtype = settings(), np.dtype(dtype)
    nbytes = size * dtype.itemsize
    if nbytes >= _PAGE and config.role == "worker" and config.transport in ("auto", "shm"):
        try:
            return np.asarray(Window(nbytes)).view(dtype)
        except OSError:
            pass
    return aligned_zeros(size, dtype)


def open_window(array: np.ndarray, key: int | str | None) -> None:
    """Let a whole array of `weights_buffer` show the values of `key`, and nothing else any more."""
    window = _window_of(array)
    if window is not None and window.key != key:
        window.close()
        window.key = key


def open_windows() -> list[Window]:
    """The windows of this process that are open for a key."""
    return [window for window in _WINDOWS if window.key is not None]


class HostMemory:
    """What a worker shares with the servers of its host.

    Parameters
    ----------
    arena : Arena
        What they read of this process's memory.
    """

    def __init__(self, arena: Arena):
        self.empty, self.owns = arena.empty, arena.owns

    @staticmethod
    def shows(key: int | str, out: np.ndarray) -> bool:
        """Whether `out` lies in a window that is open for `key`."""
        window = _window_of(out)
        return window is not None and window.key == key

    @staticmethod
    def show(key: int | str, out: np.ndarray, value: np.ndarray) -> Shown | None:
        """Have `out`, in a window that is open for `key`, show `value`, in a server's memory, if it can."""
        window, segment = _window_of(out), mapped_segment(value)
        if window is None or window.key != key or segment is None:
            return None
        offset = _address(out) - window.address
        if not window.show(offset, out.nbytes, segment, _address(value) - segment.address):
            return None
        return Shown(window, offset, out.nbytes)


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _window_of(array: np.ndarray) -> Window | None:
    if not isinstance(array, np.ndarray):
        return None
    address = _address(array)
    for window in _WINDOWS:
        if window.address <= address and address + array.nbytes <= window.address + window.nbytes:
            return window
    return None


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size, pointer, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    libc.mmap.argtypes, libc.mmap.restype = (pointer, size, number, number, number, ctypes.c_long), pointer
    libc.munmap.argtypes = (pointer, size)
    libc.madvise.argtypes = (pointer, size, number)
    return libc


def _mmap(address: int | None, nbytes: int, flags: int, fd: int, offset: int) -> int:
    got = _libc().mmap(address, nbytes, _READ_WRITE, flags, fd, offset)
    if got is None or got == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(got)


@cache
def _pagemap() -> int:
    """A descriptor of this process's page map; -1 if there is none."""
    try:
        return os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
