"""Devices by name: ``cpu(0)``, ``gpu(1)``.

A context names a device; it holds no memory and starts nothing. ``cpu(0)`` and ``cpu(1)`` are two
devices on the same memory, which is how data parallelism is tried on one machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from dmod.base import InvalidArgument, MXNetError

__all__ = ["Context", "cpu", "cpu_pinned", "current_context", "gpu", "gpu_memory_info", "num_gpus"]


class Context:
    """A device, by type and number.

    Parameters
    ----------
    device_type : {'cpu', 'gpu', 'cpu_pinned', 'cpu_shared'} or Context
        The kind of device; another context is copied.
    device_id : int
        The number of the device, from 0.

    Examples
    --------
    >>> Context('cpu', 1)
    cpu(1)
    >>> with Context('cpu', 1):
    ...     current_context()
    cpu(1)
    """

    devtype2str: ClassVar[dict[int, str]] = {1: "cpu", 2: "gpu", 3: "cpu_pinned", 5: "cpu_shared"}
    devstr2type: ClassVar[dict[str, int]] = {"cpu": 1, "gpu": 2, "cpu_pinned": 3, "cpu_shared": 5}
    _entered = threading.local()

    def __init__(self, device_type: str | Context, device_id: int = 0):
        if isinstance(device_type, Context):
            device_id = device_type.device_id
            device_type = device_type.device_type
        if device_type not in Context.devstr2type:
            known = ", ".join(Context.devstr2type)
            raise InvalidArgument(f"Context({device_type!r}): expected a device type among {known}")
        self.device_typeid = Context.devstr2type[device_type]
        self.device_id: int = int(device_id)

    @property
    def device_type(self) -> str:
        """The kind of device, as a string."""
        return Context.devtype2str[self.device_typeid]

    def __hash__(self) -> int:
        return hash((self.device_typeid, self.device_id))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Context)
            and self.device_typeid == other.device_typeid
            and self.device_id == other.device_id
        )

    def __repr__(self) -> str:
        return f"{self.device_type}({self.device_id})"

    def __enter__(self) -> Context:
        stack = Context._entered.__dict__.setdefault("stack", [])
        stack.append(self)
        return self

    def __exit__(self, ptype: Any, value: Any, trace: Any) -> None:
        Context._entered.stack.pop()

    def empty_cache(self) -> None:
        """Give cached device memory back; the CPU caches none."""


def cpu(device_id: int = 0) -> Context:
    """The CPU. Different numbers are different devices that share the host's memory."""
    return Context("cpu", device_id)


def cpu_pinned(device_id: int = 0) -> Context:
    """Host memory that a GPU can copy from directly."""
    return Context("cpu_pinned", device_id)


def gpu(device_id: int = 0) -> Context:
    """A GPU."""
    return Context("gpu", device_id)


_gpu_memory: Callable[[], list[Callable[[], tuple[int, int]]]] = list


def set_gpu_finder(finder: Callable[[], list[Callable[[], tuple[int, int]]]]) -> None:
    """Install what finds the GPUs: a function per GPU, which gives its memory."""
    global _gpu_memory
    _gpu_memory = finder


def num_gpus() -> int:
    """How many GPUs this installation can use."""
    return len(_gpu_memory())


def gpu_memory_info(device_id: int = 0) -> tuple[int, int]:
    """Free and total bytes of a GPU's memory.

    Raises
    ------
    MXNetError
        There is no such GPU.
    """
    gpus = _gpu_memory()
    if not 0 <= device_id < len(gpus):
        raise MXNetError(f"gpu_memory_info({device_id}): there are {len(gpus)} GPUs")
    return gpus[device_id]()


def current_context() -> Context:
    """The innermost ``with context:``, else ``cpu(0)``."""
    stack = getattr(Context._entered, "stack", None)
    return stack[-1] if stack else Context("cpu", 0)
