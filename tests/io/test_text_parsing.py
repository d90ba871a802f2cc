"""Numbers in CSV and LibSVM files: the nearest float32, whoever parses which lines."""

from __future__ import annotations

import os
import random
import signal
import struct
from collections.abc import Iterator
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import io
from dmod.base import FormatError
from dmod.io import text_parts, text_pieces


@pytest.fixture(autouse=True)
def in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of one's own; a thread for each few lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(text_pieces, "_LEAST_BYTES", 64)
    monkeypatch.setattr(text_pieces, "usable_cpus", lambda: 5)


def nearest(text: str) -> float:
    """By exact arithmetic: of the float32s around, the nearest; of two, the even one."""
    exact = Fraction(Decimal(text))
    if abs(exact) >= 2**128 - 2**103:
        return np.inf if exact > 0 else -np.inf
    high = struct.unpack("<i", struct.pack("<f", min(abs(float(exact)), 3.4028234663852886e38)))[0]
    around = [n for n in range(high - 2, high + 3) if 0 <= n < 0x7F800000]
    value = {n: struct.unpack("<f", struct.pack("<i", n))[0] for n in around}
    best = min(around, key=lambda n: (abs(Fraction(value[n]) - abs(exact)), n & 1))
    return -value[best] if text.startswith("-") else value[best]


def hard_numbers() -> Iterator[str]:
    """At, above and below the middle of two float32s; of many sizes and digits."""
    rng = random.Random(0)
    for _ in range(150):
        bits = rng.choice(
            [rng.randrange(1, 0x7F7FFFFF), rng.randrange(1, 1 << 23), 0x4B000000 + rng.randrange(1 << 25)]
        )
        low, high = (Fraction(struct.unpack("<f", struct.pack("<i", n))[0]) for n in (bits, bits + 1))
        middle = (low + high) / 2
        digits = f"{Decimal(middle.numerator) / Decimal(middle.denominator):.130e}"
        mantissa, exponent = digits.split("e")
        mantissa = mantissa.rstrip("0")
        yield f"{mantissa}e{exponent}"
        yield f"-{mantissa}1e{exponent}"
        yield f"{mantissa[:18]}e{exponent}"
        if 1e-5 < middle < 1e16:
            yield f"{float(middle):.6f}"
            yield f"{float(middle):.1f}"
    yield from ("16777217", "16777217.0", "16777219.000", "8388609.5", "0.1", "-0", "5.", ".5", "+1", "1E5")
    yield from (
        "3.4028235677973366e38",
        "3.4028235677973365e38",
        "3.5e38",
        "1e39",
        "-1e400",
        "1e-400",
        "0e999",
    )
    yield from ("7.006492321624085e-46", "7.006492321624086e-46", "1e-45", "1.1754943508222875e-38")
    yield from ("9007199254740993", "123456789012345678", "1234567890123456789", "0." + "0" * 30 + "1e30")


def test_numbers_are_the_nearest_float32() -> None:
    with localcontext() as context:
        context.prec = 200
        texts = list(hard_numbers())
        expected = np.array([nearest(text) for text in texts], np.float32)
    Path("x.csv").write_text("".join(f"{text},\n" for text in texts))
    found = io.CSVIter(data_csv="x.csv", data_shape=(1,), batch_size=len(texts)).next()
    bits = found.data[0].asnumpy()[:, 0].view(np.uint32)
    wrong = [t for t, a, b in zip(texts, bits, expected.view(np.uint32), strict=True) if a != b]
    assert not wrong
    # in descending order, so that each pair moves those before it; and as labels
    lines = []
    for start in range(0, len(texts), 7):
        pairs = list(enumerate(texts[start : start + 7]))
        lines.append(" ".join([texts[start], *(f"{i}:{text}" for i, text in reversed(pairs))]))
    Path("x.svm").write_text("\n".join(lines))
    batch = io.LibSVMIter(data_libsvm="x.svm", data_shape=(7,), batch_size=len(lines)).next()
    assert (batch.data[0].data.asnumpy().view(np.uint32) == expected.view(np.uint32)).all()
    assert (batch.label[0].asnumpy().view(np.uint32) == expected[::7].view(np.uint32)).all()


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\n\n", "\n# nothing\n"])
def test_pieces_are_put_together(newline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[Any]:
        batches = list(io.LibSVMIter(data_libsvm="x.svm", data_shape=(200,), batch_size=7, label_shape=(1,)))
        one = [[b.data[0].asnumpy().tolist(), b.label[0].asnumpy().tolist()] for b in batches]
        if "#" in newline:
            return one
        lines = list(io.CSVIter(data_csv="x.csv", data_shape=(3,), batch_size=7))
        return [*one, *(b.data[0].asnumpy().tolist() for b in lines)]

    Path("x.svm").write_text(newline.join(f"{i}:2 {i}:0.5 {i + 1}:{i}" for i in range(150)), newline="")
    Path("x.csv").write_text(newline.join(f"{i},-{i}.25, 7" for i in range(150)), newline="")
    in_five = found()
    monkeypatch.setattr(text_pieces, "usable_cpus", lambda: 1)
    assert found() == in_five and len(in_five) >= 22


def test_of_two_bad_lines_the_first_is_named() -> None:
    lines = [f"{i},{i}" for i in range(200)]
    lines[90], lines[190] = "1,x", "2"
    Path("x.csv").write_text("\n".join(lines))
    with pytest.raises(FormatError, match=r"x\.csv, line 91: 'x' is no number"):
        list(io.CSVIter(data_csv="x.csv", data_shape=(2,), batch_size=10))
    Path("x.svm").write_text("\n".join([*["1 1:2"] * 150, "1 2:2 2:3", "1 x"]))
    with pytest.raises(FormatError, match=r"x\.svm, line 151: '2:3': the line has this index already"):
        list(io.LibSVMIter(data_libsvm="x.svm", data_shape=(3,), batch_size=10))


def test_a_batch_that_is_kept_stays_as_it_is() -> None:
    Path("x.csv").write_text("".join(f"{i},{i}\n" for i in range(300)))
    iterator = io.CSVIter(data_csv="x.csv", data_shape=(2,), batch_size=100)
    kept = []
    for _ in range(6):
        kept += [batch.data[0] for batch in iterator]
        iterator.reset()
    assert all((data.asnumpy()[:, 0] == np.arange(100) + i % 3 * 100).all() for i, data in enumerate(kept))


@pytest.mark.parametrize("began", [False, True])
def test_a_forked_process_reads_on(began: bool) -> None:
    Path("x.csv").write_text("".join(f"{i},{i}\n" for i in range(300)))
    iterator = io.CSVIter(data_csv="x.csv", data_shape=(2,), batch_size=100)
    if began:
        next(iterator)
    child = os.fork()
    if child == 0:  # what is found, as the exit status; the alarm ends it if it hangs
        signal.alarm(20)
        right = False
        try:
            first = [int(batch.data[0].asnumpy()[0, 0]) for batch in iterator]
            iterator.reset()
            right = first == [0, 100, 200][began:] and len(list(iterator)) == 3
        finally:
            os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(iterator)) == 3 - began


def test_a_file_that_is_gone_is_named_with_the_bad_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("x.csv").write_text("1,2\nx,2\n")
    iterator = io.CSVIter(data_csv="x.csv", data_shape=(2,), batch_size=1)
    read = text_parts.TextPart.read

    def read_and_remove(self: Any, position: int) -> Any:
        chunk = read(self, position)
        Path("x.csv").unlink()
        return chunk

    monkeypatch.setattr(text_parts.TextPart, "read", read_and_remove)
    with pytest.raises(FormatError, match=r"x\.csv, byte 4: 'x' is no number"):
        iterator.next()
