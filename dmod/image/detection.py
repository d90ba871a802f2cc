"""``mx.image.detection``, also ``mx.image.det``: what there is for detection, under MXNet's module name."""

from __future__ import annotations

from dmod.image.det_augmenters import (
    DetAugmenter,
    DetBorrowAug,
    DetHorizontalFlipAug,
    DetRandomCropAug,
    DetRandomPadAug,
    DetRandomSelectAug,
)
from dmod.image.det_create import CreateDetAugmenter, CreateMultiRandCropAugmenter
from dmod.image.det_iter import ImageDetIter

__all__ = [
    "CreateDetAugmenter",
    "CreateMultiRandCropAugmenter",
    "DetAugmenter",
    "DetBorrowAug",
    "DetHorizontalFlipAug",
    "DetRandomCropAug",
    "DetRandomPadAug",
    "DetRandomSelectAug",
    "ImageDetIter",
]
