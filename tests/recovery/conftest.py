"""What the tests of checkpoints share."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dmod as mx

_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory, if there is one: a disk is waited for at every sync, a hundred times a test."""
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path_factory.mktemp("checkpoints")
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="dmod-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(autouse=True)
def _same_generators() -> Iterator[None]:
    """Other tests draw what they would have drawn."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    yield
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    mx.random.seed(0)
