"""What of MXNet dmod leaves out on purpose, and how it says so, however it is asked for."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["OUT_OF_SCOPE", "refuse_imports", "why_not"]

OUT_OF_SCOPE = (
    "amp",
    "autograd",
    "gluon",
    "library",
    "np",
    "np_symbol",
    "npx",
    "numpy",
    "numpy_extension",
    "onnx",
    "rtc",
    "subgraph",
    "tensorrt",
)
"""Modules of MXNet's that are not there."""


def why_not(package: str, name: str) -> str:
    """What to tell who asks for the module `name`, under the name that he knows the package by."""
    return (
        f"{package}.{name} is out of dmod's scope: dmod is MXNet's Symbol, Module and KVStore API "
        "(see docs/migrating.md)"
    )


def refuse_imports(package: str) -> None:
    """Let imports of what is out of scope fail with the reason, instead of saying that nothing is there."""
    if not any(isinstance(finder, _Refusal) and finder.package == package for finder in sys.meta_path):
        sys.meta_path.append(_Refusal(package))  # the last: it is asked when nobody has found a module


class _Refusal(importlib.abc.MetaPathFinder):
    def __init__(self, package: str):
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.partition(".")
        if package == self.package and name in OUT_OF_SCOPE:
            raise ImportError(why_not(package, name), name=fullname)
        return None
