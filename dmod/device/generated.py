"""Kernels whose source is generated: written to files, so that numba can keep what it makes of them.

A second process finds source and machine code on disk and compiles nothing. Where the directory cannot be
written, or is not the user's own, the kernels are compiled anew in every process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType

from dmod.config import settings
from dmod.log import logger

__all__ = ["module_from"]


@cache
def module_from(source: str) -> ModuleType:
    """The module that `source`, a text of Python, makes.

    The name of its file tells the source and the functions that generated kernels call: when either
    changes, so does the file.
    """
    library = Path(__file__).with_name("compiled_math.py").read_bytes()
    name = f"dmod_kernel_{hashlib.sha256(source.encode() + library).hexdigest()[:24]}"
    path = _written(name, source, settings().cache_dir)
    if path is None:
        module = ModuleType(name)
        exec(compile(source, f"<{name}>", "exec"), module.__dict__)
        return module
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # numba asks for it by its name
    spec.loader.exec_module(module)
    return module


def _written(name: str, source: str, folder: str) -> Path | None:
    """The file that holds `source`; None if it can neither be found nor be written."""
    if not folder:
        _say_once("there is no directory for them")
        return None
    path = Path(folder) / "kernels" / f"{name}.py"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.parent.stat()
        if hasattr(os, "getuid") and (owner.st_uid != os.getuid() or owner.st_mode & 0o022):
            _say_once(f"{path.parent} can be written by others")  # what lies there is run
            return None
        if not path.exists() or path.read_text(encoding="utf-8") != source:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{name}")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(source)
            os.replace(temporary, path)
    except OSError as error:
        _say_once(str(error))
        return None
    return path


@cache
def _say_once(why: str) -> None:
    logger.info(
        "generated kernels are not kept on disk (%s): each process compiles them; see DMOD_CACHE_DIR", why
    )
