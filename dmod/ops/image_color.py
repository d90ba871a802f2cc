"""Colours of images (H, W, C) with values from 0 to 255, changed at random: image.random_hue and others.

An integer image keeps its dtype; values are cut off to its range and rounded down. One factor is drawn for
the whole input, in each step. On the host, whose random numbers they use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import same_shape
from dmod.ops.params import Param, number, numbers
from dmod.ops.registry import Attrs, Call, Shapes, Step, register

Change = Callable[[np.random.Generator, Attrs, np.ndarray], np.ndarray]
"""``change(generator, attrs, image) -> image``, in float32."""

_GRAY = np.array([0.299, 0.587, 0.114], np.float32)
# The principal components of ImageNet's colours, times the roots of their variances (Krizhevsky, 2012).
_COMPONENTS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], np.float32
) * np.array([55.46, 4.794, 1.148], np.float32)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """All values times `factor`."""
    return image * np.float32(factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """All values moved from the image's mean gray (a factor above 1), or towards it."""
    gray = image @ _GRAY if image.shape[-1] == 3 else image[..., 0]
    gray = gray.mean(axis=(-2, -1), keepdims=True)[..., None]
    return image * np.float32(factor) + gray * np.float32(1 - factor)


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """All values moved from their pixel's gray, or towards it."""
    if image.shape[-1] != 3:
        return image
    return image * np.float32(factor) + (image @ _GRAY)[..., None] * np.float32(1 - factor)


def hue(image: np.ndarray, turn: float) -> np.ndarray:
    """The hue of each pixel turned by `turn` of the circle; lightness and saturation stay."""
    if image.shape[-1] != 3:
        return image
    high, low = image.max(axis=-1), image.min(axis=-1)
    chroma = high - low
    safe = np.where(chroma == 0, 1, chroma)
    red, green, blue = (image[..., i] for i in range(3))
    sector = np.where(
        high == red,
        (green - blue) / safe,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sector = sector + 6 * turn
    parts = []
    for shift in (0, 2, 4):  # each channel rises and falls over the circle, two sectors after the last one
        distance = np.abs((sector - shift + 3) % 6 - 3)
        parts.append(low + chroma * np.clip(2 - distance, 0, 1))
    return np.stack(parts, axis=-1).astype(np.float32)


def lighting(image: np.ndarray, alpha: Any) -> np.ndarray:
    """The image plus its principal colours, each times its alpha."""
    return image + (_COMPONENTS @ np.asarray(alpha, np.float32)).astype(np.float32)


def _jitter(rng: np.random.Generator, attrs: Attrs, image: np.ndarray) -> np.ndarray:
    steps = [
        (brightness, attrs.brightness, 1.0),
        (contrast, attrs.contrast, 1.0),
        (saturation, attrs.saturation, 1.0),
        (hue, attrs.hue, 0.0),
    ]
    for i in rng.permutation(len(steps)):
        change, spread, middle = steps[i]
        if spread > 0:
            image = change(image, middle + rng.uniform(-spread, spread))
    return image


def _infer(channels: tuple[int, ...]) -> Any:
    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        shapes = same_shape(attrs, inputs, outputs)
        data = shapes[0][0]
        if data is not None and (len(data) not in (3, 4) or data[-1] not in (*channels, -1)):
            wanted = " or ".join(map(str, channels))
            raise InvalidArgument(
                f"data has shape {data}, expected (H, W, C) or (N, H, W, C) with C {wanted}"
            )
        return shapes

    return infer


def _register(name: str, change: Change, params: list[Param], doc: str, channels: Any = (1, 3)) -> None:
    def forward(call: Call) -> Step:
        x, y, stream, node, attrs = call.inputs[0], call.outputs[0], call.stream, call.node, call.attrs
        limits = np.iinfo(y.dtype) if y.dtype.kind in "iu" else None

        def run() -> None:
            found = change(stream.generator(node), attrs, x.astype(np.float32))
            if limits is not None:
                found = np.clip(found, limits.min, limits.max)
            np.copyto(y, found, casting="unsafe")

        return run

    register(
        f"_image_{name}",
        params=params,
        infer_shape=_infer(channels),
        forward=forward,
        backward=None,
        host=True,
        doc=doc,
    )


def _between(function: Callable[[np.ndarray, float], np.ndarray]) -> Change:
    return lambda rng, attrs, image: function(image, rng.uniform(attrs.min_factor, attrs.max_factor))


_RANGE = [
    Param("min_factor", number, doc="The least factor."),
    Param("max_factor", number, doc="The largest factor."),
]

_register("random_brightness", _between(brightness), _RANGE, "All values times a random factor.")
_register("random_contrast", _between(contrast), _RANGE, "The distance from the mean gray times a factor.")
_register("random_saturation", _between(saturation), _RANGE, "The distance from gray times a factor.")
_register("random_hue", _between(hue), _RANGE, "The hue turned by a random share of the circle of colours.")
_register(
    "random_color_jitter",
    _jitter,
    [
        Param(name, number, doc=f"How far the factor of {name} may be from 1; 0 leaves it.")
        for name in ("brightness", "contrast", "saturation")
    ]
    + [Param("hue", number, doc="How far the hue may turn; 0 leaves it.")],
    "Brightness, contrast, saturation and hue changed at random, in random order.",
)
_register(
    "adjust_lighting",
    lambda rng, attrs, image: lighting(image, attrs.alpha),
    [Param("alpha", numbers, doc="How much of each principal colour is added.")],
    "The image plus multiples of the principal colours (Krizhevsky et al., 2012).",
    channels=(3,),
)
_register(
    "random_lighting",
    lambda rng, attrs, image: lighting(image, rng.normal(0, attrs.alpha_std, 3)),
    [Param("alpha_std", number, 0.05, "The standard deviation of the multiples.")],
    "The image plus random multiples of the principal colours (Krizhevsky et al., 2012).",
    channels=(3,),
)
