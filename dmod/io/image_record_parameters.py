"""The keywords of the image record iterators: names, defaults and meaning are MXNet's.

Values may be text, as MXNet takes them: ``'3'``, ``'(3, 224, 224)'``, ``'True'``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from dmod.base import InvalidArgument
from dmod.log import logger
from dmod.registry import nearest

__all__ = [
    "COMMON",
    "DEFAULT_AUGMENTER",
    "DETECTION",
    "NORMALIZATION",
    "RECORDS",
    "Parameter",
    "described",
    "parsed",
]


class Parameter(NamedTuple):
    """One keyword: what it takes ('int', 'long', 'float', 'bool', 'str', 'shape', 'floats', 'ints', ...)."""

    kind: str
    default: Any
    about: str


REQUIRED = object()

COMMON = {
    "path_imgrec": Parameter("str", "", "the record file; several with ``;`` between, or a directory"),
    "path_imglist": Parameter("str", "", "a .lst file whose labels replace those in the records"),
    "data_shape": Parameter("shape", REQUIRED, "(channels, height, width) of a picture in the batch"),
    "batch_size": Parameter("int", REQUIRED, "pictures per batch"),
    "label_width": Parameter("int", 1, "labels per picture"),
    "preprocess_threads": Parameter("int", 4, "threads that decode; never more than there are CPUs"),
    "verbose": Parameter("bool", True, "log what is read"),
    "num_parts": Parameter("int", 1, "the data are shared out into so many parts"),
    "part_index": Parameter("int", 0, "which of them to read"),
    "shuffle": Parameter("bool", False, "a new order of the records in every epoch"),
    "shuffle_chunk_size": Parameter(
        "int", 0, "shuffle within chunks of so many MB and the chunks; 0: all at once"
    ),
    "shuffle_chunk_seed": Parameter("int", 0, "of the order of the chunks"),
    "seed": Parameter("int", 0, "of the order of the records, and of the augmentation"),
    "round_batch": Parameter("bool", True, "fill an epoch's last batch with the beginning of the next"),
    "prefetch_buffer": Parameter("int", 4, "batches made ready ahead"),
    "ctx": Parameter("str", "cpu", "accepted for MXNet's sake; batches lie in host memory"),
    "dtype": Parameter("dtype", None, "'float32', 'uint8' or 'int8'"),
    "data_name": Parameter("str", "data", "the name of the data"),
    "label_name": Parameter("str", "softmax_label", "the name of the labels"),
}
RECORDS = {
    "path_imgidx": Parameter("str", "", "the index of the record file; without it, the file is scanned once"),
    "aug_seq": Parameter("str", "aug_default", "the augmenter; there is only the default one"),
    "device_id": Parameter("int", 0, "accepted for MXNet's sake"),
    "seed_aug": Parameter("int?", None, "of the augmentation, if not `seed`"),
}
DEFAULT_AUGMENTER = {
    "resize": Parameter("int", -1, "scale the shorter edge to so many pixels first"),
    "rand_crop": Parameter("bool", False, "crop at a random place, else in the middle"),
    "random_resized_crop": Parameter("bool", False, "crop a random area and aspect ratio, and scale it"),
    "max_rotate_angle": Parameter("int", 0, "rotate by a random angle in degrees, up to this either way"),
    "max_aspect_ratio": Parameter(
        "float", 0.0, "change width / height by up to this; see `min_aspect_ratio`"
    ),
    "min_aspect_ratio": Parameter(
        "float?", None, "if given, width / height is from here to `max_aspect_ratio`"
    ),
    "max_shear_ratio": Parameter("float", 0.0, "shear by a random ratio, up to this either way"),
    "max_crop_size": Parameter("int", -1, "crop a square of random size up to this, and scale it"),
    "min_crop_size": Parameter("int", -1, "the least size of that square"),
    "max_random_scale": Parameter("float", 1.0, "scale by a random factor up to this"),
    "min_random_scale": Parameter("float", 1.0, "the least of these factors"),
    "max_random_area": Parameter("float", 1.0, "the largest share that `random_resized_crop` takes"),
    "min_random_area": Parameter("float", 1.0, "the least such share"),
    "max_img_size": Parameter("float", 1e10, "the largest width and height after scaling and rotation"),
    "min_img_size": Parameter("float", 0.0, "the least width and height after scaling and rotation"),
    "brightness": Parameter("float", 0.0, "multiply by 1 + a random number up to this either way"),
    "contrast": Parameter("float", 0.0, "move away from the mean grey, likewise"),
    "saturation": Parameter("float", 0.0, "move away from each pixel's grey, likewise"),
    "pca_noise": Parameter("float", 0.0, "deviation of the noise along the principal colours"),
    "random_h": Parameter("int", 0, "add a random number up to this either way to the hue, of 180"),
    "random_s": Parameter("int", 0, "likewise to the saturation, of 255"),
    "random_l": Parameter("int", 0, "likewise to the lightness, of 255"),
    "rotate": Parameter("int", -1, "rotate by this angle in degrees, instead of a random one"),
    "fill_value": Parameter("int", 255, "what pixels from outside the picture are"),
    "inter_method": Parameter(
        "int", 1, "0 nearest, 1 bilinear, 2 cubic, 3 area, 4 Lanczos, 9 by direction, 10 random"
    ),
    "pad": Parameter("int", 0, "pixels to add at each side"),
    "mirror": Parameter("bool", False, "turn left and right"),
    "rand_mirror": Parameter("bool", False, "turn left and right half of the pictures"),
}
NORMALIZATION = {
    "mean_img": Parameter("str", "", "a file with the mean picture, which is made if it is not there"),
    "mean_r": Parameter("float", 0.0, "subtracted from red"),
    "mean_g": Parameter("float", 0.0, "subtracted from green"),
    "mean_b": Parameter("float", 0.0, "subtracted from blue"),
    "mean_a": Parameter("float", 0.0, "subtracted from alpha"),
    "std_r": Parameter("float", 1.0, "divides red"),
    "std_g": Parameter("float", 1.0, "divides green"),
    "std_b": Parameter("float", 1.0, "divides blue"),
    "std_a": Parameter("float", 1.0, "divides alpha"),
    "scale": Parameter("float", 1.0, "multiplies everything"),
    "max_random_contrast": Parameter("float", 0.0, "multiply by 1 + a random number up to this either way"),
    "max_random_illumination": Parameter("float", 0.0, "add a random number up to this either way"),
}
DETECTION = {
    "path_imgrec": COMMON["path_imgrec"]._replace(default="./data/imgrec.rec"),
    "aug_seq": Parameter("str", "det_aug_default", "the augmenter; there is only the default one"),
    "label_width": Parameter("int", -1, "labels per picture; -1: as many as each has"),
    "label_pad_width": Parameter(
        "int", 0, "fill labels up to so many; up to the most that any has if that is more"
    ),
    "label_pad_value": Parameter("float", -1.0, "what to fill them up with"),
    "resize": Parameter("int", -1, "scale the shorter edge to so many pixels first"),
    "rand_crop_prob": Parameter("float", 0.0, "how often to crop"),
    "min_crop_scales": Parameter("floats", (0.0,), "least share of the picture, for each crop sampler"),
    "max_crop_scales": Parameter("floats", (1.0,), "largest share of the picture"),
    "min_crop_aspect_ratios": Parameter("floats", (1.0,), "least width / height"),
    "max_crop_aspect_ratios": Parameter("floats", (1.0,), "largest width / height"),
    "min_crop_overlaps": Parameter("floats", (0.0,), "least intersection over union with an object"),
    "max_crop_overlaps": Parameter("floats", (1.0,), "largest intersection over union"),
    "min_crop_sample_coverages": Parameter("floats", (0.0,), "least intersection over the crop"),
    "max_crop_sample_coverages": Parameter("floats", (1.0,), "largest intersection over the crop"),
    "min_crop_object_coverages": Parameter("floats", (0.0,), "least intersection over the object"),
    "max_crop_object_coverages": Parameter("floats", (1.0,), "largest intersection over the object"),
    "num_crop_sampler": Parameter("int", 1, "how many crop samplers there are"),
    "crop_emit_mode": Parameter("center|overlap", "center", "which objects leave with what is cropped away"),
    "emit_overlap_thresh": Parameter(
        "float", 0.3, "with 'overlap': those of which less than this share is left"
    ),
    "max_crop_trials": Parameter("ints", (25,), "how often each sampler tries"),
    "rand_pad_prob": Parameter("float", 0.0, "how often to pad"),
    "max_pad_scale": Parameter("float", 1.0, "the largest picture, padded, over the picture"),
    "max_random_hue": Parameter("int", 0, "add a random number up to this either way to the hue, of 180"),
    "random_hue_prob": Parameter("float", 0.0, "how often"),
    "max_random_saturation": Parameter("int", 0, "likewise to the saturation, of 255"),
    "random_saturation_prob": Parameter("float", 0.0, "how often"),
    "max_random_illumination": Parameter("int", 0, "likewise to the lightness, of 255"),
    "random_illumination_prob": Parameter("float", 0.0, "how often"),
    "max_random_contrast": Parameter("float", 0.0, "multiply by 1 + a random number up to this either way"),
    "random_contrast_prob": Parameter("float", 0.0, "how often"),
    "rand_mirror_prob": Parameter("float", 0.0, "how often to turn left and right"),
    "fill_value": Parameter("int", 127, "what padded pixels are"),
    "inter_method": DEFAULT_AUGMENTER["inter_method"],
    "resize_mode": Parameter(
        "force|fit|shrink", "force", "to `data_shape` whatever the ratio; within it; within it, never larger"
    ),
    **{name: p for name, p in NORMALIZATION.items() if not name.startswith("max_random")},
    **{
        name: Parameter("float", 0.0, p.about + "; 0: 1")
        for name, p in NORMALIZATION.items()
        if "std_" in name
    },
}

_TRUE, _FALSE = ("true", "1"), ("false", "0")
_warned: set[str] = set()


def parsed(owner: str, known: Mapping[str, Parameter], given: Mapping[str, Any]) -> SimpleNamespace:
    """All of `known`, from what is given and the defaults.

    Unknown keywords are passed over, as MXNet does, but with a warning: most are misspelt.

    Raises
    ------
    InvalidArgument
        A value cannot be read, or a required one is missing.
    """
    for name in sorted(given.keys() - known.keys()):
        if f"{owner}.{name}" not in _warned:
            _warned.add(f"{owner}.{name}")
            logger.warning("%s: unknown keyword %r is passed over%s", owner, name, nearest(name, known))
    values = {}
    for name, parameter in known.items():
        if name in given:
            values[name] = _value(owner, name, parameter, given[name])
        elif parameter.default is REQUIRED:
            raise InvalidArgument(f"{owner}: {name} is missing: {parameter.about}")
        else:
            values[name] = parameter.default
    return SimpleNamespace(**values)


def described(*tables: Mapping[str, Parameter]) -> str:
    """A numpydoc section on the parameters of `tables`."""
    lines = ["Parameters", "----------"]
    for name, parameter in {name: p for table in tables for name, p in table.items()}.items():
        default = "" if parameter.default is REQUIRED else f", default {parameter.default!r}"
        about = parameter.about[0].upper() + parameter.about[1:]
        lines += [f"{name} : {parameter.kind.replace('?', ' or None')}{default}", f"    {about}."]
    return "\n    ".join(lines)


def _value(owner: str, name: str, parameter: Parameter, given: Any) -> Any:
    kind = parameter.kind
    try:
        if kind.endswith("?"):
            if given is None or given == "None":
                return None
            kind = kind[:-1]
        return _READERS[kind](given) if kind in _READERS else _choice(kind.split("|"), given)
    except (ValueError, TypeError, SyntaxError, OverflowError):
        raise InvalidArgument(f"{owner}: {name}={given!r}, expected {_EXPECTED.get(kind, kind)}") from None


def _choice(choices: list[str], given: Any) -> str:
    if given not in choices:
        raise ValueError
    return str(given)


def _whole(given: Any) -> int:
    if isinstance(given, str):
        return int(given)
    if int(given) != given:
        raise ValueError
    return int(given)


def _flag(given: Any) -> bool:
    text = str(given).strip().lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError


def _sequence(given: Any, item: Any) -> tuple[Any, ...]:
    if isinstance(given, str):
        given = ast.literal_eval(given)
    return tuple(item(v) for v in given) if isinstance(given, Iterable) else (item(given),)


def _shape(given: Any) -> tuple[int, ...]:
    shape = _sequence(given, _whole)
    if len(shape) != 3 or min(shape) < 1 or shape[0] not in (1, 3, 4):
        raise ValueError
    return shape


def _dtype(given: Any) -> str | None:
    if given is None or given == "None":
        return None
    name = np.dtype(given).name
    if name not in ("float32", "uint8", "int8"):
        raise ValueError
    return name


_READERS: dict[str, Any] = {
    "int": _whole,
    "float": float,
    "bool": _flag,
    "str": lambda given: str(given) if given is not None else "",
    "shape": _shape,
    "floats": lambda given: _sequence(given, float),
    "ints": lambda given: _sequence(given, _whole),
    "dtype": _dtype,
}
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "shape": "(channels, height, width) with 1, 3 or 4 channels",
    "floats": "numbers, such as (0.3, 0.5)",
    "ints": "whole numbers, such as (25, 50)",
    "dtype": "'float32', 'uint8' or 'int8'",
}
