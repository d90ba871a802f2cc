"""Compiled code is kept: a second process compiles nothing, and one that cannot keep it says so once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import gc, json, logging, sys
import numpy as np
import dmod as mx
from numba.core.dispatcher import Dispatcher

net = mx.sym.Activation(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=5), act_type="relu")
net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=3), name="softmax")
data, label = np.ones((8, 4), "float32"), np.zeros(8, "float32")
module = mx.mod.Module(net)
module.fit(mx.io.NDArrayIter(data, label, 4), num_epoch=1, optimizer_params={"momentum": 0.9})
stats = [o.stats for o in gc.get_objects() if isinstance(o, Dispatcher)]
weight = module.get_params()[0]["fullyconnected1_bias"].asnumpy()
print(json.dumps({
    "compiled": sum(sum(s.cache_misses.values()) for s in stats),
    "loaded": sum(sum(s.cache_hits.values()) for s in stats),
    "bits": weight.tobytes().hex(),
}))
"""
NO_PLACE = "from numba.core import caching\ncaching.CacheImpl._locator_classes = []\n"
FULL_DISK = """
from numba.core import caching
def full(*args):
    raise OSError(28, "No space left on device")
caching.IndexDataCacheFile.save = full
"""


SMALL = """
import logging
import numpy as np
logging.basicConfig(level=logging.INFO)
from dmod.device.compiled_math import exp, sigmoid
assert exp(np.float32(0)) == 1 and sigmoid(np.float32(0)) == 0.5
"""


def run(program: str, folder: Path) -> tuple[str, str]:
    """What a process printed that had its cache in `folder`, and what it logged."""
    environ = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "DMOD_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_second_process_compiles_nothing_and_computes_the_same(tmp_path: Path) -> None:
    (first, first_log), (second, second_log) = (
        (json.loads(printed), log) for printed, log in (run(PROGRAM, tmp_path) for _ in range(2))
    )
    assert first["compiled"] > 0
    assert second["compiled"] == 0 and second["loaded"] > 0
    assert second["bits"] == first["bits"]
    said = "Compiling kernels for this machine, which takes seconds (once; they are kept in "
    assert first_log.count(said + str(tmp_path)) == 1 and "s for compiling kernels, once)" in first_log
    assert "ompiling" not in second_log


@pytest.mark.parametrize("before", [NO_PLACE, FULL_DISK], ids=["no place", "full disk"])
def test_a_cache_that_cannot_be_written_is_said_once(before: str, tmp_path: Path) -> None:
    _, log = run(before + SMALL, tmp_path)
    assert log.count("compiled kernels are not kept") == 1
