"""One setting is what BLAS and oneDNN compute with once something is bound."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dmod.config import settings

PROGRAM = """
import threadpoolctl
import dmod as mx
from dmod.device.onednn import onednn
mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2).simple_bind(mx.cpu(), data=(2, 3))
print(max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"))
engine = onednn()
print(1 if engine is None else engine.num_threads)
"""
WORKER = {"DMLC_ROLE": "worker", "DMLC_NUM_WORKER": "2", "DMLC_PS_ROOT_URI": "127.0.0.1"}


def test_num_threads_limits_all_pools() -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "DMOD_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "1\n1\n", done.stderr


def test_workers_of_one_host_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert settings(WORKER).num_threads == 4
    assert settings(WORKER | {"DMLC_NUM_WORKER": "16"}).num_threads == 1


@pytest.mark.parametrize(
    "environ",
    [
        WORKER | {"DMLC_PS_ROOT_URI": "10.0.0.1"},  # who knows how many are on this host
        WORKER | {"DMLC_NUM_WORKER": "1"},
        WORKER | {"DMLC_ROLE": "server"},
        WORKER | {"OMP_NUM_THREADS": "2"},
        {},
    ],
    ids=["remote", "alone", "server", "told", "no job"],
)
def test_others_leave_the_libraries_their_own_number(environ: dict[str, str]) -> None:
    assert settings(environ).num_threads is None


def test_a_number_that_is_set_holds() -> None:
    assert settings(WORKER | {"DMOD_NUM_THREADS": "3"}).num_threads == 3
