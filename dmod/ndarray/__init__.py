"""``mx.nd``: arrays on devices and functions on them."""

from __future__ import annotations

from dmod.ndarray.ndarray import (
    NDArray,
    arange,
    array,
    concatenate,
    empty,
    from_numpy,
    full,
    load,
    load_frombuffer,
    ones,
    ones_like,
    save,
    waitall,
    zeros,
    zeros_like,
)

__all__ = [
    "NDArray",
    "arange",
    "array",
    "concatenate",
    "empty",
    "from_numpy",
    "full",
    "load",
    "load_frombuffer",
    "ones",
    "ones_like",
    "save",
    "waitall",
    "zeros",
    "zeros_like",
]
