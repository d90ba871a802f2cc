"""SyncBatchNorm and BatchNormWithReLU: BatchNorm with other outputs.

SyncBatchNorm's statistics are those of the device's own part of the batch: executors of several devices
do not meet within a step.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dmod.ops import batch_norm  # noqa: F401  (registers BatchNorm)
from dmod.ops.params import Param, boolean, integer, number, text
from dmod.ops.registry import Attrs, Call, Shapes, Step, get_operator, register

__all__: list[str] = []

_BASE = get_operator("BatchNorm")
assert _BASE.backward is not None
_backward = _BASE.backward


def _with_axis(attrs: Attrs) -> Attrs:
    return Attrs(**{**vars(attrs), "axis": 1})


def _sync_infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    return _BASE.infer_shape(_with_axis(attrs), inputs, outputs)


def _own_inverse(call: Call) -> tuple[Call, Any]:
    """The call of the BatchNorm, whose third output is 1 / sqrt(var + eps), not var."""
    inv_std = call.scratch(call.outputs[2].shape, call.outputs[2].dtype)
    outputs = [*call.outputs[:2], inv_std]
    return dataclasses.replace(call, attrs=_with_axis(call.attrs), outputs=outputs), inv_std


def _sync_forward(call: Call) -> Step:
    xp, var = call.xp, call.outputs[2]
    one, eps = var.dtype.type(1), var.dtype.type(call.attrs.eps)
    inner, inv_std = _own_inverse(call)
    base = _BASE.forward(inner)

    def run() -> None:
        base()
        xp.multiply(inv_std, inv_std, out=var)
        xp.divide(one, var, out=var)
        xp.subtract(var, eps, out=var)

    return run


def _sync_backward(call: Call) -> Step:
    xp, var = call.xp, call.outputs[2]
    one, eps = var.dtype.type(1), var.dtype.type(call.attrs.eps)
    inner, inv_std = _own_inverse(call)
    base = _backward(inner)

    def run() -> None:
        xp.add(var, eps, out=inv_std)
        xp.sqrt(inv_std, out=inv_std)
        xp.divide(one, inv_std, out=inv_std)
        base()

    return run


_SHARED: dict[str, Any] = {
    "arguments": ["data", "gamma", "beta"],
    "aux": ["moving_mean", "moving_var"],
    "aux_init": {"moving_mean": '["zero", {}]', "moving_var": '["one", {}]'},
    "outputs": ["output", "mean", "var"],
    "num_visible": lambda attrs: 3 if attrs.output_mean_var else 1,
    "infer_type": _BASE.infer_type,
}

register(
    "_contrib_SyncBatchNorm",
    params=[
        Param("eps", number, 1e-3, "Added to the variance."),
        Param("momentum", number, 0.9, "The share of the old value in the moving statistics."),
        Param("fix_gamma", boolean, True, "Hold gamma at 1."),
        Param("use_global_stats", boolean, False, "Use the moving statistics in training too."),
        Param("output_mean_var", boolean, False, "Also output the mean and the variance."),
        Param("ndev", integer, 1, "Ignored: the number of devices."),
        Param("key", text, doc="Ignored: a name that is the layer's own."),
    ],
    infer_shape=_sync_infer,
    forward=_sync_forward,
    backward=_sync_backward,
    backward_reads=((0, 1), (1, 2)),
    doc="""BatchNorm along axis 1: ``gamma * (data - mean) / sqrt(var + eps) + beta``.

Mean and variance are those of the batch on each device; gamma, beta, moving_mean, moving_var are (C,).""",
    **_SHARED,
)


def _relu_forward(call: Call) -> Step:
    xp, y = call.xp, call.outputs[0]
    base, zero = _BASE.forward(call), y.dtype.type(0)

    def run() -> None:
        base()
        xp.maximum(y, zero, out=y)

    return run


def _relu_backward(call: Call) -> Step:
    xp, y, dy = call.xp, call.outputs[0], call.out_grads[0]
    positive, masked, zero = call.scratch(y.shape, bool), call.scratch(y.shape, y.dtype), y.dtype.type(0)
    base = _backward(dataclasses.replace(call, out_grads=[masked, *call.out_grads[1:]]))

    def run() -> None:
        xp.greater(y, zero, out=positive)
        xp.multiply(dy, positive, out=masked)
        base()

    return run


register(
    "_contrib_BatchNormWithReLU",
    params=_BASE.params,
    json_outputs=4,
    infer_shape=_BASE.infer_shape,
    forward=_relu_forward,
    backward=_relu_backward,
    backward_reads=((0, 1), (0, 1, 2)),
    doc="BatchNorm, then the larger of the result and 0.",
    **_SHARED,
)
