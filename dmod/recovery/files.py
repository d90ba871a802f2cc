"""Files of a checkpoint, written, measured and synced in one go: a manifest that comes last makes them count.

Unlike `write_atomic`, nothing here is whole from the beginning: who dies half-way leaves files that no
manifest vouches for.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from dmod.atomic_file import sync_directory

__all__ = ["Chunks", "write_files"]

Chunks = Iterable[bytes | memoryview]


def write_files(folder: Path, contents: Mapping[str, Chunks]) -> dict[str, list[int]]:
    """Write files of a folder, and sync them and the folder to disk.

    The checksums are of what was meant to be written: what a disk makes of it, reading will show.

    Parameters
    ----------
    folder : Path
    contents : dict of str to iterable of bytes or memoryview

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
        files = []
        for name, chunks in contents.items():
            file = stack.enter_context(open(folder / name, "wb"))
            files.append(file)
            size = crc = 0
            for chunk in chunks:
                file.write(chunk)
                size += len(chunk)
                crc = zlib.crc32(chunk, crc)
            file.flush()
            found[name] = [size, crc]
        for file in files:  # after all are written: the disk has had something to do in the meantime
            os.fsync(file.fileno())
    sync_directory(folder)
    return found
