"""``mx.mod``: networks that can be bound, trained, evaluated and saved."""

from __future__ import annotations

from dmod.module.base_module import BaseModule
from dmod.module.bucketing_module import BucketingModule
from dmod.module.module import Module
from dmod.module.python_module import PythonLossModule, PythonModule
from dmod.module.sequential_module import SequentialModule

__all__ = [
    "BaseModule",
    "BucketingModule",
    "Module",
    "PythonLossModule",
    "PythonModule",
    "SequentialModule",
]
