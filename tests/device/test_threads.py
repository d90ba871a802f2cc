"""DMOD_NUM_THREADS is what BLAS computes with once something is bound."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import threadpoolctl
import dmod as mx
mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2).simple_bind(mx.cpu(), data=(2, 3))
print(max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"))
"""


def test_num_threads_limits_blas() -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "DMOD_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "1\n", done.stderr
