"""GPUs through CuPy: memory from its pool, products by cuBLAS, element-wise kernels of its own.

This is the plain path: every step of a plan is a launch on the device's stream. Batches are copied ahead on
a second stream. CuPy is imported when a GPU is first asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import numpy as np

from dmod.device.base import Backend, Event
from dmod.device.random import SlotStream

__all__ = ["CupyBackend", "find_gpus"]

# Philox4x32-10 (Salmon et al., 2011), one counter per four numbers: (index, node, step) and key (seed, slot).
_UNIFORM = r"""
extern "C" __global__ void dmod_uniform(float* out, const unsigned long long n, const unsigned int seed_low,
                                        const unsigned int slot, const unsigned int node,
                                        const unsigned long long step) {
    const unsigned long long quad = blockIdx.x * (unsigned long long)blockDim.x + threadIdx.x;
    if (4 * quad >= n) return;
    unsigned int c0 = (unsigned int)quad, c1 = node ^ (unsigned int)(quad >> 32);
    unsigned int c2 = (unsigned int)step, c3 = (unsigned int)(step >> 32);
    unsigned int k0 = seed_low, k1 = slot;
    for (int round = 0; round < 10; ++round) {
        const unsigned int h0 = __umulhi(0xD2511F53u, c0), l0 = 0xD2511F53u * c0;
        const unsigned int h1 = __umulhi(0xCD9E8D57u, c2), l1 = 0xCD9E8D57u * c2;
        c0 = h1 ^ c1 ^ k0; c1 = l1; c2 = h0 ^ c3 ^ k1; c3 = l0;
        k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
    }
    const unsigned int words[4] = {c0, c1, c2, c3};
    for (int i = 0; i < 4; ++i)
        if (4 * quad + i < n) out[4 * quad + i] = (words[i] >> 8) * (1.0f / 16777216.0f);
}
"""
_THREADS = 256


class CupyBackend(Backend):
    """One GPU.

    Parameters
    ----------
    cupy : module
    device : int
        Its number.
    """

    copies_ahead = True

    def __init__(self, cupy: ModuleType, device: int):
        self.name = f"gpu({device})"
        self.device = device
        self._cupy: Any = cupy
        self._kernel: Any = None
        self._copies: Any = None  # the stream beside that of the kernels

    @property
    def xp(self) -> Any:
        return self._cupy

    def activate(self) -> AbstractContextManager[Any]:
        scope: AbstractContextManager[Any] = self._cupy.cuda.Device(self.device)
        return scope

    def raw(self, nbytes: int) -> Any:
        self.used = True
        with self.activate():
            return self._cupy.empty(nbytes, self._cupy.uint8)  # the pool gives blocks of 512 bytes

    def owns(self, array: Any) -> bool:
        return isinstance(array, self._cupy.ndarray) and array.device.id == self.device

    def copy_in(self, target: Any, source: np.ndarray) -> None:
        with self.activate():
            own = np.ascontiguousarray(source, dtype=target.dtype)
            if target.flags.c_contiguous:
                target.set(own)
            else:
                self._cupy.copyto(target, self._cupy.asarray(own))

    def copy_out(self, target: np.ndarray, source: Any) -> None:
        with self.activate():
            np.copyto(target, self._cupy.asnumpy(source), casting="unsafe")

    def copy_peer(self, target: Any, source: Any, other: Backend) -> None:
        plain = target.flags.c_contiguous and source.flags.c_contiguous and target.dtype == source.dtype
        if not plain:
            super().copy_peer(target, source, other)
            return
        other.synchronize()  # what writes the source may still run
        with self.activate():
            target.data.copy_from_device(source.data, source.nbytes)

    def pinned(self, nbytes: int) -> np.ndarray:
        with self.activate():
            return np.frombuffer(self._cupy.cuda.alloc_pinned_memory(nbytes), np.uint8, nbytes)

    def mark(self) -> Event:
        with self.activate():
            return self._marked(self._cupy.cuda.get_current_stream())

    def _marked(self, stream: Any) -> Event:
        event: Event = self._cupy.cuda.Event(disable_timing=True)
        event.record(stream)  # type: ignore[attr-defined]
        return event

    def copy_in_ahead(self, target: Any, source: np.ndarray, after: Event) -> Event:
        cuda = self._cupy.cuda
        with self.activate():
            if self._copies is None:
                self._copies = cuda.Stream(non_blocking=True)  # else it would wait for the default stream
            self._copies.wait_event(after)
            cuda.runtime.memcpyAsync(
                target.data.ptr,
                source.ctypes.data,
                source.nbytes,
                cuda.runtime.memcpyHostToDevice,
                self._copies.ptr,
            )
            return self._marked(self._copies)

    def wait_for(self, event: Event) -> None:
        with self.activate():
            self._cupy.cuda.get_current_stream().wait_event(event)

    def uniform(self, out: Any, stream: SlotStream, node: int) -> None:
        with self.activate():
            if self._kernel is None:
                self._kernel = self._cupy.RawKernel(_UNIFORM, "dmod_uniform")
            blocks = -(-((out.size + 3) // 4) // _THREADS)
            seed = np.uint32(stream.seed & 0xFFFFFFFF)
            arguments = (
                out,
                np.uint64(out.size),
                seed,
                np.uint32(stream.slot),
                np.uint32(node),
                np.uint64(stream.step),
            )
            self._kernel((blocks,), (_THREADS,), arguments)

    def memory_info(self) -> tuple[int, int]:
        with self.activate():
            free, total = self._cupy.cuda.runtime.memGetInfo()
            return int(free), int(total)

    def synchronize(self) -> None:
        with self.activate():
            self._cupy.cuda.get_current_stream().synchronize()


def find_gpus() -> tuple[list[Backend], str]:
    """The GPUs of this machine, and if there are none, why."""
    try:
        import cupy
    except ImportError:
        return [], "CuPy is not installed; pip install 'dmod[cupy]'"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return [], f"CUDA finds no device: {error}"
    return [CupyBackend(cupy, i) for i in range(count)], "this machine has none"
