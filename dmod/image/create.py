"""`CreateAugmenter`: the list of augmenters that MXNet's keywords ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.image.augmenters import (
    Augmenter,
    CastAug,
    CenterCropAug,
    HorizontalFlipAug,
    RandomCropAug,
    RandomSizedCropAug,
    ResizeAug,
)
from dmod.image.color import (
    ColorJitterAug,
    ColorNormalizeAug,
    HueJitterAug,
    LightingAug,
    RandomGrayAug,
)
from dmod.ndarray.ndarray import NDArray

__all__ = ["EIGVAL", "EIGVEC", "MEAN", "STD", "CreateAugmenter", "color_augmenters", "mean_or_std"]

# ImageNet's: mean and standard deviation, and eigenvalues and eigenvectors of the colours' covariance.
MEAN = np.array([123.68, 116.28, 103.53])
STD = np.array([58.395, 57.12, 57.375])
EIGVAL = np.array([55.46, 4.794, 1.148])
EIGVEC = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.814], [-0.5836, -0.6948, 0.4203]])


def CreateAugmenter(
    data_shape: Sequence[int],
    resize: int = 0,
    rand_crop: bool = False,
    rand_resize: bool = False,
    rand_mirror: bool = False,
    mean: Any = None,
    std: Any = None,
    brightness: float = 0,
    contrast: float = 0,
    saturation: float = 0,
    hue: float = 0,
    pca_noise: float = 0,
    rand_gray: float = 0,
    inter_method: int = 2,
) -> list[Augmenter]:
    """Augmenters for classification.

    Parameters
    ----------
    data_shape : (channels, height, width)
        Of the images that come out.
    resize : int
        Resize the shorter edge to it first; 0: don't.
    rand_crop : bool
        Crop at a random place, not in the middle.
    rand_resize : bool
        With `rand_crop`: crops of random size and aspect ratio.
    rand_mirror : bool
        Mirror with probability 1/2.
    mean, std : numpy.ndarray or NDArray of 1 or 3 numbers, True for ImageNet's, or None
    brightness, contrast, saturation, hue : float
        How far they may change; see `dmod.image.color`.
    pca_noise : float
        See `LightingAug`.
    rand_gray : float
        With which probability images become grey.
    inter_method : int
        The interpolation method; see `dmod.image.geometry`.

    Returns
    -------
    list of Augmenter

    Examples
    --------
    >>> for aug in CreateAugmenter((3, 224, 224), resize=256, rand_mirror=True):
    ...     print(aug.dumps())
    ["resizeaug", {"size": 256, "interp": 2}]
    ["centercropaug", {"size": [224, 224], "interp": 2}]
    ["horizontalflipaug", {"p": 0.5}]
    ["castaug", {"type": "float32"}]
    """
    size = (data_shape[2], data_shape[1])
    augmenters: list[Augmenter] = []
    if resize > 0:
        augmenters.append(ResizeAug(resize, inter_method))
    if rand_resize:
        if not rand_crop:
            raise InvalidArgument("CreateAugmenter: rand_resize needs rand_crop=True")
        augmenters.append(RandomSizedCropAug(size, 0.08, (3 / 4, 4 / 3), inter_method))
    else:
        augmenters.append((RandomCropAug if rand_crop else CenterCropAug)(size, inter_method))
    if rand_mirror:
        augmenters.append(HorizontalFlipAug(0.5))
    return augmenters + color_augmenters(
        mean_or_std("mean", mean, MEAN.astype(np.float32)),
        mean_or_std("std", std, STD.astype(np.float32)),
        (brightness, contrast, saturation),
        hue,
        pca_noise,
        rand_gray,
    )


def mean_or_std(name: str, value: Any, default: np.ndarray) -> Any:
    """`mean` or `std` as given, or `default` for True."""
    if value is None or value is True:
        return default if value else None
    if not isinstance(value, (np.ndarray, NDArray)) or value.shape not in ((1,), (3,)):
        raise InvalidArgument(f"{name}={value!r}: expected an array of 1 or 3 numbers, True or None")
    return value


def color_augmenters(
    mean: Any,
    std: Any,
    jitter: tuple[float, float, float],
    hue: float,
    pca_noise: float,
    rand_gray: float,
) -> list[Augmenter]:
    """Floats, and what follows on them; `jitter` is of brightness, contrast and saturation."""
    augmenters: list[Augmenter] = [CastAug()]
    if any(jitter):
        augmenters.append(ColorJitterAug(*jitter))
    if hue:
        augmenters.append(HueJitterAug(hue))
    if pca_noise > 0:
        augmenters.append(LightingAug(pca_noise, EIGVAL, EIGVEC))
    if rand_gray > 0:
        augmenters.append(RandomGrayAug(rand_gray))
    if mean is not None or std is not None:
        augmenters.append(ColorNormalizeAug(mean, std))
    return augmenters
