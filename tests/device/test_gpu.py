"""On a real GPU: `make test-gpu`. What the stand-in checks for its rules is checked here for its numbers."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.device import backend, copy, to_host
from dmod.device.random import SlotStream
from tests.ops.test_families import CASES, TABLES
from tests.oracle import family

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(mx.num_gpus() == 0, reason="needs a GPU and CuPy")]


def network():
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=16, name="fc1")
    x = mx.sym.Activation(mx.sym.BatchNorm(x, fix_gamma=False, name="bn"), act_type="relu")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(x, num_hidden=3, name="fc2"), name="softmax")


def trained(context, **kwargs):
    rng = np.random.RandomState(0)
    x = rng.randn(64, 5)
    mx.random.seed(1)
    mod = mx.mod.Module(network(), context=context)
    mod.fit(
        mx.io.NDArrayIter(x, x[:, :3].argmax(1), 16),
        num_epoch=3,
        initializer=mx.init.Xavier(),
        optimizer_params={"learning_rate": 0.1, "momentum": 0.9},
        **kwargs,
    )
    args, aux = mod.get_params()
    return {name: array.asnumpy() for name, array in {**args, **aux}.items()}


def test_copies_go_both_ways_and_between_dtypes():
    gpu = backend(mx.gpu(0))
    own = gpu.from_host(np.arange(6, dtype="float32").reshape(2, 3))
    back = np.zeros((2, 3), "float64")
    copy(back, own)
    assert back.tolist() == [[0, 1, 2], [3, 4, 5]]
    copy(own[:, 1:], np.full((2, 2), 7))
    assert to_host(own).tolist() == [[0, 7, 7], [3, 7, 7]]


def test_a_fit_agrees_with_the_cpu():
    for kvstore in ("local", "device"):
        host, device = trained(mx.cpu(), kvstore=kvstore), trained(mx.gpu(0), kvstore=kvstore)
        for name in host:
            np.testing.assert_allclose(device[name], host[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.skipif(mx.num_gpus() < 2, reason="needs two GPUs")
def test_two_gpus_agree_with_two_cpus():
    host = trained([mx.cpu(0), mx.cpu(1)], kvstore="device")
    device = trained([mx.gpu(0), mx.gpu(1)], kvstore="device")
    for name in host:
        np.testing.assert_allclose(device[name], host[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_two_runs_give_the_same_bits():
    one, other = trained(mx.gpu(0)), trained(mx.gpu(0))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_random_numbers_are_uniform_and_follow_slot_node_and_step():
    gpu, out = backend(mx.gpu(0)), {}
    for key in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)):
        slot, step, node = key
        stream = SlotStream(slot)
        for _ in range(step):
            stream.advance()
        array = gpu.empty((10001,), "float32")
        gpu.uniform(array, stream, node)
        out[key] = to_host(array)
        assert out[key].min() >= 0 and out[key].max() < 1 and abs(out[key].mean() - 0.5) < 0.02
    values = list(out.values())
    assert not any(np.array_equal(values[i], values[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize(("name", "case_name"), CASES)
def test_operators_agree_with_the_cpu(name, case_name):
    case = TABLES[name][case_name]
    host = family.run(mx, case_name, case)
    with mx.name.NameManager():
        device = family.run(mx, case_name, case, mx.gpu(0))
    for key, wanted in host.items():
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(device[key], wanted, err_msg=key)
            continue
        rtol = {"float16": 5e-3, "float32": 1e-3}.get(wanted.dtype.name, 1e-8)
        np.testing.assert_allclose(device[key], wanted, rtol=rtol, atol=rtol / 10, err_msg=key)


@pytest.mark.parametrize("count", [1, 2])
def test_copies_ahead_change_no_bit(count, monkeypatch):
    if mx.num_gpus() < count:
        pytest.skip(f"needs {count} GPUs")
    found = []
    for on in ("0", "1"):
        monkeypatch.setenv("DMOD_COPY_AHEAD", on)
        found.append(trained([mx.gpu(i) for i in range(count)]))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_a_copy_runs_beside_the_computing():
    gpu = backend(mx.gpu(0))
    square = gpu.from_host(np.random.RandomState(0).randn(4096, 4096).astype("float32"))
    target, product = gpu.zeros((4096, 4096), "float32"), gpu.empty((4096, 4096), "float32")
    host = gpu.pinned(target.nbytes).view("float32").reshape(target.shape)
    host[:] = 7
    before = gpu.mark()
    with gpu.activate():
        for _ in range(50):  # far longer than the copy takes
            gpu.xp.matmul(square, square, out=product)
    computed = gpu.mark()
    copied = gpu.copy_in_ahead(target, host, before)
    copied.synchronize()
    assert not computed.done  # CuPy's events say whether they have come
    gpu.wait_for(copied)
    assert to_host(target).min() == 7
