"""What is done with images both here and in MXNet 1.9.1; each function takes ``mxnet`` or ``dmod`` as `mx`.

Random choices follow Python's ``random``, and ``numpy.random`` for lighting, in the order in which MXNet
draws, so equal seeds give equal pictures.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "images"
EIGVAL = np.array([55.46, 4.794, 1.148])
EIGVEC = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.814], [-0.5836, -0.6948, 0.4203]])
BOXES = np.array([[0, 0.1, 0.1, 0.4, 0.4], [1, 0.3, 0.3, 0.9, 0.8], [2, 0.05, 0.6, 0.2, 0.95]], "float32")
SEEDS = range(6)
LISTS: list[dict[str, Any]] = [
    {},
    {"resize": 30, "rand_crop": True, "rand_mirror": True, "mean": True, "std": True},
    {
        "rand_crop": True,
        "rand_resize": True,
        "brightness": 0.2,
        "hue": 0.1,
        "pca_noise": 0.1,
        "inter_method": 1,
    },
    {
        "rand_gray": 0.5,
        "contrast": 0.2,
        "saturation": 0.1,
        "mean": np.array([1.0, 2.0, 3.0]),
        "inter_method": 3,
    },
]
DET_LISTS: list[dict[str, Any]] = [
    {},
    {"resize": 30, "rand_crop": 0.5, "rand_mirror": True, "mean": True, "std": True, "inter_method": 1},
    {"rand_pad": 0.7, "brightness": 0.1, "pca_noise": 0.1, "rand_gray": 0.1, "hue": 0.1, "inter_method": 1},
    {"rand_crop": 1, "min_object_covered": [0.1, 0.9], "area_range": (0.3, 3.0), "inter_method": 1},
]
# DetRandomCropAug and DetRandomPadAug, whose windows are the subtle part of detection.
CROPS: list[dict[str, Any]] = [
    {},
    {"min_object_covered": 0.5, "aspect_ratio_range": (0.5, 2), "area_range": (0.3, 0.9), "max_attempts": 20},
    {"area_range": (0.9, 1.0), "aspect_ratio_range": (0.9, 1.5)},
    {"area_range": (1.0, 1.0), "aspect_ratio_range": (1.33, 1.34)},
    {"area_range": (0.05, 3.0), "min_object_covered": 0.9, "min_eject_coverage": 0.0},
    {"min_object_covered": 0.0, "min_eject_coverage": 0.9},
]
PADS: list[dict[str, Any]] = [
    {},
    {"aspect_ratio_range": (0.5, 2), "area_range": (1.5, 2), "max_attempts": 10, "pad_val": (1, 2, 3)},
    {"area_range": (1.0, 1.05)},
    {"aspect_ratio_range": (0.2, 0.4), "area_range": (1, 2), "pad_val": 7},
]


def image(mx: Any, name: str = "wide.jpg", **kwargs: Any) -> Any:
    return mx.image.imread(str(FOLDER / name), **kwargs)


def sampled(value: np.ndarray) -> np.ndarray:
    """Every third row and column of images, so that files stay small."""
    if value.ndim < 3:
        return value
    return value[::3, ::3] if value.shape[-1] <= 4 else value[..., ::3, ::3]


def decoding(mx: Any) -> dict[str, Any]:
    found = {}
    for name in ("wide.jpg", "gray.jpg", "alpha.png"):
        data = (FOLDER / name).read_bytes()
        found[name] = mx.image.imdecode(data)
        found[f"{name} grey"] = mx.image.imdecode(data, flag=0)
        found[f"{name} blue first"] = mx.image.imdecode(bytearray(data), to_rgb=0)
    return found


def sizes(mx: Any) -> dict[str, Any]:
    wide, found = image(mx), {}
    for method in range(5):
        for width, height in ((32, 24), (90, 60), (33, 57)):
            found[f"resize {method} {width}"] = mx.image.imresize(wide, width, height, method)
            found[f"resize {method} {width} float"] = mx.image.imresize(
                wide.astype("float32"), width, height, method
            )
    for kind in range(5):
        found[f"border {kind}"] = mx.image.copyMakeBorder(wide, 1, 2, 3, 4, kind, values=(1, 2, 3))
    found["border float"] = mx.image.copyMakeBorder(wide.astype("float32"), 1, 2, 3, 4, value=7.5)
    for name in ("wide.jpg", "tall.jpg"):
        for method in (1, 9):
            found[f"short {name} {method}"] = mx.image.resize_short(image(mx, name), 30, method)
    found["fixed"] = mx.image.fixed_crop(wide, 3, 4, 30, 20)
    found["fixed over the edge"] = mx.image.fixed_crop(wide, 50, 4, 30, 20)
    found["fixed, resized"] = mx.image.fixed_crop(wide, 3, 4, 30, 20, (20, 30), 1)
    found["centre"] = mx.image.center_crop(wide, (31, 20))[0]
    found["centre of less"] = mx.image.center_crop(wide, (200, 40), 1)[0]
    return found


def colors(mx: Any) -> dict[str, Any]:
    def normalized(mean: Any, std: Any) -> Any:
        arrays = (value if value is None else mx.nd.array(value) for value in (mean, std))
        return mx.image.color_normalize(image(mx).astype("float32"), *arrays)

    return {
        "normalize": normalized([1, 2, 3], [4, 5, 6]),
        "normalize mean": normalized([1, 2, 3], None),
        "normalize std": normalized(None, [4]),
    }


def rotations(mx: Any) -> dict[str, Any]:
    found = {}
    for name in ("wide.jpg", "tall.jpg"):
        chw = image(mx, name).astype("float32").transpose((2, 0, 1))
        for degrees in (10, -75, 180):
            found[f"rotate {name} {degrees}"] = mx.image.imrotate(chw, degrees)
            found[f"rotate {name} {degrees} in"] = mx.image.imrotate(chw, degrees, zoom_in=True)
            found[f"rotate {name} {degrees} out"] = mx.image.imrotate(chw, degrees, zoom_out=True)
    batch = mx.nd.stack(chw, chw)
    found["rotate batch"] = mx.image.imrotate(batch, mx.nd.array([20, -40]))
    np.random.seed(5)
    found["rotate at random"] = mx.image.random_rotate(chw, (-30, 30))
    found["rotate batch at random"] = mx.image.random_rotate(batch, (-30, 30), zoom_in=True)
    return found


def random_choices(mx: Any) -> dict[str, Any]:
    """Each augmenter, and each list of them, for several seeds."""
    im = mx.image
    augmenters: dict[str, Callable[[], Any]] = {
        "crop": lambda: im.random_crop(image(mx), (31, 20))[0],
        "crop of less": lambda: im.random_crop(image(mx), (40, 100), 1)[0],
        "sized crop": lambda: im.random_size_crop(image(mx), (20, 30), (0.08, 1), (0.75, 1.33), interp=3)[0],
        "sized crop, least": lambda: im.random_size_crop(image(mx), (20, 30), 0.5, (0.5, 2), interp=1)[0],
        "sized crop, none": lambda: im.random_size_crop(image(mx), (20, 30), (1, 1), (4, 5), interp=1)[0],
        "flip": lambda: im.HorizontalFlipAug(0.5)(image(mx)),
    }
    on_floats = {
        "brightness": im.BrightnessJitterAug(0.3),
        "contrast": im.ContrastJitterAug(0.3),
        "saturation": im.SaturationJitterAug(0.3),
        "hue": im.HueJitterAug(0.3),
        "lighting": im.LightingAug(0.1, EIGVAL, EIGVEC),
        "gray": im.RandomGrayAug(0.5),
    }
    found = {}
    for seed in SEEDS:
        random.seed(seed)
        np.random.seed(seed)
        for name, augment in augmenters.items():
            found[f"{name} {seed}"] = augment()
        for name, aug in on_floats.items():
            found[f"{name} {seed}"] = aug(image(mx).astype("float32"))
        found[f"color jitter {seed}"] = im.ColorJitterAug(0.1, 0.2, 0.3)(image(mx).astype("float32"))
        for number, settings in enumerate(LISTS):
            result = image(mx)
            for aug in im.CreateAugmenter((3, 24, 28), **settings):
                result = aug(result)
            found[f"list {number} {seed}"] = result
    return found


def detection(mx: Any) -> dict[str, Any]:
    """Boxes, and the shapes of images, for several seeds; images themselves of the lists."""
    im, found = mx.image, {}
    for seed in SEEDS:
        for number, settings in enumerate(CROPS):
            random.seed(seed)
            found[f"crop {number} {seed}"] = im.DetRandomCropAug(**settings)(image(mx), BOXES.copy())
        for number, settings in enumerate(PADS):
            random.seed(seed)
            found[f"pad {number} {seed}"] = im.DetRandomPadAug(**settings)(image(mx), BOXES.copy())
        random.seed(seed)
        found[f"flip {seed}"] = im.DetHorizontalFlipAug(0.5)(image(mx), BOXES.copy())
    named = {}
    for name, (pixels, boxes) in found.items():
        named[f"det {name} boxes"] = np.asarray(boxes)
        named[f"det {name} sums"] = pixels.asnumpy().astype("int64").sum(axis=(0, 1))
    for seed in SEEDS:
        for number, settings in enumerate(DET_LISTS):
            random.seed(seed)
            np.random.seed(seed)
            pixels, boxes = image(mx), BOXES.copy()
            for aug in im.CreateDetAugmenter((3, 24, 28), **settings):
                pixels, boxes = aug(pixels, boxes)
            named[f"det list {number} {seed}"] = pixels
            named[f"det list {number} {seed} boxes"] = np.asarray(boxes)
    return named


def dumps(mx: Any) -> list[Any]:
    """What augmenters say of themselves."""
    im = mx.image
    found = [aug.dumps() for settings in LISTS for aug in im.CreateAugmenter((3, 24, 28), **settings)]
    found += [aug.dumps() for settings in DET_LISTS for aug in im.CreateDetAugmenter((3, 24, 28), **settings)]
    found += [im.DetRandomCropAug(**settings).dumps() for settings in CROPS]
    found += [im.DetRandomPadAug(**settings).dumps() for settings in PADS]
    others = [
        im.SequentialAug([im.CastAug("int32"), im.ForceResizeAug((3, 4), 1)]),
        im.RandomOrderAug([im.ResizeAug(5), im.RandomGrayAug(0.1)]),
        im.RandomSizedCropAug((4, 5), (0.1, 0.9), (0.5, 2.0)),
        im.ColorNormalizeAug(mx.nd.array([1, 2, 3]), None),
        im.Augmenter(strength=1),
        im.DetAugmenter(strength=1),
    ]
    return found + [aug.dumps() for aug in others]


def write_records(mx: Any, folder: Any, count: int = 10, boxes: bool = False) -> tuple[str, str]:
    """Paths of a record file of `count` times the same picture, labelled 0, 1, ..., and of its index."""
    rec, idx = str(Path(folder) / "images.rec"), str(Path(folder) / "images.idx")
    writer = mx.recordio.MXIndexedRecordIO(idx, rec, "w")
    data = (FOLDER / "wide.jpg").read_bytes()
    for i in range(count):
        objects = [[j, 0.1 + 0.01 * j, 0.1, 0.6, 0.7] for j in range(i % 3 + 1)]
        label = np.concatenate([[2, 5], np.ravel(objects)]) if boxes else float(i)
        writer.write_idx(i, mx.recordio.pack(mx.recordio.IRHeader(0, label, i, 0), data))
    writer.close()
    return rec, idx


def epochs(mx: Any) -> dict[str, Any]:
    """Labels and padding of the batches of three epochs."""
    found = {}
    for boxes in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            rec, idx = write_records(mx, folder, boxes=boxes)
            cls = mx.image.ImageDetIter if boxes else mx.image.ImageIter
            for last in ("pad", "discard", "roll_over"):
                for index in (None, idx):
                    it = cls(4, (3, 24, 28), path_imgrec=rec, path_imgidx=index, last_batch_handle=last)
                    name = f"{'boxes' if boxes else 'labels'} {last}{'' if index is None else ' indexed'}"
                    found[name] = [_epoch(it) for _ in range(3)]
    return found


def _epoch(it: Any) -> list[Any]:
    batches = [[batch.label[0].asnumpy().tolist(), batch.pad] for batch in it]
    it.reset()
    return batches


ARRAYS = (decoding, sizes, colors, rotations, random_choices, detection)
FACTS = (dumps, epochs)
