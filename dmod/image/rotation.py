"""Rotation of images (channels, height, width) or batches of them, by bilinear sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.image import draws
from dmod.ndarray import op
from dmod.ndarray.ndarray import NDArray, array

__all__ = ["imrotate", "random_rotate"]

_SAMPLE: Any = vars(op)["BilinearSampler"]  # generated from the operator table


def imrotate(src: NDArray, rotation_degrees: Any, zoom_in: bool = False, zoom_out: bool = False) -> NDArray:
    """Rotate images around their centres; what comes in from outside is 0.

    Parameters
    ----------
    src : NDArray, float32, shape (channels, height, width) or (N, channels, height, width)
    rotation_degrees : float, or NDArray of shape (N,)
        An angle per image, or one for all.
    zoom_in : bool
        Enlarge so that nothing from outside shows.
    zoom_out : bool
        Shrink so that all of the image shows.

    Returns
    -------
    NDArray of src's shape
    """
    if zoom_in and zoom_out:
        raise InvalidArgument("imrotate: zoom_in and zoom_out cannot both be true")
    if src.dtype is not np.float32:
        raise TypeError(
            f"imrotate: src is {np.dtype(src.dtype)}, expected float32; astype('float32') converts"
        )
    if src.ndim not in (3, 4):
        raise InvalidArgument(
            f"imrotate: src has shape {src.shape}, expected (channels, height, width), or a batch of such"
        )
    one = src.ndim == 3
    images = src.expand_dims(axis=0) if one else src
    if one and not np.isscalar(rotation_degrees):
        raise TypeError("imrotate: one image takes one angle, a number")
    angles = np.deg2rad(_angles(rotation_degrees, images.shape[0]))
    grid = _grid(angles, images.shape[2], images.shape[3], zoom_in, zoom_out)
    rotated = _SAMPLE(images, array(grid, ctx=src.context))
    return rotated[0] if one else rotated


def _angles(degrees: Any, count: int) -> np.ndarray:
    if isinstance(degrees, NDArray):
        degrees = degrees.asnumpy()
    angles = np.asarray(degrees, np.float64).reshape(-1)
    if np.ndim(degrees) == 0:
        return np.repeat(angles, count)
    if len(angles) != count:
        raise InvalidArgument(f"imrotate: {count} images, but {len(angles)} angles")
    return angles


def _grid(angles: np.ndarray, height: int, width: int, zoom_in: bool, zoom_out: bool) -> np.ndarray:
    """Where each output pixel is taken from: (N, 2, height, width), from -1 to 1 over the image."""
    half_width, half_height = (width - 1) / 2, (height - 1) / 2
    x = np.arange(width) - half_width
    y = (np.arange(height) - half_height)[:, None]
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    # The extent of the rotated image against that of the image itself, along each axis.
    across = (width * abs(cos) + height * abs(sin)) / width
    down = (width * abs(sin) + height * abs(cos)) / height
    scale: Any = 1.0
    if zoom_in:
        scale = 1 / np.maximum(across, down)
    elif zoom_out:
        scale = np.maximum(across, down)
    grid = np.empty((len(angles), 2, height, width), np.float32)
    grid[:, 0] = (x * cos - y * sin) * scale / max(half_width, 0.5)
    grid[:, 1] = (x * sin + y * cos) * scale / max(half_height, 0.5)
    return grid


def random_rotate(
    src: NDArray, angle_limits: tuple[float, float], zoom_in: bool = False, zoom_out: bool = False
) -> NDArray:
    """Rotate by random angles; a batch, each image by its own. See `imrotate`.

    Parameters
    ----------
    src : NDArray, float32, shape (channels, height, width) or (N, channels, height, width)
    angle_limits : (float, float)
        In degrees.
    zoom_in, zoom_out : bool
    """
    if src.ndim == 3:
        return imrotate(src, float(draws.uniform_array(*angle_limits, 1)[0]), zoom_in, zoom_out)
    return imrotate(src, array(draws.uniform_array(*angle_limits, src.shape[0])), zoom_in, zoom_out)
