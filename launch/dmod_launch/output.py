"""Many processes' output on one terminal: every line begins with whose it is, and none is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import BinaryIO

__all__ = ["LineRelay", "prefix"]

LAST_LINES = 3
"""How many lines of a process are told again when it has failed."""
_TRACEBACK = b"Traceback (most recent call last):"
_CONSEQUENCE = b"dmod.base.PeerLostError: "
_LONGEST = 5000
"""Lines of a traceback that are held back; Python shortens one that repeats itself long before."""
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

    Of a traceback that ends with a `PeerLostError`, the last line alone is shown: it says who was lost, and
    where this process stood when it was tells nothing about that.

    Parameters
    ----------
    sink : binary file
    prefix : bytes
    watch : callable, optional
        Is shown every line.

    Attributes
    ----------
    last : deque of bytes
        The last few lines that are not empty.
    brief : bool
        Leave out Python's tracebacks, all but the last line of each, and that too where it says no more
        than KeyboardInterrupt: the user has ended the job, and knows why.
    muted : bool
        Show nothing any more; `last` goes on.

    Examples
    --------
    >>> import io
    >>> sink = io.BytesIO()
    >>> relay = LineRelay(sink, b'[worker 0] ')
    >>> relay.brief = True
    >>> relay.feed(b'one\\nTraceback (most recent call last):\\n  File "x.py"\\nKeyboardInterrupt\\ntwo\\n')
    >>> sink.getvalue()
    b'[worker 0] one\\n[worker 0] two\\n'
    """

    def __init__(self, sink: BinaryIO, prefix: bytes, watch: Callable[[bytes], None] | None = None):
        self._sink, self._prefix, self._watch = sink, prefix, watch
        self.last: deque[bytes] = deque(maxlen=LAST_LINES)
        self.brief = False
        self.muted = False
        self._in_traceback = False
        self._held: list[bytes] = []  # of a traceback that has not ended yet
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
        if not self.muted:
            self._show(self._held)
        self._held = []

    def _without_traceback(self, line: bytes) -> bool:
        """Whether a line is to be shown."""
        if line.startswith(_TRACEBACK):
            self._in_traceback = True
            return False
        if not self._in_traceback:
            return not line.startswith((b"During handling of the above", b"The above exception was the"))
        if not line or line.startswith((b" ", b"\t")):
            return False
        self._in_traceback = False
        return line.strip() != b"KeyboardInterrupt"

    def _without_consequences(self, lines: list[bytes]) -> list[bytes]:
        """Lines that are to be shown now: a traceback is held back until it has ended."""
        shown: list[bytes] = []
        for line in lines:
            if line.startswith(_TRACEBACK):
                shown += self._held
                self._held = [line]
            elif not self._held:
                shown.append(line)
            elif (not line or line.startswith((b" ", b"\t"))) and len(self._held) < _LONGEST:
                self._held.append(line)
            else:
                shown += [line] if line.startswith(_CONSEQUENCE) else [*self._held, line]
                self._held = []
        return shown

    def _write(self, lines: list[bytes]) -> None:
        self.last.extend(line for line in lines[-LAST_LINES:] if line.strip())
        if self._watch is not None:
            for line in lines:
                self._watch(line)
        if self.muted:
            return
        if self.brief:
            lines = [line for line in (*self._held, *lines) if self._without_traceback(line)]
            self._held = []
        else:
            lines = self._without_consequences(lines)
        self._show(lines)

    def _show(self, lines: list[bytes]) -> None:
        self._sink.write(b"".join(self._prefix + line + b"\n" for line in lines))
        self._sink.flush()
