"""The directory of a job's checkpoints: one subdirectory each, ``checkpoint-000012`` for number 12."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dmod.base import FormatError, InvalidArgument
from dmod.log import logger
from dmod.recovery.manifest import MANIFEST, Manifest

__all__ = ["CheckpointDirectory"]

_NAME = re.compile(r"checkpoint-(\d{6}|[1-9]\d{6,8})")


class CheckpointDirectory:
    """The checkpoints under a path, which all workers of the job see.

    Parameters
    ----------
    path : str or Path
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def prepare(self) -> None:
        """Make the directory, and see that it can be written to.

        Raises
        ------
        InvalidArgument
            It cannot.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InvalidArgument(
                f"checkpoint directory {str(self.path)!r}: cannot be written to ({error.strerror}); "
                "give one that all workers can write to"
            ) from None

    def folder(self, serial: int) -> Path:
        """Where the checkpoint with a number lies."""
        return self.path / f"checkpoint-{serial:06d}"

    def serials(self) -> list[int]:
        """The numbers of all checkpoints, also of those cut short, ascending."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InvalidArgument(
                f"checkpoint directory {str(self.path)!r}: cannot be read ({error.strerror})"
            ) from None
        found = (_NAME.fullmatch(name) for name in names)
        return sorted(int(match[1]) for match in found if match)

    def valid(self) -> Iterator[Manifest]:
        """The manifests of whole checkpoints, the newest first; a damaged one is left out with a warning."""
        for serial in reversed(self.serials()):
            folder = self.folder(serial)
            try:
                manifest = Manifest.read(folder)
                if manifest.serial != serial:
                    raise FormatError(f"{folder}: the manifest is that of number {manifest.serial}")
                manifest.verify(folder)
            except (FileNotFoundError, NotADirectoryError):
                logger.info("%s has no manifest: it was cut short; left out", folder)
            except (FormatError, OSError) as error:
                logger.warning("%s is damaged and left out: %s", folder, error)
            else:
                yield manifest

    def retain(self, keep: int, newest: int, network: str) -> None:
        """Remove what is older than the `keep` newest checkpoints of a network up to number `newest`.

        Checkpoints of other networks stay. Those that were cut short before `newest` go.
        """
        whole = []
        for serial in reversed([s for s in self.serials() if s <= newest]):
            try:
                manifest = Manifest.read(self.folder(serial))
            except FileNotFoundError:
                self.remove(serial)
            except (FormatError, OSError):
                continue  # damaged: the user's to look at
            else:
                if manifest.network == network:
                    whole.append(serial)
        for serial in whole[keep:]:
            self.remove(serial)

    def remove(self, serial: int) -> None:
        """Remove a checkpoint, its manifest first, so that no moment finds half of it valid."""
        folder = self.folder(serial)
        with suppress(OSError):
            (folder / MANIFEST).unlink()
        shutil.rmtree(folder, ignore_errors=True)
