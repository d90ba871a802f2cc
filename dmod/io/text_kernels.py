"""From the bytes of CSV and LibSVM files to numbers, in one pass over the bytes.

Compiled where numba is installed, which importing this file imports; else the same functions run as they
are, some hundred times slower. 1e6 numbers of six digits as CSV: 26 ms, ``numpy.loadtxt`` 125 ms (one core of
an AMD EPYC). A number is within two units of float64 before it is rounded to float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.device.kernels import compiled_kernels

__all__ = ["BAD_NUMBER", "BAD_WIDTH", "DONE", "OUT_OF_RANGE", "TWICE", "as_text", "parse_csv", "parse_libsvm"]

DONE, BAD_NUMBER, BAD_WIDTH, OUT_OF_RANGE, TWICE = range(5)
_POWERS = 10.0 ** np.arange(309)
_INF, _INITY, _NAN = (np.frombuffer(word, np.uint8) for word in (b"inf", b"inity", b"nan"))
_QID = np.frombuffer(b"qid:", np.uint8)
_LONGEST = 10**17  # of a mantissa: another digit still fits into an int64

_TAB, _LF, _CR, _SPACE, _HASH, _PLUS, _COMMA, _MINUS, _DOT, _0, _9, _COLON, _E = map(ord, "\t\n\r #+,-.09:e")


def _compiled(function: Callable[..., Any]) -> Any:
    if compiled_kernels() is None:
        return function
    from dmod.device.compiled_math import compiled

    return compiled(function, nogil=True)


def as_text(text: bytes) -> Any:
    """Bytes as the functions take them: an array, or, not compiled, bytes, which Python reads faster."""
    return text if compiled_kernels() is None else np.frombuffer(text, np.uint8)


@_compiled
def _after_spaces(text, at):  # type: ignore[no-untyped-def]
    while at < len(text) and (text[at] == _SPACE or text[at] == _TAB):
        at += 1
    return at


@_compiled
def _after_word(text, at, word):  # type: ignore[no-untyped-def]
    """Where `word` ends that stands at `at` in any case; `at` if it doesn't."""
    if at + len(word) > len(text):
        return at
    for k in range(len(word)):
        if text[at + k] | 32 != word[k]:
            return at
    return at + len(word)


@_compiled
def _number(text, at):  # type: ignore[no-untyped-def]
    """The number at `at`, and where it ends: at `at` if there is none."""
    start = at
    negative = at < len(text) and text[at] == _MINUS
    if at < len(text) and (text[at] == _MINUS or text[at] == _PLUS):
        at += 1
    first = at
    mantissa, exponent, point = 0, 0, 0
    while at < len(text):
        c = int(text[at])
        if _0 <= c <= _9:
            if mantissa < _LONGEST:
                mantissa = mantissa * 10 + (c - _0)
                exponent -= point
            else:
                exponent += 1 - point
        elif c == _DOT and point == 0:
            point = 1
        else:
            break
        at += 1
    if at - first - point == 0:
        end = _after_word(text, first, _INF)
        if end > first:
            return (-np.inf if negative else np.inf), _after_word(text, end, _INITY)
        end = _after_word(text, first, _NAN)
        return np.nan, (end if end > first else start)
    if at < len(text) and text[at] | 32 == _E:
        at += 1
        minus = at < len(text) and text[at] == _MINUS
        if at < len(text) and (text[at] == _MINUS or text[at] == _PLUS):
            at += 1
        first, given = at, 0
        while at < len(text) and _0 <= text[at] <= _9:
            given = min(given * 10 + (int(text[at]) - _0), 100000)
            at += 1
        if at == first:
            return np.nan, start
        exponent += -given if minus else given
    value = float(mantissa)
    if exponent < -308:  # in two steps, as the power alone would be infinite
        value = value / _POWERS[308]
        exponent = max(exponent + 308, -308)
    if exponent < 0:
        value = value / _POWERS[-exponent]
    elif mantissa:
        value = value * _POWERS[exponent] if exponent <= 308 else np.inf
    return (-value if negative else value), at


@_compiled
def _integer(text, at):  # type: ignore[no-untyped-def]
    """The whole number of at most 18 digits at `at`, and where it ends: at `at` if there is none."""
    start = at
    negative = at < len(text) and text[at] == _MINUS
    if at < len(text) and (text[at] == _MINUS or text[at] == _PLUS):
        at += 1
    first, value = at, 0
    while at < len(text) and _0 <= text[at] <= _9 and at - first < 19:
        value = value * 10 + (int(text[at]) - _0)
        at += 1
    if at == first or at - first > 18:
        at = start
    return (-value if negative else value), at


@_compiled
def _at_end_of_line(text, at):  # type: ignore[no-untyped-def]
    return at >= len(text) or text[at] == _LF or text[at] == _CR


@_compiled
def parse_csv(text, out, low, high):  # type: ignore[no-untyped-def]
    """Read lines of numbers with commas between them.

    Empty lines are passed over, and so is a comma at the end of a line.

    Parameters
    ----------
    text : uint8 array or bytes
        Whole lines.
    out : array of shape (rows, columns)
        float32, int32 or int64; with room for all lines. Fractions of whole numbers are cut off.
    low, high : int
        Between what a whole number must lie; 0 and 0 for float32.

    Returns
    -------
    (status, rows, position)
        `DONE`, or what was found at `position`: `BAD_NUMBER`, `OUT_OF_RANGE`, or `BAD_WIDTH` (a line, that
        begins there, of more or fewer numbers than columns).
    """
    rows, at, columns = 0, 0, out.shape[1]
    whole = high > low
    while at < len(text):
        at = _after_spaces(text, at)
        if _at_end_of_line(text, at):
            at += 1
            continue
        begin, column, open_ = at, 0, True  # `open_`: a comma was the last thing seen
        while True:
            at = _after_spaces(text, at)
            if _at_end_of_line(text, at):
                if open_ and column < columns:
                    return (BAD_WIDTH if column else BAD_NUMBER), rows, (begin if column else at)
                break
            if whole:
                integer, end = _integer(text, at)
                if end < len(text) and end > at and text[end] == _DOT:
                    _, end = _number(text, at)
                value = 0.0
            else:
                value, end = _number(text, at)
                integer = 0
            if end == at:
                return BAD_NUMBER, rows, at
            if whole and not low <= integer <= high:
                return OUT_OF_RANGE, rows, at
            after = _after_spaces(text, end)
            open_ = after < len(text) and text[after] == _COMMA
            if not open_ and not _at_end_of_line(text, after):
                return BAD_NUMBER, rows, at
            if column == columns:
                return BAD_WIDTH, rows, begin
            if whole:
                out[rows, column] = integer
            else:
                out[rows, column] = value
            column += 1
            at = after + 1 if open_ else after
        if column < columns:
            return BAD_WIDTH, rows, begin
        rows += 1
        at += 1
    return DONE, rows, at


@_compiled
def parse_libsvm(text, labels, indptr, indices, values, width):  # type: ignore[no-untyped-def]
    """Read lines of a label and ``index:value`` pairs.

    A weight behind the label (``1:0.5``), ``qid:7`` and comments (``# ...``) are passed over.

    Parameters
    ----------
    text : uint8 array or bytes
        Whole lines.
    labels, indptr, indices, values : arrays
        float32, int64, int64, float32; with room for all lines (`indptr` one more) and all pairs.
    width : int
        Indices must be below.

    Returns
    -------
    (status, rows, position)
        `DONE`, or what was found at `position`: `BAD_NUMBER`, `OUT_OF_RANGE` (an index), or `TWICE` (an
        index that the line already had).
    """
    rows, count, at = 0, 0, 0
    indptr[0] = 0
    while at < len(text):
        at = _after_spaces(text, at)
        if _at_end_of_line(text, at):
            at += 1
            continue
        if text[at] != _HASH:
            label, end = _number(text, at)
            if end < len(text) and end > at and text[end] == _COLON:
                at = end + 1
                _, end = _number(text, at)
            if end == at:
                return BAD_NUMBER, rows, at
            labels[rows] = label
            at = end
            while True:
                end = _after_spaces(text, at)
                if _at_end_of_line(text, end) or text[end] == _HASH:
                    at = end
                    break
                if end == at:  # no space between this and what was before it
                    return BAD_NUMBER, rows, at
                at = end
                end = _after_word(text, at, _QID)
                if end > at:
                    _, at = _integer(text, end)
                    if at == end:
                        return BAD_NUMBER, rows, at
                    continue
                index, end = _integer(text, at)
                if end == at or end >= len(text) or text[end] != _COLON:
                    return BAD_NUMBER, rows, at
                if not 0 <= index < width:
                    return OUT_OF_RANGE, rows, at
                value, after = _number(text, end + 1)
                if after == end + 1:
                    return BAD_NUMBER, rows, end + 1
                place = count  # a line's pairs are put in order
                while place > indptr[rows] and indices[place - 1] >= index:
                    if indices[place - 1] == index:
                        return TWICE, rows, at
                    indices[place], values[place] = indices[place - 1], values[place - 1]
                    place -= 1
                indices[place], values[place] = index, value
                at = after
                count += 1
            rows += 1
            indptr[rows] = count
        while not _at_end_of_line(text, at):  # a comment
            at += 1
        at += 1
    return DONE, rows, at
