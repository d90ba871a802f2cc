"""FullyConnected and the Activation behind it, as one node of a plan: ``act(data @ weight.T + bias)``.

The product is FullyConnected's; bias and activation are one pass over it, and so is the activation's
gradient before the products of backward. What every activation's gradient reads is its output, so the sum
before it is never kept.
"""

from __future__ import annotations

from dmod.device.kernels import compiled_kernels
from dmod.ops.fully_connected import arguments, backward_products, forward_products
from dmod.ops.registry import Call, Step, in_order, register_internal

__all__ = ["FULLY_CONNECTED_ACTIVATION"]


def _forward(call: Call) -> Step:
    y, multiply = forward_products(call)
    bias, kernel = call.inputs[2], getattr(compiled_kernels(), f"bias_{call.attrs.act_type}")

    def run() -> None:
        multiply()
        kernel(y, bias)

    return run


def _backward(call: Call) -> Step:
    y, dy = call.outputs[0].reshape(-1), call.out_grads[0].reshape(-1)
    kernel = getattr(compiled_kernels(), f"{call.attrs.act_type}_grad")
    before = call.scratch(call.outputs[0].shape, y.dtype)
    flat = before.reshape(-1)
    products = in_order(backward_products(call, before.reshape(-1, call.attrs.num_hidden)))

    def run() -> None:
        kernel(y, dy, flat)
        products()

    return run


FULLY_CONNECTED_ACTIVATION = register_internal(
    "_fused_fully_connected_activation",
    arguments=arguments,
    forward=_forward,
    backward=_backward,
    backward_reads=((0, 1), (0,)),
    doc="FullyConnected with bias, then Activation: attributes of both. float32 in host memory, with numba.",
)
