"""Devices: memory, kernels and random streams behind one small interface.

`backend` is the one place that maps a context to its device, and `copy` the one way between devices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import MXNetError
from dmod.context import Context, set_gpu_finder
from dmod.device.base import Backend
from dmod.device.cpu import CpuBackend
from dmod.device.gpu import find_gpus
from dmod.device.pinned import PinnedMemory

__all__ = [
    "HOST",
    "Backend",
    "backend",
    "backend_of",
    "copy",
    "module_of",
    "pinned_memory",
    "set_gpus",
    "synchronize",
    "to_host",
]

HOST = CpuBackend()
"""The CPU."""
_gpus: list[Backend] | None = None
_why_none = ""
_pinned: PinnedMemory | None = None


def set_gpus(gpus: list[Backend] | None) -> list[Backend] | None:
    """Replace the GPUs, such as by stand-ins; None looks for real ones again. Returns the old ones."""
    global _gpus, _pinned
    before, _gpus = _gpus, gpus
    _pinned = None
    return before


def pinned_memory() -> PinnedMemory | None:
    """Host memory that the GPUs in use read by themselves; None where none is in use that can copy ahead."""
    global _pinned
    if _pinned is None:
        gpu = next((gpu for gpu in _gpus or () if gpu.used and gpu.copies_ahead), None)
        _pinned = PinnedMemory(gpu.pinned) if gpu is not None else None
    return _pinned


def _find() -> list[Backend]:
    global _gpus, _why_none
    if _gpus is None:
        _gpus, _why_none = find_gpus()
    return _gpus


def backend(ctx: Context) -> Backend:
    """The device that computes on `ctx`.

    Raises
    ------
    MXNetError
        It is a GPU that is not there; the message says why.
    """
    if ctx.device_type != "gpu":
        return HOST
    gpus = _find()
    if ctx.device_id >= len(gpus):
        why = f"there are {len(gpus)} GPUs" if gpus else _why_none or "this machine has none"
        raise MXNetError(f"{ctx}: no such GPU: {why}. mx.cpu() computes everywhere.")
    return gpus[ctx.device_id]


def synchronize() -> None:
    """Wait until everything that was started on the GPUs in use has ended."""
    for gpu in _gpus or ():
        gpu.synchronize()


def backend_of(array: Any) -> Backend:
    """The device in whose memory `array` is."""
    if isinstance(array, np.ndarray):
        return HOST
    for gpu in _gpus or ():
        if gpu.owns(array):
            return gpu
    raise MXNetError(f"an array of type {type(array).__name__} belongs to no device")


def copy(target: Any, source: Any) -> None:
    """Copy values between arrays of one shape, wherever they are, into the target's dtype."""
    if isinstance(target, np.ndarray) and isinstance(source, np.ndarray):
        np.copyto(target, source, casting="unsafe")
        return
    into, out_of = backend_of(target), backend_of(source)
    if into is out_of:
        with into.activate():
            into.xp.copyto(target, source, casting="unsafe")
    elif out_of.is_host:
        into.copy_in(target, source)
    elif into.is_host:
        out_of.copy_out(target, source)
    else:
        into.copy_peer(target, source, out_of)


def module_of(array: Any) -> Any:
    """The array module of the device in whose memory `array` is."""
    return np if isinstance(array, np.ndarray) else backend_of(array).xp


def to_host(array: Any) -> np.ndarray:
    """A numpy array with the values of `array`: itself if it is one."""
    return array if isinstance(array, np.ndarray) else backend_of(array).to_host(array)


set_gpu_finder(lambda: [gpu.memory_info for gpu in _find()])
