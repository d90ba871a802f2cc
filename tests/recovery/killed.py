"""Trains, and is killed by signal 9 at every single thing that writing a checkpoint does to the disk.

As a script, ``killed.py DIRECTORY [all]``: for each of these moments of the second checkpoint (or of all) a
process of its own dies there, and another one goes on; its result must be that of an undisturbed one. Prints
a line for each moment that it was not so, and at last how many there were.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.recovery.program import manager, train

_EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
_WRITES = os.O_WRONLY | os.O_RDWR


def watch(touched: Callable[[str], None]) -> None:
    """Call `touched` before each thing that the writer's thread does to the disk."""
    last_file = ""

    def note(what: str) -> None:
        if threading.current_thread().name.startswith("dmod checkpoint writer"):  # or one that syncs for it
            touched(what)

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal last_file
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
            last_file = Path(str(arguments[0])).name
            note(f"open {last_file}")
        elif event in _EVENTS:
            note(f"{event} {Path(str(arguments[0])).name}")

    def noted(name: str) -> None:
        call = getattr(os, name)

        def noting(*arguments: object) -> object:
            note(f"{name} {last_file}")
            return call(*arguments)

        setattr(os, name, noting)

    for name in ("pwrite", "ftruncate", "fsync"):
        noted(name)
    sys.addaudithook(audit)


def run(directory: Path) -> str:
    return train(manager(directory, every_n_batches=None, keep=1))[0]


def in_a_fork(body: Callable[[], str]) -> tuple[int, str]:
    """The exit status, negative for a signal, and the result of a function in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.write(writer, body().encode())
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as pipe:
        result = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), result


def moments(directory: Path) -> list[str]:
    """What the writer does to the disk in an undisturbed run, in order."""

    def body() -> str:
        found: list[str] = []
        watch(found.append)
        run(directory)
        return "\n".join(found)

    return in_a_fork(body)[1].splitlines()


def killed_at(number: int, directory: Path) -> bool:
    """Whether a run died before the moment `number`."""

    def body() -> str:
        left = iter(range(number))

        def touched(what: str) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        watch(touched)
        return run(directory)

    return in_a_fork(body)[0] == -signal.SIGKILL


def main(path: str, which: str = "second") -> int:
    root = Path(path)
    expected = in_a_fork(lambda: train()[0])
    found = moments(root / "undisturbed")
    begins = [number for number, what in enumerate(found) if what.startswith("os.mkdir")]
    chosen = range(len(found)) if which == "all" else range(begins[1], begins[2] + 1)
    wrong = 0
    for number in chosen:
        folder = root / str(number)
        died = killed_at(number, folder)
        result = in_a_fork(lambda folder=folder: run(folder))
        whole = [p.name for p in folder.iterdir() if (p / "manifest.json").exists()]
        if not died or result != expected or len(whole) != 1:
            wrong += 1
            print(
                f"{number} ({found[number]}): died: {died}, then {result}, expected {expected}; left {whole}"
            )
        shutil.rmtree(folder)
    print(f"{len(chosen)} moments, {wrong} wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
