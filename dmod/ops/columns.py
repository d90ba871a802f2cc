"""Columns: the points of all windows of some images as a matrix, so that a convolution is a product.

The images are first copied into padded rows. A row's right padding is the next row's left padding, and
with stride 1 whole images are copied at once, gaps included: the runs are long, which is four times as
fast as copying row by row, for a few columns that are computed in vain. Measured on ResNet-20: the columns
cost a tenth of the product.

A few images are taken at a time, so that their columns stay in the cache between copy and product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from dmod.ops.registry import Call, Shape
from dmod.ops.window import Window, strided

__all__ = ["Columns", "Images", "work_dtype"]

_CACHE_NBYTES = 1024 * 1024
# A gap in every row costs 2 * rows / (100 GFLOP/s) for each point of the window, a run of its own 4 ns.
_MAX_GAP_ROWS = 250


def work_dtype(dtype: np.dtype) -> np.dtype:
    """What products are computed in: BLAS has no float16."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype


class Columns:
    """Scratch memory for the columns of up to `block` images of `channels` channels.

    Parameters
    ----------
    call : Call
    window : Window
    channels, batch : int
    rows : int
        The number of rows of the product with the columns; None if there must be no gaps.
    dtype : numpy.dtype
        Of the columns.

    Attributes
    ----------
    block : int
        How many images are taken at a time.
    width : int
        The length of the last axis of `grid`; positions from ``window.out[-1]`` on are gaps.
    """

    def __init__(
        self, call: Call, window: Window, channels: int, batch: int, rows: int | None, dtype: np.dtype
    ):
        self.xp, self.window, self.channels, self.dtype = call.xp, window, channels, dtype
        one_axis = len(window.size) == 1
        self.pitch = max(window.size[-1] + window.pad[-1], window.out[-1])
        plain = one_axis or any(s != 1 for s in window.stride[-2:])
        gap = self.pitch - window.out[-1]
        self.is_pitched = not plain and rows is not None and gap * rows <= _MAX_GAP_ROWS
        self.width = self.pitch if self.is_pitched else window.out[-1]
        self.grid: Shape = (*window.out[:-1], self.width)
        padded = [n + 2 * p for n, p in zip(window.size, window.pad, strict=True)]
        self.steps = [1] * len(padded)
        for axis in range(len(padded) - 2, -1, -1):
            below = self.pitch if axis == len(padded) - 2 else padded[axis + 1]
            self.steps[axis] = self.steps[axis + 1] * below
        beyond = (window.kernel[-1] - 1) * window.dilate[-1] + 1 + window.pad[-1]
        self.plane = padded[0] * self.steps[0] + beyond
        nbytes = channels * window.taps * math.prod(self.grid) * dtype.itemsize
        self.block = max(1, min(batch, _CACHE_NBYTES // max(1, nbytes)))
        self.batch = batch
        self.matrix_size = self.block * channels * window.taps * math.prod(self.grid)
        self._columns = call.scratch((self.matrix_size,), dtype)
        self._planes = call.scratch((self.block * channels * self.plane,), dtype)

    def clear(self) -> None:
        """Zero the padding; once per step, as other steps use the same memory."""
        self._planes.fill(0)

    def blocks(self) -> Iterator[Images]:
        """The blocks of images, in order; the last one may be shorter."""
        for start in range(0, self.batch, self.block):
            yield Images(self, start, min(self.block, self.batch - start))

    def gapped(self, call: Call, channels: int) -> Any:
        """Scratch memory for `channels` values at each position of a block's grid."""
        return call.scratch((self.block * channels * math.prod(self.grid),), self.dtype)

    def on_grid(self, memory: Any, channels: int, count: int, groups: int) -> tuple[Any, Any]:
        """A `gapped` array as matrices (groups, C / groups, columns), and without gaps as (N, C, ...)."""
        n = len(self.grid)
        used = memory[: count * channels * math.prod(self.grid)].reshape(channels, count, *self.grid)
        inner = used[..., : self.window.out[-1]].transpose(1, 0, *range(2, n + 2))
        return used.reshape(groups, channels // groups, -1), inner


class Images:
    """The views of one block of images, `count` of them from number `start` on."""

    def __init__(self, columns: Columns, start: int, count: int):
        own, window = columns, columns.window
        self.columns, self.start, self.stop, self.count = columns, start, start + count, count
        n, steps, plane = own.channels, own.steps, own.plane
        lead = sum(p * step for p, step in zip(window.pad, steps, strict=True))
        self.inner = strided(own.xp, own._planes, lead, (count, n, *window.size), (n * plane, plane, *steps))
        taps = [d * step for d, step in zip(window.dilate, steps, strict=True)]
        if own.is_pitched:
            positions = (*window.out[:-2], window.out[-2] * own.width)
            moves: list[int] = [*steps[:-2], 1]
        else:
            positions = window.out
            moves = [s * step for s, step in zip(window.stride, steps, strict=True)]
        self._windows = strided(
            own.xp,
            own._planes,
            0,
            (n, *window.kernel, count, *positions),
            (plane, *taps, n * plane, *moves),
        )
        used = count * own.matrix_size // own.block
        self._points = own._columns[:used].reshape(n, *window.kernel, count, *positions)
        self._flat = own._columns[:used].reshape(n * window.taps, -1)

    def matrix(self, groups: int) -> Any:
        """The columns, as one matrix for each group of channels: (groups, C / groups * taps, columns)."""
        return self._flat.reshape(groups, self._flat.shape[0] // groups, -1)

    def gather(self, images: Any) -> None:
        """Fill the columns from all images (N, C, ...)."""
        self.columns.xp.copyto(self.inner, images[self.start : self.stop])
        self.columns.xp.copyto(self._points, self._windows)

    def scatter(self, images: Any) -> None:
        """Add up the columns into the images (N, C, ...) that they were gathered from."""
        xp = self.columns.xp
        self.columns.clear()
        for tap in np.ndindex(self.columns.window.kernel):
            target = self._windows[(slice(None), *tap)]
            xp.add(target, self._points[(slice(None), *tap)], out=target)
        xp.copyto(images[self.start : self.stop], self.inner)
