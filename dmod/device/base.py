"""What a device must offer: memory, copies, an array module, and its own random numbers.

Everything above this package reaches a device through a `Backend`, and never asks which one it is.
Kernels that one device has beyond its array module (blocked convolutions, graphs of kernels) get their
place beside these methods, each with the benchmark that shows why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from dmod.device.random import SlotStream

__all__ = ["ALIGNMENT", "Backend", "Event"]

ALIGNMENT = 64
"""Bytes at which memory starts: a cache line, and the widest vector register."""

_NULL = nullcontext()


class Event(Protocol):
    """A moment of a device's work."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""


class Backend(ABC):
    """One device.

    Attributes
    ----------
    name : str
        Such as 'cpu' or 'gpu(0)'.
    is_host : bool
        Whether its arrays are numpy arrays.
    copies_ahead : bool
        Whether it can copy from the host while it computes: `pinned`, `mark`, `copy_in_ahead`, `wait_for`.
    used : bool
        Whether it has given any memory.
    """

    name: str
    is_host: bool = False
    copies_ahead: bool = False
    used: bool = False

    @property
    @abstractmethod
    def xp(self) -> ModuleType | Any:
        """The array module that operators are written against: numpy, or one with its functions."""

    @abstractmethod
    def raw(self, nbytes: int) -> Any:
        """`nbytes` of uninitialised memory as uint8, from a boundary of `ALIGNMENT` bytes on."""

    @abstractmethod
    def owns(self, array: Any) -> bool:
        """Whether `array` is in this device's memory."""

    @abstractmethod
    def copy_in(self, target: Any, source: np.ndarray) -> None:
        """Copy a host array into one of the device, in the target's dtype."""

    @abstractmethod
    def copy_out(self, target: np.ndarray, source: Any) -> None:
        """Copy an array of the device into one of the host, in the target's dtype."""

    def copy_peer(self, target: Any, source: Any, other: Backend) -> None:
        """Copy an array of another device into one of this device; by way of the host, unless overridden."""
        self.copy_in(target, other.to_host(source))

    @abstractmethod
    def uniform(self, out: Any, stream: SlotStream, node: int) -> None:
        """Fill a float32 array with numbers in [0, 1) that follow from stream, node and step."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised, aligned array."""
        dtype = np.dtype(dtype)
        nbytes = dtype.itemsize
        for n in shape:
            nbytes *= int(n)
        return self.raw(nbytes).view(dtype).reshape(shape)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An aligned array of zeros."""
        array = self.empty(shape, dtype)
        array.fill(0)
        return array

    def to_host(self, array: Any) -> np.ndarray:
        """A numpy array with the values of `array`: itself on the host, else a copy."""
        host: np.ndarray = np.empty(array.shape, array.dtype)
        self.copy_out(host, array)
        return host

    def from_host(self, array: np.ndarray) -> Any:
        """An array of the device with the values of a numpy array: always a copy."""
        own = self.empty(array.shape, array.dtype)
        self.copy_in(own, array)
        return own

    def launch(self, steps: Sequence[Callable[[], None]], what: str) -> None:
        """Start the steps of a plan, in their order; `what` they are is for who watches."""
        for step in steps:
            step()

    def pinned(self, nbytes: int) -> np.ndarray:
        """`nbytes` of host memory as uint8, which the device can read while the host does other things."""
        raise NotImplementedError(f"{self.name} does not copy ahead")

    def mark(self) -> Event:
        """The moment when all computing that was started so far is done."""
        raise NotImplementedError(f"{self.name} does not copy ahead")

    def copy_in_ahead(self, target: Any, source: np.ndarray, after: Event) -> Event:
        """Start to copy beside the computing, once `after` has come; returns the moment when it is done.

        Until then `source`, which is `pinned` and of the target's shape and dtype, must stay as it is.
        Copies are done in the order in which they are started.
        """
        raise NotImplementedError(f"{self.name} does not copy ahead")

    def wait_for(self, event: Event) -> None:
        """Let what is computed from now on begin after `event`; the host goes on."""
        raise NotImplementedError(f"{self.name} does not copy ahead")

    def activate(self) -> AbstractContextManager[Any]:
        """A scope in which the array module works on this device."""
        return _NULL

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes; (0, 0) where the device does not tell."""
        return 0, 0

    def synchronize(self) -> None:  # noqa: B027  (the host has nothing to wait for)
        """Wait until everything that was started on the device has ended."""
