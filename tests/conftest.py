"""What tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dmod.device.kernels import compiled_kernels
from dmod.device.onednn import onednn
from dmod.device.onednn.library import load


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute with numpy alone."""
    monkeypatch.setenv("DMOD_NUMBA", "0")
    compiled_kernels.cache_clear()
    yield
    compiled_kernels.cache_clear()


@pytest.fixture
def without_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute without oneDNN."""
    monkeypatch.setenv("DMOD_ONEDNN", "0")
    _find_onednn_anew()
    yield
    _find_onednn_anew()


def _find_onednn_anew() -> None:
    load.cache_clear()
    onednn.cache_clear()
