"""BatchNorm with the ReLU behind it, in the plain layout."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from tests.executor.passes.comparing import assert_agree, found, results

PASS = "fuse_batch_norm_relu"
SHAPES = {"matrix": (9, 6), "image": (3, 4, 5, 7), "large rows": (2, 3, 10, 15)}


def layer(relu=lambda x: mx.sym.Activation(x, act_type="relu"), **kwargs):
    return relu(mx.sym.BatchNorm(mx.sym.Variable("x"), name="bn", **{"fix_gamma": False, **kwargs}))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kwargs", [{}, {"fix_gamma": True}, {"use_global_stats": True}, {"axis": -1}])
def test_results_agree(monkeypatch, shape, kwargs):
    symbol, shapes = layer(**kwargs), {"x": SHAPES[shape]}
    assert found(symbol, PASS, **shapes) == 1
    assert_agree(monkeypatch, PASS, symbol, shapes, rtol=2e-5, atol=2e-5, runs=2)
    assert_agree(monkeypatch, PASS, symbol, shapes, rtol=2e-5, atol=2e-5, is_train=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("use_global", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_kernels_agree_with_numpy(monkeypatch, shape, use_global, relu, request):
    symbol = layer(**({} if relu else {"relu": lambda x: x}), use_global_stats=use_global)
    compiled = results(monkeypatch, "all", symbol, {"x": SHAPES[shape]}, runs=2)
    request.getfixturevalue("without_numba")
    plain = results(monkeypatch, "all", symbol, {"x": SHAPES[shape]}, runs=2)
    for name, array in compiled.items():
        np.testing.assert_allclose(array, plain[name], rtol=2e-5, atol=2e-5, err_msg=name)


def test_the_operator_named_relu_and_some_gradients(monkeypatch):
    symbol = layer(mx.sym.relu)
    assert found(symbol, PASS, x=(9, 6)) == 1
    assert_agree(monkeypatch, PASS, symbol, {"x": (9, 6)}, rtol=2e-5, atol=2e-5, grad_req={"bn_gamma": "add"})


def test_other_patterns_stay():
    other = layer(lambda x: mx.sym.Activation(x, act_type="tanh"))
    twice = layer(lambda x: mx.sym.relu(x) + x)
    shown = mx.sym.relu(layer(lambda x: x, output_mean_var=True)[0])
    head = layer(lambda x: mx.sym.Group([x, mx.sym.relu(x)]))
    assert [found(s, PASS, x=(9, 6)) for s in (other, twice, shown, head)] == [0, 0, 0, 0]


def test_without_numba_nothing_is_joined(without_numba):
    assert found(layer(), PASS, x=(9, 6)) == 0
