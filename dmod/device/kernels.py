"""Finding the CPU's compiled kernels: they are used where numba is installed, and missed by nobody else."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from dmod.config import settings
from dmod.log import logger

__all__ = ["compiled_kernels", "kernels_for"]


@cache
def compiled_kernels() -> Any:
    """The module `dmod.device.compiled`, or None without numba or with ``DMOD_NUMBA=0``."""
    if not settings().numba:
        return None
    try:
        import numba  # noqa: F401  (the kernels' files may be there already)

        from dmod.device import compiled

        probe = np.zeros(1, np.float32)
        compiled.relu(probe, probe)
    except Exception as error:  # an old numba, or one whose compiler fails, raises whatever it likes
        logger.info("numba is not usable (%s): computing with numpy alone, which is slower", error)
        return None
    return compiled


def kernels_for(*arrays: Any) -> Any:
    """The compiled kernels, if there are any for these arrays; else None.

    They are for float32 in host memory, C-contiguous. An array that is None counts as fitting.
    """
    for a in arrays:
        if a is not None and (type(a) is not np.ndarray or a.dtype != np.float32 or not a.flags.c_contiguous):
            return None
    return compiled_kernels()
