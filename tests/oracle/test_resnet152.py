"""ResNet-152, written by MXNet 1.9.1, read and run by dmod; skipped without MXNet."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from benchmarks.oracle import ROOT, find_oracle

WRITE = """
import sys, numpy as np, mxnet as mx
sys.path.insert(0, sys.argv[2])
from examples.resnet import resnet
module = mx.mod.Module(resnet(mx.sym, 152))
module.bind([("data", (2, 3, 96, 96))], for_training=False)
mx.random.seed(1)
module.init_params(mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2))
args, aux = module.get_params()
rng = np.random.RandomState(0)
for name, array in aux.items():
    low, high = (0.5, 1.5) if name.endswith("var") else (-0.1, 0.1)
    array[:] = rng.uniform(low, high, array.shape)
module.set_params(args, aux)
data = rng.standard_normal((2, 3, 96, 96)).astype("float32")
module.forward(mx.io.DataBatch([mx.nd.array(data)]), is_train=False)
np.savez(sys.argv[1] + ".npz", data=data, out=module.get_outputs()[0].asnumpy())
module.save_checkpoint(sys.argv[1], 1)
"""


@pytest.mark.skipif(find_oracle() is None, reason="needs MXNet 1.9.1 (make oracle)")
def test_resnet_152_of_mxnet_predicts_what_it_does_there(tmp_path: Path) -> None:
    prefix = str(tmp_path / "net")
    done = subprocess.run(
        [str(find_oracle()), "-W", "ignore", "-c", WRITE, prefix, str(ROOT)],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    numbers = np.load(prefix + ".npz")
    module = mx.mod.Module.load(prefix, 1)
    started = time.perf_counter()
    module.bind([("data", numbers["data"].shape)], for_training=False)
    module.forward(mx.io.DataBatch([mx.nd.array(numbers["data"])]), is_train=False)
    print(f"bound and run once in {time.perf_counter() - started:.2f} s")
    np.testing.assert_allclose(module.get_outputs()[0].asnumpy(), numbers["out"], rtol=1e-4, atol=1e-7)
    with open(prefix + "-symbol.json", encoding="utf-8") as file:
        assert module.symbol.tojson() == file.read()
