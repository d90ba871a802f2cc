"""The options that file iterators have in common: checked, and as MXNet takes them."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.log import logger, show_progress

__all__ = ["batch_of", "ignore_rest", "one_dtype", "shape_of"]


def shape_of(what: str, name: str, given: Any) -> tuple[int, ...]:
    """A shape from a tuple, a number, or the text of one.

    Examples
    --------
    >>> shape_of('CSVIter', 'data_shape', '(3, 2)'), shape_of('CSVIter', 'data_shape', 4)
    ((3, 2), (4,))

    Raises
    ------
    InvalidArgument
    """
    value = given
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = None
    numbers = list(value) if isinstance(value, (tuple, list, np.ndarray)) else [value]
    if not numbers or not all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in numbers
    ):
        raise InvalidArgument(f"{what}: {name}={given!r}, expected a tuple of whole numbers from 1")
    return tuple(int(n) for n in numbers)


def batch_of(what: str, batch_size: Any) -> int:
    """A batch size that can be one.

    Raises
    ------
    InvalidArgument
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise InvalidArgument(f"{what}: batch_size={batch_size!r}, expected a whole number from 1")
    return int(batch_size)


def one_dtype(what: str, dtype: Any, known: Sequence[str]) -> np.dtype[Any]:
    """One of the dtypes that an iterator gives; the first by default.

    Raises
    ------
    InvalidArgument
    """
    if dtype is None or dtype == "None":
        return np.dtype(known[0])
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name
    if name not in known:
        raise InvalidArgument(f"{what}: dtype={dtype!r}, expected one of {', '.join(known)}")
    return np.dtype(name)


def ignore_rest(what: str, rest: Mapping[str, Any]) -> None:
    """Say which keywords have no effect."""
    if rest:
        show_progress()
        logger.warning("%s: no such option, ignored as in MXNet: %s", what, ", ".join(sorted(rest)))
