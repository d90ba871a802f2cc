"""The default augmenter of `ImageDetRecordIter`: pictures and the boxes in them are changed together.

A label is ``[header width, object width, ..., object, object, ...]``, an object ``[class, left, top, right,
bottom, ...]`` with places as shares of width and height. Steps: resize, colours, mirror, pad, crop, fit to
the batch.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np

from dmod.base import FormatError, InvalidArgument
from dmod.io.image_record_augment import check_interpolation, resized_to_shorter_edge, scaled
from dmod.io.image_record_colors import add_hls, change_brightness
from dmod.io.record_draws import Draws
from dmod.recordio import opencv

__all__ = ["DetectionAugmenter", "split_label"]

_LEAST_HEADER, _LEAST_OBJECT = 2, 5
_LEAST_PAD = 1.05  # padding by less changes next to nothing
_ROUNDING = 1e-5
_SAMPLER_KEYWORDS = (
    "min_crop_scales",
    "max_crop_scales",
    "min_crop_aspect_ratios",
    "max_crop_aspect_ratios",
    "min_crop_overlaps",
    "max_crop_overlaps",
    "min_crop_sample_coverages",
    "max_crop_sample_coverages",
    "min_crop_object_coverages",
    "max_crop_object_coverages",
    "max_crop_trials",
)


def split_label(label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The header and the objects, one per row, of a detection label.

    Raises
    ------
    FormatError
        The label is no such list.
    """
    if len(label) < _LEAST_HEADER + _LEAST_OBJECT:
        raise FormatError(f"label of {len(label)} numbers, expected a header of 2 and objects of 5 at least")
    head, width = int(label[0]), int(label[1])
    if head < _LEAST_HEADER or width < _LEAST_OBJECT or len(label) < head or (len(label) - head) % width:
        raise FormatError(
            f"label of {len(label)} numbers with a header of {head} and objects of {width} each, "
            "expected at least "
            "2 and 5, and a whole number of objects"
        )
    return label[:head], label[head:].reshape(-1, width)


class DetectionAugmenter:
    """What the keywords of `DETECTION` do to a picture and its objects.

    Parameters
    ----------
    owner : str
        For messages.
    p : namespace
        The keywords' values, and `data_shape`.
    """

    def __init__(self, owner: str, p: SimpleNamespace):
        self._p = p
        check_interpolation(owner, p.inter_method)
        self._samplers = _samplers(owner, p) if p.rand_crop_prob > 0 else []

    def __call__(
        self, pixels: np.ndarray, objects: np.ndarray, draws: Draws
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
        """A decoded picture and its objects, as they go into the batch.

        Returns
        -------
        pixels : numpy.ndarray of uint8
            As large as the batch's pictures; what the picture does not cover is 0.
        objects : numpy.ndarray of float32
            Those that are left.
        size : (int, int)
            Height and width of the picture within.
        """
        p = self._p
        objects = objects.copy()
        if p.resize > 0:
            pixels = resized_to_shorter_edge(pixels, p.resize, p.inter_method, draws)
        pixels = self._recolored(pixels, draws)
        if p.rand_mirror_prob > 0 and draws.chance(p.rand_mirror_prob):
            pixels = pixels[:, ::-1]
            objects[:, 1], objects[:, 3] = 1 - objects[:, 3], 1 - objects[:, 1]
        if p.rand_pad_prob > 0 and p.max_pad_scale > 1 and draws.chance(p.rand_pad_prob):
            pixels, objects = self._padded(pixels, objects, draws)
        if self._samplers and draws.chance(p.rand_crop_prob):
            pixels, objects = self._cropped(pixels, objects, draws)
        pixels, size = self._fitted(np.ascontiguousarray(pixels), draws)
        return pixels, objects, size

    def _recolored(self, pixels: np.ndarray, draws: Draws) -> np.ndarray:
        p = self._p

        def drawn(probability: float, most: int) -> int:
            return draws.whole(-most, most) if probability > 0 and draws.chance(probability) else 0

        hue = drawn(p.random_hue_prob, p.max_random_hue)
        saturation = drawn(p.random_saturation_prob, p.max_random_saturation)
        lightness = drawn(p.random_illumination_prob, p.max_random_illumination)
        if hue or saturation or lightness:
            pixels = add_hls(pixels, hue, lightness, saturation)
        if p.random_contrast_prob > 0 and draws.chance(p.random_contrast_prob):
            pixels = change_brightness(
                pixels, 1 + draws.uniform(-p.max_random_contrast, p.max_random_contrast)
            )
        return pixels

    def _padded(self, pixels: np.ndarray, objects: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        """The picture somewhere in a larger one of the same shape."""
        scale = draws.uniform(1, self._p.max_pad_scale)
        if scale < _LEAST_PAD:
            return pixels, objects
        cv2 = opencv()
        height, width = pixels.shape[:2]
        more_rows, more_columns = int(height * scale) - height, int(width * scale) - width
        top, left = draws.whole(0, more_rows), draws.whole(0, more_columns)
        pixels = cv2.copyMakeBorder(
            np.ascontiguousarray(pixels),
            top,
            more_rows - top,
            left,
            more_columns - left,
            cv2.BORDER_CONSTANT,
            value=(self._p.fill_value,) * 3,
        )
        objects[:, 1:5:2] = (objects[:, 1:5:2] * width + left) / pixels.shape[1]
        objects[:, 2:5:2] = (objects[:, 2:5:2] * height + top) / pixels.shape[0]
        return pixels, objects

    def _cropped(
        self, pixels: np.ndarray, objects: np.ndarray, draws: Draws
    ) -> tuple[np.ndarray, np.ndarray]:
        """The part that the first sampler to find one took; the whole picture if none did."""
        height, width = pixels.shape[:2]
        for i in draws.shuffled(range(len(self._samplers))):
            sampler = self._samplers[i]
            for _ in range(sampler.max_crop_trials):
                box = _drawn_box(sampler, height, width, draws)
                if box is None or not _satisfies(sampler, box, objects):
                    continue
                kept = self._projected(box, objects)
                if len(kept):
                    left, top, right, bottom = (round(v) for v in box * (width, height, width, height))
                    if right > left and bottom > top:
                        return pixels[top:bottom, left:right], kept
        return pixels, objects

    def _projected(self, box: np.ndarray, objects: np.ndarray) -> np.ndarray:
        """The objects that stay, with their places in `box`."""
        if self._p.crop_emit_mode == "center":
            middle = (objects[:, 1:3] + objects[:, 3:5]) / 2
            stay = ((middle >= box[:2]) & (middle <= box[2:])).all(axis=1)
        else:
            areas = _areas(objects[:, 1:5])
            stay = _intersections(box, objects) > self._p.emit_overlap_thresh * areas
        kept = objects[stay].copy()
        origin, extent = np.tile(box[:2], 2), np.tile(box[2:] - box[:2], 2)
        kept[:, 1:5] = np.clip((kept[:, 1:5] - origin) / extent, 0, 1)
        return kept

    def _fitted(self, pixels: np.ndarray, draws: Draws) -> tuple[np.ndarray, tuple[int, int]]:
        p = self._p
        height, width = p.data_shape[1:]
        rows, columns = height, width
        if p.resize_mode != "force":
            share = min(height / pixels.shape[0], width / pixels.shape[1])
            if p.resize_mode == "shrink":
                share = min(share, 1.0)
            # A share such as 30 / 61 times 61 may come out below 30.
            rows, columns = (
                min(most, int(n * share + 1e-6))
                for n, most in zip(pixels.shape[:2], p.data_shape[1:], strict=True)
            )
        pixels = scaled(pixels, rows, columns, p.inter_method, draws)
        if (rows, columns) != (height, width):
            whole = np.zeros((height, width, *pixels.shape[2:]), np.uint8)
            whole[:rows, :columns] = pixels
            pixels = whole
        return pixels, (rows, columns)


def _samplers(owner: str, p: SimpleNamespace) -> list[SimpleNamespace]:
    """The keywords of each crop sampler; one value counts for all."""
    samplers = []
    if p.num_crop_sampler < 1:
        raise InvalidArgument(f"{owner}: num_crop_sampler={p.num_crop_sampler}, expected at least 1")
    for i in range(p.num_crop_sampler):
        values = {}
        for name in _SAMPLER_KEYWORDS:
            given = getattr(p, name)
            if len(given) not in (1, p.num_crop_sampler):
                raise InvalidArgument(
                    f"{owner}: {name}={given} has {len(given)} values, expected 1 or one for each of the "
                    f"{p.num_crop_sampler} crop samplers (num_crop_sampler)"
                )
            values[name] = given[i if len(given) > 1 else 0]
        for low in (name for name in _SAMPLER_KEYWORDS if name.startswith("min_")):
            high = low.replace("min_", "max_")
            if values[low] > values[high]:
                raise InvalidArgument(f"{owner}: {low}={values[low]} above {high}={values[high]}")
        samplers.append(SimpleNamespace(**values))
    return samplers


def _drawn_box(sampler: SimpleNamespace, height: int, width: int, draws: Draws) -> np.ndarray | None:
    """A box (left, top, right, bottom) of random scale, aspect ratio and place, as shares of the picture."""
    scale = draws.uniform(sampler.min_crop_scales, sampler.max_crop_scales)
    if scale <= 0:
        return None
    picture = width / height
    low = max(sampler.min_crop_aspect_ratios / picture, scale * scale)
    high = min(sampler.max_crop_aspect_ratios / picture, 1 / (scale * scale))
    ratio = math.sqrt(draws.uniform(low, max(low, high)))
    w, h = min(1.0, scale * ratio), min(1.0, scale / ratio)
    left, top = draws.uniform(0, 1 - w), draws.uniform(0, 1 - h)
    return np.array((left, top, left + w, top + h))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)


def _intersections(box: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """The areas that `box` shares with each object."""
    low, high = np.maximum(objects[:, 1:3], box[:2]), np.minimum(objects[:, 3:5], box[2:])
    return np.prod(np.maximum(high - low, 0), axis=1)


def _satisfies(s: SimpleNamespace, box: np.ndarray, objects: np.ndarray) -> bool:
    """Whether some object overlaps `box` as the sampler wants it."""
    common, areas = _intersections(box, objects), _areas(objects[:, 1:5])
    own = (box[2] - box[0]) * (box[3] - box[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (
            (common / (areas + own - common), s.min_crop_overlaps, s.max_crop_overlaps),
            (common / own, s.min_crop_sample_coverages, s.max_crop_sample_coverages),
            (common / areas, s.min_crop_object_coverages, s.max_crop_object_coverages),
        )
    good = np.ones(len(objects), bool)
    for share, low, high in shares:
        if low > 0 or high < 1:
            # An object that lies within has the share 1, or what rounding makes of it.
            good &= (share >= low - _ROUNDING) & (share <= high + _ROUNDING)
    return bool(good.any())
