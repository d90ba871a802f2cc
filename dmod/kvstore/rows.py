"""Some rows of a key's value: where they lie in its pieces, and what a server makes of that.

A piece holds elements, and may begin and end within a row; so what is asked of a server are spans of
elements of its piece, ascending and apart from each other.
"""

from __future__ import annotations

import numpy as np

from dmod.kvstore.actions import Payload

__all__ = ["gathered", "parsed_spans", "spans_of_rows"]


MAX_SPANS = 1 << 17
"""Most spans of one message: 2 MB."""


def spans_of_rows(
    rows: np.ndarray, width: int, start: int, stop: int, most: int = MAX_SPANS
) -> list[tuple[np.ndarray, slice]]:
    """What of some rows lies in a piece.

    Parameters
    ----------
    rows : ndarray of int64
        Ascending, each once.
    width : int
        Elements of a row.
    start, stop : int
        The piece's place in the key's buffer.
    most : int
        Spans at a time.

    Returns
    -------
    list of (spans, part)
        spans : ndarray of int64, shape (n, 2): first element and the one after the last, counted from the
        beginning of the piece; neighbouring rows are one span. part : slice: where these elements lie in the
        array of all rows that were asked for.

    Examples
    --------
    >>> spans_of_rows(np.array([0, 2, 3, 5]), 4, 6, 22)
    [(array([[ 2, 10],
           [14, 16]]), slice(4, 14, None))]
    """
    first = int(np.searchsorted(rows * width + width, start, side="right"))
    last = int(np.searchsorted(rows * width, stop, side="left"))
    begins, ends = rows[first:last] * width, rows[first:last] * width + width
    if not width or first >= last:
        return []
    apart = np.flatnonzero(begins[1:] > ends[:-1])
    begins, ends = begins[np.r_[0, apart + 1]], ends[np.r_[apart, len(ends) - 1]]
    position = first * width + max(0, start - int(begins[0]))
    spans = np.stack([np.maximum(begins, start), np.minimum(ends, stop)], axis=1) - start
    parts = []
    for low in range(0, len(spans), most):
        some = spans[low : low + most]
        count = int((some[:, 1] - some[:, 0]).sum())
        parts.append((some, slice(position, position + count)))
        position += count
    return parts


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
    # Compared, not subtracted: differences of what a peer may send overflow.
    if edges.size and (edges[0] < 0 or edges[-1] > size or (edges[1:] < edges[:-1]).any()):
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
