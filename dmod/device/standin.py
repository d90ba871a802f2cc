"""A GPU to test with where there is none: numpy underneath, a GPU's rules on top.

Its arrays are a type of their own. A function of its array module that meets a host array, or an array
of another of its devices, raises; nothing becomes a host array without an explicit copy. So the logic
that a GPU needs is tested on any machine; speed and kernels are not.

With streams, plans are computed and batches copied ahead in threads of the device, as on a GPU; whatever else
the host does with the device's arrays waits for the computing. Without, all is done when a call returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from dmod.device import set_gpus
from dmod.device.base import Backend, Event
from dmod.device.cpu import CpuBackend
from dmod.device.random import SlotStream
from dmod.device.standin_streams import StandInEvent, StandInStream, Watch

__all__ = ["StandInArray", "StandInBackend", "stand_in_gpus"]


_computing: dict[int, StandInStream] = {}
"""The streams of the devices that have some."""


def _settle(device: int) -> None:
    stream = _computing.get(device)
    if stream is not None:
        stream.settle()


class StandInArray:
    """An array in the memory of one stand-in device.

    It has the attributes and methods of a numpy array; what they return is on the device as well.
    """

    __slots__ = ("_array", "_device")
    __array_ufunc__ = None
    __hash__ = object.__hash__

    def __init__(self, array: np.ndarray, device: int):
        self._array, self._device = array, device

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError(
            f"an array of stand-in device {self._device} was taken for a host array; copy it first"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # such as __array_interface__, through which numpy would reach the memory
            raise AttributeError(name)
        value = getattr(self._array, name)
        if not callable(value):
            return _wrap(value, self._device) if isinstance(value, np.ndarray) else value
        return _Function(value, f"ndarray.{name}", self._device)

    def __getitem__(self, key: Any) -> StandInArray:
        _settle(self._device)
        return _wrap(self._array[_unwrap(key, self._device, "an index")], self._device)

    def __setitem__(self, key: Any, value: Any) -> None:
        _settle(self._device)
        self._array[_unwrap(key, self._device, "an index")] = _unwrap(
            value, self._device, "an assigned value"
        )

    def __len__(self) -> int:
        return len(self._array)

    def __bool__(self) -> bool:
        _settle(self._device)
        return bool(self._array)

    def __int__(self) -> int:
        _settle(self._device)
        return int(self._array)

    def __float__(self) -> float:
        _settle(self._device)
        return float(self._array)

    def __index__(self) -> int:
        _settle(self._device)
        return int(self._array.__index__())

    def __repr__(self) -> str:
        return f"<stand-in device {self._device}: {self._array!r}>"


def _operator(name: str) -> Callable[..., Any]:
    def method(self: StandInArray, *others: Any) -> Any:
        _settle(self._device)
        result = getattr(self._array, name)(*(_unwrap(o, self._device, name) for o in others))
        return self if result is self._array else _wrap(result, self._device)

    method.__name__ = name
    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
    for _prefix in ("", "r", "i"):
        setattr(StandInArray, f"__{_prefix}{_name}__", _operator(f"__{_prefix}{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "pos", "abs", "invert"):
    setattr(StandInArray, f"__{_name}__", _operator(f"__{_name}__"))


def _wrap(value: Any, device: int) -> Any:
    """Results on the device: arrays, and numbers as arrays without axes, as CuPy has them."""
    if isinstance(value, (np.ndarray, np.generic)):
        return StandInArray(np.asarray(value), device)
    if isinstance(value, tuple):
        return tuple(_wrap(v, device) for v in value)
    return [_wrap(v, device) for v in value] if isinstance(value, list) else value


def _unwrap(value: Any, device: int, where: str) -> Any:
    """The numpy arrays inside arguments; refuses arrays of the host and of other devices."""
    if isinstance(value, StandInArray):
        if value._device != device:
            raise TypeError(
                f"{where}: an array of stand-in device {value._device} on device {device}; copy it first"
            )
        return value._array
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(
            f"{where}: a host array of shape {value.shape} on stand-in device {device}; copy it first"
        )
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_unwrap(v, device, where) for v in value)
    if isinstance(value, dict):
        return {k: _unwrap(v, device, where) for k, v in value.items()}
    return value


class _Function:
    """A function of numpy that takes and gives arrays of one device."""

    def __init__(self, function: Any, name: str, device: int):
        self._function, self._name, self._device = function, name, device

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _settle(self._device)
        out = kwargs.get("out")
        args = _unwrap(args, self._device, self._name)
        result = self._function(*args, **_unwrap(kwargs, self._device, self._name))
        return out if isinstance(out, StandInArray) else _wrap(result, self._device)

    def __getattr__(self, name: str) -> Any:  # np.add.at, np.maximum.reduce
        return _Function(getattr(self._function, name), f"{self._name}.{name}", self._device)


class _Module:
    """numpy, or a module in it, on one device."""

    def __init__(self, module: ModuleType, device: int):
        self._module, self._device = module, device

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if isinstance(value, ModuleType):
            return _Module(value, self._device)
        if isinstance(value, type) or not callable(value):
            return value
        return _Function(value, f"{self._module.__name__}.{name}", self._device)


class StandInBackend(Backend):
    """A stand-in GPU.

    Parameters
    ----------
    device : int
    watch : callable, optional
        Who watches its streams; without, it has none.
    copy_bytes_per_s : float, optional
        How fast it copies from the host; default: as fast as it can.
    """

    copies_ahead = True

    def __init__(self, device: int, watch: Watch | None = None, copy_bytes_per_s: float | None = None):
        self.name = f"gpu({device})"
        self.device = device
        self._cpu = CpuBackend()
        self._xp = _Module(np, device)
        self._speed = copy_bytes_per_s
        self._computes = StandInStream(f"{self.name} computes", watch) if watch else None
        self._copies = StandInStream(f"{self.name} copies", watch) if watch else None
        if self._computes is not None:
            _computing[device] = self._computes

    def close(self) -> None:
        """End its streams."""
        if self._computes is not None and self._copies is not None:
            _computing.pop(self.device, None)
            self._computes.close()
            self._copies.close()

    @property
    def xp(self) -> Any:
        return self._xp

    def activate(self) -> AbstractContextManager[Any]:
        self.synchronize()
        return nullcontext()

    def synchronize(self) -> None:
        if self._computes is not None:
            self._computes.settle()

    def raw(self, nbytes: int) -> StandInArray:
        self.used = True
        return StandInArray(self._cpu.raw(nbytes), self.device)

    def owns(self, array: Any) -> bool:
        return isinstance(array, StandInArray) and array._device == self.device

    def copy_in(self, target: StandInArray, source: np.ndarray) -> None:
        self.synchronize()
        _copy_slowly(target._array, source, self._speed)

    def copy_out(self, target: np.ndarray, source: StandInArray) -> None:
        self.synchronize()
        np.copyto(target, source._array, casting="unsafe")

    def launch(self, steps: Sequence[Callable[[], None]], what: str) -> None:
        if self._computes is None:
            super().launch(steps, what)
        else:
            self._computes.start(what, partial(_run_all, steps))

    def pinned(self, nbytes: int) -> np.ndarray:
        return self._cpu.raw(nbytes)

    def mark(self) -> Event:
        if self._computes is not None:
            return self._computes.mark()
        event = StandInEvent(self.name)
        event.set()
        return event

    def copy_in_ahead(self, target: StandInArray, source: np.ndarray, after: Event) -> Event:
        if self._copies is None:
            np.copyto(target._array, source)
            return self.mark()
        self._copies.start("wait", after.synchronize)
        self._copies.start("copy", partial(_copy_slowly, target._array, source, self._speed))
        return self._copies.mark()

    def wait_for(self, event: Event) -> None:
        if self._computes is not None:
            self._computes.start("wait", event.synchronize)

    def uniform(self, out: StandInArray, stream: SlotStream, node: int) -> None:
        self._cpu.uniform(out._array, stream, node)


def _run_all(steps: Sequence[Callable[[], None]]) -> None:
    with np.errstate(all="ignore"):  # which is each thread's own
        for step in steps:
            step()


def _copy_slowly(target: np.ndarray, source: np.ndarray, bytes_per_s: float | None) -> None:
    np.copyto(target, source, casting="unsafe")
    if bytes_per_s is not None:
        time.sleep(target.nbytes / bytes_per_s)


@contextmanager
def stand_in_gpus(
    count: int = 2, watch: Watch | None = None, copy_bytes_per_s: float | None = None
) -> Iterator[None]:
    """Let ``gpu(0)`` to ``gpu(count - 1)`` be stand-ins; `watch` gives them streams, see `StandInBackend`."""
    gpus = [StandInBackend(i, watch, copy_bytes_per_s) for i in range(count)]
    before = set_gpus([*gpus])
    try:
        yield
    finally:
        set_gpus(before)
        for gpu in gpus:
            gpu.close()
