"""Finding the CPU's compiled kernels: they are used where numba is installed, and missed by nobody else."""

from __future__ import annotations

from functools import cache
from typing import Any

from dmod.config import settings
from dmod.log import logger

__all__ = ["compiled_kernels"]


@cache
def compiled_kernels() -> Any:
    """The module `dmod.device.compiled`, or None without numba or with ``DMOD_NUMBA=0``."""
    if not settings().numba:
        return None
    try:
        from dmod.device import compiled
    except ImportError as error:
        logger.info("numba is not usable (%s): computing with numpy alone, which is slower", error)
        return None
    return compiled
