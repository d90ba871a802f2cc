"""Starts and supervises the processes of a dmod job: the command ``dmod-launch``, and Ray from Python.

`fit`, `RayCluster` and `sweep` need Ray, which is imported when they are called; `reporting`, `report` and
`get_context` are for the training functions that they run.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmod_launch.ray_fit import RayCluster, fit
    from dmod_launch.ray_job import RayOptions
    from dmod_launch.sweep_results import SweepResult
    from dmod_launch.sweeping import sweep
    from dmod_launch.training import Context, get_context, report, reporting

__all__ = [
    "Context",
    "RayCluster",
    "RayOptions",
    "SweepResult",
    "fit",
    "get_context",
    "report",
    "reporting",
    "sweep",
]

_HOMES = {
    "Context": "training",
    "RayCluster": "ray_fit",
    "RayOptions": "ray_job",
    "SweepResult": "sweep_results",
    "fit": "ray_fit",
    "get_context": "training",
    "report": "training",
    "reporting": "training",
    "sweep": "sweeping",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: the command ``dmod-launch`` needs none of it, and starts faster without."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
