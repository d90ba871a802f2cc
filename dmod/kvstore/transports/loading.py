"""The compiled loops around messages, which are there as soon as they have been loaded."""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from typing import Any

from dmod.device.kernels import compiled_kernels
from dmod.log import logger

__all__ = ["compiled_links"]


class _Loading(threading.Thread):
    """Imports the module and has it compiled, or read from the disk, while others go on."""

    def __init__(self) -> None:
        super().__init__(name="dmod compiles loops", daemon=True)
        self.module: Any = None
        self.start()

    def run(self) -> None:
        try:
            if compiled_kernels() is None:
                return
            _keep_forks_whole()
            from dmod.kvstore.transports import compiled_links

            compiled_links.try_out()
        except Exception as error:  # whatever a compiler, or a C library that is another one, comes up with
            logger.info("messages that repeat are not dealt with by compiled code: %s", error)
            return
        self.module = compiled_links


def _keep_forks_whole() -> None:
    """Let forks wait while this thread compiles: a child would find numba's lock closed for ever."""
    from numba.core.compiler_lock import global_compiler_lock as lock

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@cache
def _loading() -> _Loading:
    return _Loading()


def compiled_links() -> Any:
    """The module `compiled_links`; None while it is being loaded, and without numba for ever.

    A process that has no other use for numba, such as a server that only adds up, does not load it for this:
    it takes 125 MB.
    """
    return _loading().module if "numba" in sys.modules else None
