"""The stand-in GPU: its rules, and the product's logic on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import dmod as mx
from dmod.base import MXNetError
from dmod.device import backend, backend_of, copy, to_host
from dmod.device.standin import StandInArray, stand_in_gpus


@pytest.fixture(autouse=True)
def gpus() -> Iterator[None]:
    with stand_in_gpus(2):
        yield


def arrays():
    first, second = backend(mx.gpu(0)), backend(mx.gpu(1))
    return first.xp, first.zeros((2, 3), "float32"), second.zeros((2, 3), "float32")


def test_host_arrays_and_other_devices_are_refused():
    xp, own, other = arrays()
    for wrong, words in ((np.ones((2, 3)), "a host array"), (other, "stand-in device 1 on device 0")):
        for call in (
            lambda w=wrong: xp.add(own, w),
            lambda w=wrong: xp.add(own, own, out=w),
            lambda w=wrong: own + w,
            lambda w=wrong: own.__setitem__(0, w[0]),
            lambda w=wrong: xp.concatenate([own, w]),
        ):
            with pytest.raises(TypeError, match=words):
                call()
    with pytest.raises(TypeError, match="taken for a host array"):
        np.asarray(own)
    with pytest.raises(TypeError):
        np.add(own, 1)


def test_results_stay_on_the_device():
    xp, own, _ = arrays()
    made = (own + 1, xp.sum(own, axis=0), own.sum(), own[0], own.reshape(-1), own.T, xp.exp(own), own > 0)
    for result in made:
        assert isinstance(result, StandInArray)
    own[:] = 2
    own += 1
    assert to_host(own).tolist() == [[3, 3, 3], [3, 3, 3]]


def test_copies_go_everywhere():
    _, own, other = arrays()
    host = np.arange(6).reshape(2, 3)
    copy(own, host)
    copy(other, own)
    back = np.zeros((2, 3), np.float16)
    copy(back, other)
    assert np.array_equal(back, host) and backend_of(other).name == "gpu(1)"


def test_gpus_are_counted_and_missing_ones_named():
    assert mx.num_gpus() == 2
    with pytest.raises(MXNetError, match=r"gpu\(2\): no such GPU: there are 2 GPUs"):
        mx.nd.ones((1,), ctx=mx.gpu(2))
    with stand_in_gpus(0), pytest.raises(MXNetError, match=r"gpu\(0\): no such GPU"):
        backend(mx.gpu(0))


def net():
    x = mx.sym.Variable("data")
    x = mx.sym.FullyConnected(x, num_hidden=8, name="fc1")
    x = mx.sym.BatchNorm(x, fix_gamma=False, name="bn")
    x = mx.sym.Dropout(mx.sym.Activation(x, act_type="relu"), p=0.2)
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=3, name="fc2"), name="softmax")


def fit(context, **kwargs):
    rng = np.random.RandomState(0)
    x = rng.randn(32, 5)
    y = (x @ rng.randn(5, 3)).argmax(1)
    mx.random.seed(1)
    mod = mx.mod.Module(net(), context=context)
    mod.fit(
        mx.io.NDArrayIter(x, y, 8),
        num_epoch=3,
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.1, "momentum": 0.9, "clip_gradient": 0.5},
        **kwargs,
    )
    return mod


def values(mod):
    args, aux = mod.get_params()
    return {name: value.asnumpy() for name, value in {**args, **aux}.items()}


@pytest.mark.parametrize("kvstore", ["local", "device"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("on_store", ["1", "0"])
def test_a_fit_gives_the_bits_of_the_cpu(count, kvstore, on_store, monkeypatch, without_numba):
    monkeypatch.setenv("DMOD_UPDATE_ON_KVSTORE", on_store)
    host = values(fit([mx.cpu(i) for i in range(count)], kvstore=kvstore))
    device = values(fit([mx.gpu(i) for i in range(count)], kvstore=kvstore))
    assert host.keys() == device.keys()
    for name in host:
        assert np.array_equal(host[name], device[name]), name


def test_a_module_on_devices_predicts_scores_and_saves(tmp_path):
    mod = fit([mx.gpu(0), mx.gpu(1)])
    x = np.random.RandomState(2).randn(8, 5)
    out = mod.predict(mx.io.NDArrayIter(x, batch_size=4))
    host = mx.mod.Module(net())
    host.bind([("data", (8, 5))], for_training=False)
    host.set_params(*mod.get_params())
    np.testing.assert_allclose(out.asnumpy(), host.predict(x).asnumpy(), rtol=1e-6)
    prefix = str(tmp_path / "net")
    mod.save_checkpoint(prefix, 1, save_optimizer_states=True)
    again = mx.mod.Module.load(prefix, 1, load_optimizer_states=True, context=mx.gpu(1))
    again.bind([("data", (8, 5))], [("softmax_label", (8,))])
    again.init_optimizer(optimizer_params={"learning_rate": 0.1, "momentum": 0.9})
    assert np.array_equal(values(again)["fc1_weight"], values(mod)["fc1_weight"])


def test_stores_sum_over_devices():
    kv = mx.kv.create("device")
    kv.init("w", mx.nd.zeros((3,), ctx=mx.gpu(0)))
    kv.push("w", [mx.nd.full((3,), 2, ctx=mx.gpu(0)), mx.nd.full((3,), 3, ctx=mx.gpu(1))])
    for ctx in (mx.gpu(0), mx.gpu(1), mx.cpu()):
        out = mx.nd.zeros((3,), ctx=ctx)
        kv.pull("w", out=out)
        assert out.asnumpy().tolist() == [5, 5, 5]
