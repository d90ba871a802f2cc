"""Devices: memory, kernels and random streams behind one small interface.

The CPU is the only device so far; `backend` is the one place that maps a context to its device.
"""

from __future__ import annotations

from dmod.base import MXNetError
from dmod.context import Context
from dmod.device.cpu import CpuBackend

__all__ = ["backend"]

_CPU = CpuBackend()


def backend(ctx: Context) -> CpuBackend:
    """The backend that computes on `ctx`.

    Raises
    ------
    MXNetError
        The context is a GPU, which this version cannot use.
    """
    if ctx.device_type == "gpu":
        raise MXNetError(f"{ctx}: this version of dmod computes on the CPU only; use cpu() as the context")
    return _CPU
