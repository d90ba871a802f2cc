"""The random choices of augmenters.

They come from Python's ``random`` (`LightingAug` and `random_rotate`: from ``numpy.random``), as MXNet's do:
``random.seed`` repeats them. Within `using`, they come from a generator of its own: `ImageIter` has one per
image and epoch, so what happens to an image depends neither on other images nor on what else draws numbers.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["generator_of", "normal", "shuffled", "uniform", "uniform_array", "using", "whole", "zero_to_one"]


class _Current(threading.local):
    """The generator that this thread draws from; None: the process's."""

    generator: random.Random | None = None


_CURRENT = _Current()


def generator_of(seed: int, *places: int) -> random.Random:
    """The generator that belongs to a place, such as an epoch and an image: always the same numbers.

    Parameters
    ----------
    seed : int
        At least 0.
    places : int
        Each from 0 to 2**48 - 1.
    """
    key = seed
    for place in places:
        key = key << 48 | place
    return random.Random(key)


@contextmanager
def using(generator: random.Random) -> Iterator[None]:
    """Let the augmenters that are called within draw from `generator`; in this thread only."""
    before = _CURRENT.generator
    _CURRENT.generator = generator
    try:
        yield
    finally:
        _CURRENT.generator = before


def _source() -> Any:
    return _CURRENT.generator or random


def zero_to_one() -> float:
    """A number in [0, 1)."""
    return _source().random()


def uniform(low: float, high: float) -> float:
    """A number between `low` and `high`."""
    return _source().uniform(low, high)


def whole(low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return _source().randint(low, high)


def shuffled(things: list[Any]) -> list[Any]:
    """A list of the same things in random order."""
    things = list(things)
    _source().shuffle(things)
    return things


def normal(deviation: float, count: int) -> np.ndarray:
    """`count` normal numbers of mean 0, float64."""
    if _CURRENT.generator is None:
        return np.random.normal(0, deviation, count)
    return np.array([_CURRENT.generator.gauss(0, deviation) for _ in range(count)])


def uniform_array(low: float, high: float, count: int) -> np.ndarray:
    """`count` numbers between `low` and `high`, float64."""
    if _CURRENT.generator is None:
        return np.random.uniform(low, high, count)
    return np.array([_CURRENT.generator.uniform(low, high) for _ in range(count)])
