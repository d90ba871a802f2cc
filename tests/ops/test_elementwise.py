"""Functions of one and of two arrays: numeric gradients, integers, inference and what they refuse."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.ops import OPERATORS
from tests.gradients import worst_gradient_error
from tests.oracle.cases_unary import UNARY

TOLERANCE = 1e-6
a, b, c = (mx.sym.Variable(name) for name in "abc")
ROUNDING = ("ceil", "fix", "floor", "rint", "round", "trunc", "sign", "logical_not")
BLOCKING = ("BlockGrad", "stop_gradient")
BINARY = ("add", "sub", "mul", "div", "mod", "power", "maximum", "minimum", "hypot")


@pytest.mark.parametrize("name", sorted(set(UNARY) - {*BLOCKING}))
def test_function_of_one_array(name):
    low, high = UNARY[name]
    points = np.linspace(low, high, 12).reshape(3, 4) + 0.011
    if name not in ROUNDING:
        points = np.clip(points, low, high)
    net = getattr(mx.sym, name)(a)
    assert worst_gradient_error(net, {"a": (3, 4)}, values={"a": points}) < TOLERANCE


@pytest.mark.parametrize(
    "net",
    [
        mx.sym.clip(a, a_min=0.8, a_max=1.2),
        mx.sym.hard_sigmoid(a * 4 - 4, alpha=0.3, beta=0.4),
        mx.sym.smooth_l1(a - 1, scalar=2.0),
        mx.sym.Cast(a * b, dtype="float64"),
        mx.sym.add_n(a, b, a, a * b),
        mx.sym.where(a > b, a * a, b * 3),
        mx.sym.where(mx.sym.sum(a, axis=1) > 4, a * a, b * 3),
        mx.sym.maximum(a, 1) + mx.sym.minimum(1, b) + mx.sym.hypot(a, 2) + mx.sym.power(2.5, b),
        mx.sym.maximum(a, b) * mx.sym.minimum(a, b) + mx.sym.power(a, b),
        a**2 + a**0.5 + a**1 + b**-0.5 + b**3 + b**0,
        mx.sym.identity(a) * a + mx.sym.identity(mx.sym.identity(a)),
    ],
    ids=str,
)
def test_composed(net):
    assert worst_gradient_error(net, dict.fromkeys(net.list_arguments(), (3, 4))) < TOLERANCE


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3, 4), (1, 3, 1)), ((2, 1, 4), (2, 3, 1)), ((3, 4), (4,)), ((1,), (2, 3)), ((2, 3), (2, 3))],
)
def test_broadcasting(name, left, right):
    net = getattr(mx.sym, f"broadcast_{name}")(a * 1.7, b)
    assert worst_gradient_error(net, {"a": left, "b": right}) < TOLERANCE


@pytest.mark.parametrize(
    "net",
    [
        mx.sym.broadcast_to(a, shape=(3, 0, 4)),
        mx.sym.broadcast_axis(a, axis=(-3, 2), size=(3, 4)),
        mx.sym.broadcast_like(a, b),
    ],
    ids=str,
)
def test_repeating(net):
    shapes = {"a": (1, 2, 1), "b": (3, 2, 4)}
    assert worst_gradient_error(net, {n: shapes[n] for n in net.list_arguments()}) < TOLERANCE


@pytest.mark.parametrize("name", ["make_loss", "MakeLoss"])
def test_a_loss_starts_gradients_by_itself(name):
    net = getattr(mx.sym, name)(mx.sym.square(a))
    exe = net.simple_bind(mx.cpu(), a=(2, 3))
    exe.forward(is_train=True, a=np.arange(6).reshape(2, 3))
    exe.backward()
    np.testing.assert_array_equal(exe.grad_dict["a"].asnumpy(), 2 * np.arange(6).reshape(2, 3))


@pytest.mark.parametrize("name", BLOCKING)
def test_nothing_below_a_blocked_gradient_learns(name):
    exe = (getattr(mx.sym, name)(a * 2) * b).simple_bind(mx.cpu(), a=(2,), b=(2,))
    exe.forward(is_train=True, a=[3, 4], b=[1, 1])
    exe.backward(mx.nd.ones((2,)))
    assert not exe.grad_dict["a"].asnumpy().any()
    np.testing.assert_array_equal(exe.grad_dict["b"].asnumpy(), [6, 8])


def test_special_functions_are_as_exact_as_float64():
    def values(name, x):
        return getattr(mx.sym, name)(a).eval(a=mx.nd.array(x, dtype="float64"))[0].asnumpy()

    x = np.linspace(-6, 6, 400)
    np.testing.assert_allclose(values("erf", x), [math.erf(v) for v in x], rtol=1e-14)
    np.testing.assert_allclose(values("erfinv", values("erf", x[150:250])), x[150:250], rtol=1e-13)
    x = np.linspace(-5.3, 160, 400)
    np.testing.assert_allclose(values("gamma", x), [math.gamma(v) for v in x], rtol=1e-12)
    np.testing.assert_allclose(values("gammaln", x), [math.lgamma(v) for v in x], rtol=1e-12, atol=1e-13)
    with np.errstate(all="ignore"):
        assert np.isinf(values("gamma", [200.0, 0.0])).all() and np.isnan(values("gamma", [-1.0])).all()


def test_integers_are_divided_towards_zero():
    x, y = mx.nd.array([-5, 5, 7], dtype="int32"), mx.nd.array([2, -2, 2], dtype="int32")
    assert (a / b).eval(a=x, b=y)[0].asnumpy().tolist() == [-2, -2, 3]
    assert (a % b).eval(a=x, b=y)[0].asnumpy().tolist() == [1, -1, 1]
    assert (a / 2.9).eval(a=x)[0].asnumpy().tolist() == [-2, 2, 3]
    assert (a**-1).eval(a=x)[0].asnumpy().tolist() == [0, 0, 0]
    assert (a > 5.5).eval(a=x)[0].asnumpy().tolist() == [0, 0, 1]


def test_comparing_gives_symbols_and_symbols_stay_keys():
    assert isinstance(a == b, mx.sym.Symbol) and isinstance(a != 1, mx.sym.Symbol)
    assert {a: 1}[a] == 1
    for other in (None, "x", True):
        with pytest.raises(TypeError, match=type(other).__name__):
            a == other  # noqa: B015
    with pytest.raises(TypeError, match="maximum"):
        mx.sym.maximum(a, "x")
    assert (mx.sym.maximum(2, 3), mx.sym.minimum(2, 3), mx.sym.power(2, 3)) == (3, 2, 8)
    assert mx.sym.hypot(3, 4) == 5.0


def test_the_sparse_namespace_has_the_same_operators():
    assert OPERATORS["_sparse_relu"] is OPERATORS["relu"]
    assert OPERATORS["_sparse_where"] is OPERATORS["where"]


def test_casts_choose_dtypes():
    assert mx.sym.Cast(a, dtype="int8").infer_type(a="float32")[1] == [np.int8]
    both = mx.sym.amp_multicast(a, b, c, num_outputs=3)
    assert both.infer_type(a="float32", b="float16", c="int32")[1] == [np.float32, np.float32, np.int32]
    narrow = mx.sym.amp_multicast(a, b, num_outputs=2, cast_narrow=True)
    assert narrow.infer_type(a="float32", b="float16")[1] == [np.float16, np.float16]
    exe = both.simple_bind(
        mx.cpu(), type_dict={"a": "float32", "b": "float16", "c": "float32"}, a=(2,), b=(3,), c=(1,)
    )
    outputs = exe.forward(is_train=True, a=[1, 2], b=[1, 2, 3], c=[4])
    exe.backward([mx.nd.ones(o.shape) for o in outputs])
    assert [o.dtype for o in outputs] == [np.float32] * 3
    assert exe.grad_dict["b"].dtype == np.float16 and exe.grad_dict["b"].asnumpy().tolist() == [1, 1, 1]


def test_shapes_follow_from_what_is_known():
    assert mx.sym.broadcast_add(a, b).infer_shape_partial(a=(2, 0), b=(2, 3))[1] == [(2, 3)]
    assert mx.sym.broadcast_add(a, b).infer_shape_partial(a=(2, 0), b=(2, 1))[1] == [(2, 0)]
    assert (a == b).infer_shape(a=(2, 3))[0] == [(2, 3), (2, 3)]
    assert mx.sym.where(a, b, c).infer_shape_partial(a=(2,), b=(2, 3))[0] == [(2,), (2, 3), (2, 3)]


@pytest.mark.parametrize(
    ("build", "shapes", "words"),
    [
        (
            lambda: mx.sym.broadcast_mul(a, b, name="y"),
            {"a": (2, 3), "b": (2, 2)},
            ["broadcast_mul 'y'", "rhs", "(2, 3)", "(2, 2)"],
        ),
        (
            lambda: mx.sym.broadcast_to(a, shape=(2, 3), name="y"),
            {"a": (2, 2)},
            ["broadcast_to 'y'", "data", "axis 1", "3", "(2, 2)"],
        ),
        (lambda: mx.sym.broadcast_to(a, shape=(2, 3), name="y"), {"a": (3,)}, ["'y'", "2 axes", "(3,)"]),
        (lambda: mx.sym.broadcast_axis(a, axis=2, size=3, name="y"), {"a": (3, 1)}, ["'y'", "axis 2"]),
        (lambda: mx.sym.broadcast_axis(a, axis=(0, 1), size=3, name="y"), {"a": (1, 1)}, ["'y'", "size"]),
        (
            lambda: mx.sym.broadcast_like(a, b, name="y"),
            {"a": (1,), "b": (2, 3)},
            ["broadcast_like 'y'", "lhs", "(1,)", "(2, 3)"],
        ),
        (
            lambda: mx.sym.where(a, b, c, name="y"),
            {"a": (3,), "b": (2, 3), "c": (2, 3)},
            ["where 'y'", "condition", "(2,)", "(3,)"],
        ),
        (lambda: mx.sym.add_n(a, b, name="y"), {"a": (3,), "b": (2,)}, ["add_n 'y'", "input 1", "(2,)"]),
        (
            lambda: mx.sym.IdentityAttachKLSparseReg(a, name="y"),
            {"a": (3,)},
            ["IdentityAttachKLSparseReg 'y'", "2 axes", "(3,)"],
        ),
    ],
)
def test_errors_name_node_argument_and_shapes(build, shapes, words):
    with pytest.raises(InvalidArgument) as error:
        build().infer_shape(**shapes)
    for word in words:
        assert word in str(error.value)


def test_dtypes_that_do_not_fit_are_refused():
    with pytest.raises(InvalidArgument, match=r"where.*float32.*float64"):
        mx.sym.where(a, b, c).infer_type(a="int32", b="float32", c="float64")
    with pytest.raises(InvalidArgument, match="broadcast_add"):
        mx.sym.broadcast_add(a, b).infer_type(a="int32", b="float32")


@pytest.mark.parametrize(
    "net",
    [
        mx.sym.relu(mx.sym.tanh(a) * b + mx.sym.sqrt(a) - mx.sym.exp(b) / a),
        mx.sym.broadcast_add(mx.sym.broadcast_mul(a, mx.sym.sum(b, axis=0, keepdims=True)), b),
        mx.sym.sum(mx.sym.square(a - b), axis=1),
        mx.sym.mean(mx.sym.abs(mx.sym.clip(a, a_min=0, a_max=1)) * mx.sym.maximum(a, b)),
        mx.sym.broadcast_add(mx.sym.where(a > b, mx.sym.smooth_l1(a), mx.sym.log(b)) + a**2, mx.sym.norm(b)),
        mx.sym.max(mx.sym.add_n(a, b, a * b), axis=1) + mx.sym.argmax(a, axis=1),
    ],
    ids=str,
)
def test_steps_of_common_functions_allocate_no_arrays(net):
    exe = net.simple_bind(mx.cpu(), a=(300, 400), b=(300, 400))  # 480 kB each
    heads = [mx.nd.ones(o.shape) for o in exe.forward(is_train=True)]
    exe.backward(heads)
    tracemalloc.start()
    try:
        exe.forward(is_train=True)
        exe.backward(heads)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000
