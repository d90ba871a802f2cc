"""Augmenters: ranges of what is random, and that arguments stay as they are."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.image import draws
from tests.oracle.image_cases import BOXES, DET_LISTS, LISTS, image

ONES = mx.nd.ones((6, 8, 3))


def brightnesses(count: int) -> np.ndarray:
    aug = mx.image.BrightnessJitterAug(0.25)
    return np.array([aug(ONES).asnumpy()[0, 0, 0] for _ in range(count)])


def test_brightness_is_uniform_in_its_range() -> None:
    random.seed(1)
    ratios = brightnesses(2000)
    assert 0.75 <= ratios.min() < 0.76
    assert 1.24 < ratios.max() <= 1.25
    assert np.histogram(ratios, 4)[0] == pytest.approx([500] * 4, rel=0.15)


def test_seeds_of_pythons_random_repeat_choices() -> None:
    random.seed(5)
    first = brightnesses(3)
    random.seed(5)
    np.testing.assert_array_equal(brightnesses(3), first)


def test_a_generator_in_use_leaves_the_processs_alone() -> None:
    random.seed(5)
    with draws.using(draws.generator_of(1, 2)):
        first = brightnesses(3)
        mx.image.LightingAug(0.1, np.ones(3), np.eye(3))(ONES)
    assert random.random() == random.Random(5).random()
    with draws.using(draws.generator_of(1, 2)):
        np.testing.assert_array_equal(brightnesses(3), first)
    with draws.using(draws.generator_of(1, 3)):
        assert (brightnesses(3) != first).all()


def test_random_order_takes_each_order_equally_often_and_keeps_its_list() -> None:
    class Note(mx.image.Augmenter):
        def __init__(self, letter: str):
            super().__init__(letter=letter)
            self.letter = letter

        def __call__(self, src: Any) -> Any:
            seen.append(self.letter)
            return src

    random.seed(2)
    seen: list[str] = []
    aug = mx.image.RandomOrderAug([Note("a"), Note("b")])
    for _ in range(400):
        aug(ONES)
    first = "".join(seen)[::2]
    assert 160 < first.count("a") < 240
    assert [each.letter for each in aug.ts] == ["a", "b"]
    assert aug.dumps() == ["randomorderaug", ['["note", {"letter": "a"}]', '["note", {"letter": "b"}]']]


@pytest.mark.parametrize("settings", LISTS)
def test_augmenters_leave_their_argument_as_it_is(settings: dict[str, Any]) -> None:
    for aug in mx.image.CreateAugmenter((3, 24, 28), **settings):
        for src in (image(mx), image(mx).astype("float32")):
            before = src.asnumpy().copy()
            try:
                aug(src)
            except InvalidArgument:  # colours need floats
                assert src.dtype is np.uint8
            np.testing.assert_array_equal(src.asnumpy(), before)


@pytest.mark.parametrize("settings", DET_LISTS)
def test_detection_augmenters_leave_their_arguments_as_they_are(settings: dict[str, Any]) -> None:
    src, boxes = image(mx), BOXES.copy()
    result: Any = (src, boxes)
    before = src.asnumpy().copy()
    for aug in mx.image.CreateDetAugmenter((3, 24, 28), **settings):
        result = aug(*result)
    np.testing.assert_array_equal(boxes, BOXES)
    np.testing.assert_array_equal(src.asnumpy(), before)


@pytest.mark.parametrize(
    "make",
    [
        lambda im: im.BrightnessJitterAug(0.1),
        lambda im: im.HueJitterAug(0.1),
        lambda im: im.ColorNormalizeAug(np.ones(3), None),
    ],
)
def test_colours_of_whole_numbers_are_refused(make: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"uint8, expected floats; put CastAug\(\) before it"):
        make(mx.image)(image(mx))


def test_unusable_settings_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="rand_resize needs rand_crop"):
        mx.image.CreateAugmenter((3, 4, 4), rand_resize=True)
    for mean in (np.ones(2), (1, 2, 3), False):
        with pytest.raises(InvalidArgument, match="mean="):
            mx.image.CreateAugmenter((3, 4, 4), mean=mean)
    with pytest.raises(InvalidArgument, match="one per channel"):
        mx.image.color_normalize(ONES, np.ones(2))
    with pytest.raises(InvalidArgument, match="expected 3 channels"):
        mx.image.HueJitterAug(0.1)(mx.nd.ones((4, 4, 1)))
    with pytest.raises(NotImplementedError, match="Augmenter defines no __call__"):
        mx.image.Augmenter()(ONES)
    with pytest.raises(TypeError, match="colour"):
        mx.image.RandomSizedCropAug((4, 4), 0.5, (1, 1), colour=1)
    with pytest.raises(InvalidArgument, match="min_object_covered is a list of 2, another one of 3"):
        mx.image.CreateMultiRandCropAugmenter([0.1, 0.2], [(1, 1)] * 3)
    with pytest.raises(InvalidArgument, match="got CastAug"):
        mx.image.DetRandomSelectAug([mx.image.CastAug()])
    with pytest.raises(TypeError, match="got int"):
        mx.image.DetBorrowAug(3)
    with pytest.raises(InvalidArgument, match="pad_val"):
        mx.image.DetRandomPadAug(pad_val="blue")
    with pytest.raises(InvalidArgument, match="area_range='all'"):
        mx.image.DetRandomCropAug(area_range="all")


@pytest.mark.parametrize("settings", [{"area_range": (2, 1)}, {"aspect_ratio_range": (0, 0)}])
def test_windows_that_cannot_be_do_nothing_and_say_so(settings: dict[str, Any]) -> None:
    for make in (mx.image.DetRandomCropAug, mx.image.DetRandomPadAug):
        with pytest.warns(UserWarning, match="does nothing"):
            aug = make(**settings)
        src = image(mx)
        pixels, boxes = aug(src, BOXES)
        assert pixels is src
        assert boxes is BOXES


def test_cropped_boxes_lie_in_the_picture_and_follow_it() -> None:
    """A bright box on a dark picture is where its label says, after any crop, mirror and padding."""
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[15:45, 20:60] = 200
    src, label = mx.nd.array(pixels, dtype="uint8"), np.array([[3, 20 / 80, 15 / 60, 60 / 80, 45 / 60]], "f")
    augmenters = [
        mx.image.DetRandomCropAug(0.3, area_range=(0.2, 0.9)),
        mx.image.DetHorizontalFlipAug(0.5),
        mx.image.DetRandomPadAug(area_range=(1.2, 2.0), pad_val=0),
    ]
    random.seed(3)
    for _ in range(30):
        result, boxes = src, label
        for aug in augmenters:
            result, boxes = aug(result, boxes)
        bright = result.asnumpy()[:, :, 0] > 100
        height, width = bright.shape
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(boxes[0, 1:] * np.array([width, height] * 2), expected, atol=1e-3)
        assert boxes[0, 0] == 3
