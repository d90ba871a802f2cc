"""From a window of a decoded picture to its place in a batch: mirrored, normalised, cast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from dmod.config import settings

__all__ = ["Normalizer", "Window"]

# Decoded pixels lie blue first; batches have red first, alpha last.
_ORDERS = {1: (0,), 3: (2, 1, 0), 4: (2, 1, 0, 3)}
_ALL_BYTES = np.arange(256, dtype=np.float32)


@cache
def _compiled() -> Any:
    """The compiled kernels, or None without numba."""
    if not settings().numba:
        return None
    try:
        from dmod.io import image_record_compiled
    except ImportError:
        return None
    return image_record_compiled


@dataclass
class Window:
    """A part of a decoded picture.

    Attributes
    ----------
    pixels : numpy.ndarray of uint8
        (height, width) or (height, width, channels), blue first.
    top, left : int
    mirror : bool
    """

    pixels: np.ndarray
    top: int = 0
    left: int = 0
    mirror: bool = False


class Normalizer:
    """Writes windows into batches.

    Parameters
    ----------
    channels : int
        1, 3 or 4.
    dtype : {'float32', 'uint8', 'int8'}
        Bytes are written as they are; for int8, those above 127 as 127.
    mean, std : sequence of float
        Of red, green, blue and alpha; only for float32.
    mean_image : numpy.ndarray of float32, optional
        (channels, height, width), instead of `mean`.
    scale : float
    """

    def __init__(
        self,
        channels: int,
        dtype: str,
        mean: Any = (0, 0, 0, 0),
        std: Any = (1, 1, 1, 1),
        mean_image: np.ndarray | None = None,
        scale: float = 1.0,
    ):
        self.dtype = np.dtype(dtype)
        self.mean_image = mean_image
        self._order = np.array(_ORDERS[channels], np.int64)
        self._mean = np.array(mean[:channels], np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._gain = np.float32(scale) / np.array(std[:channels], np.float32)
        self._plain = self._table(np.float32(1), np.float32(0))

    def _table(self, contrast: np.float32, illumination: np.float32) -> np.ndarray:
        """What each of the 256 values of a byte becomes, by channel."""
        if self.dtype != np.float32:
            most = np.iinfo(self.dtype).max
            return np.minimum(np.arange(256), most).astype(self.dtype)[None].repeat(len(self._order), 0)
        with np.errstate(invalid="ignore"):
            shifted = (_ALL_BYTES - self._mean[:, None]) * contrast + illumination
            return np.ascontiguousarray(shifted * self._gain[:, None])

    def write(
        self, window: Window, out: np.ndarray, contrast: float = 1.0, illumination: float = 0.0
    ) -> None:
        """Write the window into `out` (channels, height, width), which says how large it is.

        Float values are ``((pixel - mean) * contrast + illumination) * scale / std``.
        """
        pixels = window.pixels
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        height, width = out.shape[1:]
        c, i = np.float32(contrast), np.float32(illumination)
        kernels = _compiled()
        if self.mean_image is not None and self.dtype == np.float32:
            if kernels is not None:
                place = (np.ascontiguousarray(pixels), window.top, window.left, window.mirror, self._order)
                kernels.place_less_mean(*place, self.mean_image, c, i, self._gain, out)
                return
            cut = pixels[window.top : window.top + height, window.left : window.left + width, self._order]
            result = ((cut.transpose(2, 0, 1) - self.mean_image) * c + i) * self._gain[:, None, None]
            out[:] = result[:, :, ::-1] if window.mirror else result
            return
        table = self._plain if contrast == 1.0 and illumination == 0.0 else self._table(c, i)
        if kernels is not None:
            place = (np.ascontiguousarray(pixels), window.top, window.left, window.mirror, self._order)
            kernels.place(*place, table, out)
            return
        cut = pixels[window.top : window.top + height, window.left : window.left + width]
        if window.mirror:
            cut = cut[:, ::-1]
        for channel, source in enumerate(self._order):
            np.take(table[channel], cut[:, :, source], out=out[channel])
