"""Functions of mx.nd that are no operators, and NDArray's own methods."""

from __future__ import annotations

import io

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, MXNetError

nd = mx.nd


def test_moveaxis():
    x = nd.arange(24).reshape((2, 3, 4))
    for source, destination in ((0, -1), ((0, 1), (-1, 0)), (2, 0), ((0, 2), (1, 0))):
        wanted = np.moveaxis(x.asnumpy(), source, destination)
        assert np.array_equal(nd.moveaxis(x, source, destination).asnumpy(), wanted)
    for source, destination, words in (
        (5, 0, "no axis"),
        ((0, 0), (1, 2), "twice"),
        ((0, 1), 0, "2 sources"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            nd.moveaxis(x, source, destination)


def test_split_v2():
    x = nd.arange(6)
    assert [p.asnumpy().tolist() for p in nd.split_v2(x, (2, 3))] == [[0, 1], [2], [3, 4, 5]]
    assert [p.shape for p in nd.split_v2(x, (0, 2))] == [(0,), (2,), (4,)]
    assert [p.shape for p in x.reshape((3, 2)).split_v2(3, squeeze_axis=True)] == [(2,)] * 3
    assert [p.shape for p in nd.split_v2(x.reshape((3, 2)), 2, axis=1)] == [(3, 1)] * 2
    with pytest.raises(InvalidArgument, match="an axis of 6 into 4 equal parts"):
        nd.split_v2(x, 4)


def test_histogram_and_onehot_encode():
    x = nd.array([1, 2, 3, 4, 5])
    counts, edges = nd.histogram(x, bins=3, range=(0, 6))
    assert counts.asnumpy().tolist() == [1, 2, 2] and counts.dtype is np.int64
    assert edges.asnumpy().tolist() == [0, 2, 4, 6] and nd.histogram(x, bins=3)[0].dtype is np.float32
    assert nd.histogram(x, bins=nd.array([0, 2, 4]))[0].asnumpy().tolist() == [1, 3]
    with pytest.raises(InvalidArgument, match="bins"):
        nd.histogram(x, bins=[0, 2])
    out = nd.zeros((2, 3))
    assert nd.onehot_encode(nd.array([1, 0]), out) is out
    assert out.asnumpy().tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(InvalidArgument, match="do not fit"):
        nd.onehot_encode(nd.array([1]), out)


def test_new_arrays():
    assert nd.eye(2, 3, 1, dtype="int32").asnumpy().tolist() == [[0, 1, 0], [0, 0, 1]]
    assert nd.linspace(0, 10, 4, dtype="int32").asnumpy().tolist() == [0, 3, 6, 10]
    assert nd.linspace(0, 1, 4, endpoint=False).asnumpy().tolist() == [0, 0.25, 0.5, 0.75]
    assert nd.arange(5, 0, -2).asnumpy().tolist() == [5, 3, 1] and nd.arange(5, 1).shape == (0,)
    assert nd.arange(0, 1, 0.3).asnumpy()[3] == np.float32(0.3) * 3
    out = nd.zeros((2,))
    assert nd.full((2,), 3, out=out) is out and out.asnumpy().tolist() == [3, 3]
    for bad in ((-1, 2), (1.5, 2)):
        with pytest.raises(InvalidArgument, match="not negative"):
            nd.zeros(bad)
    with pytest.raises(InvalidArgument, match="complex64"):
        nd.zeros((2,), dtype="complex64")
    with pytest.raises(InvalidArgument, match="dtypes float32 and int32"):
        nd.concatenate([nd.ones((1,)), nd.ones((1,), dtype="int32")])
    with pytest.raises(InvalidArgument, match="concatenate"):
        nd.concatenate([nd.ones((1, 2)), nd.ones((1, 3))])
    nd.waitall()


def test_numpy_memory_is_shared_or_copied():
    host = np.ones((2, 2))
    shared, copied = nd.from_numpy(host), nd.from_numpy(host, zero_copy=False)
    shared[:] = 5
    assert host.tolist() == [[5, 5], [5, 5]] and copied.asnumpy().tolist() == [[1, 1], [1, 1]]
    with pytest.raises(InvalidArgument, match="C-contiguous"):
        nd.from_numpy(np.ones((4, 4))[:, ::2])


def test_dlpack_shares_memory():
    x = nd.array([1, 2, 3])
    for capsule in (nd.to_dlpack_for_read(x), x.to_dlpack_for_write(), x._data):
        y = nd.from_dlpack(capsule)
        y[0] += 1
        assert x.asnumpy()[0] == y.asnumpy()[0]
    assert x.asnumpy()[0] == 4
    with pytest.raises(MXNetError, match="from_dlpack"):
        nd.from_dlpack("no capsule")


def test_imdecode():
    image_module = pytest.importorskip("PIL.Image")
    pixels = np.arange(24, dtype="uint8").reshape(2, 4, 3)
    file = io.BytesIO()
    image_module.fromarray(pixels).save(file, "PNG")
    image = nd.imdecode(file.getvalue())
    assert image.shape == (1, 3, 2, 4) and np.array_equal(image.asnumpy()[0].transpose(1, 2, 0), pixels)
    assert nd.imdecode(file.getvalue(), (1, 0, 3, 2), channels=1).shape == (1, 1, 2, 2)
    out = nd.zeros((2, 3, 2, 4))
    assert nd.imdecode(file.getvalue(), out=out, index=1, mean=nd.ones((1, 3, 2, 4))) is out
    assert out.asnumpy()[1].sum() == pixels.sum() - 24 and not out.asnumpy()[0].any()
    with pytest.raises(MXNetError, match="not an image"):
        nd.imdecode(b"xx")


def test_views_and_copies_in_other_shapes():
    x = nd.zeros((1, 2, 1))
    for view in (
        x.reshape((2,)),
        x.flatten(inplace=True),
        x.expand_dims(0, inplace=True),
        x.squeeze(inplace=True),
    ):
        view += 1
    assert x.asnumpy().ravel().tolist() == [4, 4]
    for copy in (x.flatten(), x.expand_dims(0), x.squeeze(0), x.transpose(), x.T, x.broadcast_to((3, 2, 1))):
        copy += 1
    assert x.asnumpy().ravel().tolist() == [4, 4]
    assert x.squeeze((0, 2)).shape == (2,) and nd.zeros((1, 1)).squeeze().shape == (1,)
    assert x.transpose((2, 1, 0)).shape == x.transpose(axes=(2, 1, 0)).shape == x.transpose(2, 1, 0).shape
    assert nd.zeros((10, 5, 4)).reshape((-1, 0), reverse=True).shape == (50, 4)
    for call, words in (
        (lambda: x.squeeze(1), "has not length 1"),
        (lambda: x.expand_dims(7), "does not fit"),
        (lambda: x.transpose((0, 0, 1)), "transpose"),
        (lambda: x.broadcast_to((1, 3, 1)), "broadcast_to"),
        (lambda: x.reshape(), "missing"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            call()


def test_casts_are_those_of_c():
    x = nd.array([1.7, -1.7, 300])
    assert x.astype("int8").asnumpy().tolist() == [1, -1, 44] and x.astype(bool).dtype is np.bool_
    assert x.astype("float32", copy=False) is x and x.astype(np.float16).dtype is np.float16


def test_imperative_gradients_are_refused():
    x = nd.ones((2,))
    assert x.grad is None
    x.attach_grad()
    assert x.grad.asnumpy().tolist() == [0, 0] and x.detach().grad is None
    with pytest.raises(MXNetError, match="bind a Symbol"):
        x.backward()
    with pytest.raises(MXNetError, match=r"mx\.np"):
        x.as_np_ndarray()
    assert x.as_nd_ndarray() is x
