"""Files of a checkpoint, written, measured and synced in one go: a manifest that comes last makes them count.

Unlike `write_atomic`, nothing here is whole from the beginning: who dies half-way leaves files that no
manifest vouches for. Large files go to the disk past the system's cache of pages, where they would cost
another copy and push out what is of use; a file system that cannot do that gets them the usual way.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from dmod.atomic_file import sync_directory
from dmod.recovery.image import Image

__all__ = ["write_files"]

_DIRECT = getattr(os, "O_DIRECT", 0)
_DIRECT_FROM = 1 << 20
"""Bytes: for less than that the cache is faster, as nothing waits for the disk before the sync."""
_PART = 8 << 20
"""Bytes, a multiple of the block: what goes to the disk at once."""


def write_files(folder: Path, images: Mapping[str, Image]) -> dict[str, list[int]]:
    """Write files of a folder, and sync them and the folder to disk.

    The checksums are of what was meant to be written: what a disk makes of it, reading will show.

    Parameters
    ----------
    folder : Path
    images : dict of str to Image

    Returns
    -------
    dict of str to [int, int]
        Size in bytes and crc32 of each.

    Raises
    ------
    OSError
        The folder is not there or read-only, or the disk is full.
    """
    found: dict[str, list[int]] = {}
    with ExitStack() as stack:
        handles = []
        for name, image in images.items():
            image.seal()
            handle, crc = _write(folder / name, image)
            stack.callback(os.close, handle)
            handles.append(handle)
            found[name] = [image.nbytes, crc]
        for handle in handles:  # after all are written: the disk has had something to do in the meantime
            os.fsync(handle)
    sync_directory(folder)
    return found


def _write(path: Path, image: Image) -> tuple[int, int]:
    """Write a file past the cache, if it is large and the file system can; returns its handle and crc32."""
    if _DIRECT and image.nbytes >= _DIRECT_FROM:
        try:
            return _written(path, image, _DIRECT)
        except OSError as error:  # EINVAL also when it wants larger blocks, or a full disk has cut one
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    return _written(path, image, 0)


def _written(path: Path, image: Image, direct: int) -> tuple[int, int]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | direct, 0o666)
    try:
        source, crc = image.blocks if direct else image.content, 0
        for start in range(0, image.nbytes, _PART):
            crc = zlib.crc32(image.content[start : start + _PART], crc)
            stop = min(start + _PART, len(source))
            while start < stop:
                start += os.pwrite(handle, source[start:stop], start)
        if direct:
            os.ftruncate(handle, image.nbytes)
    except BaseException:
        os.close(handle)
        raise
    return handle, crc
