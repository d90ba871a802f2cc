"""Parameters of operators: typed, with defaults, parsed from the strings that symbols keep.

Parsing evaluates nothing: it accepts numbers, truth values, tuples of integers and listed words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.registry import nearest

__all__ = [
    "REQUIRED",
    "Kind",
    "Param",
    "boolean",
    "choice",
    "dtype",
    "integer",
    "number",
    "numbers",
    "optional",
    "partial_shape",
    "shape",
    "text",
]

REQUIRED = object()


@dataclass(frozen=True)
class Kind:
    """A type of parameter: how it is described, and parsed from text (ValueError if it cannot be)."""

    describe: str
    parse: Callable[[str], Any]


@dataclass(frozen=True)
class Param:
    """One parameter of an operator.

    Attributes
    ----------
    name : str
    kind : Kind
    default : object
        Already parsed; `REQUIRED` if there is none.
    doc : str
    """

    name: str
    kind: Kind
    default: Any = REQUIRED
    doc: str = ""

    @property
    def required(self) -> bool:
        """Whether a user must give it."""
        return self.default is REQUIRED

    def parse(self, text: str, where: str) -> Any:
        """The value of `text`; `InvalidArgument` names `where`, what was expected and what came."""
        try:
            return self.kind.parse(text.strip())
        except (ValueError, OverflowError) as error:
            hint = str(error) if isinstance(error, _Hint) else ""
            raise InvalidArgument(f"{where}: expected {self.kind.describe}, got {text!r}{hint}") from None


class _Hint(ValueError):
    """A parse error with something to add to the message."""


def _parse_bool(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("true", "1"):
        return True
    if lowered in ("false", "0"):
        return False
    raise ValueError


def _parse_integer(text: str) -> int:
    value = int(text.removesuffix("L"))
    if not -(2**63) <= value < 2**63:
        raise ValueError
    return value


_TUPLE = re.compile(r"\s*[\(\[]?\s*((?:-?\d+L?\s*,\s*)*(?:-?\d+L?)?)\s*[\)\]]?\s*")


def _parse_shape(text: str) -> tuple[int, ...]:
    match = _TUPLE.fullmatch(text)
    if match is None:
        raise ValueError
    return tuple(_parse_integer(part.strip()) for part in match[1].split(",") if part.strip())


def _parse_partial_shape(text: str) -> tuple[int | None, ...]:
    parts = text.strip("()[] ").split(",")
    return tuple(None if p.strip() == "None" else _parse_integer(p.strip()) for p in parts if p.strip())


def _parse_numbers(text: str) -> tuple[float, ...]:
    return tuple(float(p) for p in text.strip("()[] ").split(",") if p.strip())


def _parse_dtype(text: str) -> np.dtype:
    if text not in ("float16", "float32", "float64", "uint8", "int8", "int32", "int64", "bool"):
        raise ValueError
    return np.dtype(text)


integer = Kind("a whole number", _parse_integer)
number = Kind("a number", float)
boolean = Kind("True or False", _parse_bool)
shape = Kind("a tuple of whole numbers", _parse_shape)
partial_shape = Kind("a tuple of whole numbers or None", _parse_partial_shape)
numbers = Kind("a tuple of numbers", _parse_numbers)
dtype = Kind("a dtype such as 'float32'", _parse_dtype)
text = Kind("a string", str)


def choice(words: Sequence[str]) -> Kind:
    """One of some words."""

    def parse(text: str) -> str:
        if text not in words:
            raise _Hint(nearest(text, words))
        return text

    return Kind(f"one of {', '.join(words)}", parse)


def optional(kind: Kind) -> Kind:
    """`kind`, or None."""
    return Kind(f"{kind.describe} or None", lambda text: None if text == "None" else kind.parse(text))
