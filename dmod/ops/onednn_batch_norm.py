"""Batch normalisation by oneDNN, with the ReLU that follows it; what it means is `BatchNorm`'s."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.device.onednn import Layout
from dmod.device.onednn.api import Arg
from dmod.device.onednn.layers import BatchNorm
from dmod.ops.registry import Attrs, Call, Step, register_internal

__all__ = ["BATCH_NORM"]


def _outputs(attrs: Attrs) -> list[str]:
    spec: BatchNorm = attrs.batch_norm
    return ["output", "mean", "var", "mask"] if spec.workspace is not None else ["output", "mean", "var"]


def _statistics(call: Call, spec: BatchNorm) -> dict[int, tuple[Layout, Any]]:
    """Mean and variance: the moving ones where these are used, else the batch's, which are outputs."""
    mean, variance = call.aux if spec.is_global else call.outputs[1:3]
    found = {Arg.MEAN: (spec.vector, mean), Arg.VARIANCE: (spec.vector, variance)}
    if spec.workspace is not None:
        found[Arg.WORKSPACE] = (spec.workspace, call.outputs[3])
    return found


def _forward(call: Call) -> Step:
    spec: BatchNorm = call.attrs.batch_norm
    data, gamma, beta = call.inputs
    arrays = {
        Arg.SRC: (spec.layout, data),
        Arg.DST: (spec.layout, call.outputs[0]),
        Arg.SCALE: (spec.vector, gamma),
        Arg.SHIFT: (spec.vector, beta),
        **_statistics(call, spec),
    }
    main = spec.forward.bind(arrays, call.scratch)
    if not call.attrs.fix_gamma:
        return main

    def run() -> None:
        gamma.fill(1)
        main()

    return run


def _backward(call: Call) -> Step:
    spec: BatchNorm = call.attrs.batch_norm
    dx, dgamma, dbeta = call.in_grads
    fix_gamma = call.attrs.fix_gamma

    def given(layout: Layout, array: Any) -> tuple[Layout, Any]:
        return layout, call.scratch((layout.nbytes,), np.uint8) if array is None else array

    arrays = {
        Arg.SRC: (spec.layout, call.inputs[0]),
        Arg.SCALE: (spec.vector, call.inputs[1]),
        Arg.DIFF_DST: (spec.layout, call.out_grads[0]),
        Arg.DIFF_SRC: given(spec.layout, dx),
        Arg.DIFF_SCALE: given(spec.vector, None if fix_gamma else dgamma),
        Arg.DIFF_SHIFT: given(spec.vector, dbeta),
        **_statistics(call, spec),
    }
    main = spec.backward.bind(arrays, call.scratch)
    move = None if spec.is_global else _moving_update(call)

    def run() -> None:
        main()
        if fix_gamma and dgamma is not None:
            dgamma.fill(0)
        if move is not None:
            move()

    return run


def _moving_update(call: Call) -> Step:
    """Move the auxiliary states towards the batch's statistics."""
    momentum, rest = np.float32(call.attrs.momentum), np.float32(1 - call.attrs.momentum)
    pairs = list(zip(call.outputs[1:3], call.aux, strict=True))
    part = call.scratch(call.aux[0].shape, np.float32)

    def run() -> None:
        for batch, moving in pairs:
            np.multiply(batch, rest, out=part)
            np.multiply(moving, momentum, out=moving)
            np.add(moving, part, out=moving)

    return run


BATCH_NORM = register_internal(
    "_onednn_batch_norm",
    arguments=["data", "gamma", "beta"],
    aux=["moving_mean", "moving_var"],
    outputs=_outputs,
    forward=_forward,
    backward=_backward,
    backward_reads=lambda attrs: ((0, 1), tuple(range(1, len(_outputs(attrs))))),
    doc="BatchNorm, and ReLU if wanted, on an array in one of oneDNN's layouts.",
)
