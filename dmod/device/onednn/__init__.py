"""oneDNN through ctypes: convolution, normalisation, pooling and sums on the CPU in blocked layouts.

`onednn` is the one way in: the engine, or None where the library is missing, old, foreign or refused.
"""

from __future__ import annotations

from functools import cache

from dmod.base import MXNetError
from dmod.device.onednn.engine import Descriptor, Engine, Layout, NotImplementedByLibrary
from dmod.device.onednn.library import load
from dmod.log import logger

__all__ = [
    "Descriptor",
    "Engine",
    "Layout",
    "NotImplementedByLibrary",
    "onednn",
    "set_num_threads",
    "version",
]

_num_threads: int | None = None


@cache
def onednn() -> Engine | None:
    """The engine of the library that was found, or None."""
    library = load()
    if library is None:
        return None
    try:
        engine = Engine(library)
    except MXNetError as error:
        logger.info("oneDNN is not usable (%s): convolutions are computed with numpy's BLAS", error)
        return None
    engine.num_threads = _num_threads
    return engine


def set_num_threads(count: int) -> None:
    """Compute with `count` threads from now on; the library need not be loaded yet."""
    global _num_threads
    _num_threads = count
    if onednn.cache_info().currsize:
        engine = onednn()
        if engine is not None:
            engine.num_threads = count


def version() -> str:
    """Such as '3.2.0', or 'none': results have other bits without the library, or with another one."""
    engine = onednn()
    if engine is None:
        return "none"
    found = engine.library.dnnl_version().contents
    return f"{found.major}.{found.minor}.{found.patch}"
