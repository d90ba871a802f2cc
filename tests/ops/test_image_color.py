"""Random changes of colours: what they draw, and what they keep."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument

a = mx.sym.Variable("a")
IMAGE = np.random.RandomState(0).randint(0, 256, (4, 5, 3)).astype(np.float32)
GRAY = IMAGE @ [0.299, 0.587, 0.114]


def run(name, times=1, image=IMAGE, **attrs):
    mx.random.seed(2)
    net = getattr(mx.sym, f"_image_{name}")(a, **attrs)
    exe = net.bind(mx.cpu(), {"a": mx.nd.array(image, dtype=image.dtype)})
    return [exe.forward(is_train=True)[0].asnumpy() for _ in range(times)]


def test_saturation_moves_each_pixel_from_its_gray():
    (found,) = run("random_saturation", min_factor=0.25, max_factor=0.25)
    np.testing.assert_allclose(found, 0.25 * IMAGE + 0.75 * GRAY[..., None], rtol=1e-4)


def test_factors_are_drawn_anew_in_each_step_within_their_range():
    found = run("random_brightness", 50, min_factor=0.5, max_factor=2.0)
    factors = [(x / IMAGE)[IMAGE > 0] for x in found]
    assert all(np.ptp(f) < 1e-5 for f in factors)
    means = np.array([f.mean() for f in factors])
    assert ((means >= 0.499) & (means <= 2.001)).all()
    assert np.ptp(means) > 0.5


def test_a_full_turn_of_the_hue_changes_nothing():
    (found,) = run("random_hue", min_factor=1.0, max_factor=1.0)
    np.testing.assert_allclose(found, IMAGE, atol=1e-3)


def test_jitter_of_nothing_is_the_identity():
    (found,) = run("random_color_jitter", brightness=0, contrast=0, saturation=0, hue=0)
    np.testing.assert_array_equal(found, IMAGE)
    first, second = run("random_color_jitter", 2, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.3)
    assert not np.array_equal(first, second)


def test_random_lighting_adds_one_colour_to_the_whole_image():
    first, second = run("random_lighting", 2, alpha_std=0.5)
    for x in (first, second):
        assert np.ptp(x - IMAGE, axis=(0, 1)).max() < 1e-3
    assert not np.array_equal(first, second)


def test_integers_stay_within_their_range():
    image = IMAGE.astype(np.uint8)
    (found,) = run("random_brightness", image=image, min_factor=3.0, max_factor=3.0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.minimum(3 * IMAGE, 255))


def test_other_shapes_are_refused():
    with pytest.raises(InvalidArgument, match=r"_image_random_hue 'y'.*\(4, 5\)"):
        mx.sym._image_random_hue(a, min_factor=1, max_factor=1, name="y").infer_shape(a=(4, 5))
