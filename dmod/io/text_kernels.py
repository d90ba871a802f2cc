"""From the bytes of CSV and LibSVM files to numbers, in one pass over the bytes.

Compiled where numba is installed, which importing this file imports; else the same functions run as they
are, some hundred times slower. Numbers are rounded to float32 once, to the nearest: what arithmetic in
float64 cannot decide is left open, and `exact_number` decides it. 1e6 numbers of six digits as CSV take 9 ms,
as LibSVM 14 ms (one core of an AMD EPYC).

Text is that of a `Chunk`: whole lines, and some ends of lines after them; so all that is read ends in time.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from dmod.device.kernels import compiled_kernels

__all__ = [
    "BAD_NUMBER",
    "BAD_WIDTH",
    "DONE",
    "OUT_OF_RANGE",
    "TWICE",
    "as_text",
    "count_byte",
    "exact_number",
    "parse_csv",
    "parse_libsvm",
]

DONE, BAD_NUMBER, BAD_WIDTH, OUT_OF_RANGE, TWICE = range(5)
_LARGEST_POWER = 75  # of ten; a mantissa of 18 digits is 0 or infinite in float32 with more
_POWERS = 10.0 ** np.arange(_LARGEST_POWER + 1)
_EXACT_POWERS = np.array([10**k for k in range(11)], np.float32)  # all that float32 has
_EXACT = 1 << 24  # whole numbers up to here are float32s
_EXACT_64 = 1 << 53
_BELOW, _ABOVE = 1 - 2.0**-49, 1 + 2.0**-49  # some times the error of a mantissa by a power
_INF, _INITY, _NAN = (np.frombuffer(word, np.uint8) for word in (b"inf", b"inity", b"nan"))
_QID = np.frombuffer(b"qid:", np.uint8)
_DIGITS = 18  # that fit into an int64
_LONGEST = 10 ** (_DIGITS - 1)

_TAB, _LF, _CR, _SPACE, _HASH, _PLUS, _COMMA, _MINUS, _DOT, _0, _9, _COLON, _E = map(ord, "\t\n\r #+,-.09:e")


def _compiled(function: Callable[..., Any]) -> Any:
    if compiled_kernels() is None:
        return function
    from dmod.device.compiled_math import compiled

    return compiled(function, nogil=True)


def as_text(text: bytearray) -> Any:
    """A chunk's text as the functions take it: an array; not compiled, itself, which Python reads faster."""
    return text if compiled_kernels() is None else np.frombuffer(text, np.uint8)


def exact_number(text: bytes | bytearray) -> np.float32:
    """The float32 nearest to a number that the functions below have left open; of two, the even one."""
    exact = Fraction(Decimal(text.decode("ascii")))
    largest = np.finfo(np.float32).max
    if abs(exact) >= 2**128 - 2**103:  # half-way to what would come after the largest one
        return np.float32(np.inf if exact > 0 else -np.inf)
    best = np.float32(min(max(float(exact), -float(largest)), float(largest)))
    for side in (-largest, largest):
        other = np.nextafter(best, side)
        farther = abs(Fraction(float(other)) - exact) - abs(Fraction(float(best)) - exact)
        if farther < 0 or (farther == 0 and not int(other.view(np.uint32)) & 1):
            return other
    return best


def _pointer_and_digits() -> tuple[Any, Any]:
    """`text_words`, or what does the same in Python."""
    if compiled_kernels() is not None:
        from dmod.io.text_words import add_digits, bytes_of

        return bytes_of, add_digits

    def digits_one_by_one(text: Any, at: int, value: int) -> tuple[int, int]:
        while _0 <= text[at] <= _9:
            value = value * 10 + (text[at] - _0)
            at += 1
        return value, at

    return lambda text: text, digits_one_by_one


_bytes_of, _add_digits = _pointer_and_digits()


@_compiled
def count_byte(source, begin, end, byte):  # type: ignore[no-untyped-def]
    """How often a byte stands in a part of a text."""
    text = _bytes_of(source)
    count = 0
    for at in range(begin, end):
        count += text[at] == byte
    return count


@_compiled
def _after_spaces(text, at):  # type: ignore[no-untyped-def]
    while text[at] == _SPACE or text[at] == _TAB:
        at += 1
    return at


@_compiled
def _after_word(text, at, word):  # type: ignore[no-untyped-def]
    """Where `word` ends that stands at `at` in any case; `at` if it doesn't."""
    for k in range(len(word)):
        if text[at + k] | 32 != word[k]:
            return at
    return at + len(word)


@_compiled
def _word(text, start, first, negative):  # type: ignore[no-untyped-def]
    """The infinity or no-number at `first`, and where it ends: at `start` if there is none."""
    end = _after_word(text, first, _INF)
    if end > first:
        return np.float32(-np.inf if negative else np.inf), _after_word(text, end, _INITY), False
    end = _after_word(text, first, _NAN)
    return np.float32(np.nan), (end if end > first else start), False


@_compiled
def _first_digits(text, at):  # type: ignore[no-untyped-def]
    """The first digits at `at` that fit into an int64, and the power of ten that the others stand for."""
    mantissa, exponent, point = 0, 0, 0
    while True:
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
            return mantissa, exponent
        at += 1


@_compiled
def _after_sign(text, at):  # type: ignore[no-untyped-def]
    """Whether a minus stands at `at`, and where that or a plus ends."""
    c = text[at]
    negative = c == _MINUS
    return negative, at + (negative or c == _PLUS)


@_compiled
def _number(text, at):  # type: ignore[no-untyped-def]
    """The number at `at`, where it ends (at `at` if there is none), and whether `exact_number` is needed."""
    start = at
    negative, first = _after_sign(text, at)
    mantissa, at = _add_digits(text, first, 0)
    c = text[at]
    exponent = 0
    digits = at - first
    if c == _DOT:
        point = at + 1
        mantissa, at = _add_digits(text, point, mantissa)
        c = text[at]
        exponent = point - at
        digits -= exponent
    if digits == 0:
        return _word(text, start, first, negative)
    if digits > _DIGITS:
        mantissa, exponent = _first_digits(text, first)
    if c | 32 == _E:
        minus, begin = _after_sign(text, at + 1)
        at, given = begin, 0
        c = text[at]
        while _0 <= c <= _9:
            given = min(given * 10 + (int(c) - _0), 100000)
            at += 1
            c = text[at]
        if at == begin:
            return np.float32(np.nan), start, False
        exponent += -given if minus else given
    if mantissa <= _EXACT and -10 <= exponent <= 10 and digits <= _DIGITS:  # one rounding, of the quotient
        if exponent <= 0:
            small = np.float32(mantissa) / _EXACT_POWERS[-exponent]
        else:
            small = np.float32(mantissa) * _EXACT_POWERS[exponent]
        return (-small if negative else small), at, False
    if mantissa == 0 or exponent < -_LARGEST_POWER:
        value = 0.0
    elif exponent > _LARGEST_POWER:
        value = np.inf
    elif exponent < 0:
        value = float(mantissa) / _POWERS[-exponent]
    else:
        value = float(mantissa) * _POWERS[exponent]
    low, high = np.float32(value * _BELOW), np.float32(value * _ABOVE)
    hard = False
    if low != high:
        whole = mantissa < _EXACT_64 and digits <= _DIGITS
        low, hard = _decided(value, low, high, mantissa if whole else -1, exponent)
    return (-low if negative else low), at, hard


@_compiled
def _decided(value, low, high, mantissa, exponent):  # type: ignore[no-untyped-def]
    """Which of two neighbours is nearer to a number, and whether that is open.

    `value` lies so near to the middle between `low` and `high` that its own error may count. It has none of
    more than half a unit if mantissa and power of ten are exact: then it is on the side on which the number
    is, or in the middle, and there its product with the power is exact and can be compared.
    """
    if mantissa < 0 or exponent < -22 or exponent > 22:
        return low, True
    if exponent == 0 or value - low != high - value:
        return np.float32(value), False
    if exponent < -11 or exponent > 0:  # 25 bits by 5**12 are more than 53 bits
        return low, True
    back = value * _POWERS[-exponent]
    if back == mantissa:
        return np.float32(value), False
    return (high if mantissa > back else low), False


@_compiled
def _integer(text, at):  # type: ignore[no-untyped-def]
    """The whole number of at most 18 digits at `at`, and where it ends: at `at` if there is none."""
    start = at
    negative, first = _after_sign(text, at)
    value, at = _add_digits(text, first, 0)
    if at == first or at - first > _DIGITS:
        at = start
    return (-value if negative else value), at


@_compiled
def _at_end_of_line(text, at):  # type: ignore[no-untyped-def]
    return text[at] == _LF or text[at] == _CR


@_compiled
def parse_csv(source, begin, end, out, low, high, hard):  # type: ignore[no-untyped-def]
    """Read lines of numbers with commas between them.

    Empty lines are passed over, and so is a comma at the end of a line.

    Parameters
    ----------
    source : uint8 array or bytearray
        Of `as_text`.
    begin, end : int
        Which lines of it.
    out : array of shape (rows, columns)
        float32, int32 or int64; with room for all lines. Fractions of whole numbers are cut off.
    low, high : int
        Between what a whole number must lie; 0 and 0 for float32.
    hard : int64 array of shape (count, 2)
        For numbers that are left to `exact_number`: their places in `out`, as if it were flat, and where they
        stand.

    Returns
    -------
    (status, rows, position, hards)
        `DONE`, or what was found at `position`: `BAD_NUMBER`, `OUT_OF_RANGE`, or `BAD_WIDTH` (a line, that
        begins there, of more or fewer numbers than columns). `hards` may be more than there was room for.
    """
    text = _bytes_of(source)
    rows, at, columns, hards = 0, begin, out.shape[1], 0
    whole = high > low
    while at < end:
        at = _after_spaces(text, at)
        if _at_end_of_line(text, at):
            at += 1
            continue
        line, column, open_ = at, 0, True  # `open_`: a comma was the last thing seen
        while True:
            at = _after_spaces(text, at)
            if _at_end_of_line(text, at):
                if open_ and column < columns:
                    return (BAD_WIDTH if column else BAD_NUMBER), rows, (line if column else at), hards
                break
            integer, is_hard = 0, False
            if whole:
                integer, after = _integer(text, at)
                if after > at and text[after] == _DOT:
                    _, after, _ = _number(text, at)
                value = np.float32(0)
            else:
                value, after, is_hard = _number(text, at)
            if after == at:
                return BAD_NUMBER, rows, at, hards
            if whole and not low <= integer <= high:
                return OUT_OF_RANGE, rows, at, hards
            start = at
            at = _after_spaces(text, after)
            open_ = text[at] == _COMMA
            if not open_ and not _at_end_of_line(text, at):
                return BAD_NUMBER, rows, start, hards
            if column == columns:
                return BAD_WIDTH, rows, line, hards
            if whole:
                out[rows, column] = integer
            else:
                out[rows, column] = value
                if is_hard:
                    if hards < len(hard):
                        hard[hards, 0], hard[hards, 1] = rows * columns + column, start
                    hards += 1
            column += 1
            at += open_
        if column < columns:
            return BAD_WIDTH, rows, line, hards
        rows += 1
        at += 1
    return DONE, rows, at, hards


@_compiled
def parse_libsvm(source, begin, end, labels, indptr, indices, values, width, hard):  # type: ignore[no-untyped-def]
    """Read lines of a label and ``index:value`` pairs.

    A weight behind the label (``1:0.5``), ``qid:7`` and comments (``# ...``) are passed over.

    Parameters
    ----------
    source : uint8 array or bytearray
        Of `as_text`.
    begin, end : int
        Which lines of it.
    labels, indptr, indices, values : arrays
        float32, int64, int64, float32; with room for all lines (`indptr` one more) and all pairs.
    width : int
        Indices must be below.
    hard : int64 array of shape (count, 2)
        For numbers that are left to `exact_number`: their places in `values`, or ``-1 - place`` in `labels`,
        and where they stand.

    Returns
    -------
    (status, rows, position, hards)
        `DONE`, or what was found at `position`: `BAD_NUMBER`, `OUT_OF_RANGE` (an index), or `TWICE` (an
        index that the line already had). `hards` may be more than there was room for.
    """
    text = _bytes_of(source)
    rows, count, at, hards = 0, 0, begin, 0
    indptr[0] = 0
    while at < end:
        at = _after_spaces(text, at)
        if _at_end_of_line(text, at):
            at += 1
            continue
        if text[at] != _HASH:
            label, after, is_hard = _number(text, at)
            if is_hard:
                if hards < len(hard):
                    hard[hards, 0], hard[hards, 1] = -1 - rows, at
                hards += 1
            if after > at and text[after] == _COLON:
                at = after + 1
                _, after, _ = _number(text, at)
            if after == at:
                return BAD_NUMBER, rows, at, hards
            labels[rows] = label
            at = after
            while True:
                after = _after_spaces(text, at)
                if _at_end_of_line(text, after) or text[after] == _HASH:
                    at = after
                    break
                if after == at:  # no space between this and what was before it
                    return BAD_NUMBER, rows, at, hards
                at = after
                after = _after_word(text, at, _QID)
                if after > at:
                    _, at = _integer(text, after)
                    if at == after:
                        return BAD_NUMBER, rows, at, hards
                    continue
                index, after = _integer(text, at)
                if after == at or text[after] != _COLON:
                    return BAD_NUMBER, rows, at, hards
                if not 0 <= index < width:
                    return OUT_OF_RANGE, rows, at, hards
                start = after + 1
                value, after, is_hard = _number(text, start)
                if after == start:
                    return BAD_NUMBER, rows, start, hards
                place = count  # a line's pairs are put in order
                while place > indptr[rows] and indices[place - 1] >= index:
                    if indices[place - 1] == index:
                        return TWICE, rows, at, hards
                    indices[place], values[place] = indices[place - 1], values[place - 1]
                    place -= 1
                indices[place], values[place] = index, value
                if is_hard or (hards and place < count):
                    hards = _note_hard(hard, hards, place, count, start if is_hard else -1)
                at = after
                count += 1
            rows += 1
            indptr[rows] = count
        while not _at_end_of_line(text, at):  # a comment
            at += 1
        at += 1
    return DONE, rows, at, hards


@_compiled
def _note_hard(hard, hards, place, count, start):  # type: ignore[no-untyped-def]
    """Note that a number was put at `place`, before others up to `count`, and is hard if it has a `start`."""
    for k in range(min(hards, len(hard))):
        if hard[k, 0] >= place:
            hard[k, 0] += 1
    if start >= 0:
        if hards < len(hard):
            hard[hards, 0], hard[hards, 1] = place, start
        hards += 1
    return hards
