"""NDArray: making, indexing, arithmetic, copies."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument


def test_dtypes_of_new_arrays():
    assert mx.nd.array([1, 2]).dtype is np.float32
    assert mx.nd.array(np.arange(3)).dtype is np.float32
    assert mx.nd.array([1, 2], dtype="int64").dtype is np.int64
    assert mx.nd.array(mx.nd.ones((2,), dtype="float64")).dtype is np.float64
    assert mx.nd.zeros(3).shape == (3,) and mx.nd.full((2, 2), 7).asnumpy().tolist() == [[7, 7], [7, 7]]
    assert mx.nd.arange(3, repeat=2).asnumpy().tolist() == [0, 0, 1, 1, 2, 2]
    assert mx.nd.zeros_like(mx.nd.ones((2,), dtype="int32")).dtype is np.int32


def test_indexing_gives_views_that_write_through():
    x = mx.nd.array([[1, 2, 3], [4, 5, 6]])
    x[0][:] = 7
    x[1, 2] = 9
    x[:, 0:1] *= 2
    one = x[1, 1]
    one[:] = 0
    assert x.asnumpy().tolist() == [[14, 7, 7], [8, 0, 9]]
    assert one.shape == (1,) and x[mx.nd.array([1, 0])].shape == (2, 3)
    x[:] = mx.nd.ones((2, 3))
    assert x.sum().asscalar() == 6
    with pytest.raises(InvalidArgument, match="shape"):
        x[:] = np.ones((2, 4))


def test_arithmetic_keeps_the_dtype():
    half, whole = mx.nd.ones((2,), dtype="float16"), mx.nd.array([7, 8], dtype="int32")
    assert (half * 2.5).dtype is np.float16 and (1 - half).asnumpy().tolist() == [0, 0]
    assert (whole / 2).asnumpy().tolist() == [3, 4] and (whole / 2).dtype is np.int32
    x = mx.nd.array([1, 2])
    assert (2**x).asnumpy().tolist() == [2, 4] and (x**2).asnumpy().tolist() == [1, 4]
    assert (-x + abs(-x)).asnumpy().tolist() == [0, 0] and (5 % x).asnumpy().tolist() == [0, 1]
    assert (x > 1).asnumpy().tolist() == [0, 1] and (x > 1).dtype is np.float32
    assert (x == x).asnumpy().tolist() == [1, 1] and (x != None) is True  # noqa: E711
    y = x
    y += 1
    y /= 2
    assert x.asnumpy().tolist() == [1, 1.5]


def test_copies_do_not_share():
    x = mx.nd.ones((2,))
    for other in (
        x.copy(),
        x.copyto(mx.cpu(1)),
        x.astype("float32"),
        pickle.loads(pickle.dumps(x)),
        mx.nd.array(x),
    ):
        other[:] = 5
    assert x.asnumpy().tolist() == [1, 1]
    assert x.as_in_context(mx.cpu(0)) is x and x.as_in_context(mx.cpu(1)).context == mx.cpu(1)
    with pytest.raises(InvalidArgument, match=r"\(2,\) into an array of shape \(3,\)"):
        x.copyto(mx.nd.ones((3,)))


def test_shapes():
    x = mx.nd.arange(24).reshape((2, 3, 4))
    assert x.reshape((0, -1)).shape == (2, 12) and x.reshape(-1).shape == (24,) and x.T.shape == (4, 3, 2)
    assert x.reshape((-3, 0)).shape == (6, 4) and x.reshape((0, -4, 3, 1, -2)).shape == (2, 3, 1, 4)
    assert x.flatten().shape == (2, 12) and x.expand_dims(1).shape == (2, 1, 3, 4)
    assert x.transpose((1, 0, 2)).shape == (3, 2, 4) and x.slice_axis(2, 1, 3).shape == (2, 3, 2)
    assert mx.nd.concatenate([x, x], axis=1).shape == (2, 6, 4)
    with pytest.raises(InvalidArgument, match="10 elements, there are 24"):
        x.reshape((5, 2))


def test_reductions_are_arrays():
    x = mx.nd.array([[1, 2], [3, 4]])
    assert x.mean().asnumpy().tolist() == [2.5] and x.max(axis=0).asnumpy().tolist() == [3, 4]
    assert float(x.min()) == 1 and x.norm().shape == (1,) and x.argmax(axis=1).asnumpy().tolist() == [1, 1]


def test_truth_values():
    assert mx.nd.ones((1,)) and not mx.nd.zeros((1,))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(mx.nd.ones((2,)))
    with pytest.raises(ValueError, match="2 elements"):
        mx.nd.ones((2,)).asscalar()


def test_repr_shows_shape_and_device():
    assert repr(mx.nd.ones((1, 2))) == "\n[[1. 1.]]\n<NDArray 1x2 @cpu(0)>"


def test_context_scopes():
    with mx.cpu(2):
        assert mx.nd.ones((1,)).context == mx.cpu(2)
        with mx.Context("cpu", 3):
            assert mx.current_context() == mx.cpu(3)
    assert mx.current_context() == mx.cpu(0)
    with pytest.raises(InvalidArgument, match="expected a device type"):
        mx.Context("tpu")
