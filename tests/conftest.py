"""What tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dmod.device.kernels import compiled_kernels


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compute with numpy alone."""
    monkeypatch.setenv("DMOD_NUMBA", "0")
    compiled_kernels.cache_clear()
    yield
    compiled_kernels.cache_clear()
