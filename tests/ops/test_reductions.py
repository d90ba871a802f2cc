"""Reductions: numeric gradients, empty arrays, inference and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, MXNetError
from dmod.device.cpu import CpuBackend
from dmod.device.random import SlotStream
from dmod.ops import Call, get_operator
from dmod.ops.reduction import Reduction
from tests.gradients import worst_gradient_error

TOLERANCE = 1e-6
a, b = mx.sym.Variable("a"), mx.sym.Variable("b")
AXES = [{}, {"axis": 1}, {"axis": (0, -1)}, {"axis": 0, "exclude": True, "keepdims": True}]


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "nansum", "nanprod", "max", "min"])
@pytest.mark.parametrize("attrs", AXES, ids=str)
def test_reduction(name, attrs):
    net = getattr(mx.sym, name)(a * a, **attrs)
    assert worst_gradient_error(net, {"a": (3, 4, 2)}) < TOLERANCE


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("attrs", [{}, {"axis": 1}, {"axis": (0, 2), "keepdims": True}], ids=str)
def test_norm(order, attrs):
    net = mx.sym.norm(a - 1.03, ord=order, **attrs)
    assert worst_gradient_error(net, {"a": (3, 4, 2)}) < TOLERANCE


@pytest.mark.parametrize("attrs", [{"axes": (0,)}, {"axes": (0, 2), "keepdims": True}], ids=str)
def test_moments(attrs):
    assert worst_gradient_error(mx.sym.moments(a * 2, **attrs), {"a": (3, 4, 2)}) < TOLERANCE


@pytest.mark.parametrize("attrs", [{}, {"axis": 0}, {"axis": -1}, {"axis": 1, "dtype": "float64"}], ids=str)
def test_cumsum(attrs):
    assert worst_gradient_error(mx.sym.cumsum(a * a, **attrs), {"a": (3, 4, 2)}) < TOLERANCE


def test_cumsum_along_the_last_axis():
    x = np.arange(6.0).reshape(2, 3)
    found = mx.sym.cumsum(a, axis=-1).eval(a=mx.nd.array(x))[0].asnumpy()
    np.testing.assert_array_equal(found, x.cumsum(1))


@pytest.mark.parametrize("name", ["argmax", "argmin", "shape_array", "size_array"])
def test_positions_and_shapes_have_no_slope(name):
    exe = (getattr(mx.sym, name)(a) * 2).simple_bind(mx.cpu(), a=(3, 4))
    exe.forward(is_train=True)
    exe.backward(mx.nd.ones(exe.outputs[0].shape, dtype=exe.outputs[0].dtype))
    assert not exe.grad_dict["a"].asnumpy().any()


@pytest.mark.parametrize("name", ["argmax_channel", "all_finite"])
def test_what_mxnet_does_not_differentiate_is_an_error(name):
    exe = getattr(mx.sym, name)(a).simple_bind(mx.cpu(), a=(3, 4))
    exe.forward()
    with pytest.raises(MXNetError, match=f"{name}.*gradient"):
        exe.forward(is_train=True)


def test_infinite_norm_of_float16_is_none():
    """Sums of float16 are added up in float32: 300 squares of 20 are more than float16 holds."""
    exe = mx.sym.norm(a).simple_bind(mx.cpu(), type_dict={"a": "float16"}, a=(300,))
    assert exe.forward(a=np.full(300, 20))[0].asnumpy()[0] == np.float16(np.sqrt(300) * 20)


def test_axes_are_joined():
    assert Reduction((2, 3, 4, 5), (0, 1)).full == (6, 20)
    assert Reduction((2, 3, 4, 5), (1, 3)).full == (2, 3, 4, 5)
    assert Reduction((2, 1, 4, 1), (2, 3)).full == (2, 4)
    assert Reduction((1, 1), (0, 1)).full == (1,) and Reduction((1, 1), (0, 1)).axes == ()
    assert Reduction.to_shape((2, 3, 4), (3, 1)).axes == (0, 2)


def test_shapes_follow_from_what_is_known():
    assert mx.sym.sum(a, axis=1).infer_shape_partial(a=(2, 0))[1] == [(2,)]
    assert mx.sym.sum(a).infer_shape_partial(a=(2, 0))[1] == [(1,)]
    assert mx.sym.moments(a, axes=(0,)).infer_shape(a=(2, 5))[1] == [(5,), (5,)]


@pytest.mark.parametrize(
    ("build", "shapes", "words"),
    [
        (lambda: mx.sym.sum(a, axis=2, name="y"), {"a": (2, 3)}, ["sum 'y'", "data", "axis 2", "2 axes"]),
        (lambda: mx.sym.mean(a, axis=(1, -1), name="y"), {"a": (2, 3)}, ["mean 'y'", "different", "(1, -1)"]),
        (lambda: mx.sym.argmax(a, axis=-3, name="y"), {"a": (2, 3)}, ["argmax 'y'", "axis -3", "2 axes"]),
        (lambda: mx.sym.norm(a, ord=3, name="y"), {"a": (2, 3)}, ["norm 'y'", "ord", "1 or 2", "3"]),
        (lambda: mx.sym.moments(a, name="y"), {"a": (2, 3)}, ["moments 'y'", "axes", "none"]),
        (lambda: mx.sym.argmax_channel(a, name="y"), {"a": (3,)}, ["argmax_channel 'y'", "2 axes", "(3,)"]),
        (lambda: mx.sym.cumsum(a, axis=2, name="y"), {"a": (2, 3)}, ["_np_cumsum 'y'", "axis 2"]),
    ],
)
def test_errors_name_node_argument_and_shapes(build, shapes, words):
    with pytest.raises(InvalidArgument) as error:
        build().infer_shape(**shapes)
    for word in words:
        assert word in str(error.value)


def test_only_numbers_with_fractions_can_be_infinite():
    with pytest.raises(InvalidArgument, match=r"all_finite.*int32"):
        mx.sym.all_finite(a).infer_type(a="int32")


def applied(name, data, **attrs):
    """An operator's output and its input's gradient for gradients of 1, without a graph: lengths can be 0."""
    operator = get_operator(name)
    parsed = operator.parse({key: str(value) for key, value in attrs.items()}, "test")
    (shape,) = operator.infer_shape(parsed, [data.shape], [None])[1]
    (dtype,) = operator.infer_type(parsed, [data.dtype])[1]
    out, grad = np.empty(shape, dtype), np.empty_like(data)
    call = Call(CpuBackend(), np, parsed, True, [data], [out], [], SlotStream(), 0, np.empty)
    with np.errstate(all="ignore"):
        operator.forward(call)()
        operator.backward(replace(call, out_grads=[np.ones_like(out)], in_grads=[grad]))()
    return out, grad


@pytest.mark.parametrize(
    ("name", "neutral"),
    [("sum", 0), ("mean", np.nan), ("prod", 1), ("nansum", 0), ("nanprod", 1), ("norm", 0)],
)
@pytest.mark.parametrize("attrs", [*AXES[:1], {"axis": 0}, {"axis": (0, 1), "keepdims": True}], ids=str)
def test_reductions_of_nothing(name, neutral, attrs):
    out, grad = applied(name, np.zeros((0, 3), np.float32), **attrs)
    np.testing.assert_array_equal(out, np.full(out.shape, neutral, np.float32))
    assert grad.shape == (0, 3)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_nothing_has_no_extremum(name):
    with pytest.raises(InvalidArgument, match=r"at least one element.*\(0, 3\)"):
        applied(name, np.zeros((0, 3), np.float32))
