"""Compiled kernels against numpy: equal bits for optimizers, rounding for exponentials; and no numba."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest

import dmod as mx
from dmod.device import kernels
from dmod.device.kernels import compiled_kernels
from dmod.ndarray.flat import FlatLayout
from dmod.optimizer import FlatUpdater


def updated(momentum, wd, steps=3):
    rng = np.random.RandomState(0)
    layout = FlatLayout.plan([(0, "a_weight", (100, 77)), (1, "a_bias", (100,))], "float32")
    optimizer = mx.optimizer.create("sgd", learning_rate=0.1, momentum=momentum, wd=wd, rescale_grad=0.3)
    updater = FlatUpdater(optimizer, layout.segments, layout.size, "float32")
    weight = rng.randn(layout.size).astype("float32")
    for _ in range(steps):
        updater.update(weight, rng.randn(layout.size).astype("float32"))
    return weight


@pytest.mark.parametrize("momentum", [0, 0.9])
@pytest.mark.parametrize("wd", [0, 1e-3])
def test_optimizers_have_the_bits_of_numpy(momentum, wd, request):
    compiled = updated(momentum, wd)
    assert compiled_kernels() is not None
    request.getfixturevalue("without_numba")
    assert compiled_kernels() is None
    assert np.array_equal(compiled, updated(momentum, wd))


def softmax(labels):
    exe = mx.sym.SoftmaxOutput(mx.sym.Variable("x"), name="s", grad_scale=0.5).simple_bind(mx.cpu(), x=(6, 4))
    x = np.random.RandomState(0).randn(6, 4) * 5
    exe.forward(is_train=True, x=x, s_label=labels)
    exe.backward()
    return exe.outputs[0].asnumpy(), exe.grad_dict["x"].asnumpy()


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3, 0, 1], [-1, 4, np.nan, np.inf, 1.9, -0.5]], ids=["classes", "odd"]
)
def test_softmax_agrees_with_numpy(labels, request):
    compiled = softmax(np.array(labels))
    request.getfixturevalue("without_numba")
    for one, other in zip(compiled, softmax(np.array(labels)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)


def test_a_missing_numba_is_said_once_and_missed_by_nobody(monkeypatch, caplog):
    monkeypatch.delitem(sys.modules, "dmod.device.compiled", raising=False)
    monkeypatch.delattr("dmod.device.compiled", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    compiled_kernels.cache_clear()
    with caplog.at_level(logging.INFO, "dmod"):
        assert np.isfinite(updated(0.9, 0)).all() and softmax(np.zeros(6))[0].shape == (6, 4)
    assert caplog.text.count("numba is not usable") == 1
    monkeypatch.undo()
    kernels.compiled_kernels.cache_clear()
    assert compiled_kernels() is not None


@pytest.mark.parametrize("width", [1, 5])
def test_rows_are_added_as_numpy_adds_them(width, request):
    def gradient():
        net = mx.sym.Embedding(mx.sym.Variable("x"), mx.sym.Variable("w"), input_dim=4, output_dim=width)
        exe = net.simple_bind(mx.cpu(), x=(50, 2))
        rng = np.random.RandomState(0)
        exe.forward(is_train=True, x=rng.randint(-1, 6, (50, 2)), w=rng.randn(4, width))
        exe.backward(mx.nd.array(rng.randn(50, 2, width)))
        return exe.grad_dict["w"].asnumpy().tobytes()

    compiled = gradient()
    request.getfixturevalue("without_numba")
    assert compiled == gradient()


def test_a_compiler_that_fails_is_said_once_and_missed_by_nobody(monkeypatch, caplog):
    def failing(*arrays):
        raise RuntimeError("LLVM ERROR: out of registers")

    monkeypatch.setattr("dmod.device.compiled.relu", failing)
    compiled_kernels.cache_clear()
    with caplog.at_level(logging.INFO, "dmod"):
        assert np.isfinite(updated(0.9, 0)).all() and softmax(np.zeros(6))[0].shape == (6, 4)
    assert caplog.text.count("out of registers") == 1
    monkeypatch.undo()
    compiled_kernels.cache_clear()
    assert compiled_kernels() is not None
