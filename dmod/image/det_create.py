"""`CreateDetAugmenter` and `CreateMultiRandCropAugmenter`: the augmenters that MXNet's keywords ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmod.base import InvalidArgument
from dmod.image.augmenters import ForceResizeAug, ResizeAug
from dmod.image.create import MEAN, STD, color_augmenters, mean_or_std
from dmod.image.det_augmenters import (
    DetAugmenter,
    DetBorrowAug,
    DetHorizontalFlipAug,
    DetRandomCropAug,
    DetRandomPadAug,
    DetRandomSelectAug,
)

__all__ = ["CreateDetAugmenter", "CreateMultiRandCropAugmenter"]


def CreateMultiRandCropAugmenter(
    min_object_covered: Any = 0.1,
    aspect_ratio_range: Any = (0.75, 1.33),
    area_range: Any = (0.05, 1.0),
    min_eject_coverage: Any = 0.3,
    max_attempts: Any = 50,
    skip_prob: float = 0,
) -> DetRandomSelectAug:
    """One of several `DetRandomCropAug` at random: lists give a setting for each, other values one for all.

    Parameters
    ----------
    min_object_covered, min_eject_coverage : float or list of float
    aspect_ratio_range, area_range : (float, float) or list of such
    max_attempts : int or list of int
    skip_prob : float
        The probability of no crop.

    Examples
    --------
    >>> aug = CreateMultiRandCropAugmenter([0.1, 0.5], area_range=[(0.1, 1.0), (0.3, 0.9)])
    >>> [crop.area_range for crop in aug.aug_list]
    [(0.1, 1.0), (0.3, 0.9)]
    """
    settings = [min_object_covered, aspect_ratio_range, area_range, min_eject_coverage, max_attempts]
    lists = [value if isinstance(value, list) else [value] for value in settings]
    count = max(map(len, lists))
    for name, values in zip(
        ("min_object_covered", "aspect_ratio_range", "area_range", "min_eject_coverage", "max_attempts"),
        lists,
        strict=True,
    ):
        if len(values) not in (1, count):
            raise InvalidArgument(
                f"CreateMultiRandCropAugmenter: {name} is a list of {len(values)}, another one of {count}"
            )
    lists = [values * count if len(values) == 1 else values for values in lists]
    return DetRandomSelectAug([DetRandomCropAug(*each) for each in zip(*lists, strict=True)], skip_prob)


def CreateDetAugmenter(
    data_shape: Sequence[int],
    resize: int = 0,
    rand_crop: float = 0,
    rand_pad: float = 0,
    rand_gray: float = 0,
    rand_mirror: bool = False,
    mean: Any = None,
    std: Any = None,
    brightness: float = 0,
    contrast: float = 0,
    saturation: float = 0,
    pca_noise: float = 0,
    hue: float = 0,
    inter_method: int = 2,
    min_object_covered: Any = 0.1,
    aspect_ratio_range: Any = (0.75, 1.33),
    area_range: Any = (0.05, 3.0),
    min_eject_coverage: Any = 0.3,
    max_attempts: Any = 50,
    pad_val: Any = (127, 127, 127),
) -> list[DetAugmenter]:
    """Augmenters for detection.

    Parameters
    ----------
    data_shape : (channels, height, width)
        Of the images that come out; they are resized to it, whatever their aspect ratio.
    resize : int
        Resize the shorter edge to it first; 0: don't.
    rand_crop, rand_pad, rand_gray : float
        With which probability images are cropped, padded, made grey.
    rand_mirror : bool
        Mirror with probability 1/2.
    mean, std : numpy.ndarray or NDArray of 1 or 3 numbers, True for ImageNet's, or None
    brightness, contrast, saturation, hue, pca_noise : float
        See `CreateAugmenter`.
    inter_method : int
        The interpolation method; see `dmod.image.geometry`.
    min_object_covered, aspect_ratio_range, area_range, min_eject_coverage, max_attempts
        See `CreateMultiRandCropAugmenter`; padding takes the greatest of the areas.
    pad_val : float or tuple of float
        The colour around padded images.

    Returns
    -------
    list of DetAugmenter
    """
    augmenters: list[DetAugmenter] = []
    if resize > 0:
        augmenters.append(DetBorrowAug(ResizeAug(resize, inter_method)))
    if rand_crop > 0:
        augmenters.append(
            CreateMultiRandCropAugmenter(
                min_object_covered,
                aspect_ratio_range,
                area_range,
                min_eject_coverage,
                max_attempts,
                skip_prob=1 - rand_crop,
            )
        )
    if rand_mirror:
        augmenters.append(DetHorizontalFlipAug(0.5))
    if rand_pad > 0:
        pad = DetRandomPadAug(aspect_ratio_range, (1.0, area_range[1]), max_attempts, pad_val)
        augmenters.append(DetRandomSelectAug([pad], 1 - rand_pad))
    augmenters.append(DetBorrowAug(ForceResizeAug((data_shape[2], data_shape[1]), inter_method)))
    colors = color_augmenters(
        mean_or_std("mean", mean, MEAN),
        mean_or_std("std", std, STD),
        (brightness, contrast, saturation),
        hue,
        pca_noise,
        rand_gray,
    )
    return augmenters + [DetBorrowAug(aug) for aug in colors]
