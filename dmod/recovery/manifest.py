"""The manifest of a checkpoint: what it is a checkpoint of, and the size and checksum of every file.

It is written last. A checkpoint without one, or with one that its files do not match, was cut short or
damaged, and does not count.
"""

from __future__ import annotations

import json
import stat
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dmod.atomic_file import write_atomic
from dmod.base import FormatError

__all__ = ["MANIFEST", "Manifest", "checksum_of"]

MANIFEST = "manifest.json"
FORMAT = 2
_LARGEST = 16 << 20
_LARGEST_NUMBER = (1 << 53) - 1
"""Above it a float64, by which workers tell each other numbers, has not all of them."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    Attributes
    ----------
    serial : int
        The number of the checkpoint; later ones have higher numbers.
    epoch, nbatch, step : int
        Where training goes on: the epoch, the batches of it that are done, and updates since the start.
    network : str
        The digest of the symbol's JSON.
    num_workers, num_devices : int
        Workers of the job, and devices per worker.
    store : str
        The type of the kvstore; '' if there was none.
    fingerprint : dict of str to str
        What decided the bits: versions, kernels, threads.
    hyperparameters : dict of str to bool, int, float, str or None
        What the training was told to learn with.
    changed : list of dict
        What it had changed of that itself, for each learner's optimizer.
    files : dict of str to [int, int]
        Size in bytes and crc32 of every other file.
    """

    serial: int
    epoch: int
    nbatch: int
    step: int
    network: str
    num_workers: int
    num_devices: int
    store: str = ""
    fingerprint: dict[str, str] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    changed: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, list[int]] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the file, with a checksum of its own."""
        content = {"format": FORMAT, **asdict(self)}
        content["checksum"] = _checksum(content)
        write_atomic(folder / MANIFEST, [json.dumps(content, indent=1).encode() + b"\n"])

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the file; `verify` compares the others with it.

        Raises
        ------
        FormatError
            It is damaged, or of another version.
        OSError
            It cannot be read, or there is none.
        """
        path = folder / MANIFEST
        with open(path, "rb") as file:
            text = file.read(_LARGEST + 1)
        try:
            content = json.loads(text) if len(text) <= _LARGEST else None
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: offset {getattr(error, 'pos', 0)}: not JSON: {error}") from None
        if not isinstance(content, dict) or content.pop("checksum", None) != _checksum(content):
            raise FormatError(f"{path}: offset 0: damaged (its checksum differs)")
        if content.pop("format", None) != FORMAT:
            raise FormatError(f"{path}: of another version than {FORMAT}, which this dmod reads")
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in content.items() if name in known}
        wrong = _wrong_with(values)
        if wrong:
            raise FormatError(f"{path}: offset 0: {wrong}")
        return cls(**values)

    def verify(self, folder: Path) -> None:
        """Compare every file with its size and checksum.

        Raises
        ------
        FormatError
            A file differs, or is missing.
        """
        for name, (size, checksum) in self.files.items():
            path = folder / name
            try:
                here = path.stat()
                if not stat.S_ISREG(here.st_mode):  # to open a pipe would wait for who writes to it
                    raise FormatError(f"{path}: no regular file")
                if here.st_size != size:
                    raise FormatError(
                        f"{path}: offset {min(here.st_size, size)}: {here.st_size} bytes, expected {size}"
                    )
                found = checksum_of(path)
            except OSError as error:
                raise FormatError(f"{path}: {error.strerror}") from None
            if found != [size, checksum]:
                raise FormatError(f"{path}: offset 0: damaged (its checksum differs)")


def _wrong_with(values: Mapping[str, Any]) -> str:
    """What makes no sense in a manifest; '' if all does."""
    for name in ("serial", "epoch", "nbatch", "step", "num_workers", "num_devices"):
        least = 1 if name in ("serial", "num_workers", "num_devices") else 0
        value = values.get(name)
        if not _is_number(value) or not least <= value <= _LARGEST_NUMBER:  # type: ignore[operator]
            return f"{name} is {value!r}, expected a whole number from {least} to {_LARGEST_NUMBER}"
    for name in ("network", "store"):
        if not isinstance(values.get(name, ""), str) or "network" not in values:
            return f"{name} is {values.get(name)!r}, expected text"
    said = values.get("fingerprint", {})
    if not isinstance(said, dict) or not all(isinstance(v, str) for v in said.values()):
        return "fingerprint: expected text by name"
    told, changed = values.get("hyperparameters", {}), values.get("changed", [])
    if not isinstance(changed, list) or not all(map(_is_plain, [told, *changed])):
        return "hyperparameters: expected numbers or text by name"
    files = values.get("files")
    if not isinstance(files, dict) or not files:
        return "files: expected size and checksum by name"
    for name, entry in files.items():
        if not name or "/" in name or name.startswith("."):
            return f"files: {name!r} is no name of a file in the folder"
        if not isinstance(entry, list) or len(entry) != 2 or not all(map(_is_number, entry)):
            return f"files: {name!r} has {entry!r}, expected size and checksum"
    return ""


def _is_plain(values: Any) -> bool:
    kinds = (bool, int, float, str, type(None))
    return isinstance(values, dict) and all(isinstance(value, kinds) for value in values.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def checksum_of(path: Path) -> list[int]:
    """The size and crc32 of a file."""
    size = crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return [size, crc]


def _checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
