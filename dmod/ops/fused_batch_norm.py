"""BatchNorm and the ReLU behind it as one node of a plan, in the plain layout; float32 in host memory."""

from __future__ import annotations

from dmod.ops.batch_norm import Layout, moving_update, uses_global
from dmod.ops.batch_norm_compiled import backward_step, forward_step
from dmod.ops.registry import Call, Step, register_internal

__all__ = ["BATCH_NORM_RELU"]


def _forward(call: Call) -> Step:
    return forward_step(call, Layout(call).dims, uses_global(call), 0.0)


def _backward(call: Call) -> Step:
    use_global = uses_global(call)
    return backward_step(
        call, Layout(call).dims, use_global, 0.0, None if use_global else moving_update(call)
    )


BATCH_NORM_RELU = register_internal(
    "_fused_batch_norm_relu",
    arguments=["data", "gamma", "beta"],
    aux=["moving_mean", "moving_var"],
    outputs=["output", "mean", "var"],
    forward=_forward,
    backward=_backward,
    backward_reads=((0, 1), (0, 1, 2)),
    doc="Attributes are BatchNorm's.",
)
