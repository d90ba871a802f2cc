"""`ImageDetRecordIter`: MXNet's pixels and labels where nothing is random; boxes stay on their objects."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dmod.io.image_record_det import DetectionAugmenter
from dmod.io.image_record_parameters import COMMON, DETECTION, parsed
from dmod.io.record_draws import Draws
from tests.io.record_iterators import FIXTURES, boxes
from tests.oracle.picture_cases import BATCH, BOXES

EXPECTED = np.load(FIXTURES / "pictures.npz")


@pytest.mark.parametrize("name", BOXES)
def test_pictures_with_boxes_and_their_labels_are_mxnets(name: str) -> None:
    batch = boxes(**BOXES[name]).next()
    assert np.array_equal(batch.data[0].asnumpy(), EXPECTED[f"box/{name}"])
    given = BOXES[name].get("label_pad_width", 0)
    expected = EXPECTED[f"label/{name}"]
    assert batch.label[0].shape == expected.shape == (BATCH, 4 + max(17, given))
    np.testing.assert_allclose(batch.label[0].asnumpy(), expected, rtol=0, atol=1e-6)


def test_boxes_move_with_their_pictures() -> None:
    keywords = {
        "rand_crop_prob": 1,
        "min_crop_scales": 0.3,
        "rand_pad_prob": 0.5,
        "max_pad_scale": 2,
        "seed": 4,
    }
    colors = {
        f"{kind}_{name}{end}": value
        for name in ("hue", "saturation", "illumination", "contrast")
        for kind, end, value in (("max_random", "", 0 if name == "contrast" else 9), ("random", "_prob", 0.5))
    }
    iterator = boxes(batch_size=8, **keywords, **{**colors, "max_random_contrast": 0.2})
    plain = boxes(batch_size=8).next().label[0].asnumpy()
    changed = iterator.next().label[0].asnumpy()
    assert not np.array_equal(plain, changed)
    for row in changed:
        count = int(row[3])
        objects = row[4:][2:count].reshape(-1, 5)
        assert len(objects) and (row[4 + count :] == -1).all()
        assert ((objects[:, 1:] >= 0) & (objects[:, 1:] <= 1)).all()
        assert (objects[:, 3:] >= objects[:, 1:3]).all()


def test_a_crop_keeps_what_its_sampler_asks_for() -> None:
    """A marked box is still where its label says after crops, pads and mirroring."""
    given = {
        "data_shape": (3, 200, 200),
        "batch_size": 1,
        "rand_crop_prob": 0.7,
        "num_crop_sampler": 2,
        "min_crop_scales": (0.4, 0.6),
        "min_crop_object_coverages": (0.5, 0.9),
        "crop_emit_mode": "overlap",
        "rand_pad_prob": 0.5,
        "max_pad_scale": 1.5,
        "rand_mirror_prob": 0.5,
        "fill_value": 0,
    }
    augment = DetectionAugmenter("test", parsed("test", {**COMMON, **DETECTION}, given))
    pixels = np.zeros((100, 120, 3), np.uint8)
    cv2.rectangle(pixels, (30, 40), (69, 79), (255, 255, 255), -1)
    objects = np.array([[1, 30 / 120, 40 / 100, 70 / 120, 80 / 100]], np.float32)
    moved = 0
    for i in range(60):
        out, (found,), _ = augment(pixels, objects, Draws(i))
        rows, columns = np.nonzero(out[:, :, 0] > 127)
        edges = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 200
        np.testing.assert_allclose(edges, found[1:], atol=0.03)
        moved += not np.allclose(found, objects[0])
    assert moved > 40


def test_a_crop_that_must_hold_whole_objects_is_found() -> None:
    """The share of an object that lies within is 1 whatever rounding makes of it."""
    given = {
        "data_shape": (3, 8, 8),
        "batch_size": 1,
        "rand_crop_prob": 1,
        "min_crop_scales": 0.3,
        "max_crop_scales": 0.6,
        "min_crop_object_coverages": 1.0,
    }
    augment = DetectionAugmenter("test", parsed("test", {**COMMON, **DETECTION}, given))
    objects = np.array([[0, 0.4, 0.4, 0.6, 0.6]], np.float32)
    found = [augment(np.zeros((90, 110, 3), np.uint8), objects, Draws(i))[1][0] for i in range(100)]
    sizes = np.array([box[3] - box[1] for box in found])
    assert (sizes > 0.3).all() and all(
        (box[1:] > -1e-5).all() and (box[1:] < 1 + 1e-5).all() for box in found
    )
    assert np.mean([(box[1:] > 0).all() and (box[1:] < 1).all() for box in found]) > 0.9
