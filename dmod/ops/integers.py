"""Integers in functions of real numbers: MXNet computes those too, and cuts what comes out to integers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dmod.ops.registry import Attrs, Builder, Call, Step

__all__ = ["is_real", "scalar_of", "through_float64"]


def is_real(array: Any) -> bool:
    """Whether an array's dtype has fractions."""
    return np.dtype(array.dtype).kind == "f"


def scalar_of(dtype: Any, value: float) -> Any:
    """A number in an array's dtype; with integers, 1.5 is 1 and -1 wraps around if there is no sign."""
    with np.errstate(all="ignore"):
        return (
            np.asarray(value, np.float64)
            .astype(np.int64 if np.dtype(dtype).kind in "iu" else dtype)[()]
            .astype(dtype)
        )


def through_float64(build: Builder) -> Builder:
    """`build`, and for arrays of integers the same in float64, cut to integers."""

    def builder(call: Call) -> Step:
        return build(call) if is_real(call.inputs[0]) else _shadowed(build, call)

    return builder


def _whole_scalar(attrs: Attrs) -> Attrs:
    """The attributes with `scalar` as an integer."""
    values = dict(vars(attrs))
    if "scalar" in values:
        values["scalar"] = float(scalar_of(np.int64, values["scalar"]))
    return Attrs(**values)


def _shadowed(build: Builder, call: Call) -> Step:
    xp, is_backward = call.xp, bool(call.in_grads)
    read: list[tuple[Any, Any]] = []
    written: list[tuple[Any, Any]] = []

    def shadows(arrays: list[Any], *, reads: bool, writes: bool) -> list[Any]:
        made = [None if a is None else call.scratch(a.shape, np.float64) for a in arrays]
        pairs = [(a, s) for a, s in zip(arrays, made, strict=True) if a is not None]
        read.extend(pairs if reads else ())
        written.extend(pairs if writes else ())
        return made

    step = build(
        replace(
            call,
            attrs=_whole_scalar(call.attrs),
            inputs=shadows(call.inputs, reads=True, writes=False),
            outputs=shadows(call.outputs, reads=is_backward, writes=not is_backward),
            out_grads=shadows(call.out_grads, reads=True, writes=False),
            in_grads=shadows(call.in_grads, reads=False, writes=True),
        )
    )

    def run() -> None:
        for array, shadow in read:
            xp.copyto(shadow, array)
        step()
        for array, shadow in written:
            xp.copyto(array, shadow, casting="unsafe")

    return run
