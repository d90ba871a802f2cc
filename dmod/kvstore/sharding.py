"""Which pieces a key is cut into, and which server keeps each of them.

All ranks compute this for themselves, from the layouts in the order in which keys are initialised and
from the number of servers; servers compare what the workers arrived at when a key is initialised.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dmod.base import InvalidArgument
from dmod.kvstore.messages import Cut
from dmod.ndarray.flat import ALIGNMENT, FlatLayout

__all__ = ["MAX_PIECE_NBYTES", "Sharder", "cut"]

MAX_PIECE_NBYTES = 16 << 20
"""Most bytes of a piece in the dtype that it is summed in. Larger messages are slower: 64 MB ones go at a
quarter of the speed of 4 MB ones."""

PAGE_NBYTES = 4096
"""Workers of the same host can map pieces that begin and end with pages."""


def cut(layout: FlatLayout, unit_bytes: int, *, uncut: bool = False) -> list[tuple[int, int]]:
    """Cut a key's buffer into pieces ``[start, stop)`` of about `unit_bytes`, in elements.

    Boundaries lie at multiples of a page, or of 64 bytes if pieces are small, or at the ends of segments if
    `uncut`, for optimizers which need whole arrays. Pieces of one key are about equal: a buffer of 1.1 units
    becomes two halves.

    Raises
    ------
    InvalidArgument
        With `uncut`: an array is larger than a piece may be.
    """
    itemsize = np.dtype(layout.dtype).itemsize
    # A float16 key's contributions may come in float32, so pieces are measured in that.
    nbytes_each = max(itemsize, 4) if layout.dtype == "float16" else itemsize
    limit = max(1, min(unit_bytes, MAX_PIECE_NBYTES) // nbytes_each)
    if layout.size == 0:
        return []
    if uncut:
        return list(_between_segments(layout, limit, MAX_PIECE_NBYTES // nbytes_each))
    nbytes = ALIGNMENT if limit * itemsize < 16 * PAGE_NBYTES else PAGE_NBYTES
    step = max(1, nbytes // itemsize)
    count = -(-layout.size // max(step, limit))
    size = -(-layout.size // (count * step)) * step
    return [(start, min(start + size, layout.size)) for start in range(0, layout.size, size)]


def _between_segments(layout: FlatLayout, limit: int, most: int) -> Iterator[tuple[int, int]]:
    start = 0
    ends = [segment.start for segment in layout.segments[1:]] + [layout.size]
    for segment, end in zip(layout.segments, ends, strict=True):
        if segment.stop - segment.start > most:
            raise InvalidArgument(
                f"{segment.name!r}: {segment.stop - segment.start} elements cannot be kept in one piece, "
                f"of which at most {most} are allowed; use an optimizer that works on parts of arrays, "
                "or run it in the workers"
            )
        if segment.start > start and segment.stop - start > limit:
            yield start, segment.start
            start = segment.start
        if end - start > most:  # padding behind the last array of a piece
            yield start, segment.stop
            start = segment.stop
    if start < layout.size:
        yield start, layout.size


class Sharder:
    """Places pieces: each on the server with the fewest bytes so far, the first of equals.

    Parameters
    ----------
    num_servers : int
    unit_bytes : int
    """

    def __init__(self, num_servers: int, unit_bytes: int):
        self.unit_bytes = unit_bytes
        self.order = 0
        self.nbytes = [0] * num_servers

    def place(self, layout: FlatLayout, *, uncut: bool = False) -> tuple[int, tuple[Cut, ...]]:
        """The number of the next key, from 0, and its pieces.

        Examples
        --------
        >>> layout = FlatLayout.plan([(0, 'w', (64,))], 'float32')
        >>> Sharder(2, 128).place(layout)
        (0, (Cut(start=0, stop=32, server=0), Cut(start=32, stop=64, server=1)))
        """
        itemsize = np.dtype(layout.dtype).itemsize
        pieces, nbytes = [], list(self.nbytes)
        for start, stop in cut(layout, self.unit_bytes, uncut=uncut):
            server = nbytes.index(min(nbytes))
            nbytes[server] += (stop - start) * itemsize
            pieces.append(Cut(start, stop, server))
        order, self.order, self.nbytes = self.order, self.order + 1, nbytes
        return order, tuple(pieces)
