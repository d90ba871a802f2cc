"""How many threads BLAS computes with on a CPU device.

It matters for speed, since threads that wait spin, and for bits, since BLAS cuts a product differently for
each number of threads.
"""

from __future__ import annotations

import threadpoolctl

from dmod.config import settings

__all__ = ["limit_threads"]

_limit: int | None = None


def limit_threads() -> None:
    """Hold BLAS to ``DMOD_NUM_THREADS`` threads, if that is set; else to what it chose by itself."""
    global _limit
    wanted = settings().num_threads
    if wanted is not None and wanted != _limit:
        threadpoolctl.threadpool_limits(wanted, user_api="blas")
        _limit = wanted
