"""Some rows of a key's value: where they lie in its pieces, and what a server makes of that.

A piece holds elements, and may begin and end within a row; so what is asked of a server are spans of
elements of its piece, ascending and apart from each other.
"""

from __future__ import annotations

import numpy as np

from dmod.kvstore.actions import Payload

__all__ = ["gathered", "parsed_spans", "spans_of_rows"]


def spans_of_rows(rows: np.ndarray, width: int, start: int, stop: int) -> tuple[np.ndarray, slice]:
    """What of some rows lies in a piece.

    Parameters
    ----------
    rows : ndarray of int64
        Ascending, each once.
    width : int
        Elements of a row.
    start, stop : int
        The piece's place in the key's buffer.

    Returns
    -------
    spans : ndarray of int64, shape (n, 2)
        First element and the one after the last, counted from the beginning of the piece.
    part : slice
        Where these elements lie in the array of all rows that were asked for.

    Examples
    --------
    >>> spans_of_rows(np.array([0, 2, 3]), 4, 6, 14)
    (array([[2, 6],
           [6, 8]]), slice(4, 10, None))
    """
    first = int(np.searchsorted(rows * width + width, start, side="right"))
    last = int(np.searchsorted(rows * width, stop, side="left"))
    begins, ends = rows[first:last] * width, rows[first:last] * width + width
    spans = np.stack([np.maximum(begins, start), np.minimum(ends, stop)], axis=1) - start
    count = int((spans[:, 1] - spans[:, 0]).sum())
    begin = first * width + (max(0, start - int(begins[0])) if count else 0)
    return spans, slice(begin, begin + count)


def parsed_spans(payload: Payload, size: int) -> np.ndarray:
    """The spans that a message brings, as `spans_of_rows` makes them.

    Raises
    ------
    ValueError
        They are not that, or not within a piece of `size` elements.
    """
    numbers: np.ndarray = np.frombuffer(payload, np.int64)  # ValueError: no whole number of elements
    if numbers.size % 2:
        raise ValueError(f"{numbers.size} numbers are no spans")
    edges = numbers.copy()
    if edges.size and (edges[0] < 0 or edges[-1] > size or (np.diff(edges) < 0).any()):
        raise ValueError(f"spans within {size} elements have to ascend")
    return edges.reshape(-1, 2)


def gathered(value: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """The elements of `value` in some spans, one after the other.

    Examples
    --------
    >>> gathered(np.arange(10) * 10, np.array([[1, 3], [7, 8]]))
    array([10, 20, 70])
    """
    lengths = spans[:, 1] - spans[:, 0]
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if ends.size else 0
    chosen: np.ndarray = value[np.arange(total) + np.repeat(spans[:, 0] - (ends - lengths), lengths)]
    return chosen
