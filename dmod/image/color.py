"""Augmenters of colour. They take images of three channels, red first, as floats; see `CastAug`.

Brightness, contrast and saturation draw their ratio between 1 - x and 1 + x, hue its angle between -x and x
half turns.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.image import draws
from dmod.image.augmenters import Augmenter, RandomOrderAug
from dmod.image.pixels import as_image, as_ndarray
from dmod.ndarray.ndarray import NDArray

__all__ = [
    "BrightnessJitterAug",
    "ColorJitterAug",
    "ColorNormalizeAug",
    "ContrastJitterAug",
    "HueJitterAug",
    "LightingAug",
    "RandomGrayAug",
    "SaturationJitterAug",
    "color_normalize",
]

_LUMA = np.array([0.299, 0.587, 0.114])
# MXNet's matrices; not quite each other's inverse.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_FROM_YIQ = np.array([[1.0, 0.956, 0.621], [1.0, -0.272, -0.647], [1.0, -1.107, 1.705]])
_GRAY = np.array([[0.21] * 3, [0.72] * 3, [0.07] * 3])


def _floats(src: NDArray, what: Any, channels: int | None = None) -> np.ndarray:
    """The pixels of a float image."""
    name = what if isinstance(what, str) else type(what).__name__
    pixels = as_image(src, name)
    if pixels.dtype.kind != "f":
        raise InvalidArgument(
            f"{name}: the image is {pixels.dtype}, expected floats; put CastAug() before it"
        )
    if channels and pixels.shape[2] != channels:
        raise InvalidArgument(f"{name}: the image has shape {pixels.shape}, expected {channels} channels")
    return pixels


def _mixed(pixels: np.ndarray, matrix: np.ndarray) -> NDArray:
    """Each pixel, a row of channels, times a matrix."""
    mixed = np.dot(pixels.reshape(-1, 3), matrix.astype(pixels.dtype))
    return as_ndarray(mixed.reshape(pixels.shape))


def color_normalize(src: NDArray, mean: Any, std: Any = None) -> NDArray:
    """The image less the mean, over the standard deviation.

    Parameters
    ----------
    src : NDArray of floats, shape (height, width, channels)
    mean, std : NDArray or numpy.ndarray of a number per channel or one for all, or None
    """
    pixels = result = _floats(src, "color_normalize")
    if mean is not None:
        result = _by_channel(np.subtract, pixels, plain_array(mean))
    if std is not None:
        result = _by_channel(np.divide, result, plain_array(std), None if result is pixels else result)
    return as_ndarray(result)


def plain_array(value: Any) -> np.ndarray:
    """Numbers per channel as an array of the host."""
    return value.asnumpy() if isinstance(value, NDArray) else np.asarray(value)


def _by_channel(ufunc: Any, pixels: np.ndarray, numbers: np.ndarray, out: Any = None) -> np.ndarray:
    """An operation of each pixel with a number per channel.

    With the numbers repeated along a row, as numpy broadcasts over an axis of length 3 eight times as slowly.
    """
    height, width, channels = pixels.shape
    if numbers.shape not in ((channels,), (1,), (), (1, 1, channels)):
        raise InvalidArgument(
            f"{numbers.shape} numbers for an image {pixels.shape}: expected one per channel"
        )
    row = np.broadcast_to(numbers.reshape(-1), (width, channels)).astype(pixels.dtype).reshape(-1)
    rows = pixels.reshape(height, width * channels)
    return ufunc(rows, row, out=None if out is None else out.reshape(rows.shape)).reshape(pixels.shape)


class BrightnessJitterAug(Augmenter):
    """Random brightness.

    Parameters
    ----------
    brightness : float
        From 0 to 1: how far the ratio may be from 1.
    """

    def __init__(self, brightness: float):
        super().__init__(brightness=brightness)
        self.brightness = brightness

    def __call__(self, src: NDArray) -> NDArray:
        """The image, brighter or darker."""
        pixels = _floats(src, self)
        return as_ndarray(pixels * pixels.dtype.type(1 + draws.uniform(-self.brightness, self.brightness)))


class ContrastJitterAug(Augmenter):
    """Random contrast, about the image's mean grey.

    Parameters
    ----------
    contrast : float
        From 0 to 1: how far the ratio may be from 1.
    """

    def __init__(self, contrast: float):
        super().__init__(contrast=contrast)
        self.contrast = contrast

    def __call__(self, src: NDArray) -> NDArray:
        """The image with more or less contrast."""
        pixels = _floats(src, self, 3)
        alpha = 1 + draws.uniform(-self.contrast, self.contrast)
        grey = np.dot(pixels.reshape(-1, 3), _LUMA.astype(pixels.dtype)).mean(dtype=np.float64)
        result = pixels * pixels.dtype.type(alpha)
        result += pixels.dtype.type((1 - alpha) * grey)
        return as_ndarray(result)


class SaturationJitterAug(Augmenter):
    """Random saturation.

    Parameters
    ----------
    saturation : float
        From 0 to 1: how far the ratio may be from 1.
    """

    def __init__(self, saturation: float):
        super().__init__(saturation=saturation)
        self.saturation = saturation

    def __call__(self, src: NDArray) -> NDArray:
        """The image, more or less colourful."""
        alpha = 1 + draws.uniform(-self.saturation, self.saturation)
        grey = np.repeat(_LUMA[:, None], 3, axis=1)
        return _mixed(_floats(src, self, 3), alpha * np.eye(3) + (1 - alpha) * grey)


class HueJitterAug(Augmenter):
    """Random hue: colours turned within the plane I, Q of YIQ.

    Parameters
    ----------
    hue : float
        From 0 to 1: how far to turn, in half turns.
    """

    def __init__(self, hue: float):
        super().__init__(hue=hue)
        self.hue = hue

    def __call__(self, src: NDArray) -> NDArray:
        """The image in other colours."""
        angle = draws.uniform(-self.hue, self.hue) * math.pi
        u, w = math.cos(angle), math.sin(angle)
        turn = np.array([[1.0, 0.0, 0.0], [0.0, u, -w], [0.0, w, u]])
        return _mixed(_floats(src, self, 3), (_FROM_YIQ @ turn @ _TO_YIQ).T)


class ColorJitterAug(RandomOrderAug):
    """Random brightness, contrast and saturation, in random order.

    Parameters
    ----------
    brightness, contrast, saturation : float
        From 0 to 1; 0 leaves one out.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float):
        jitters: list[Augmenter] = []
        if brightness > 0:
            jitters.append(BrightnessJitterAug(brightness))
        if contrast > 0:
            jitters.append(ContrastJitterAug(contrast))
        if saturation > 0:
            jitters.append(SaturationJitterAug(saturation))
        super().__init__(jitters)


class LightingAug(Augmenter):
    """Noise along the principal components of colours (Krizhevsky et al., 2012).

    Parameters
    ----------
    alphastd : float
        The standard deviation of the noise.
    eigval : numpy.ndarray, shape (3,)
    eigvec : numpy.ndarray, shape (3, 3)
        A component per column.
    """

    def __init__(self, alphastd: float, eigval: Any, eigvec: Any):
        super().__init__(alphastd=alphastd, eigval=eigval, eigvec=eigvec)
        self.alphastd = alphastd
        self.eigval = plain_array(eigval).astype(np.float64)
        self.eigvec = plain_array(eigvec).astype(np.float64)

    def __call__(self, src: NDArray) -> NDArray:
        """The image in another light."""
        pixels = _floats(src, self, 3)
        alpha = draws.normal(self.alphastd, 3)
        shift = np.dot(self.eigvec * alpha, self.eigval)
        return as_ndarray(_by_channel(np.add, pixels, shift))


class ColorNormalizeAug(Augmenter):
    """Mean and standard deviation; see `color_normalize`.

    Parameters
    ----------
    mean, std : NDArray or numpy.ndarray of a number per channel or one for all, or None
    """

    def __init__(self, mean: Any, std: Any):
        super().__init__(mean=mean, std=std)
        self.mean = None if mean is None else plain_array(mean).astype(np.float32)
        self.std = None if std is None else plain_array(std).astype(np.float32)

    def __call__(self, src: NDArray) -> NDArray:
        """The image, normalised."""
        return color_normalize(src, self.mean, self.std)


class RandomGrayAug(Augmenter):
    """Grey in all three channels.

    Parameters
    ----------
    p : float
        With which probability.
    """

    def __init__(self, p: float):
        super().__init__(p=p)
        self.p = p

    def __call__(self, src: NDArray) -> NDArray:
        """The image, or a grey one."""
        return _mixed(_floats(src, self, 3), _GRAY) if draws.zero_to_one() < self.p else src
