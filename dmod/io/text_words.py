"""Eight digits at a time, for the compiled parsers: digits are bytes of a word, which three products add up.

Importing this file imports numba. The sum is Lemire's ("Number parsing at a gigabyte per second", Software:
Practice and Experience, 2021).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from dmod.device.compiled_math import compiled

__all__ = ["WORD_BYTES", "add_digits", "bytes_of"]

WORD_BYTES = 8

_U = np.uint64
_ZEROS = _U(0x3030303030303030)  # the digit 0 in every byte
_ABOVE_NINE, _HIGH_BITS = _U(0x7676767676767676), _U(0x8080808080808080)
_PAIR, _LOW_BYTES = _U(10), _U(0x000000FF000000FF)
_FIRST, _SECOND = _U(1_000_000 << 32 | 100), _U(10_000 << 32 | 1)
_BYTE, _TWO_BYTES, _HALF, _WORD = _U(8), _U(16), _U(32), _U(64)
_POWERS = 10 ** np.arange(WORD_BYTES + 1, dtype=np.int64)


@intrinsic
def bytes_of(typingctx: Any, array: Any) -> Any:
    """A pointer to a uint8 array's bytes: to hand it to a function costs no counting of references."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(types.uint8)(array), generate


@intrinsic
def _word_at(typingctx: Any, pointer: Any, index: Any) -> Any:
    """The eight bytes from a place on, the first one lowest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.gep(arguments[0], [arguments[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(pointer, index), generate


@intrinsic
def _trailing_zeros(typingctx: Any, word: Any) -> Any:
    """How many of the low bits of a word are 0; 64 of 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.uint64(types.uint64), generate


@compiled
def add_digits(text, at, value):  # type: ignore[no-untyped-def]
    """Go on with a number that is `value` so far: what it is with the digits at `at`, and where they end."""
    while True:
        digits = _word_at(text, at) ^ _ZEROS  # type: ignore[call-arg]
        others = ((digits + _ABOVE_NINE) | digits) & _HIGH_BITS
        bits = _trailing_zeros(others) & ~_U(7)
        count = np.int64(bits >> _U(3))
        if count == 0:
            return value, at
        digits <<= _WORD - bits  # zeros come before them
        digits = digits * _PAIR + (digits >> _BYTE)
        digits = (digits & _LOW_BYTES) * _FIRST + ((digits >> _TWO_BYTES) & _LOW_BYTES) * _SECOND
        value = value * _POWERS[count] + np.int64(digits >> _HALF)
        at += count
        if count < WORD_BYTES:
            return value, at
