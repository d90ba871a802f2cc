"""Indexing and assignment, as MXNet 1.9.1 does them."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.device.standin import stand_in_gpus

nd = mx.nd
ALL = slice(None)


def cube():
    return nd.arange(24).reshape((2, 3, 4))


# Which keys give a view that writes through, and which a copy, was observed in MXNet.
VIEWS = [0, -1, slice(1, None), (0, 1), (0, slice(1, 3)), None, (None, 0), (0, 0, 0), Ellipsis, (), (1, None)]
VIEWS += [slice(None, None, 2), (slice(0, 1), slice(1, 2)), np.int64(1)]
COPIES = [(ALL, 1), (Ellipsis, 0), (0, slice(None, None, 2)), slice(None, None, -1), (0, ALL, 1)]
COPIES += [[0, 1], [-1], ([0, 1], [1, 2]), (ALL, [0, 2]), ([0, 1], ALL, [0, 1]), np.array([1, 0]), range(2)]
COPIES += [(0, [1, 2]), np.array([[1, 0], [0, 0]])]


@pytest.mark.parametrize("key", [*VIEWS, *COPIES], ids=str)
def test_values_and_views(key):
    x, dense = cube(), cube().asnumpy()
    part, wanted = x[key], dense[list(key) if isinstance(key, range) else key]
    assert part.shape == (np.shape(wanted) or (1,)) and np.array_equal(
        part.asnumpy().ravel(), np.ravel(wanted)
    )
    part[:] = -1
    is_view = (x.asnumpy() == -1).any()
    assert is_view == any(key is other for other in VIEWS)


def test_numbers_and_arrays_of_truth_values():
    x = nd.arange(4)
    assert x[True].asnumpy().tolist() == [1]  # a truth value is the number 1, as in MXNet
    with pytest.warns(UserWarning, match="indices 1 and 0"):
        assert x[np.array([True, False])].asnumpy().tolist() == [1, 0]
    mask = (x > 1).astype("bool")
    assert x[mask].asnumpy().tolist() == [2, 3]
    x[mask] = 9
    assert x.asnumpy().tolist() == [0, 1, 9, 9]


def test_arrays_of_any_dtype_are_indices():
    for dtype in ("float32", "int32", "int64", "uint8"):
        assert cube()[nd.array([1, 0], dtype=dtype)].asnumpy()[0, 0, 0] == 12
    assert nd.arange(4)[nd.array([[1, 0], [2, 3]])].shape == (2, 2)
    assert cube()[[nd.array([1]), nd.array([0])]].shape == (2, 1, 3, 4)


@pytest.mark.parametrize(
    ("key", "error", "words"),
    [
        (5, IndexError, "out of bounds"),
        ([5], IndexError, "out of bounds"),
        ((0, 0, 0, 0), IndexError, "too many indices"),
        (1.0, ValueError, "does not support slicing with key 1.0"),
        ("a", ValueError, "does not support slicing"),
        (["a"], ValueError, "does not support slicing"),
        ((Ellipsis, Ellipsis), IndexError, "one Ellipsis"),
    ],
)
def test_bad_keys(key, error, words):
    with pytest.raises(error, match=words):
        cube()[key]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (0, 7),
        (ALL, np.float64(2.5)),
        ((ALL, 1), [1, 2, 3, 4]),
        ((0, slice(None, None, 2)), np.ones((2, 4))),
        (([0, 1], [1, 2]), 5),
        ([1], np.arange(12).reshape(1, 3, 4)),
        ((Ellipsis, -1), 8),
        ((None, 0), 3),
        (slice(None, None, -1), np.arange(24).reshape(2, 3, 4)),
        ((1, 2, 3), np.array([6])),
    ],
    ids=str,
)
def test_assignment_is_that_of_numpy(key, value):
    x, dense = cube(), cube().asnumpy()
    x[key] = value
    dense[key] = np.asarray(value).reshape(()) if np.size(value) == 1 else value
    assert np.array_equal(x.asnumpy(), dense)
    y = cube()
    y[key] = nd.array(value) if np.ndim(value) else value
    assert np.array_equal(y.asnumpy(), dense)


def test_assignment_casts():
    x = nd.zeros((2,), dtype="int32")
    x[0] = 1.7
    x[1] = nd.array([2.9])
    assert x.asnumpy().tolist() == [1, 2]
    y = nd.zeros((2,), dtype="uint8")
    y[0] = 300
    assert y.asnumpy().tolist() == [44, 0]
    with pytest.raises(InvalidArgument, match=r"assignment into an array of shape \(2,\)"):
        x[:] = nd.ones((3,))


def test_regions_are_assigned_by_methods_too():
    x = nd.zeros((2, 3))
    assert x.slice_assign(nd.ones((1, 2)), (0, 0), (1, 2), (1, 1)) is x
    x.slice_assign_scalar(5, (1, 0), (2, 3), (None, 2))
    assert x.asnumpy().tolist() == [[1, 1, 0], [5, 0, 5]]


def test_indexing_on_another_device():
    with stand_in_gpus():
        x = cube().as_in_context(mx.gpu(0))
        for key in (0, (ALL, 1), ([0, 1], [1, 2]), nd.array([1]), nd.array([1], ctx=mx.gpu(0)), (0, 0, 0)):
            host = key.asnumpy().astype(int) if isinstance(key, nd.NDArray) else key
            assert np.array_equal(x[key].asnumpy().ravel(), np.ravel(x.asnumpy()[host]))
            x[key] = 1
        x[0] = nd.ones((3, 4), ctx=mx.gpu(1))
        x[1, 1] = np.zeros(4)
        assert x.asnumpy()[0].sum() == 12 and x.asnumpy()[1, 1].sum() == 0 and x[0].context == mx.gpu(0)


def test_what_mxnet_says_about_keys():
    code = nd.get_indexing_dispatch_code
    keys = (0, slice(1), [1, 2], (0, [1]), None, Ellipsis, nd.ones((1,)), "a", (1, None))
    assert [code(key) for key in keys] == [0, 0, 1, 1, 0, 0, 1, -1, 0]
    expand = nd.indexing_key_expand_implicit_axes
    assert expand(0, (2, 3, 4)) == ((0, ALL, ALL), -1)
    assert expand((Ellipsis, 0), (2, 3, 4)) == ((ALL, ALL, 0), -1)
    assert expand((0, None, 1), (2, 3, 4)) == ((0, None, 1, ALL), -1)
    assert nd.get_oshape_of_gather_nd_op((2, 3, 4), (2, 5)) == (5, 4)
    assert nd.get_oshape_of_gather_nd_op((2, 3, 4), (3,)) == ()
    with pytest.raises(InvalidArgument, match="do not fit"):
        nd.get_oshape_of_gather_nd_op((2,), (3, 4))
