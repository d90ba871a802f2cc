"""Many processes' output on one terminal: every line begins with whose it is, and none is lost."""

from __future__ import annotations

from typing import BinaryIO

__all__ = ["LineRelay", "prefix"]

_COLOURS = {"scheduler": 90, "server": 35, "launcher": 33}
_WORKER_COLOURS = (36, 32, 34, 95, 96, 92, 94)


def prefix(role: str, rank: int | None, colour: bool) -> bytes:
    """What a process's lines begin with, such as ``[worker 0]``.

    Examples
    --------
    >>> prefix('worker', 0, colour=False)
    b'[worker 0] '
    """
    text = f"[{role}]" if rank is None else f"[{role} {rank}]"
    if colour:
        number = _COLOURS.get(role) or _WORKER_COLOURS[(rank or 0) % len(_WORKER_COLOURS)]
        text = f"\x1b[{number}m{text}\x1b[0m"
    return f"{text} ".encode()


class LineRelay:
    """Passes one stream's lines on, each with a prefix. Bytes are passed on as they are.

    Parameters
    ----------
    sink : binary file
    prefix : bytes
    """

    def __init__(self, sink: BinaryIO, prefix: bytes):
        self._sink, self._prefix = sink, prefix
        self._parts: list[bytes] = []  # of the line that has not ended yet

    def feed(self, data: bytes) -> None:
        """Take what has come; write the lines that it ends."""
        head, newline, tail = data.rpartition(b"\n")
        if not newline:
            self._parts.append(data)
            return
        lines = b"".join((*self._parts, head)).split(b"\n")
        self._parts = [tail] if tail else []
        self._write(lines)

    def finish(self) -> None:
        """The stream has ended: write the line that has not, if any."""
        if self._parts:
            self._write([b"".join(self._parts)])
            self._parts = []

    def _write(self, lines: list[bytes]) -> None:
        self._sink.write(b"".join(self._prefix + line + b"\n" for line in lines))
        self._sink.flush()
