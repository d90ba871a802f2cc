"""What decides the bits of a result: versions, kernels and threads. Workers compare theirs when they join."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

import numpy as np
import threadpoolctl

from dmod.config import Settings
from dmod.device import onednn
from dmod.kvstore.wire import PROTOCOL_VERSION

__all__ = ["VERSION", "fingerprint"]

VERSION = f"protocol {PROTOCOL_VERSION}"
"""What all processes of a job must have in common to understand each other."""


def fingerprint(settings: Settings) -> dict[str, str]:
    """What this process computes with, as text by name.

    Two workers with equal fingerprints compute the same bits from the same numbers; the threads are
    those of one device, which matter because BLAS cuts a product differently for each number of them.

    Examples
    --------
    >>> sorted(fingerprint(Settings(num_threads=2)))
    ['blas', 'machine', 'numba', 'numpy', 'onednn', 'python', 'threads']
    """
    pools = _pools_of_numpy()
    kinds = sorted(
        " ".join(str(pool[name]) for name in ("internal_api", "version", "architecture") if pool.get(name))
        for pool in pools
    )
    threads = settings.num_threads or max((int(pool["num_threads"]) for pool in pools), default=1)
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "numpy": np.__version__,
        "numba": _version("numba") if settings.numba else "none",
        "onednn": onednn.version(),
        "machine": platform.machine(),
        "blas": ", ".join(dict.fromkeys(kinds)) or "none that threadpoolctl knows",
        "threads": str(threads),
    }


def _pools_of_numpy() -> list[dict[str, Any]]:
    """The BLAS that numpy has brought along; other packages load others, now or later, which do not count."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    root = np.__file__.removesuffix("__init__.py")[:-1]  # wheels put theirs into numpy.libs beside it
    own = [pool for pool in pools if pool["filepath"].startswith(root)]
    return own or pools


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"
