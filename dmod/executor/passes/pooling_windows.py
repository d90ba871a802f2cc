"""Which poolings oneDNN computes as `Pooling` means them, and in its terms."""

from __future__ import annotations

from typing import Any

from dmod.device.onednn.api import Kind
from dmod.ops.pool_windows import pool_windows

__all__ = ["pooling_of"]

Numbers = tuple[int, ...]


def pooling_of(attrs: Any, data: Numbers) -> tuple[int, Numbers, Numbers, Numbers, Numbers] | None:
    """Kind, kernel, stride and what is beyond both ends, for data (N, C, ...).

    None for sums and p-norms, channels last, the convention 'same', whose padding differs, and averages
    whose windows are clipped at the end of the padding, since the library divides by whole windows.
    """
    if attrs.pool_type not in ("max", "avg") or (attrs.layout is not None and attrs.layout.endswith("C")):
        return None
    windows = pool_windows(attrs, data)
    if not windows.is_global and attrs.pooling_convention == "same":
        return None
    axes = list(zip(windows.out, windows.stride, windows.kernel, windows.size, windows.pad, strict=True))
    after = tuple((o - 1) * s + k - n - p for o, s, k, n, p in axes)
    excluded = attrs.count_include_pad is False
    if attrs.pool_type == "max":
        kind = Kind.POOLING_MAX
    else:
        if not excluded and any(a > p for a, p in zip(after, windows.pad, strict=True)):
            return None
        kind = Kind.POOLING_AVG_EXCLUDE if excluded else Kind.POOLING_AVG_INCLUDE
    stride = windows.kernel if windows.is_global else windows.stride
    return kind, windows.kernel, stride, windows.pad, tuple(max(0, a) for a in after)
