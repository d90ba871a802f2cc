"""Operators of networks: numeric gradients, what is refused, what is random, what sequences' ends do."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.ops import columns, pooling
from dmod.ops.rnn_layout import packed_arrays, packed_size
from tests.gradients import worst_gradient_error

TOLERANCE = 1e-6
a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
IMAGE = (2, 4, 5, 4)


@pytest.mark.parametrize(
    ("attrs", "shape"),
    [
        ({"kernel": (3, 3)}, IMAGE),
        ({"kernel": (3, 3), "pad": (1, 1)}, IMAGE),
        ({"kernel": (3, 3), "pad": (1, 1), "num_group": 2, "no_bias": True}, IMAGE),
        ({"kernel": (3, 2), "pad": (2, 1), "stride": (2, 1), "dilate": (1, 2)}, IMAGE),
        ({"kernel": (1, 1), "num_group": 2}, IMAGE),
        ({"kernel": (1, 1), "stride": (2, 2), "pad": (3, 3)}, IMAGE),
        ({"kernel": (3,), "pad": (1,), "stride": (2,)}, (2, 4, 5)),
        ({"kernel": (2, 3, 2), "pad": (1, 1, 0)}, (1, 2, 3, 3, 3)),
        ({"kernel": (3, 3, 3), "pad": (1, 1, 1)}, (1, 2, 3, 3, 2)),
    ],
    ids=str,
)
def test_convolution(attrs, shape):
    net = mx.sym.Convolution(a, num_filter=4, **attrs)
    assert worst_gradient_error(net, {"a": shape}) < TOLERANCE


@pytest.mark.parametrize(
    ("attrs", "shape"),
    [
        ({"kernel": (3, 3), "no_bias": False}, IMAGE),
        ({"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1), "adj": (1, 0), "num_group": 2}, IMAGE),
        ({"kernel": (4,), "stride": (2,), "target_shape": (7,)}, (2, 2, 4)),
        ({"kernel": (2, 3, 2), "stride": (1, 2, 1), "dilate": (2, 1, 1)}, (2, 2, 3, 2, 2)),
    ],
    ids=str,
)
def test_deconvolution(attrs, shape):
    net = mx.sym.Deconvolution(a, num_filter=4, **attrs)
    assert worst_gradient_error(net, {"a": shape}) < TOLERANCE


@pytest.mark.parametrize(
    ("attrs", "shape"), [({"kernel": (3, 2), "pad": (1, 1)}, IMAGE), ({"kernel": (3,)}, (2, 3, 5))], ids=str
)
def test_im2col_and_col2im_are_transposes(attrs, shape):
    assert worst_gradient_error(mx.sym.im2col(a, **attrs), {"a": shape}) < TOLERANCE
    image = mx.sym.col2im(mx.sym.im2col(a, **attrs), output_size=shape[2:], **attrs)
    assert worst_gradient_error(image, {"a": shape}) < TOLERANCE


@pytest.mark.parametrize("pool_type", ["max", "avg", "sum", "lp"])
@pytest.mark.parametrize(
    ("attrs", "shape"),
    [
        ({"kernel": (2, 2), "stride": (2, 2)}, IMAGE),
        ({"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)}, IMAGE),
        ({"kernel": (3, 2), "stride": (2, 1), "pooling_convention": "full"}, IMAGE),
        ({"kernel": (3,), "stride": (2,), "pooling_convention": "same"}, (2, 3, 6)),
        ({"kernel": (2, 2, 2), "layout": "NDHWC"}, (2, 3, 3, 3, 2)),
        ({"global_pool": True}, IMAGE),
    ],
    ids=str,
)
def test_pooling(attrs, shape, pool_type):
    net = mx.sym.Pooling(a, pool_type=pool_type, p_value=2, **attrs)
    assert worst_gradient_error(net, {"a": shape}) < TOLERANCE


@pytest.mark.parametrize("pool_type", ["max", "avg", "sum"])
def test_old_pooling(pool_type):
    net = mx.sym.Pooling_v1(a, pool_type=pool_type, kernel=(3, 3), stride=(2, 2), pad=(1, 1))
    assert worst_gradient_error(net, {"a": IMAGE}) < TOLERANCE


def test_pooling_under_the_convention_same_has_one_window_per_stride():
    net = mx.sym.Pooling(a, kernel=(3,), stride=(2,), pooling_convention="same")
    x = mx.nd.array(np.arange(7.0).reshape(1, 1, 7))
    assert net.eval(mx.cpu(), a=x)[0].asnumpy().tolist() == [[[1, 3, 5, 6]]]


@pytest.mark.parametrize(
    "net",
    [
        mx.sym.LayerNorm(a),
        mx.sym.LayerNorm(a, axis=1),
        mx.sym.GroupNorm(a, num_groups=2),
        mx.sym.InstanceNorm(a),
        mx.sym.L2Normalization(a),
        mx.sym.L2Normalization(a, mode="channel"),
        mx.sym.L2Normalization(a, mode="spatial"),
        mx.sym.LRN(a, nsize=3, alpha=0.5),
        mx.sym.LRN(a, nsize=5, alpha=0.5, beta=0.6),
        mx.sym.UpSampling(a, scale=2, sample_type="bilinear", num_filter=4),
        mx.sym.UpSampling(a, a * 2, scale=3, sample_type="nearest", num_args=2),
        mx.sym.contrib.BilinearResize2D(a, height=7, width=3),
        mx.sym.contrib.BilinearResize2D(a, height=3, width=6, align_corners=False),
        mx.sym.contrib.AdaptiveAvgPooling2D(a, output_size=(3, 6)),
        mx.sym.contrib.SyncBatchNorm(a, fix_gamma=False, key="k"),
        mx.sym.contrib.BatchNormWithReLU(a, fix_gamma=False),
    ],
    ids=lambda net: net.name,
)
def test_normalisation_and_resizing(net):
    assert worst_gradient_error(net, {"a": IMAGE}) < TOLERANCE


@pytest.mark.parametrize("act_type", ["leaky", "prelu", "elu", "selu", "gelu", "rrelu"])
def test_leaky_relu(act_type):
    net = mx.sym.LeakyReLU(a - 1.01, act_type=act_type)[0]
    assert worst_gradient_error(net, {"a": (3, 4, 2)}) < TOLERANCE


def test_rrelu_draws_a_slope_per_element_in_training_and_their_mean_in_inference():
    net = mx.sym.LeakyReLU(a, act_type="rrelu", lower_bound=0.2, upper_bound=0.6)
    exe = net.simple_bind(mx.cpu(), a=(100, 50))
    exe.arg_dict["a"][:] = -2.0
    mx.random.seed(1)
    y, slopes = (out.asnumpy() for out in exe.forward(is_train=True))
    np.testing.assert_allclose(y, -2 * slopes)
    assert slopes.min() >= 0.2 and slopes.max() < 0.6 and abs(slopes.mean() - 0.4) < 0.01
    y, slopes = (out.asnumpy() for out in exe.forward(is_train=False))
    np.testing.assert_allclose(slopes, 0.4, rtol=1e-6)
    np.testing.assert_allclose(y, -0.8, rtol=1e-6)


def parameters(mode, layers, both, width, hidden, projection=None):
    size = packed_size(mode, layers, both, width, hidden, projection)
    return np.random.RandomState(1).standard_normal(size) / 2


@pytest.mark.parametrize("mode", ["rnn_relu", "rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize(
    "attrs",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "state_outputs": True},
        {"num_layers": 3, "p": 0.4},
        {"num_layers": 2, "bidirectional": True, "state_outputs": True, "use_sequence_length": True},
    ],
    ids=str,
)
def test_rnn(mode, attrs):
    attrs = {"num_layers": 1, "bidirectional": False, **attrs}
    net = mx.sym.RNN(a * 1.0, name="r", state_size=3, mode=mode, **attrs)
    values = {"r_parameters": parameters(mode, attrs["num_layers"], attrs["bidirectional"], 2, 3)}
    values["r_sequence_length"] = [2, 3]
    error = worst_gradient_error(net, {"a": (3, 2, 2)}, values=values, skip=("r_sequence_length",))
    assert error < TOLERANCE


def test_lstm_with_projection():
    net = mx.sym.RNN(
        a, name="r", state_size=4, num_layers=2, bidirectional=True, mode="lstm", projection_size=2
    )
    values = {"r_parameters": parameters("lstm", 2, True, 2, 4, 2)}
    assert worst_gradient_error(net, {"a": (3, 2, 2)}, values=values) < TOLERANCE


def bound(shape, **attrs):
    attrs = {"mode": "lstm", "num_layers": 1, "state_size": 4, "state_outputs": True, **attrs}
    exe = mx.sym.RNN(a, name="r", **attrs).simple_bind(mx.cpu(), a=shape)
    rng = np.random.RandomState(3)
    for array in exe.arg_dict.values():
        array[:] = rng.standard_normal(array.shape)
    return exe


@pytest.mark.parametrize("mode", ["rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize("both", [False, True])
def test_rnn_of_a_sequence_that_ends_early_is_that_of_the_shorter_one(mode, both):
    attrs = {"mode": mode, "bidirectional": both, "num_layers": 2}
    long = bound((5, 2, 3), use_sequence_length=True, **attrs)
    short = bound((3, 2, 3), **attrs)
    for name, array in short.arg_dict.items():
        array[:] = long.arg_dict[name][:3] if name == "a" else long.arg_dict[name]
    long.arg_dict["r_sequence_length"][:] = [3, 3]
    outputs = [out.asnumpy() for out in long.forward(is_train=False)]
    wanted = [out.asnumpy() for out in short.forward(is_train=False)]
    assert not outputs[0][3:].any()
    np.testing.assert_allclose(outputs[0][:3], wanted[0], rtol=1e-5, atol=1e-6)
    for found, state in zip(outputs[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(found, state, rtol=1e-5, atol=1e-6)


def test_lstm_clips_its_cell_state():
    exe = bound((4, 2, 3), lstm_state_clip_min=-0.1, lstm_state_clip_max=0.2)
    cell = exe.forward(is_train=False)[2].asnumpy()
    assert cell.min() >= -0.1 and cell.max() <= np.float32(0.2)


def test_rnn_drops_between_layers_in_training_only():
    mx.random.seed(1)
    plain, dropping = bound((4, 2, 3), num_layers=2), bound((4, 2, 3), num_layers=2, p=0.5)
    still = [exe.forward(is_train=False)[0].asnumpy() for exe in (plain, dropping)]
    assert np.array_equal(*still)
    first, second = (dropping.forward(is_train=True)[0].asnumpy() for _ in range(2))
    assert not np.array_equal(first, second)
    mx.random.seed(1)
    assert np.array_equal(first, dropping.forward(is_train=True)[0].asnumpy())


def test_packed_parameters_leave_no_gap():
    arrays = list(packed_arrays("lstm", 2, True, 3, 4, 2))
    assert [x.start for x in arrays] == [0, *(x.stop for x in arrays[:-1])]
    assert arrays[0].kind == "i2h_weight" and arrays[-1].kind == "h2h_bias"


@pytest.mark.parametrize(
    ("make", "shapes", "words"),
    [
        (
            lambda: mx.sym.Convolution(a, num_filter=4, kernel=(7, 7), name="c"),
            {"a": IMAGE},
            "kernel.*larger",
        ),
        (
            lambda: mx.sym.Convolution(a, num_filter=4, kernel=(3,), name="c"),
            {"a": IMAGE},
            "data: expected 3",
        ),
        (
            lambda: mx.sym.Convolution(a, num_filter=4, kernel=(3, 3), stride=(1,), name="c"),
            {"a": IMAGE},
            "stride: expected 2 numbers",
        ),
        (
            lambda: mx.sym.Convolution(a, num_filter=4, kernel=(3, 3), num_group=3, name="c"),
            {"a": IMAGE},
            "multiple of num_group 3",
        ),
        (
            lambda: mx.sym.Convolution(a, num_filter=4, kernel=(3, 3), layout="NHWC", name="c"),
            {"a": IMAGE},
            "layout: NHWC.*expected NCHW",
        ),
        (
            lambda: mx.sym.Convolution(a, b, num_filter=4, kernel=(3, 3), name="c"),
            {"a": IMAGE, "b": (4, 3, 3, 3)},
            r"weight: expected \(4, 4, 3, 3\), got \(4, 3, 3, 3\)",
        ),
        (
            lambda: mx.sym.Deconvolution(a, num_filter=4, kernel=(3, 3), adj=(1, 1), name="c"),
            {"a": IMAGE},
            "adj: expected less than stride",
        ),
        (
            lambda: mx.sym.Deconvolution(a, num_filter=4, kernel=(3, 3), target_shape=(99, 9), name="c"),
            {"a": IMAGE},
            "target_shape: expected at most",
        ),
        (lambda: mx.sym.col2im(a, kernel=(2, 2), output_size=(3, 3), name="c"), {"a": (1, 8, 5)}, "data"),
        (lambda: mx.sym.Pooling(a, kernel=(3, 3), pad=(3, 3), name="c"), {"a": IMAGE}, "pad: expected less"),
        (lambda: mx.sym.Pooling(a, kernel=(3,), name="c"), {"a": IMAGE}, "data: expected 1 spatial"),
        (lambda: mx.sym.Pooling(a, kernel=(9, 9), name="c"), {"a": IMAGE}, "kernel.*larger"),
        (lambda: mx.sym.Pooling(a, kernel=(2, 2), pool_type="lp", name="c"), {"a": IMAGE}, "p_value"),
        (lambda: mx.sym.LayerNorm(a, axis=4, name="c"), {"a": IMAGE}, "axis is 4"),
        (lambda: mx.sym.GroupNorm(a, num_groups=3, name="c"), {"a": IMAGE}, "num_groups 3"),
        (lambda: mx.sym.InstanceNorm(a, name="c"), {"a": (2, 3)}, "at least 3 axes"),
        (lambda: mx.sym.L2Normalization(a, mode="channel", name="c"), {"a": (2, 3)}, "at least 3 axes"),
        (lambda: mx.sym.LRN(a, nsize=3, name="c"), {"a": (2, 3)}, "4 axes"),
        (lambda: mx.sym.UpSampling(a, scale=2, sample_type="nearest", name="c"), {"a": (2, 3)}, "4 axes"),
        (
            lambda: mx.sym.RNN(a, state_size=3, num_layers=1, mode="gru", name="c"),
            {"a": (2, 3)},
            "data: expected 3 axes",
        ),
        (
            lambda: mx.sym.RNN(a, b, state_size=3, num_layers=1, mode="gru", name="c"),
            {"a": (2, 3, 4), "b": (7,)},
            r"parameters: expected \(81,\), got \(7,\)",
        ),
        (
            lambda: mx.sym.RNN(a, state_size=3, num_layers=1, mode="gru", projection_size=2, name="c"),
            {"a": (2, 3, 4)},
            "projection_size",
        ),
    ],
)
def test_what_does_not_fit_is_named(make, shapes, words):
    with pytest.raises(InvalidArgument, match=words) as error:
        make().infer_shape(**shapes)
    assert "'c'" in str(error.value)


def test_whole_numbers_are_refused():
    net = mx.sym.Convolution(a, num_filter=4, kernel=(3, 3), name="c")
    with pytest.raises(InvalidArgument, match="floating"):
        net.infer_type(a="int32")


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (
            lambda x: mx.nd.Convolution(
                x, mx.nd.ones((2, 3, 3, 3)), kernel=(3, 3), num_filter=2, no_bias=True
            ),
            (0, 2, 2, 2),
        ),
        (
            lambda x: mx.nd.Convolution(
                x, mx.nd.ones((2, 3, 1, 1)), kernel=(1, 1), num_filter=2, no_bias=True
            ),
            (0, 2, 4, 4),
        ),
        (
            lambda x: mx.nd.Deconvolution(x, mx.nd.ones((3, 2, 3, 3)), kernel=(3, 3), num_filter=2),
            (0, 2, 6, 6),
        ),
        (lambda x: mx.nd.Pooling(x, kernel=(2, 2)), (0, 3, 3, 3)),
        (lambda x: mx.nd.Pooling(x, global_pool=True, pool_type="avg"), (0, 3, 1, 1)),
        (lambda x: mx.nd.L2Normalization(x), (0, 3, 4, 4)),
        (lambda x: mx.nd.LRN(x, nsize=3), (0, 3, 4, 4)),
        (lambda x: mx.nd.UpSampling(x, scale=2, sample_type="nearest"), (0, 3, 8, 8)),
    ],
)
def test_no_samples_give_no_outputs(call, shape):
    assert call(mx.nd.array(np.zeros((0, 3, 4, 4)))).shape == shape


def test_rnn_of_no_samples():
    x, state = mx.nd.array(np.zeros((3, 0, 2))), mx.nd.array(np.zeros((1, 0, 2)))
    out = mx.nd.RNN(x, mx.nd.ones((48,)), state, state, state_size=2, num_layers=1, mode="lstm")
    assert out.shape == (3, 0, 2)


def gradients(net, shape):
    exe = net.simple_bind(mx.cpu(), a=shape)
    rng = np.random.RandomState(2)
    for array in exe.arg_dict.values():
        array[:] = rng.standard_normal(array.shape)
    (out,) = exe.forward(is_train=True)
    exe.backward(mx.nd.array(rng.standard_normal(out.shape)))
    return [out.asnumpy(), *(grad.asnumpy() for grad in exe.grad_arrays)]


@pytest.mark.parametrize(
    "net",
    [
        mx.sym.Convolution(a, kernel=(3, 3), num_filter=4),
        mx.sym.Convolution(a, kernel=(3, 3), num_filter=4, pad=(1, 1)),
        mx.sym.Convolution(a, kernel=(3, 3), num_filter=4, stride=(2, 2)),
        mx.sym.Deconvolution(a, kernel=(3, 3), num_filter=4, stride=(2, 2)),
        mx.sym.im2col(a, kernel=(3, 3), pad=(1, 1)),
        mx.sym.Pooling(a, kernel=(3, 3), stride=(2, 2), pad=(1, 1)),
        mx.sym.Pooling(a, kernel=(3, 3), pool_type="avg"),
        mx.sym.Pooling(a, global_pool=True, pool_type="max"),
    ],
    ids=lambda net: net.name,
)
def test_images_in_blocks_give_what_they_give_at_once(net, monkeypatch):
    shape = (5, 3, 7, 6)
    whole = gradients(net, shape)
    monkeypatch.setattr(columns, "_CACHE_NBYTES", 2 * 3 * 9 * 7 * 8 * 4)  # about two images
    monkeypatch.setattr(pooling, "_BLOCK_NBYTES", 2 * 7 * 6 * 4)
    for found, wanted in zip(gradients(net, shape), whole, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
