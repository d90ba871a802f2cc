"""How many threads a CPU device computes with: one setting for everything that has threads of its own.

It matters for speed, since threads that wait spin, and for bits, since BLAS and oneDNN cut a product
differently for each number of threads. Compiled kernels run in the thread that calls them.

Where oneDNN is there, all products that are large enough for several threads go to it, so that OpenBLAS's
threads sleep and only one pool spins.
"""

from __future__ import annotations

import threadpoolctl

from dmod.config import settings
from dmod.device import onednn

__all__ = ["limit_threads"]

_limit: int | None = None


def limit_threads() -> None:
    """Hold BLAS and oneDNN to `Settings.num_threads` threads, if that is set; else to what they chose."""
    global _limit
    wanted = settings().num_threads
    if wanted is not None and wanted != _limit:
        threadpoolctl.threadpool_limits(wanted, user_api="blas")
        onednn.set_num_threads(wanted)
        _limit = wanted
