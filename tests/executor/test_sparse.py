"""Sparse arrays in bound networks: csr inputs, gradients of some rows, dense copies for other operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.ops import sparse_rows

DATA = (np.random.RandomState(0).rand(5, 7) < 0.3) * np.random.RandomState(1).randn(5, 7)
DATA[:, [3, 5]] = 0
LABEL = np.array([0, 1, 0, 1, 1])


def linear(data: Any, weight: Any) -> Any:
    bias = mx.sym.Variable("bias", shape=(2,))
    return mx.sym.SoftmaxOutput(
        mx.sym.broadcast_add(mx.sym.sparse.dot(data, weight), bias), mx.sym.Variable("label")
    )


def ran(symbol: Any, data: Any, **shapes: Any) -> Any:
    executor = symbol.simple_bind(mx.cpu(), data=data.shape, **shapes)
    executor.arg_dict["weight"][:] = np.arange(14).reshape(7, 2) / 10
    executor.forward(True, data=data, label=LABEL)
    executor.backward()
    return executor


@pytest.mark.parametrize("compiled", [True, False])
def test_a_csr_product_gives_the_gradient_of_the_rows_that_are_there(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(sparse_rows, "_compiled_add", lambda: None)
    sparse = linear(
        mx.sym.Variable("data", stype="csr"), mx.sym.Variable("weight", shape=(7, 2), stype="row_sparse")
    )
    found = ran(sparse, mx.nd.array(DATA).tostype("csr"))
    expected = ran(
        linear(mx.sym.Variable("data"), mx.sym.Variable("weight", shape=(7, 2))), mx.nd.array(DATA)
    )
    grad = found.grad_dict["weight"]
    assert (grad.stype, found.arg_dict["data"].stype) == ("row_sparse", "csr")
    assert grad.indices.asnumpy().tolist() == np.flatnonzero(DATA.any(0)).tolist()
    for name in ("weight", "bias"):
        np.testing.assert_allclose(
            found.grad_dict[name].asnumpy(), expected.grad_dict[name].asnumpy(), 1e-5, 1e-6
        )
    np.testing.assert_allclose(found.outputs[0].asnumpy(), expected.outputs[0].asnumpy(), 1e-5)


def test_an_embeddings_gradient_has_the_rows_that_were_looked_up() -> None:
    executors = []
    for sparse in (True, False):
        rows = mx.sym.Embedding(
            mx.sym.Variable("data"), mx.sym.Variable("weight"), input_dim=9, output_dim=3, sparse_grad=sparse
        )
        executor = rows.simple_bind(mx.cpu(), data=(4, 2))
        executor.forward(True, data=[[1, 2], [2, 5], [5, 5], [8, 100]])
        executor.backward(mx.nd.array(np.arange(24).reshape(4, 2, 3)))
        executors.append(executor)
    sparse, dense = (executor.grad_dict["weight"] for executor in executors)
    assert sparse.indices.asnumpy().tolist() == [1, 2, 5, 8]
    assert (sparse.asnumpy() == dense.asnumpy()).all()


def test_other_operators_get_dense_copies() -> None:
    data, weight = mx.sym.Variable("data", stype="csr"), mx.sym.Variable("weight", stype="row_sparse")
    values = mx.nd.array(DATA).tostype("csr")
    for net in (
        mx.sym.FullyConnected(data, weight, num_hidden=3, no_bias=True),
        mx.sym.dot(mx.sym.Flatten(data), weight, transpose_b=True),
    ):
        executor = net.simple_bind(mx.cpu(), data=(5, 7), weight=(3, 7))
        executor.arg_dict["weight"][:] = 1
        executor.forward(True, data=values)
        executor.backward(mx.nd.ones((5, 3)))
        np.testing.assert_allclose(
            executor.outputs[0].asnumpy(), DATA.sum(1)[:, None].repeat(3, 1), 1e-5, 1e-5
        )
        gradient = executor.grad_dict["weight"]
        assert gradient.stype == "row_sparse"
        np.testing.assert_allclose(gradient.asnumpy(), np.tile(DATA.sum(0), (3, 1)), 1e-5, 1e-5)


def test_gradients_from_two_places_are_summed() -> None:
    data, weight = mx.sym.Variable("data", stype="csr"), mx.sym.Variable("weight", stype="row_sparse")
    net = mx.sym.broadcast_add(mx.sym.sparse.dot(data, weight), mx.sym.sum(weight))
    executor = net.simple_bind(mx.cpu(), data=(5, 7), weight=(7, 1))
    executor.forward(True, data=mx.nd.array(DATA).tostype("csr"))
    executor.backward(mx.nd.ones((5, 1)))
    found = executor.grad_dict["weight"]
    assert found.stype == "row_sparse"
    np.testing.assert_allclose(found.asnumpy()[:, 0], DATA.sum(0) + 5, 1e-5)


def test_an_unused_sparse_parameter_has_no_rows_and_gradients_are_not_added() -> None:
    weight = mx.sym.Variable("weight", stype="row_sparse")
    net = mx.sym.BlockGrad(weight) + mx.sym.Variable("data")
    executor = net.simple_bind(mx.cpu(), data=(5, 7))
    executor.forward(True)
    executor.backward(mx.nd.ones((5, 7)))
    assert executor.grad_dict["weight"].indices.shape == (0,)
    rows = mx.nd.sparse.zeros("row_sparse", (5, 7))
    with pytest.raises(InvalidArgument, match="'weight' is 'add'; a row_sparse gradient can only be written"):
        weight.bind(mx.cpu(), {"weight": mx.nd.zeros((5, 7))}, {"weight": rows}, grad_req="add")
