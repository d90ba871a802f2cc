"""Bias and activation in one pass over FullyConnected's product."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.device.standin import stand_in_gpus
from tests.executor.passes.comparing import assert_agree, found, results

PASS = "fuse_bias_activation"
SHAPES = {"x": (5, 7)}


def layer(kind="relu", x=None, name="fc", **kwargs):
    x = mx.sym.Variable("x") if x is None else x
    return mx.sym.Activation(
        mx.sym.FullyConnected(x, num_hidden=6, name=name, **kwargs), act_type=kind, name=f"{name}_act"
    )


def read_twice():
    fc = mx.sym.FullyConnected(mx.sym.Variable("x"), num_hidden=6, name="fc")
    return mx.sym.Activation(fc, act_type="relu") + fc


def an_output():
    fc = mx.sym.FullyConnected(mx.sym.Variable("x"), num_hidden=6, name="fc")
    return mx.sym.Group([mx.sym.Activation(fc, act_type="relu"), fc])


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "tanh", "softrelu", "softsign"])
def test_results_agree_for_every_activation(monkeypatch, kind):
    assert found(layer(kind), PASS, **SHAPES) == 1
    assert_agree(monkeypatch, PASS, layer(kind), SHAPES)
    assert_agree(monkeypatch, PASS, layer(kind), SHAPES, is_train=False)


@pytest.mark.parametrize("kind", ["relu", "tanh"])
def test_gradients_are_added(monkeypatch, kind):
    assert_agree(monkeypatch, PASS, layer(kind), SHAPES, grad_req="add", runs=2)


@pytest.mark.parametrize("flatten", [True, False])
def test_more_axes(monkeypatch, flatten):
    symbol = layer("tanh", flatten=flatten)
    assert found(symbol, PASS, x=(2, 3, 4)) == 1
    assert_agree(monkeypatch, PASS, symbol, {"x": (2, 3, 4)})


def test_a_chain_of_layers_and_gradients_of_some_arguments(monkeypatch):
    symbol = layer("relu", layer("tanh"), "fc2")
    assert found(symbol, PASS, **SHAPES) == 2
    assert_agree(monkeypatch, PASS, symbol, SHAPES)
    assert_agree(monkeypatch, PASS, symbol, SHAPES, grad_req={"fc_bias": "write"})
    assert_agree(monkeypatch, PASS, symbol, SHAPES, grad_req={"x": "add", "fc2_weight": "write"})


def test_relu_keeps_the_bits(monkeypatch):
    one, other = (results(monkeypatch, p, layer("relu"), {"x": (64, 300)}) for p in (PASS, "none"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_numeric_gradients(monkeypatch):
    monkeypatch.setenv("DMOD_PASSES", PASS)
    executor = layer("tanh").simple_bind(mx.cpu(), x=(2, 3))
    rng = np.random.RandomState(0)
    for array in executor.arg_dict.values():
        array[:] = rng.randn(*array.shape)
    executor.forward(is_train=True)
    executor.backward(mx.nd.ones((2, 6)))
    for name, array in executor.arg_dict.items():
        values, step = array.asnumpy(), np.float32(1e-2)
        numeric = np.zeros_like(values)
        for at in np.ndindex(values.shape):
            sums = []
            for sign in (1, -1):
                moved = values.copy()
                moved[at] += sign * step
                array[:] = moved
                sums.append(executor.forward()[0].asnumpy().astype("float64").sum())
            numeric[at] = (sums[0] - sums[1]) / (2 * step)
        array[:] = values
        np.testing.assert_allclose(executor.grad_dict[name].asnumpy(), numeric, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("symbol", [read_twice(), an_output(), layer(no_bias=True)])
def test_what_others_read_stays(monkeypatch, symbol):
    assert found(symbol, PASS, **SHAPES) == 0
    assert_agree(monkeypatch, PASS, symbol, SHAPES)


def test_other_dtypes_and_devices_are_left_alone():
    float64 = dict.fromkeys(("x", "fc_weight", "fc_bias"), "float64")
    assert found(layer(), PASS, type_dict=float64, **SHAPES) == 0
    with mx.AttrScope(ctx_group="a"):
        fc = mx.sym.FullyConnected(mx.sym.Variable("x"), num_hidden=6, name="fc")
    apart = mx.sym.Activation(fc, act_type="relu")
    with stand_in_gpus():
        assert found(apart, PASS, group2ctx={"a": mx.gpu(0)}, **SHAPES) == 0
    assert found(apart, PASS, group2ctx={"a": mx.cpu(1)}, **SHAPES) == 0
    assert found(apart, PASS, **SHAPES) == 1


def test_without_numba_nothing_is_joined(without_numba):
    assert found(layer(), PASS, **SHAPES) == 0
