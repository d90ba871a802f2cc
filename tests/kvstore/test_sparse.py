"""Sparse values in stores: kept dense, pulled by rows."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument

VALUES = np.arange(12, dtype="float32").reshape(4, 3)


def store():
    kv = mx.kv.create("local")
    kv.init("w", mx.nd.array(VALUES).tostype("row_sparse"))
    return kv


def test_rows_are_pulled_into_row_sparse_arrays():
    out = mx.nd.sparse.zeros("row_sparse", (4, 3))
    store().row_sparse_pull("w", out=out, row_ids=mx.nd.array([2, 0, 2]))
    assert out.indices.asnumpy().tolist() == [0, 2]
    assert np.array_equal(out.data.asnumpy(), VALUES[[0, 2]])


def test_each_device_may_pull_other_rows():
    outs = [mx.nd.sparse.zeros("row_sparse", (4, 3)) for _ in range(2)]
    store().row_sparse_pull("w", out=outs, row_ids=[mx.nd.array([1]), mx.nd.array([3])])
    assert [o.indices.asnumpy().tolist() for o in outs] == [[1], [3]]


def test_sparse_pushes_are_summed():
    kv = store()
    rows = mx.nd.sparse.row_sparse_array((np.ones((1, 3), "float32"), [1]), shape=(4, 3))
    kv.push("w", [rows, rows])
    out = mx.nd.zeros((4, 3))
    kv.pull("w", out=out)
    assert out.asnumpy().sum(1).tolist() == [0, 6, 0, 0]


def test_wrong_arrays_are_named():
    kv = store()
    sparse = mx.nd.sparse.zeros("row_sparse", (4, 3))
    for call, words in (
        (lambda: kv.row_sparse_pull("w", out=sparse), "expected row_ids for 1 arrays, got none"),
        (
            lambda: kv.row_sparse_pull("w", out=mx.nd.zeros((4, 3)), row_ids=mx.nd.array([1])),
            "out is default",
        ),
        (lambda: kv.row_sparse_pull("w", out=sparse, row_ids=mx.nd.array([4])), "rows 4 to 4 of 4"),
        (lambda: kv.pull("w", out=sparse, ignore_sparse=False), r"row_sparse_pull\(\) gets rows"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            call()
    kv.pull("w", out=sparse)  # ignored
    assert sparse.indices.size == 0
