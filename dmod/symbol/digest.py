"""What tells networks apart, short enough to be compared between workers and noted in files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from dmod.symbol.symbol import Symbol

__all__ = ["digest_of"]


def digest_of(symbols: Iterable[Symbol]) -> str:
    """A digest, in 16 hexadecimal digits, of the JSON of symbols.

    Examples
    --------
    >>> from dmod.symbol import var
    >>> x, y = var('x'), var('y')
    >>> digest_of([x]) == digest_of([x]), digest_of([x]) == digest_of([y])
    (True, False)
    """
    texts = (symbol.tojson() for symbol in symbols)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
