"""Augmenters for detection: they take an image and the boxes in it, and return both.

Boxes are rows of an array (objects, 5 or more): class, left, top, right, bottom, and whatever else; places
are shares of the image's width and height, from 0 to 1.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.image import draws
from dmod.image.augmenters import Augmenter, mirrored, plain
from dmod.image.geometry import copyMakeBorder, fixed_crop
from dmod.image.pixels import as_image
from dmod.ndarray.ndarray import NDArray

__all__ = [
    "DetAugmenter",
    "DetBorrowAug",
    "DetHorizontalFlipAug",
    "DetRandomCropAug",
    "DetRandomPadAug",
    "DetRandomSelectAug",
]

_Pair = tuple[NDArray, np.ndarray]
_Window = tuple[int, int, int, int]  # left, top, width, height


class DetAugmenter:
    """Base of augmenters for detection: one of one's own defines `__call__`."""

    def __init__(self, **kwargs: Any):
        self._kwargs = {name: plain(value) for name, value in kwargs.items()}

    def dumps(self) -> Any:
        """Name and settings as JSON; an augmenter made of others gives a list with theirs."""
        return json.dumps([type(self).__name__.lower(), self._kwargs])

    def __call__(self, src: NDArray, label: np.ndarray) -> _Pair:
        """The image and its boxes, changed.

        Parameters
        ----------
        src : NDArray, shape (height, width, channels)
        label : numpy.ndarray, shape (objects, 5 or more)
        """
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")


class DetBorrowAug(DetAugmenter):
    """An `Augmenter` that leaves boxes where they are: one of colour, or of size.

    Parameters
    ----------
    augmenter : Augmenter
    """

    def __init__(self, augmenter: Augmenter):
        if not isinstance(augmenter, Augmenter):
            raise TypeError(f"DetBorrowAug: expected an Augmenter, got {type(augmenter).__name__}")
        super().__init__()
        self.augmenter = augmenter

    def dumps(self) -> list[Any]:
        """Name, and what the augmenter gives."""
        return [type(self).__name__.lower(), self.augmenter.dumps()]

    def __call__(self, src: NDArray, label: np.ndarray) -> _Pair:
        """The image, changed, and the same boxes."""
        return self.augmenter(src), label


class DetRandomSelectAug(DetAugmenter):
    """One of several augmenters at random, or none.

    Parameters
    ----------
    aug_list : list of DetAugmenter
    skip_prob : float
        The probability of none.
    """

    def __init__(self, aug_list: Sequence[DetAugmenter] | DetAugmenter, skip_prob: float = 0):
        super().__init__()
        self.aug_list = [aug_list] if isinstance(aug_list, DetAugmenter) else list(aug_list)
        for aug in self.aug_list:
            if not isinstance(aug, DetAugmenter):
                raise InvalidArgument(f"DetRandomSelectAug: expected DetAugmenters, got {type(aug).__name__}")
        self.skip_prob = skip_prob if self.aug_list else 1

    def dumps(self) -> list[Any]:
        """Name, and what the augmenters give."""
        return [type(self).__name__.lower(), [aug.dumps() for aug in self.aug_list]]

    def __call__(self, src: NDArray, label: np.ndarray) -> _Pair:
        """The image and its boxes after one of the augmenters, or as they are."""
        if draws.zero_to_one() < self.skip_prob:
            return src, label
        return draws.shuffled(self.aug_list)[0](src, label)


class DetHorizontalFlipAug(DetAugmenter):
    """Exchange left and right.

    Parameters
    ----------
    p : float
        With which probability.
    """

    def __init__(self, p: float):
        super().__init__(p=p)
        self.p = p

    def __call__(self, src: NDArray, label: np.ndarray) -> _Pair:
        """The image and its boxes, or their mirror image."""
        if draws.zero_to_one() >= self.p:
            return src, label
        flipped = np.array(label)
        flipped[:, 1], flipped[:, 3] = 1 - label[:, 3], 1 - label[:, 1]
        return mirrored(src), flipped


def _range(value: Any, name: str) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        return (value, value)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise InvalidArgument(f"{name}={value!r}: expected a number, or the least and the greatest")
    return (value[0], value[1])


def _usable(what: str, least_area: float, area: tuple[float, float], ratio: tuple[float, float]) -> bool:
    """Whether there can be a window; if not, the augmenter does nothing, and says so."""
    if least_area < area[1] and area[0] <= area[1] and 0 < ratio[0] <= ratio[1]:
        return True
    warnings.warn(
        f"{what} does nothing: no window has area_range={area} and aspect_ratio_range={ratio}", stacklevel=3
    )
    return False


class DetRandomCropAug(DetAugmenter):
    """A random part of the image, that holds enough of the objects in it.

    Parameters
    ----------
    min_object_covered : float
        What share of each object that is in the part at all must be in it.
    aspect_ratio_range : (float, float)
        The least and the greatest width / height of the part.
    area_range : (float, float)
        The least and the greatest share of the image's area.
    min_eject_coverage : float
        An object of which a smaller share is in the part is dropped.
    max_attempts : int
        How often to try; then the image stays as it is.
    """

    def __init__(
        self,
        min_object_covered: float = 0.1,
        aspect_ratio_range: Any = (0.75, 1.33),
        area_range: Any = (0.05, 1.0),
        min_eject_coverage: float = 0.3,
        max_attempts: int = 50,
    ):
        aspect_ratio_range = _range(aspect_ratio_range, "aspect_ratio_range")
        area_range = _range(area_range, "area_range")
        super().__init__(
            min_object_covered=min_object_covered,
            aspect_ratio_range=aspect_ratio_range,
            area_range=area_range,
            min_eject_coverage=min_eject_coverage,
            max_attempts=max_attempts,
        )
        self.min_object_covered = min_object_covered
        self.min_eject_coverage = min_eject_coverage
        self.max_attempts = max_attempts
        self.aspect_ratio_range = aspect_ratio_range
        self.area_range = area_range
        self.enabled = _usable("DetRandomCropAug", 0, area_range, aspect_ratio_range)

    def __call__(self, src: NDArray, label: np.ndarray) -> _Pair:
        """A part of the image with the boxes in it, or both as they are."""
        height, width = as_image(src, "DetRandomCropAug").shape[:2]
        for _ in range(self.max_attempts if self.enabled else 0):
            window = self._window(height, width)
            if window is None:
                continue
            boxes = self._boxes(label, window, height, width)
            if boxes is not None:
                return fixed_crop(src, *window), boxes
        return src, label

    def _window(self, height: int, width: int) -> _Window | None:
        """A random part of an image; none, if this draw gives a ratio that does not fit."""
        least, most = (area * height * width for area in self.area_range)
        ratio = draws.uniform(*self.aspect_ratio_range)
        low = round(math.sqrt(least / ratio))
        high = min(round(math.sqrt(most / ratio)), height)
        if round(high * ratio) > width:
            high = int((width + 0.4999999) / ratio)
        high = min(high, height)
        low = min(low, high)
        part_height = draws.whole(low, high) if low < high else low
        part_width = round(part_height * ratio)
        # Rounding may have left the range of areas; a pixel of height often brings it back.
        if part_width * part_height < least:
            part_height += 1
        elif part_width * part_height > most:
            part_height -= 1
        part_width = round(part_height * ratio)
        area = part_width * part_height
        if not (least <= area <= most and 0 < part_width <= width and 0 < part_height <= height):
            return None
        top = draws.whole(0, height - part_height)
        return draws.whole(0, width - part_width), top, part_width, part_height

    def _boxes(self, label: np.ndarray, window: _Window, height: int, width: int) -> np.ndarray | None:
        """The boxes in a part of the image; None if it holds too little of them."""
        x, y, w, h = window
        # In the label's dtype, so that a box that ends where the part begins does not reach into it.
        low = np.array((x / width, y / height) * 2, label.dtype)
        high = np.array(((x + w) / width, (y + h) / height) * 2, label.dtype)
        areas = _areas(label[:, 1:5])
        real = areas * width * height > 2
        if not real.any() or w * h < 2:
            return None
        inside = np.clip(label[:, 1:5], low, high)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = np.where(real, _areas(inside) / areas, 0)
        touched = shares[shares > 0]
        if not touched.size or touched.min() <= self.min_object_covered:
            return None
        boxes = np.array(label)
        boxes[:, 1:5] = (label[:, 1:5] - low) / np.array((w / width, h / height) * 2, label.dtype)
        np.clip(boxes[:, 1:5], 0, 1, out=boxes[:, 1:5])
        kept = _areas(boxes[:, 1:5]) * w * h / (width * height) > self.min_eject_coverage * areas
        boxes = boxes[kept & (boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])]
        return boxes if len(boxes) else None


def _areas(boxes: np.ndarray) -> np.ndarray:
    """The areas of boxes (objects, 4); 0 of those that are turned inside out."""
    return np.maximum(0, boxes[:, 2] - boxes[:, 0]) * np.maximum(0, boxes[:, 3] - boxes[:, 1])


class DetRandomPadAug(DetAugmenter):
    """The image at a random place of a larger one.

    Parameters
    ----------
    aspect_ratio_range : (float, float)
        The least and the greatest width / height of the larger image.
    area_range : (float, float)
        The least and the greatest of its area, in areas of the image.
    max_attempts : int
        How often to try; then the image stays as it is.
    pad_val : float or tuple of float
        The colour around the image.
    """

    def __init__(
        self,
        aspect_ratio_range: Any = (0.75, 1.33),
        area_range: Any = (1.0, 3.0),
        max_attempts: int = 50,
        pad_val: Any = (128, 128, 128),
    ):
        if not isinstance(pad_val, (int, float, tuple, list)):
            raise InvalidArgument(
                f"DetRandomPadAug: pad_val={pad_val!r}, expected a number or one per channel"
            )
        aspect_ratio_range = _range(aspect_ratio_range, "aspect_ratio_range")
        area_range = _range(area_range, "area_range")
        super().__init__(
            aspect_ratio_range=aspect_ratio_range,
            area_range=area_range,
            max_attempts=max_attempts,
            pad_val=pad_val,
        )
        self.pad_val = pad_val
        self.aspect_ratio_range = aspect_ratio_range
        self.area_range = area_range
        self.max_attempts = max_attempts
        self.enabled = _usable("DetRandomPadAug", 1, area_range, aspect_ratio_range)

    def __call__(self, src: NDArray, label: np.ndarray) -> _Pair:
        """The larger image with the boxes in it, or both as they are."""
        height, width = as_image(src, "DetRandomPadAug").shape[:2]
        for _ in range(self.max_attempts if self.enabled else 0):
            found = self._window(height, width)
            if found is None:
                continue
            x, y, w, h = found
            values = self.pad_val if isinstance(self.pad_val, (tuple, list)) else (self.pad_val,) * 4
            padded = copyMakeBorder(src, y, h - y - height, x, w - x - width, values=values)
            boxes = np.array(label)
            boxes[:, 1:5] = (label[:, 1:5] * ((width, height) * 2) + (x, y, x, y)) / ((w, h) * 2)
            return padded, boxes
        return src, label

    def _window(self, height: int, width: int) -> _Window | None:
        """Where in how large an image; None if this draw is too small for it."""
        least, most = (area * height * width for area in self.area_range)
        ratio = draws.uniform(*self.aspect_ratio_range)
        low = max(round(math.sqrt(least / ratio)), height)
        high = round(math.sqrt(most / ratio))
        if round(low * ratio) < width:
            low = int((width + 0.499999) / ratio)
        if low > high:
            return None
        padded_height = draws.whole(low, high) if low < high else low
        padded_width = round(padded_height * ratio)
        if padded_height - height < 2 or padded_width - width < 2:
            return None  # a margin of a pixel is not worth it
        top = draws.whole(0, padded_height - height)
        return draws.whole(0, padded_width - width), top, padded_width, padded_height
