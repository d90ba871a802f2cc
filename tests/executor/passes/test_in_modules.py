"""Passes in whole trainings: batches of other shapes, monitors, inference, and equal bits of two runs."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx


def network():
    net = mx.sym.Variable("data")
    for i in (1, 2):
        net = mx.sym.FullyConnected(net, name=f"fc{i}", num_hidden=96)
        net = mx.sym.BatchNorm(net, name=f"bn{i}", fix_gamma=False)
        net = mx.sym.Activation(net, name=f"relu{i}", act_type="relu")
        net = mx.sym.Dropout(net * 0.5 + 0.1, name=f"drop{i}", p=0.3)
    net = mx.sym.FullyConnected(net, name="fc3", num_hidden=20)
    net = mx.sym.Activation(net, name="tanh3", act_type="tanh")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, name="fc4", num_hidden=5), name="softmax")


def trained(monkeypatch, switches, batch_size=64, contexts=1):
    monkeypatch.setenv("DMOD_PASSES", switches)
    mx.random.seed(3)
    rng = np.random.RandomState(0)
    data = rng.randn(320, 30).astype("float32")
    label = data[:, :5].argmax(axis=1).astype("float32")
    train = mx.io.NDArrayIter(data, label, batch_size)
    module = mx.mod.Module(network(), context=[mx.cpu(i) for i in range(contexts)])
    module.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.Xavier())
    module.fit(train, num_epoch=2, optimizer_params={"learning_rate": 0.05, "momentum": 0.9})
    predicted = module.predict(mx.io.NDArrayIter(data[:50], batch_size=25)).asnumpy()
    params, aux = module.get_params()
    arrays = {name: array.asnumpy() for name, array in {**params, **aux}.items()}
    return {**arrays, "predicted": predicted}


@pytest.mark.parametrize("contexts", [1, 2])
def test_a_training_agrees_with_one_without_passes(monkeypatch, contexts):
    with_passes = trained(monkeypatch, "all", contexts=contexts)
    without = trained(monkeypatch, "none", contexts=contexts)
    for name, array in with_passes.items():  # random numbers are drawn alike: dropout hits the same places
        np.testing.assert_allclose(array, without[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_two_runs_agree_bit_for_bit(monkeypatch):
    one, other = trained(monkeypatch, "all"), trained(monkeypatch, "all")
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_batch_of_another_shape(monkeypatch):
    out = {}
    for switches in ("all", "none"):
        monkeypatch.setenv("DMOD_PASSES", switches)
        module = mx.mod.Module(network())
        module.bind([("data", (64, 30))], [("softmax_label", (64,))])
        mx.random.seed(3)
        module.init_params(mx.init.Xavier())
        rng, found = np.random.RandomState(1), []
        for size in (64, 48, 64, 7):
            x = mx.nd.array(rng.randn(size, 30))
            module.forward(mx.io.DataBatch([x], [mx.nd.zeros((size,))]), is_train=False)
            found.append(module.get_outputs()[0].asnumpy())
        out[switches] = found
    for one, other in zip(out["all"], out["none"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_monitor_sees_every_operator(monkeypatch):
    monkeypatch.setenv("DMOD_PASSES", "all")
    module = mx.mod.Module(network())
    module.bind([("data", (64, 30))], [("softmax_label", (64,))])
    module.init_params()
    batch = mx.io.DataBatch([mx.nd.ones((64, 30))], [mx.nd.zeros((64,))])
    executor = module._exec_group.execs[0]
    module.forward(batch, is_train=True)
    joined = len(executor.plan(True).forward)
    monitor = mx.mon.Monitor(1, pattern=".*")
    module.install_monitor(monitor)
    monitor.tic()
    module.forward(batch, is_train=True)
    module.backward()
    seen = {name for _, name, _ in monitor.toc()}
    assert {"fc1_output", "bn1_output", "relu1_output", "fc3_output", "tanh3_output"} <= seen
    assert len(executor.plan(True).forward) > joined
