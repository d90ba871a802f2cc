"""``mx.engine``: accepted for MXNet's sake.

MXNet's engine runs operators in the background, and can bundle them. Here an executor's plan has no cost
between its steps, so there is nothing to bundle; a size changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dmod.base import InvalidArgument

__all__ = ["bulk", "set_bulk_size"]

_size = 0


def set_bulk_size(size: int) -> int:
    """Remember `size`; returns the one before.

    Examples
    --------
    >>> set_bulk_size(15)
    0
    >>> set_bulk_size(0)
    15
    """
    global _size
    if size < 0:
        raise InvalidArgument(f"set_bulk_size({size}): expected at least 0")
    previous, _size = _size, int(size)
    return previous


@contextmanager
def bulk(size: int) -> Iterator[None]:
    """`set_bulk_size` within a with statement."""
    previous = set_bulk_size(size)
    try:
        yield
    finally:
        set_bulk_size(previous)
