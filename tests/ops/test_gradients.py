"""Every operator's gradient against numeric ones, in float64."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from tests.gradients import worst_gradient_error

TOLERANCE = 1e-6
a, b = mx.sym.Variable("a"), mx.sym.Variable("b")


@pytest.mark.parametrize("act_type", ["relu", "sigmoid", "softrelu", "softsign", "tanh"])
def test_activation(act_type):
    net = mx.sym.Activation(a - 1.01, act_type=act_type)
    assert worst_gradient_error(net, {"a": (3, 4)}) < TOLERANCE


@pytest.mark.parametrize(
    "net",
    [a + b, a - b, a * b, a / b, a**b, (a * 3) % b, a * a, a + a, (a * b) * (a * b)],
    ids=["add", "sub", "mul", "div", "power", "mod", "square", "double", "reused"],
)
def test_arithmetic_of_symbols(net):
    assert worst_gradient_error(net, {"a": (3, 4)}) < TOLERANCE


@pytest.mark.parametrize(
    "net",
    [a + 2, a - 2, 2 - a, a * 3, a / 3, 3 / a, a**3, 3**a, a % 0.4, 2.9 % a, -a, a**-0.5],
    ids=["plus", "minus", "rminus", "mul", "div", "rdiv", "power", "rpower", "mod", "rmod", "neg", "rsqrt"],
)
def test_arithmetic_with_numbers(net):
    assert worst_gradient_error(net, {"a": (3, 4)}) < TOLERANCE


@pytest.mark.parametrize("attrs", [{}, {"no_bias": True}, {"flatten": False}], ids=str)
def test_fully_connected(attrs):
    net = mx.sym.FullyConnected(a, num_hidden=3, **attrs)
    assert worst_gradient_error(net, {"a": (3, 2, 2)}) < TOLERANCE


@pytest.mark.parametrize(
    "attrs",
    [
        {"fix_gamma": False},
        {"fix_gamma": False, "axis": -1},
        {"fix_gamma": False, "axis": 0},
        {"fix_gamma": False, "use_global_stats": True},
    ],
    ids=str,
)
def test_batch_norm(attrs):
    net = mx.sym.BatchNorm(a, name="bn", **attrs)
    assert worst_gradient_error(net, {"a": (5, 3, 4)}) < TOLERANCE


def test_batch_norm_with_fixed_gamma_gives_it_no_gradient():
    net = mx.sym.BatchNorm(a, name="bn")
    assert worst_gradient_error(net, {"a": (5, 3)}, skip=("bn_gamma",)) < TOLERANCE
    exe = net.simple_bind(mx.cpu(), a=(5, 3))
    exe.forward(is_train=True)
    exe.backward(mx.nd.ones((5, 3)))
    assert not exe.grad_dict["bn_gamma"].asnumpy().any()
    assert (exe.arg_dict["bn_gamma"].asnumpy() == 1).all()


@pytest.mark.parametrize(
    "attrs", [{"p": 0.4}, {"p": 0.4, "axes": (1,)}, {"p": 0.0}, {"mode": "always"}], ids=str
)
def test_dropout(attrs):
    assert worst_gradient_error(mx.sym.Dropout(a, **attrs) * a, {"a": (5, 3, 4)}) < TOLERANCE


def test_flatten_and_reshape():
    net = mx.sym.Flatten(a) * 2 + mx.sym.Reshape(b, shape=(0, -1))
    assert worst_gradient_error(net, {"a": (5, 3, 4), "b": (5, 6, 2)}) < TOLERANCE


def test_an_output_that_others_read_too():
    h = a * b
    net = mx.sym.Group([h, mx.sym.Flatten(h), h + 1, a, mx.sym.Flatten(mx.sym.Flatten(h * 2))])
    assert worst_gradient_error(net, {"a": (5, 3, 4)}) < TOLERANCE


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("grad_scale", [1.0, 0.5])
def test_softmax_output_has_the_gradient_of_the_cross_entropy(grad_scale):
    """The loss is not an output, so its numeric gradient is taken of the formula."""
    rng = np.random.RandomState(0)
    x, label = rng.randn(4, 3), np.array([0, 2, 1, 1])
    exe = mx.sym.SoftmaxOutput(a, name="s", grad_scale=grad_scale).simple_bind(
        mx.cpu(), type_dict={"a": "float64", "s_label": "float64"}, a=(4, 3)
    )
    exe.forward(is_train=True, a=x, s_label=label)
    exe.backward()

    def loss(z):
        return -grad_scale * np.log(softmax(z, 1)[np.arange(4), label]).sum()

    np.testing.assert_allclose(exe.grad_dict["a"].asnumpy(), numeric(loss, x), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("grad_scale", [1.0, 2.0])
def test_linear_regression_output_has_the_gradient_of_the_squared_error(grad_scale):
    rng = np.random.RandomState(0)
    x, label = rng.randn(4, 3), rng.randn(4, 3)
    exe = mx.sym.LinearRegressionOutput(a, name="r", grad_scale=grad_scale).simple_bind(
        mx.cpu(), type_dict={"a": "float64"}, a=(4, 3)
    )
    exe.forward(is_train=True, a=x, r_label=label)
    exe.backward()

    def loss(z):
        return grad_scale * ((z - label) ** 2).sum() / 2 / 3

    np.testing.assert_allclose(exe.grad_dict["a"].asnumpy(), numeric(loss, x), rtol=1e-6, atol=1e-9)


def numeric(function, x, eps=1e-6):
    grad = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = eps
        grad[index] = (function(x + step) - function(x - step)) / (2 * eps)
    return grad
