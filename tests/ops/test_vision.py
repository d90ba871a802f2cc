"""Operators on images, regions and boxes: numeric gradients, references, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from tests.gradients import worst_gradient_error

TOLERANCE = 1e-6
a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
rng = np.random.RandomState(1)


def test_bilinear_sampler():
    grid = rng.uniform(-1.2, 1.2, (2, 2, 3, 3))
    net = mx.sym.BilinearSampler(a, b)
    assert worst_gradient_error(net, {"a": (2, 2, 4, 5), "b": (2, 2, 3, 3)}, values={"b": grid}) < TOLERANCE


@pytest.mark.parametrize(
    ("attrs", "shape"),
    [
        ({"transform_type": "affine", "target_shape": (3, 4)}, (2, 6)),
        ({"transform_type": "warp"}, (2, 2, 3, 4)),
    ],
)
def test_grid_generator(attrs, shape):
    assert worst_gradient_error(mx.sym.GridGenerator(a, **attrs), {"a": shape}) < TOLERANCE


def test_spatial_transformer():
    net = mx.sym.SpatialTransformer(
        a, b, target_shape=(3, 4), transform_type="affine", sampler_type="bilinear"
    )
    loc = rng.uniform(-0.6, 0.6, (2, 6))
    assert worst_gradient_error(net, {"a": (2, 2, 4, 5), "b": (2, 6)}, values={"b": loc}) < TOLERANCE


@pytest.mark.parametrize(
    "attrs", [{"kernel_size": 3, "max_displacement": 2, "pad_size": 2}, {"is_multiply": False}], ids=str
)
def test_correlation(attrs):
    shapes = {"a": (1, 2, 5, 6), "b": (1, 2, 5, 6)}
    assert worst_gradient_error(mx.sym.Correlation(a, b, **attrs), shapes) < TOLERANCE


ROIS = [[0, 0.3, 0.2, 4.1, 3.7], [1, 2, 1, 5, 5.6], [0, -1, -1, 2, 7]]


@pytest.mark.parametrize("name", ["ROIPooling", "_contrib_ROIAlign"])
def test_regions(name):
    net = getattr(mx.sym, name)(a, b, pooled_size=(2, 3), spatial_scale=1.0)
    values, shapes = {"a": rng.randn(2, 2, 5, 6), "b": ROIS}, {"a": (2, 2, 5, 6), "b": (3, 5)}
    assert worst_gradient_error(net, shapes, values=values, skip=("b",)) < TOLERANCE


def test_regions_of_no_image_are_0():
    for net in (
        mx.sym.ROIPooling(a, b, pooled_size=(2, 2), spatial_scale=1.0),
        mx.sym._contrib_ROIAlign(a, b, pooled_size=(2, 2), spatial_scale=1.0),
    ):
        exe = net.bind(mx.cpu(), {"a": mx.nd.ones((1, 1, 5, 5)), "b": mx.nd.array([[-1, 0, 0, 3, 3]])})
        assert not exe.forward()[0].asnumpy().any()


def test_gradients_of_boxes_go_back_to_where_they_came_from():
    boxes = np.array([[0, 0.5, 0, 0, 0.5, 0.5], [0, 0.4, 0, 0, 0.5, 0.4], [0, 0.9, 0.6, 0.6, 1, 1]])
    net = mx.sym._contrib_box_nms(a)
    assert worst_gradient_error(net, {"a": (3, 6)}, values={"a": boxes}) < TOLERANCE


@pytest.mark.parametrize(
    "net",
    [
        mx.sym._contrib_div_sqrt_dim(a),
        mx.sym._contrib_quadratic(a, a=0.5, b=2, c=1),
        mx.sym._contrib_fft(a),
        mx.sym._contrib_ifft(a),
        mx.sym._image_crop(mx.sym.Reshape(a, shape=(2, 4, 1)), x=1, y=0, width=2, height=1),
        mx.sym._image_normalize(mx.sym.Reshape(a, shape=(2, 4, 1)), mean=(1,), std=(2, 3)),
        mx.sym._image_flip_left_right(mx.sym.Reshape(a, shape=(2, 4, 1))),
    ],
    ids=["div_sqrt_dim", "quadratic", "fft", "ifft", "crop", "normalize", "flip"],
)
def test_small_functions(net):
    assert worst_gradient_error(net, {"a": (2, 4)}) < TOLERANCE


def test_fft_is_that_of_numpy_and_ifft_undoes_it():
    x = rng.randn(3, 4).astype(np.float32)
    net = mx.sym._contrib_fft(a)
    y = net.bind(mx.cpu(), {"a": mx.nd.array(x)}).forward()[0].asnumpy()
    wanted = np.fft.fft(x)
    np.testing.assert_allclose(y[:, ::2] + 1j * y[:, 1::2], wanted, rtol=1e-5, atol=1e-5)
    back = mx.sym._contrib_ifft(net).bind(mx.cpu(), {"a": mx.nd.array(x)}).forward()[0].asnumpy()
    np.testing.assert_allclose(back, 4 * x, rtol=1e-5, atol=1e-5)


def test_count_sketch():
    values = {"a": [[1.2, 2.5, 3.4], [3.2, 5.7, 6.6]], "b": [[0, 3, 4]], "c": [[1, -1, 1]]}
    net = mx.sym._contrib_count_sketch(a, b, mx.sym.Variable("c"), out_dim=5)
    exe = net.bind(mx.cpu(), {k: mx.nd.array(v) for k, v in values.items()})
    wanted = [[1.2, 0, 0, -2.5, 3.4], [3.2, 0, 0, -5.7, 6.6]]
    np.testing.assert_allclose(exe.forward()[0].asnumpy(), wanted, rtol=1e-6)
    shapes = {"a": (2, 3), "b": (1, 3), "c": (1, 3)}
    assert worst_gradient_error(net, shapes, values=values, skip=("b", "c")) < TOLERANCE


def test_attention():
    qk = mx.sym._contrib_interleaved_matmul_selfatt_qk(a, heads=2)
    assert worst_gradient_error(qk, {"a": (3, 2, 12)}) < TOLERANCE
    net = mx.sym._contrib_interleaved_matmul_selfatt_valatt(a, qk, heads=2)
    assert worst_gradient_error(net, {"a": (3, 2, 12)}) < 1e-5
    qk = mx.sym._contrib_interleaved_matmul_encdec_qk(a, b, heads=2)
    net = mx.sym._contrib_interleaved_matmul_encdec_valatt(b, qk, heads=2)
    assert worst_gradient_error(net, {"a": (3, 2, 4), "b": (4, 2, 8)}) < 1e-5


def test_a_random_flip_flips_half_of_the_time():
    mx.random.seed(1)
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    exe = mx.sym._image_random_flip_left_right(a).bind(mx.cpu(), {"a": mx.nd.array(x)})
    first = [exe.forward(is_train=True)[0].asnumpy()[0, 0, 0] for _ in range(40)]
    assert set(first) == {0.0, 5.0}


@pytest.mark.parametrize(
    ("build", "shapes", "words"),
    [
        (
            lambda: mx.sym.ROIPooling(a, b, pooled_size=(2, 2), spatial_scale=1, name="y"),
            {"a": (1, 2, 3, 4), "b": (3, 4)},
            ["ROIPooling 'y'", "rois", "5", "(3, 4)"],
        ),
        (
            lambda: mx.sym.BilinearSampler(a, b, name="y"),
            {"a": (1, 2, 3, 4), "b": (2, 2, 3, 4)},
            ["BilinearSampler 'y'", "grid", "(2, 2, 3, 4)"],
        ),
        (
            lambda: mx.sym.Correlation(a, b, name="y", kernel_size=2, pad_size=4),
            {"a": (1, 2, 3, 4)},
            ["Correlation 'y'", "odd"],
        ),
        (
            lambda: mx.sym._contrib_Proposal(a, b, mx.sym.Variable("c"), name="y"),
            {"a": (1, 10, 3, 4)},
            ["_contrib_Proposal 'y'", "cls_prob", "24", "(1, 10, 3, 4)"],
        ),
        (
            lambda: mx.sym._contrib_box_nms(a, name="y"),
            {"a": (5, 4)},
            ["_contrib_box_nms 'y'", "(5, 4)", "6 or more"],
        ),
        (
            lambda: mx.sym._image_crop(a, x=2, y=0, width=3, height=1, name="y"),
            {"a": (4, 4, 3)},
            ["_image_crop 'y'", "(4, 4, 3)"],
        ),
    ],
)
def test_errors_name_node_argument_and_shapes(build, shapes, words):
    with pytest.raises(InvalidArgument) as error:
        build().infer_shape_partial(**shapes)
    for word in words:
        assert word in str(error.value)
