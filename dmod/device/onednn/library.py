"""Finding oneDNN: any ``libdnnl.so.3`` that is there, and what is wrong with one that is not used.

The wheel ``onednn-cpu-gomp`` puts it into the environment's library directory; after that the system's
loader is asked. ``DMOD_ONEDNN`` names another file, or refuses the library.
"""

from __future__ import annotations

import ctypes
import site
import sysconfig
from functools import cache
from pathlib import Path

from dmod.base import MXNetError
from dmod.config import settings
from dmod.device.onednn.api import Runtime, Version, declare
from dmod.log import logger

__all__ = ["load", "open_library"]

FILE_NAME = "libdnnl.so.3"


def candidates(named: str) -> list[str]:
    """Where the library may be: what the setting names, or the places that are searched, in order."""
    if named:
        return [named]
    folders = [sysconfig.get_path("data"), site.getuserbase()]
    paths = [Path(folder) / "lib" / FILE_NAME for folder in folders if folder]
    return [*(str(path) for path in paths if path.exists()), FILE_NAME]


def open_library(path: str) -> ctypes.CDLL:
    """Load the library at `path`, and see that it is one that can be used.

    Raises
    ------
    MXNetError
        It cannot be loaded (it, or the libgomp that it needs, is missing), is no oneDNN, has another major
        version than 3, or runs threads in a way whose number cannot be set.
    """
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise MXNetError(str(error)) from None
    try:
        library.dnnl_version.restype = ctypes.POINTER(Version)
        version = library.dnnl_version().contents
        found = f"{path}: oneDNN {version.major}.{version.minor}.{version.patch}"
        if version.major != 3:
            raise MXNetError(f"{found}, expected version 3")
        if version.cpu_runtime not in (Runtime.SEQUENTIAL, Runtime.OPENMP):
            raise MXNetError(f"{found} was built for another thread pool than OpenMP")
        declare(library)
    except AttributeError as error:
        raise MXNetError(f"{path} is no oneDNN 3: {error}") from None
    return library


@cache
def load() -> ctypes.CDLL | None:
    """The library, or None; why there is none is said once, at INFO."""
    named = settings().onednn
    if named == "0":
        return None
    problems = []
    for path in candidates(named):
        try:
            return open_library(path)
        except MXNetError as error:
            problems.append(str(error))
    logger.info(
        "oneDNN is not usable (%s): convolutions are computed with numpy's BLAS, which is slower; "
        "pip install onednn-cpu-gomp brings it",
        "; ".join(problems),
    )
    return None
