"""Changes of colour as MXNet's record iterators make them, on decoded pictures of bytes, blue first.

MXNet takes these pictures for red first where it computes grey, so blue weighs 0.299 and red 0.114; so do we.
Pictures of one channel are left alone by what needs colours; of four, alpha is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dmod.recordio import opencv

__all__ = ["add_colors", "add_hls", "change_brightness", "change_contrast", "change_saturation"]

_BYTES = np.arange(256, dtype=np.float32)


def _table(values: np.ndarray) -> np.ndarray:
    """Numbers as bytes, rounded and within range: a table for OpenCV's LUT."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _colors_only(change: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """`change` of the three colours, if there are any."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 3:
        return change(pixels)
    return np.dstack((change(np.ascontiguousarray(pixels[:, :, :3])), pixels[:, :, 3]))


def _grey(pixels: np.ndarray) -> np.ndarray:
    cv2 = opencv()
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels[:, :, :3], cv2.COLOR_RGB2GRAY)


def change_brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """All values times `factor`."""
    return opencv().LUT(pixels, _table(_BYTES * np.float32(factor)))


def change_contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """All values away from the picture's mean grey by `factor`, or towards it."""
    cv2 = opencv()
    mean = np.float32(cv2.mean(_grey(np.ascontiguousarray(pixels)))[0])
    return cv2.LUT(pixels, _table(_BYTES * np.float32(factor) + np.float32(1 - factor) * mean))


def change_saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Each pixel away from its grey by `factor`, or towards it."""
    cv2 = opencv()

    def change(colors: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(_grey(colors), cv2.COLOR_GRAY2BGR)
        return cv2.addWeighted(colors, factor, grey, 1 - factor, 0)

    return _colors_only(change, pixels)


def add_hls(pixels: np.ndarray, hue: int, lightness: int, saturation: int) -> np.ndarray:
    """Add to hue (of 180), lightness and saturation (of 255); what leaves the range stays at its end."""
    cv2 = opencv()

    def change(colors: np.ndarray) -> np.ndarray:
        table = np.empty((256, 1, 3), np.uint8)
        for channel, (add, most) in enumerate(((hue, 180), (lightness, 255), (saturation, 255))):
            table[:, 0, channel] = np.clip(np.arange(256) + add, 0, most)
        hls = cv2.LUT(cv2.cvtColor(colors, cv2.COLOR_BGR2HLS), table)
        return cv2.cvtColor(hls, cv2.COLOR_HLS2BGR)

    return _colors_only(change, pixels)


def add_colors(pixels: np.ndarray, blue: float, green: float, red: float) -> np.ndarray:
    """Add a number to each colour."""

    def change(colors: np.ndarray) -> np.ndarray:
        added = np.array((blue, green, red), np.float32)
        return opencv().LUT(colors, _table(_BYTES[:, None, None] + added))

    return _colors_only(change, pixels)
