"""Softmax and its relatives, and losses: numeric gradients, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from tests.gradients import worst_gradient_error

TOLERANCE = 1e-6
a, b = mx.sym.Variable("a"), mx.sym.Variable("b")


@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax"])
@pytest.mark.parametrize("attrs", [{}, {"axis": 0}, {"axis": 1, "temperature": 0.3}], ids=str)
def test_softmax(name, attrs):
    net = getattr(mx.sym, name)(a * a, **attrs)
    assert worst_gradient_error(net, {"a": (3, 4, 2)}) < TOLERANCE


@pytest.mark.parametrize(
    ("mode", "shape"), [("instance", (3, 4)), ("instance", (2, 3, 4)), ("channel", (2, 3, 4))]
)
def test_softmax_activation(mode, shape):
    net = mx.sym.SoftmaxActivation(a * a, mode=mode)
    assert worst_gradient_error(net, {"a": shape}) < TOLERANCE


def test_softmax_with_lengths_ignores_what_lies_beyond():
    net = mx.sym.softmax(a, b, use_length=True)
    exe = net.simple_bind(mx.cpu(), type_dict={"a": "float64", "b": "int32"}, a=(3, 4), b=(3,))
    x, head = np.random.RandomState(0).randn(2, 3, 4)
    exe.forward(is_train=True, a=x, b=[2, 4, 0])
    exe.backward(mx.nd.array(head, dtype="float64"))
    y, dx = exe.outputs[0].asnumpy(), exe.grad_dict["a"].asnumpy()
    for row, n in enumerate([2, 4, 0]):
        e = np.exp(x[row, :n])
        p = e / e.sum()
        np.testing.assert_allclose(y[row], [*p, *[0] * (4 - n)], rtol=1e-12)
        grad = p * (head[row, :n] - (p * head[row, :n]).sum())
        np.testing.assert_allclose(dx[row], [*grad, *[0] * (4 - n)], rtol=1e-9, atol=1e-15)
    assert not exe.grad_dict["b"].asnumpy().any()


def test_softmax_cross_entropy():
    label = np.array([2, 0, 1])
    net = mx.sym.softmax_cross_entropy(a * 1, b)
    assert worst_gradient_error(net, {"a": (3, 4), "b": (3,)}, values={"b": label}, skip=("b",)) < TOLERANCE


@pytest.mark.parametrize("blank", ["first", "last"])
def test_ctc_loss(blank):
    label = np.array([[1, 2], [2, 2]]) if blank == "first" else np.array([[0, 1], [1, -1]])
    net = mx.sym.CTCLoss(a * 2, b, blank_label=blank)
    error = worst_gradient_error(net, {"a": (5, 2, 4), "b": (2, 2)}, values={"b": label}, skip=("b",))
    assert error < TOLERANCE


def test_a_label_that_does_not_fit_its_sequence_costs_nothing():
    exe = mx.sym.CTCLoss(a, b).simple_bind(mx.cpu(), a=(2, 1, 4), b=(1, 2))
    exe.forward(is_train=True, b=[[3, 3]])
    exe.backward(mx.nd.ones((1,)))
    assert exe.outputs[0].asscalar() == 0
    assert not exe.grad_dict["a"].asnumpy().any()


@pytest.mark.parametrize(
    ("build", "shapes", "words"),
    [
        (lambda: mx.sym.softmax(a, axis=2, name="y"), {"a": (2, 3)}, ["softmax 'y'", "axis 2", "2 dim"]),
        (
            lambda: mx.sym.softmax(a, b, use_length=True, name="y"),
            {"a": (2, 3), "b": (3,)},
            ["softmax 'y'", "length", "(2,)", "(3,)"],
        ),
        (lambda: mx.sym.log_softmax(a, use_length=True, name="y"), {"a": (2, 3)}, ["'y'", "use_length"]),
        (lambda: mx.sym.SoftmaxActivation(a, mode="channel", name="y"), {"a": (2, 3)}, ["'y'", "(2, 3)"]),
        (
            lambda: mx.sym.SVMOutput(a, b, name="y"),
            {"a": (2, 3), "b": (3,)},
            ["'y'", "label", "(2,)", "(3,)"],
        ),
        (lambda: mx.sym.CTCLoss(a, b, name="y"), {"a": (2, 3)}, ["CTCLoss 'y'", "(2, 3)", "sequence length"]),
        (
            lambda: mx.sym.CTCLoss(a, b, name="y"),
            {"a": (2, 3, 4), "b": (2, 5)},
            ["CTCLoss 'y'", "label", "(3, -1)", "(2, 5)"],
        ),
    ],
)
def test_errors_name_node_argument_and_shapes(build, shapes, words):
    with pytest.raises(InvalidArgument) as error:
        build().infer_shape(**shapes)
    for word in words:
        assert word in str(error.value)


def test_softmax_refuses_integers():
    with pytest.raises(InvalidArgument, match=r"int32.*Cast"):
        mx.sym.softmax(a).infer_type(a="int32")
