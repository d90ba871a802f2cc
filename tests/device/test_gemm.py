"""Matrix products: oneDNN's and numpy's agree, and a fixed rule chooses."""

from __future__ import annotations

import numpy as np
import pytest

from dmod.device import HOST, gemm
from dmod.device.gemm import SMALL, product
from dmod.device.onednn import onednn
from dmod.device.standin import stand_in_gpus

needs_onednn = pytest.mark.skipif(onednn() is None, reason="oneDNN is not installed")


def factors(m, k, n, left, right, dtype="float32"):
    rng = np.random.RandomState(0)
    a, b = rng.randn(m, k).astype(dtype), rng.randn(k, n).astype(dtype)
    lay = {
        "plain": lambda x: x,
        "transposed": lambda x: x.T.copy().T,
        "strided": lambda x: np.repeat(x, 2, 1)[:, ::2],
    }
    return lay[left](a), lay[right](b)


@pytest.mark.parametrize("left", ["plain", "transposed", "strided"])
@pytest.mark.parametrize("right", ["plain", "transposed", "strided"])
@pytest.mark.parametrize("shape", [(64, 80, 32), (1, 700, 300), (3, 2, 5), (128, 1024, 10)])
def test_products_are_those_of_numpy(left, right, shape):
    a, b = factors(*shape, left, right)
    out = np.full((shape[0], shape[2]), np.nan, "float32")
    product(HOST, a, b, out)()
    np.testing.assert_allclose(out, a.astype("float64") @ b, rtol=1e-4, atol=1e-3)


def uses_onednn(step):
    return not step.__qualname__.startswith("product")


@needs_onednn
def test_what_goes_to_onednn():
    def chosen(m, k, n, left="plain", right="plain", dtype="float32"):
        a, b = factors(m, k, n, left, right, dtype)
        return uses_onednn(product(HOST, a, b, np.empty((m, n), dtype)))

    assert chosen(64, 64, SMALL // 64 // 64) and not chosen(64, 64, SMALL // 64 // 64 - 1)
    assert chosen(64, 784, 128, right="transposed") and not chosen(64, 784, 128, left="strided")
    assert not chosen(64, 784, 128, dtype="float64")


def test_empty_products():
    out = np.ones((4, 3), "float32")
    product(HOST, np.empty((4, 0), "float32"), np.empty((0, 3), "float32"), out)()
    assert not out.any()


def test_without_onednn_numpy_multiplies(monkeypatch):
    monkeypatch.setattr(gemm, "onednn", lambda: None)
    a, b = factors(64, 784, 128, "plain", "transposed")
    out = np.empty((64, 128), "float32")
    step = product(HOST, a, b, out)
    step()
    assert not uses_onednn(step) and np.array_equal(out, a @ b)


def test_other_devices_use_their_own():
    with stand_in_gpus():
        import dmod as mx
        from dmod.device import backend

        gpu = backend(mx.gpu(0))
        a, b = (gpu.from_host(x) for x in factors(64, 80, 32, "plain", "plain"))
        out = gpu.zeros((64, 32), "float32")
        with gpu.activate():
            product(gpu, a, b, out)()
        np.testing.assert_allclose(gpu.to_host(out), gpu.to_host(a) @ gpu.to_host(b), rtol=1e-4, atol=1e-4)


@needs_onednn
def test_the_same_bits_wherever_the_arrays_lie():
    a, b = factors(64, 784, 128, "plain", "transposed")
    found = []
    for skip in (0, 1, 5):
        whole = np.empty(a.size + skip, "float32")
        moved = whole[skip:].reshape(a.shape)
        moved[:] = a
        out = np.empty((64, 128), "float32")
        product(HOST, moved, b, out)()
        found.append(out.tobytes())
    assert len(set(found)) == 1
