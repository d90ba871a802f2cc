"""Matrix products on whatever device: the array module's `dot`, or on the CPU oneDNN's.

Which of the two a product gets follows from its shape and dtypes and from what is installed, so that all
workers choose alike. Measured on one core of an AMD EPYC with AVX-512 (OpenBLAS 0.3.31 of numpy, oneDNN
3.2), in GFLOP/s: 128x784x1024 with the second matrix transposed 177 and 232, 64x784x128 85 and 207,
64x128x64 126 and 130, 64x64x10 78 and 33.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_char, c_float, c_int64, c_void_p
from typing import Any

import numpy as np

from dmod.base import MXNetError
from dmod.device.base import Backend
from dmod.device.onednn import onednn
from dmod.device.onednn.matmul import matmul

__all__ = ["SMALL", "product"]

SMALL = 1 << 17
"""Products of fewer multiplications go to numpy: a call through ctypes takes a microsecond longer."""
VECTOR = 16
"""Floats in a vector register: with fewer columns sgemm is faster than oneDNN's primitive."""


def product(device: Backend, left: Any, right: Any, out: Any) -> Callable[[], Any]:
    """A step that computes ``out = left @ right``.

    Parameters
    ----------
    device : Backend
        Where the arrays are.
    left, right, out : array
        Of shapes (m, k), (k, n) and (m, n), with fixed memory; `out` is C-contiguous. The factors may be
        transposed views.
    """
    if device.is_host:
        step = _onednn(left, right, out)
        if step is not None:
            return step
    dot = device.xp.dot
    return lambda: dot(left, right, out=out)


def _onednn(left: Any, right: Any, out: Any) -> Callable[[], None] | None:
    """oneDNN's product, if it is there and these arrays are for it."""
    (m, k), n = left.shape, right.shape[1]
    if m * k * n < SMALL or any(a.dtype != np.float32 for a in (left, right, out)):
        return None
    first, second = _layout(left), _layout(right)
    if first is None or second is None or not out.flags.c_contiguous:
        return None
    engine = onednn()
    if engine is not None and second[0] == b"T" and n >= VECTOR:
        # sgemm copies the whole second factor first. For 700x200 @ 200x10000 that is memory that glibc keeps
        # on getting anew, up to 100 MB; with 2 threads 128x1024x1024 takes 1.3 ms, the primitive 0.7.
        step = matmul(engine, left, right, out, np.empty)
        if step is not None:
            return step
    sgemm = None if engine is None else getattr(engine.library, "dnnl_sgemm", None)
    if engine is None or sgemm is None:
        return None
    arguments = (
        c_char(first[0]),
        c_char(second[0]),
        *map(c_int64, (m, n, k)),
        c_float(1),
        c_void_p(left.ctypes.data),
        c_int64(first[1]),
        c_void_p(right.ctypes.data),
        c_int64(second[1]),
        c_float(0),
        c_void_p(out.ctypes.data),
        c_int64(n),
    )
    threads = engine._threads
    arrays = (left, right, out)

    def run() -> None:
        if threads.count != engine.num_threads:
            engine.enter()
        if sgemm(*arguments):
            shapes = " @ ".join(str(a.shape) for a in arrays[:2])
            raise MXNetError(f"oneDNN: the product {shapes} failed; DMOD_ONEDNN=0 computes without oneDNN")

    return run


def _layout(array: Any) -> tuple[bytes, int] | None:
    """How a matrix lies, as sgemm calls it, and the length of its rows in memory; None for other strides."""
    rows, columns = array.shape
    if array.flags.c_contiguous:
        return b"N", max(columns, 1)
    if array.flags.f_contiguous:
        return b"T", max(rows, 1)
    return None
