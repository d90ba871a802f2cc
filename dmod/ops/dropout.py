"""Dropout: zero a random part of the elements in training, and scale the rest up.

The mask is a function of seed, global slot, node and step, whatever was drawn elsewhere.
Srivastava et al., 2014.
"""

from __future__ import annotations

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.params import Param, boolean, choice, number, optional, shape
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register


def _mask_shape(attrs: Attrs, data: Shape) -> Shape:
    """The mask's shape: 1 along the `axes` on which it is shared."""
    for axis in attrs.axes:
        if not -len(data) <= axis < len(data):
            raise InvalidArgument(f"axes {attrs.axes} do not lie within shape {data}")
    shared = {axis % len(data) for axis in attrs.axes}
    return tuple(1 if i in shared else n for i, n in enumerate(data))


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0] if inputs[0] is not None else outputs[0]
    if not 0 <= attrs.p < 1:
        raise InvalidArgument(f"p is {attrs.p}, expected 0 <= p < 1")
    mask = None if data is None or -1 in data else _mask_shape(attrs, data)
    return [data], [data, mask], []


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return [inputs[0]], [inputs[0], inputs[0]], []


def _is_off(attrs: Attrs, is_train: bool) -> bool:
    return attrs.p == 0 or (attrs.mode == "training" and not is_train)


def _forward(call: Call) -> Step:
    xp, (x,), (y, mask) = call.xp, call.inputs, call.outputs
    if _is_off(call.attrs, call.is_train):
        mask.fill(1)
        return lambda: xp.copyto(y, x)
    keep = 1.0 - call.attrs.p
    device, stream, node = call.device, call.stream, call.node
    scale, threshold = mask.dtype.type(1 / keep), np.float32(keep)
    draws = mask if mask.dtype == np.float32 else call.scratch(mask.shape, np.float32)

    def run() -> None:
        device.uniform(draws, stream, node)
        xp.less(draws, threshold, out=mask, casting="unsafe")
        xp.multiply(mask, scale, out=mask)
        xp.multiply(x, mask, out=y)

    return run


def _backward(call: Call) -> Step:
    xp, mask, (dy,), (dx,) = call.xp, call.outputs[1], call.out_grads[:1], call.in_grads
    return lambda: xp.multiply(dy, mask, out=dx)


register(
    "Dropout",
    params=[
        Param("p", number, 0.5, "The share of elements that are zeroed."),
        Param("mode", choice(("always", "training")), "training", "Whether inference drops elements too."),
        Param("axes", shape, (), "Axes along which all elements share one decision."),
        Param("cudnn_off", optional(boolean), False, "Ignored."),
    ],
    outputs=["output", "mask"],
    infer_shape=_infer,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((), (1,)),
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    view=_is_off,
    doc="Zero elements with probability p and multiply the others by 1 / (1 - p).",
)
