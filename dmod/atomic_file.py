"""Write a file so that it is there whole or not at all: temporary name, sync, rename."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable

__all__ = ["sync_directory", "write_atomic"]


def write_atomic(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Replace `path` by the concatenation of `chunks`.

    The data is synced to disk before the rename and the directory after it, so that a crash at any
    moment leaves either the old file or the new one. A failure removes the temporary file.

    Raises
    ------
    OSError
        The directory is missing or read-only, or the disk is full; `path` is then untouched.
    """
    path = os.fspath(path)
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise FileNotFoundError(errno.ENOENT, "No such directory", directory)
    handle, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", suffix=".tmp", dir=directory)
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(directory)


def _umask() -> int:
    """The process's umask; there is no way to read it but to set it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sync_directory(directory: str | os.PathLike[str]) -> None:
    """Sync the names in a directory to disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
