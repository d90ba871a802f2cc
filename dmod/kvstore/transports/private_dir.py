"""A directory for the ipc sockets of one process: nobody else may enter, and nothing is left of it.

Whoever makes one holds a lock within it; a directory whose lock is free belonged to a process that
was killed, and the next one to come removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

__all__ = ["PrivateDirectory"]

PREFIX = "dmod-"
_LONGEST_PATH = (
    90  # a Unix-domain socket's path has at most 107 bytes, its name within the directory included
)
_SETTLED_S = 60.0  # a younger directory may be about to be locked


class PrivateDirectory:
    """A fresh directory of mode 0700, with a short path; `close` removes it."""

    def __init__(self) -> None:
        parent = tempfile.gettempdir()
        if len(parent) + len(PREFIX) + 10 > _LONGEST_PATH:
            parent = "/tmp"
        _remove_stale(Path(parent))
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_stale(parent: Path) -> None:
    for path in parent.glob(PREFIX + "*"):
        try:
            status = path.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _SETTLED_S:
                continue
            lock = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # another's, or not one of ours, or removed in the meantime
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # in use
        finally:
            os.close(lock)
