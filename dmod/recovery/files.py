"""Files of a checkpoint, written, measured and synced in one go: a manifest that comes last makes them count.

Unlike `write_atomic`, nothing here is whole from the beginning: who dies half-way leaves files that no
manifest vouches for. They go to the disk past the system's cache of pages, where they would cost another
copy and push out what is of use; a file system that cannot do that gets them the usual way.
"""

from __future__ import annotations

import errno
import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from dmod.recovery.image import Image

__all__ = ["write_files"]

_DIRECT = getattr(os, "O_DIRECT", 0)
_PART = 8 << 20
"""Bytes, a multiple of the block: what goes to the disk at once."""


def write_files(folder: Path, images: Mapping[str, Image]) -> dict[str, list[int]]:
    """Write files of a folder, and sync them and the folder's own name to disk.

    Their names come to it when the folder is synced, as after the manifest.

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
        parent = os.open(folder.parent, os.O_RDONLY)
        stack.callback(os.close, parent)
        _sync([*handles, parent])
    return found


def _sync(handles: Sequence[int]) -> None:
    """Sync files at the same time: one after the other, each would wait for a turn of the disk's journal."""
    with ThreadPoolExecutor(len(handles), thread_name_prefix=threading.current_thread().name) as pool:
        for _ in pool.map(os.fsync, handles):
            pass


def _write(path: Path, image: Image) -> tuple[int, int]:
    """Write a file past the cache, if the file system can do that; returns its handle and crc32."""
    if _DIRECT:
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
