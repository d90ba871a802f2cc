"""Arithmetic and comparisons: MXNet's dtypes, rounding and refusals."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.device.standin import stand_in_gpus

nd = mx.nd


def ints():
    return nd.array([5, -7, 2], dtype="int32")


@pytest.mark.parametrize(
    ("compute", "values"),
    [
        (lambda i: i + 1.5, [6, -6, 3]),
        (lambda i: i / 2, [2, -3, 1]),
        (lambda i: 7 / i, [1, -1, 3]),
        (lambda i: i / i, [1, 1, 1]),
        (lambda i: i * 1.5, [5, -7, 2]),
        (lambda i: i**2, [25, 49, 4]),
        (lambda i: 2**i, [32, 0, 4]),
        (lambda i: i % 3, [2, 2, 2]),
        (lambda i: i > 1.5, [1, 0, 1]),
        (lambda i: -i, [-5, 7, -2]),
        (abs, [5, 7, 2]),
        (lambda i: i + True, [6, -6, 3]),
        (lambda i: i - np.float64(1), [4, -8, 1]),
    ],
)
def test_whole_numbers_stay_whole(compute, values):
    result = compute(ints())
    assert result.dtype is np.int32 and result.asnumpy().tolist() == values


def test_small_dtypes_wrap_and_floats_follow_the_divisor():
    u = nd.array([250, 7, 2], dtype="uint8")
    assert (u + 10).asnumpy().tolist() == [4, 17, 12] and (u - 251).asnumpy().tolist() == [255, 12, 7]
    assert (u + 266).asnumpy().tolist() == [4, 17, 12]
    assert (nd.array([-7, 7.0]) % nd.array([3, -3.0])).asnumpy().tolist() == [2, -2]
    assert (nd.array([5.0]) % 0).asnumpy().tolist() == [0]
    big = nd.array([2**62 + 1], dtype="int64")
    assert (big / 1).asnumpy().tolist() == [2**62 + 1]


def test_shapes_broadcast():
    assert (nd.ones((2, 1)) + nd.ones((1, 3))).shape == (2, 3) and (
        nd.ones((2, 3)) > nd.ones((3,))
    ).shape == (2, 3)
    with pytest.raises(InvalidArgument, match=r"add: shapes \(2, 2\) and \(3,\)"):
        nd.ones((2, 2)) + nd.ones((3,))


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "imod"])
def test_in_place(name):
    function = getattr(operator, name)
    x = nd.array([1, 2, 3])
    y = x
    x = function(x, nd.full((1,), 2))
    assert x is y
    assert x.asnumpy().tolist() == getattr(operator, name[1:])(np.array([1.0, 2, 3]), 2).tolist()
    with pytest.raises(InvalidArgument, match="does not fit into"):
        function(y, nd.ones((2, 3)))
    with pytest.raises(InvalidArgument, match="dtypes float32 and float64"):
        function(y, nd.ones((3,), dtype="float64"))


def test_what_does_not_mix_is_refused():
    x = nd.array([1, 2, 3])
    with pytest.raises(InvalidArgument, match=r"dtypes float32 and int32; convert one by astype"):
        x + ints()
    for other in (np.ones(3), [1, 2, 3], None, "a", 1j):
        with pytest.raises(TypeError, match="not supported"):
            x + other
        with pytest.raises(TypeError):
            other + x
    with pytest.raises(TypeError, match="not supported"):
        x == "a"  # noqa: B015
    assert (x == None) is False and (x != None) is True  # noqa: E711


def test_devices_do_not_mix_but_all_cpus_share_memory():
    assert (nd.ones((2,), ctx=mx.cpu(1)) + nd.ones((2,))).context == mx.cpu(1)
    with stand_in_gpus():
        x, y = nd.ones((2,), ctx=mx.gpu(0)), nd.ones((2,), ctx=mx.gpu(1))
        for compute in (lambda: x + y, lambda: x + nd.ones((2,)), lambda: nd.dot(x, y)):
            with pytest.raises(InvalidArgument, match="as_in_context"):
                compute()
        i = nd.array([5, -7], dtype="int32", ctx=mx.gpu(0))
        for result in (x + 1, 1 - x, x**2, i / 2, i**2, i % 3, -i, x > 0, x % 0, abs(x)):
            assert result.context == mx.gpu(0)
        x += 1
        assert x.asnumpy().tolist() == [2, 2]


NAMES = ["add", "subtract", "multiply", "divide", "true_divide", "modulo", "power", "maximum", "minimum"]
NAMES += ["equal", "not_equal", "greater", "greater_equal", "lesser", "lesser_equal"]
NAMES += ["logical_and", "logical_or", "logical_xor"]


@pytest.mark.parametrize("name", NAMES)
def test_functions_take_arrays_and_numbers_on_either_side(name):
    function = getattr(nd, name)
    same = {"lesser": "less", "lesser_equal": "less_equal", "modulo": "mod"}.get(name, name)
    reference = getattr(np, same)
    x, y = np.array([0.0, 1, 2, 3], "f"), np.array([2.0, 1, 1, 3], "f")
    pairs = ((nd.array(x), nd.array(y)), (nd.array(x), 2), (2, nd.array(y)), (nd.array(x), nd.ones((1,))))
    for (left, right), (a, b) in zip(pairs, ((x, y), (x, 2), (2, y), (x, np.ones(1))), strict=True):
        with np.errstate(all="ignore"):
            wanted = np.asarray(reference(a, b), "f")
        result = function(left, right)
        assert result.dtype is np.float32
        np.testing.assert_allclose(result.asnumpy(), wanted, rtol=1e-6)
    assert function(7, 4) == reference(7, 4)
    with pytest.raises(TypeError, match="not supported"):
        function("a", nd.array(x))
