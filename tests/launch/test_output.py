"""Lines of many processes: prefixed, whole, and none lost."""

from __future__ import annotations

import io
import random

from dmod_launch.output import LineRelay, prefix


def test_lines_are_the_same_however_the_stream_is_cut() -> None:
    text = b"one\n\ntwo \xff\r three\r\n" + b"x" * 5000 + b"\nno end"
    expected = b"".join(b"[w] " + line + b"\n" for line in text.split(b"\n"))
    for seed in range(20):
        rng, sink, rest = random.Random(seed), io.BytesIO(), text
        relay = LineRelay(sink, b"[w] ")
        while rest:
            n = rng.choice((1, 2, 7, 4096))
            relay.feed(rest[:n])
            rest = rest[n:]
        relay.finish()
        assert sink.getvalue() == expected


def test_a_line_is_written_when_it_ends_and_a_partial_one_at_the_end_of_the_stream() -> None:
    sink = io.BytesIO()
    relay = LineRelay(sink, b"[w] ")
    relay.feed(b"a\nb")
    assert sink.getvalue() == b"[w] a\n"
    relay.finish()
    relay.finish()
    assert sink.getvalue() == b"[w] a\n[w] b\n"


def test_prefixes_name_role_and_rank() -> None:
    assert prefix("worker", 0, False) == b"[worker 0] "
    assert prefix("scheduler", None, False) == b"[scheduler] "
    assert prefix("server", 1, True) == b"\x1b[35m[server 1]\x1b[0m "


TRACEBACK = b'Traceback (most recent call last):\n  File "x.py", line 1\n    fit()\n'


def test_of_a_traceback_about_a_lost_process_the_last_line_is_shown() -> None:
    sink = io.BytesIO()
    relay = LineRelay(sink, b"")
    lost = b"dmod.base.PeerLostError: push('w') waits for worker 1, which is lost\n"
    for line in (TRACEBACK + lost + b"more\n").splitlines(keepends=True):
        relay.feed(line)
    assert sink.getvalue() == lost + b"more\n"
    assert relay.last[-1] == b"more"


def test_other_tracebacks_are_shown_whole() -> None:
    for text in (
        TRACEBACK + b"ValueError: wrong\n",
        TRACEBACK + b"ValueError: wrong\n\nDuring handling of the above:\n\n" + TRACEBACK + b"KeyError: 1\n",
        TRACEBACK,  # cut short
        TRACEBACK * 2,
    ):
        sink = io.BytesIO()
        relay = LineRelay(sink, b"")
        for line in text.splitlines(keepends=True):
            relay.feed(line)
        relay.finish()
        assert sink.getvalue() == text
