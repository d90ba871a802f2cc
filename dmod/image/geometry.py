"""Sizes, crops and borders of images (height, width, channels). Sizes are (width, height), as in MXNet.

Interpolation methods: 0 nearest, 1 bilinear, 2 bicubic over 4 x 4 pixels, 3 area, 4 Lanczos over 8 x 8;
9 is bicubic to enlarge, area to shrink, else bilinear; 10 is one of 0 to 4 at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.image import draws
from dmod.image.pixels import as_image, as_ndarray
from dmod.ndarray.ndarray import NDArray
from dmod.recordio import opencv

__all__ = [
    "center_crop",
    "copyMakeBorder",
    "fixed_crop",
    "imresize",
    "random_crop",
    "random_size_crop",
    "resize_short",
    "scale_down",
]

_Rect = tuple[int, int, int, int]
_ATTEMPTS = 10  # MXNet's number, before it takes the centre


def _method(interp: int, old: tuple[int, int], new: tuple[int, int]) -> int:
    """OpenCV's interpolation method for resizing from (height, width) `old` to `new`."""
    if interp == 9:
        if new[0] > old[0] and new[1] > old[1]:
            return 2
        return 3 if new[0] < old[0] and new[1] < old[1] else 1
    if interp == 10:
        return draws.whole(0, 4)
    if interp not in (0, 1, 2, 3, 4):
        raise InvalidArgument(f"interp={interp!r}: expected an interpolation method 0 to 4, 9 or 10")
    return interp


def _resized(pixels: np.ndarray, width: int, height: int, interp: int, what: str) -> np.ndarray:
    if width < 1 or height < 1 or 0 in pixels.shape:
        raise InvalidArgument(f"{what}: cannot resize an image {pixels.shape} to {width} x {height} pixels")
    cv2 = opencv()
    try:
        resized = cv2.resize(
            pixels, (width, height), interpolation=_method(interp, pixels.shape[:2], (height, width))
        )
    except cv2.error as error:
        raise InvalidArgument(
            f"{what}: an image {pixels.shape} of {pixels.dtype} cannot be resized by method {interp} "
            f"({error.err}); mx.image takes uint8, float32 and float64"
        ) from None
    return resized.reshape(height, width, pixels.shape[2])


def imresize(src: NDArray, w: int, h: int, interp: int = 1, out: NDArray | None = None) -> NDArray:
    """Resize an image.

    Parameters
    ----------
    src : NDArray, shape (height, width, channels)
        uint8, uint16, int16, float32 or float64.
    w, h : int
        The new width and height in pixels.
    interp : int
        The interpolation method; see `dmod.image.geometry`.
    out : NDArray, shape (h, w, channels), optional
        Filled and returned.

    Returns
    -------
    NDArray, shape (h, w, channels)

    Examples
    --------
    >>> from dmod.ndarray.ndarray import zeros
    >>> imresize(zeros((40, 60, 3), dtype='uint8'), 30, 20).shape
    (20, 30, 3)
    """
    pixels = as_image(src, "imresize")
    return _into(_resized(pixels, w, h, interp, f"imresize(w={w}, h={h})"), out, "imresize")


def _into(pixels: np.ndarray, out: NDArray | None, what: str) -> NDArray:
    if out is None:
        return as_ndarray(pixels)
    if out.shape != pixels.shape:
        raise InvalidArgument(f"{what}: out has shape {out.shape}, the result {pixels.shape}")
    out[:] = as_ndarray(pixels)
    return out


def scale_down(src_size: Sequence[int], size: Sequence[float]) -> tuple[int, int]:
    """The crop of `size`'s aspect ratio, made smaller if need be to fit into `src_size`.

    Parameters
    ----------
    src_size, size : (width, height)

    Examples
    --------
    >>> scale_down((640, 480), (720, 120))
    (640, 106)
    """
    width, height = size
    src_width, src_height = src_size
    if src_height < height:
        width, height = width * src_height / height, src_height
    if src_width < width:
        width, height = src_width, height * src_width / width
    return int(width), int(height)


def resize_short(src: NDArray, size: int, interp: int = 2) -> NDArray:
    """Resize so that the shorter edge has `size` pixels; the aspect ratio stays.

    Parameters
    ----------
    src : NDArray, shape (height, width, channels)
    size : int
    interp : int
        The interpolation method; see `dmod.image.geometry`.
    """
    pixels = as_image(src, "resize_short")
    height, width = pixels.shape[:2]
    if height > width:
        new_width, new_height = size, size * height // width if width else 0
    else:
        new_width, new_height = size * width // height if height else 0, size
    return as_ndarray(_resized(pixels, new_width, new_height, interp, f"resize_short(size={size})"))


def copyMakeBorder(
    src: NDArray,
    top: int,
    bot: int,
    left: int,
    right: int,
    type: int = 0,
    value: float = 0.0,
    values: Sequence[float] = (),
    out: NDArray | None = None,
) -> NDArray:
    """Put a border around an image.

    Parameters
    ----------
    src : NDArray, shape (height, width, channels)
        With at most 4 channels.
    top, bot, left, right : int
        How many pixels, at least 0.
    type : {0, 1, 2, 3, 4}
        0: of constant colour; 1: the edge repeated; 2: mirrored, with the edge; 3: wrapped around;
        4: mirrored, without the edge.
    value : float
        The constant of all channels.
    values : sequence of float, optional
        The constant of each channel, instead.
    out : NDArray, optional
        Filled and returned.
    """
    pixels = as_image(src, "copyMakeBorder")
    if min(top, bot, left, right) < 0 or type not in range(5):
        raise InvalidArgument(
            f"copyMakeBorder: top={top}, bot={bot}, left={left}, right={right} must be at least 0, and "
            f"type={type} from 0 to 4"
        )
    if pixels.shape[2] > 4 or len(values) > 4:
        raise InvalidArgument(f"copyMakeBorder: at most 4 channels; image {pixels.shape}, values {values}")
    colour = tuple(values) if len(values) else (value,) * 4
    bordered = opencv().copyMakeBorder(pixels, top, bot, left, right, type, value=colour)
    return _into(bordered.reshape(*bordered.shape[:2], pixels.shape[2]), out, "copyMakeBorder")


def _cropped(pixels: np.ndarray, rect: _Rect, size: Sequence[int] | None, interp: int, what: str) -> NDArray:
    """A part (left, top, width, height) of an image, clipped to it, resized to `size`."""
    left, top, width, height = rect
    if left < 0 or top < 0 or width < 1 or height < 1 or left >= pixels.shape[1] or top >= pixels.shape[0]:
        raise InvalidArgument(
            f"{what}: {width} x {height} pixels from x={left}, y={top} on lie outside of {pixels.shape}"
        )
    part = pixels[top : top + height, left : left + width]
    if size is not None and part.shape[1::-1] != tuple(size):
        return as_ndarray(_resized(part, int(size[0]), int(size[1]), interp, what))
    return as_ndarray(np.ascontiguousarray(part))


def fixed_crop(
    src: NDArray, x0: int, y0: int, w: int, h: int, size: Sequence[int] | None = None, interp: int = 2
) -> NDArray:
    """A part of an image; what reaches beyond the right or lower edge is left out.

    Parameters
    ----------
    src : NDArray, shape (height, width, channels)
    x0, y0 : int
        The left and upper edge.
    w, h : int
        Width and height.
    size : (width, height), optional
        Resize the part to it.
    interp : int
        The interpolation method; see `dmod.image.geometry`.
    """
    return _cropped(as_image(src, "fixed_crop"), (x0, y0, w, h), size, interp, "fixed_crop")


def _pair(size: Any, what: str) -> tuple[int, int]:
    try:
        width, height = size
    except (TypeError, ValueError):
        raise TypeError(f"{what}: size is {size!r}, expected (width, height)") from None
    return width, height


def random_crop(src: NDArray, size: Sequence[int], interp: int = 2) -> tuple[NDArray, _Rect]:
    """A part of `size` at a random place; of a smaller image, the largest of its ratio, enlarged.

    Parameters
    ----------
    src : NDArray, shape (height, width, channels)
    size : (width, height)
    interp : int
        The interpolation method; see `dmod.image.geometry`.

    Returns
    -------
    NDArray, shape (size[1], size[0], channels)
    (x, y, width, height)
        Which part it is.
    """
    pixels = as_image(src, "random_crop")
    height, width = pixels.shape[:2]
    new_width, new_height = scale_down((width, height), _pair(size, "random_crop"))
    x, y = draws.whole(0, width - new_width), draws.whole(0, height - new_height)
    rect = (x, y, new_width, new_height)
    return _cropped(pixels, rect, size, interp, "random_crop"), rect


def center_crop(src: NDArray, size: Sequence[int], interp: int = 2) -> tuple[NDArray, _Rect]:
    """The middle of an image; see `random_crop`.

    Examples
    --------
    >>> from dmod.ndarray.ndarray import zeros
    >>> center_crop(zeros((40, 60, 3), dtype='uint8'), (20, 20))[1]
    (20, 10, 20, 20)
    """
    pixels = as_image(src, "center_crop")
    height, width = pixels.shape[:2]
    new_width, new_height = scale_down((width, height), _pair(size, "center_crop"))
    rect = ((width - new_width) // 2, (height - new_height) // 2, new_width, new_height)
    return _cropped(pixels, rect, size, interp, "center_crop"), rect


def random_size_crop(
    src: NDArray, size: Sequence[int], area: Any, ratio: tuple[float, float], interp: int = 2, **kwargs: Any
) -> tuple[NDArray, _Rect]:
    """A part of random area and aspect ratio, resized to `size`; the middle, if none was found in 10 draws.

    Parameters
    ----------
    src : NDArray, shape (height, width, channels)
    size : (width, height)
    area : float or (float, float)
        The least and the greatest share of the image's area; one number is the least, and 1 the greatest.
    ratio : (float, float)
        The least and the greatest width / height.
    interp : int
        The interpolation method; see `dmod.image.geometry`.
    min_area : float
        The old name of `area`.

    Returns
    -------
    NDArray, shape (size[1], size[0], channels)
    (x, y, width, height)
        Which part it is.
    """
    area = kwargs.pop("min_area", area)
    if kwargs:
        raise TypeError(f"random_size_crop: unexpected arguments {sorted(kwargs)}")
    pixels = as_image(src, "random_size_crop")
    height, width = pixels.shape[:2]
    least, most = (area, 1.0) if isinstance(area, (int, float)) else area
    if min(ratio) <= 0:
        raise InvalidArgument(f"random_size_crop: ratio={ratio}, expected numbers above 0")
    for _ in range(_ATTEMPTS):
        target = draws.uniform(least, most) * height * width
        aspect = math.exp(draws.uniform(math.log(ratio[0]), math.log(ratio[1])))
        new_width, new_height = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < new_width <= width and 0 < new_height <= height:
            x, y = draws.whole(0, width - new_width), draws.whole(0, height - new_height)
            rect = (x, y, new_width, new_height)
            return _cropped(pixels, rect, size, interp, "random_size_crop"), rect
    return center_crop(src, size, interp)
