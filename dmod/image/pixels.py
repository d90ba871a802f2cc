"""Images as arrays of the host, which OpenCV and numpy take, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import cpu
from dmod.ndarray.ndarray import NDArray

__all__ = ["as_image", "as_ndarray"]


def as_image(src: Any, what: str) -> np.ndarray:
    """The host's array of an image (height, width, channels); not copied if it is there already.

    Raises
    ------
    TypeError
        `src` is no NDArray.
    InvalidArgument
        It has not three axes.
    """
    if not isinstance(src, NDArray):
        raise TypeError(
            f"{what}: expected an image as NDArray, got {type(src).__name__}; mx.nd.array(...) makes one"
        )
    if src.ndim != 3:
        raise InvalidArgument(
            f"{what}: expected an image of shape (height, width, channels), got {src.shape}"
        )
    return src._data if src._is_host else src.asnumpy()


def as_ndarray(pixels: np.ndarray) -> NDArray:
    """An array of the host as an NDArray, not copied."""
    return NDArray(pixels, cpu())
