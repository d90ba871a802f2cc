"""The default augmenter of `ImageRecordIter`: from a decoded picture to the window that goes into the batch.

The steps and their order are MXNet's: resize, an affine map (rotation, shear, scale, aspect ratio), padding,
crop, colours. Where nothing is random the pixels are MXNet's, too; after an affine map, within rounding.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from dmod.base import InvalidArgument
from dmod.io.image_record_colors import (
    add_colors,
    add_hls,
    change_brightness,
    change_contrast,
    change_saturation,
)
from dmod.io.image_record_pixels import Window
from dmod.io.record_draws import Draws
from dmod.recordio import opencv

__all__ = ["DefaultAugmenter", "check_interpolation", "interpolation", "resized_to_shorter_edge", "scaled"]

_RANDOM, _BY_DIRECTION = 10, 9
_NO_LIMIT = 1e10
# Principal colours of ImageNet, red first: standard deviations and, by column, directions (Krizhevsky,
# Sutskever and Hinton, 2012; numbers as everyone uses them).
_PCA_DEVIATIONS = np.array((55.46, 4.794, 1.148))
_PCA_DIRECTIONS = np.array(
    ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
)
_AREA_TRIALS = 10


def check_interpolation(owner: str, method: int) -> None:
    """Refuse a number that is no way of interpolating."""
    if method not in (0, 1, 2, 3, 4, _BY_DIRECTION, _RANDOM):
        raise InvalidArgument(f"{owner}: inter_method={method}, expected 0 to 4, 9 or 10")


def interpolation(method: int, old: tuple[int, ...], new: tuple[int, int], draws: Draws | None = None) -> int:
    """OpenCV's number of the way to interpolate from `old` (height, width, ...) to `new` (height, width)."""
    if method == _RANDOM:
        return draws.whole(0, 4) if draws is not None else 1
    if method != _BY_DIRECTION:
        return method
    if new[0] > old[0] and new[1] > old[1]:
        return 2
    return 3 if new[0] < old[0] and new[1] < old[1] else 1


def scaled(
    pixels: np.ndarray, height: int, width: int, method: int, draws: Draws | None = None
) -> np.ndarray:
    """The picture with another height and width."""
    if pixels.shape[:2] == (height, width):
        return pixels
    how = interpolation(method, pixels.shape, (height, width), draws)
    return opencv().resize(pixels, (max(width, 1), max(height, 1)), interpolation=how)


def resized_to_shorter_edge(pixels: np.ndarray, edge: int, method: int, draws: Draws) -> np.ndarray:
    """The picture with its shorter edge scaled to `edge`, the other one to the whole number below."""
    height, width = pixels.shape[:2]
    if height > width:
        return scaled(pixels, edge * height // width, edge, method, draws)
    return scaled(pixels, edge, edge * width // height, method, draws)


class DefaultAugmenter:
    """What the keywords of `DEFAULT_AUGMENTER` do to a picture.

    Parameters
    ----------
    owner : str
        For messages.
    p : namespace
        The keywords' values, and `data_shape`.

    Raises
    ------
    InvalidArgument
        Values that exclude each other.
    """

    def __init__(self, owner: str, p: SimpleNamespace):
        self._owner = owner
        self._p = p
        check_interpolation(owner, p.inter_method)
        if p.random_resized_crop and (
            p.rand_crop
            or (p.min_random_scale, p.max_random_scale) != (1, 1)
            or (p.min_crop_size, p.max_crop_size) != (-1, -1)
        ):
            raise InvalidArgument(
                f"{owner}: random_resized_crop excludes rand_crop, random scales and crop sizes"
            )
        ranges = (
            ("min_random_scale", "max_random_scale"),
            ("min_random_area", "max_random_area"),
            ("min_aspect_ratio", "max_aspect_ratio"),
            ("min_crop_size", "max_crop_size"),
            ("min_img_size", "max_img_size"),
        )
        for low, high in ranges:
            least, most = getattr(p, low), getattr(p, high)
            if least is not None and least > most:
                raise InvalidArgument(f"{owner}: {low}={least} above {high}={most}")
        self._moves = (
            p.rotate > 0
            or p.max_rotate_angle > 0
            or p.max_shear_ratio > 0
            or (p.min_random_scale, p.max_random_scale) != (1, 1)
            or (p.min_img_size, p.max_img_size) != (0, _NO_LIMIT)
            or (not p.random_resized_crop and (p.max_aspect_ratio != 0 or p.min_aspect_ratio is not None))
        )
        self._recolors = any(
            (p.brightness, p.contrast, p.saturation, p.pca_noise, p.random_h, p.random_s, p.random_l)
        )

    def __call__(self, pixels: np.ndarray, draws: Draws) -> Window:
        """The window of a decoded picture, uint8 (height, width[, channels]), that goes into the batch."""
        p = self._p
        if p.resize > 0:
            pixels = resized_to_shorter_edge(pixels, p.resize, p.inter_method, draws)
        if self._moves:
            pixels = self._moved(pixels, draws)
        if p.pad > 0:
            cv2 = opencv()
            border = (p.pad,) * 4
            pixels = cv2.copyMakeBorder(pixels, *border, cv2.BORDER_CONSTANT, value=(p.fill_value,) * 3)
        window = self._cropped(pixels, draws)
        if self._recolors:
            height, width = p.data_shape[1:]
            cut = window.pixels[window.top : window.top + height, window.left : window.left + width]
            window = Window(self._recolored(np.ascontiguousarray(cut), draws))
        window.mirror = p.mirror or (p.rand_mirror and draws.chance(0.5))
        return window

    # ---- place

    def _ratio(self, draws: Draws) -> float:
        """A random width / height."""
        p = self._p
        low = 1 - p.max_aspect_ratio if p.min_aspect_ratio is None else p.min_aspect_ratio
        return draws.uniform(
            low, 1 + p.max_aspect_ratio if p.min_aspect_ratio is None else p.max_aspect_ratio
        )

    def _moved(self, pixels: np.ndarray, draws: Draws) -> np.ndarray:
        """The picture under an affine map around its middle."""
        p, cv2 = self._p, opencv()
        shear = draws.uniform(-p.max_shear_ratio, p.max_shear_ratio)
        angle = p.rotate if p.rotate > 0 else draws.whole(-p.max_rotate_angle, p.max_rotate_angle)
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        scale = draws.uniform(p.min_random_scale, p.max_random_scale)
        ratio = 1.0 if p.random_resized_crop else self._ratio(draws)
        if 1 + ratio <= 0:
            raise InvalidArgument(f"{self._owner}: aspect ratio {ratio:g}, expected one above 0")
        down = 2 * scale / (1 + ratio)
        across = ratio * down
        height, width = pixels.shape[:2]
        new_width = max(p.min_img_size, min(p.max_img_size, scale * width))
        new_height = max(p.min_img_size, min(p.max_img_size, scale * height))
        m = np.zeros((2, 3), np.float32)
        m[0, :2] = down * cosine - shear * sine * across, down * sine + shear * cosine * across
        m[1, :2] = -sine * across, cosine * across
        m[0, 2] = (new_width - (m[0, 0] * width + m[0, 1] * height)) / 2
        m[1, 2] = (new_height - (m[1, 0] * width + m[1, 1] * height)) / 2
        size = (max(int(new_width), 1), max(int(new_height), 1))
        how = interpolation(p.inter_method, pixels.shape, size[::-1], draws)
        return cv2.warpAffine(
            pixels, m, size, flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=(p.fill_value,) * 3
        )

    def _cropped(self, pixels: np.ndarray, draws: Draws) -> Window:
        p = self._p
        height, width = p.data_shape[1:]
        if p.random_resized_crop:
            crop = self._random_area(pixels, draws)
            if crop is not None:
                return Window(scaled(crop, height, width, p.inter_method, draws))
        elif p.max_crop_size > 0 or p.min_crop_size > 0:
            return Window(scaled(self._square(pixels, draws), height, width, p.inter_method, draws))
        if pixels.shape[0] < height:
            pixels = scaled(
                pixels, height, int(height / pixels.shape[0] * pixels.shape[1]), p.inter_method, draws
            )
        if pixels.shape[1] < width:
            pixels = scaled(
                pixels, int(width / pixels.shape[1] * pixels.shape[0]), width, p.inter_method, draws
            )
        return Window(pixels, *self._corner(pixels, height, width, draws))

    def _corner(self, pixels: np.ndarray, height: int, width: int, draws: Draws) -> tuple[int, int]:
        down, across = pixels.shape[0] - height, pixels.shape[1] - width
        if self._p.rand_crop:
            return draws.whole(0, down), draws.whole(0, across)
        return down // 2, across // 2

    def _square(self, pixels: np.ndarray, draws: Draws) -> np.ndarray:
        p = self._p
        if min(pixels.shape[:2]) < p.max_crop_size:
            raise InvalidArgument(
                f"{self._owner}: max_crop_size={p.max_crop_size}, but a picture is "
                f"{pixels.shape[1]} x {pixels.shape[0]} by then; set resize, or a smaller size"
            )
        size = draws.whole(max(p.min_crop_size, 1), p.max_crop_size)
        top, left = self._corner(pixels, size, size, draws)
        return pixels[top : top + size, left : left + size]

    def _random_area(self, pixels: np.ndarray, draws: Draws) -> np.ndarray | None:
        """A part of random area and aspect ratio; None if none was found that lies within the picture."""
        p = self._p
        height, width = pixels.shape[:2]
        for _ in range(_AREA_TRIALS):
            area = height * width * draws.uniform(p.min_random_area, p.max_random_area)
            ratio = self._ratio(draws)
            if ratio <= 0:
                continue
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if draws.chance(0.5):
                w, h = h, w
            if 0 < h <= height and 0 < w <= width:
                top, left = draws.whole(0, height - h), draws.whole(0, width - w)
                return pixels[top : top + h, left : left + w]
        return None

    # ---- colours

    def _recolored(self, pixels: np.ndarray, draws: Draws) -> np.ndarray:
        p = self._p
        changes = (
            (change_brightness, p.brightness),
            (change_contrast, p.contrast),
            (change_saturation, p.saturation),
        )
        if p.brightness or p.contrast or p.saturation:
            factors = [1 + draws.uniform(-most, most) for _, most in changes]
            for i in draws.shuffled(range(3)):
                if changes[i][1]:
                    pixels = changes[i][0](pixels, factors[i])
        if p.random_h or p.random_s or p.random_l:
            hue, saturation, lightness = (
                draws.whole(-most, most) for most in (p.random_h, p.random_s, p.random_l)
            )
            pixels = add_hls(pixels, hue, lightness, saturation)
        if p.pca_noise:
            weights = _PCA_DEVIATIONS * [draws.normal(p.pca_noise) for _ in range(3)]
            red, green, blue = _PCA_DIRECTIONS @ weights
            pixels = add_colors(pixels, blue, green, red)
        return pixels
