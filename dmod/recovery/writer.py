"""Writes checkpoints while training goes on: worker 0 the job's part, each its own, the manifest last.

Workers say nothing to each other here: worker 0 sees in the directory when the others' parts are there. What
fails, such as a full disk, costs this checkpoint and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dmod.atomic_file import write_atomic
from dmod.base import MXNetError
from dmod.log import logger
from dmod.recovery.directory import CheckpointDirectory
from dmod.recovery.files import write_files
from dmod.recovery.image import Content, Image
from dmod.recovery.manifest import Manifest, checksum_of
from dmod.recovery.packing import pack

__all__ = ["Job", "Writer", "worker_name"]

_POLL_S = 0.005
_NICER_BY = 10


def worker_name(rank: int) -> str:
    """The file of a worker's own part."""
    return f"worker-{rank}.state"


def _failure_name(rank: int) -> str:
    return f"worker-{rank}.failed"


@dataclass(frozen=True)
class Job:
    """One checkpoint to write.

    Attributes
    ----------
    manifest : Manifest
        Without files, which come to be known when they are written.
    rank : int
    worker : dict
        This worker's part.
    shared : dict of str to Image, or None
        The job's part, on worker 0: its files.
    """

    manifest: Manifest
    rank: int
    worker: dict[str, Any]
    shared: Mapping[str, Image] | None


def _step_back() -> None:
    """Let threads that compute go first. On Linux a priority is a thread's own; elsewhere it stays."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(
                os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + _NICER_BY, 19)
            )


class Writer:
    """Writes one checkpoint at a time, in a thread.

    Parameters
    ----------
    directory : CheckpointDirectory
    keep : int
        How many checkpoints of the network are left.
    timeout_s : float
        How long worker 0 waits for the other workers' parts.
    """

    def __init__(self, directory: CheckpointDirectory, keep: int, timeout_s: float):
        self._directory, self._keep, self._timeout_s = directory, keep, timeout_s
        self._image = Image()  # of this worker's own part
        self._thread: threading.Thread | None = None
        self.cost_s = 0.0
        """Processor time that the last checkpoint took in the thread, in seconds."""
        self.failures = 0

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Job) -> None:
        """Begin to write; the one before must be done."""
        self._thread = threading.Thread(
            target=self._run, args=(job,), name="dmod checkpoint writer", daemon=True
        )
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the checkpoint being written; whether it is done in time."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.busy

    def _run(self, job: Job) -> None:
        started = time.thread_time()
        _step_back()
        try:
            self._write(job)
        except Exception as error:  # whatever it is, training goes on, and says so
            self.failures += 1
            self._give_up(job, error)
        finally:
            self.cost_s = time.thread_time() - started

    def _write(self, job: Job) -> None:
        manifest, folder = job.manifest, self._directory.folder(job.manifest.serial)
        folder.mkdir(parents=True, exist_ok=True)
        own, packed = worker_name(job.rank), [pack(job.worker)]
        if job.shared is None:
            write_atomic(folder / own, packed)  # worker 0 goes on when it sees the name
            return
        files = write_files(folder, {own: self._image.fill(Content(packed)), **job.shared})
        self._await_workers(folder, manifest.num_workers)
        for name in map(worker_name, range(manifest.num_workers)):
            if name != own:
                files[name] = checksum_of(folder / name)
        replace(manifest, files=dict(sorted(files.items()))).write(folder)  # which syncs the folder
        try:
            self._directory.retain(self._keep, manifest.serial, manifest.network)
        except (MXNetError, OSError) as error:  # this checkpoint is written all the same
            logger.warning("Old checkpoints under %s stay: %s", self._directory.path, error)

    def _await_workers(self, folder: Path, num_workers: int) -> None:
        """Wait until every worker's part is there."""
        missing = set(range(num_workers))
        deadline = time.monotonic() + self._timeout_s
        while True:
            missing -= {rank for rank in missing if (folder / worker_name(rank)).exists()}
            if not missing:
                return
            failed = [rank for rank in sorted(missing) if (folder / _failure_name(rank)).exists()]
            if failed:
                raise OSError(f"worker {failed[0]} could not write its part")
            if time.monotonic() > deadline:
                raise OSError(
                    f"worker {min(missing)}'s part did not come within {self._timeout_s:g} s; do all workers "
                    "see the same directory?"
                )
            time.sleep(_POLL_S)

    def _give_up(self, job: Job, error: Exception) -> None:
        folder = self._directory.folder(job.manifest.serial)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        logger.warning("Checkpoint %s was not written: %s; training goes on", folder, reason)
        if job.shared is not None:
            self._directory.remove(job.manifest.serial)
            return
        try:
            (folder / _failure_name(job.rank)).touch()
        except OSError:
            pass  # worker 0 gives up at its deadline
