"""Activation: relu, sigmoid, tanh, softrelu, softsign."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dmod.device.kernels import kernels_for
from dmod.ops.elementwise import same_shape
from dmod.ops.params import Param, choice
from dmod.ops.registry import Call, Step, register


def _relu(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    kernels = kernels_for(x, y)
    if kernels is not None:
        source, target = x.reshape(-1), y.reshape(-1)
        if np.may_share_memory(source, target):
            return lambda: kernels.relu_inplace(target)
        return lambda: kernels.relu(source, target)
    zero = x.dtype.type(0)
    return lambda: xp.maximum(x, zero, out=y)


def _relu_grad(call: Call) -> Step:
    xp, (y,), (dy,), (dx,) = call.xp, call.outputs, call.out_grads, call.in_grads
    positive = call.scratch(y.shape, bool)
    zero = y.dtype.type(0)

    def run() -> None:
        xp.greater(y, zero, out=positive)
        xp.multiply(dy, positive, out=dx)

    return run


def _sigmoid(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    one = x.dtype.type(1)

    def run() -> None:
        xp.negative(x, out=y)
        xp.exp(y, out=y)
        xp.add(y, one, out=y)
        xp.divide(one, y, out=y)

    return run


def _sigmoid_grad(call: Call) -> Step:
    xp, (y,), (dy,), (dx,) = call.xp, call.outputs, call.out_grads, call.in_grads
    tmp, one = call.scratch(y.shape, y.dtype), y.dtype.type(1)

    def run() -> None:
        xp.subtract(one, y, out=tmp)
        xp.multiply(tmp, y, out=tmp)
        xp.multiply(dy, tmp, out=dx)

    return run


def _tanh(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    return lambda: xp.tanh(x, out=y)


def _tanh_grad(call: Call) -> Step:
    xp, (y,), (dy,), (dx,) = call.xp, call.outputs, call.out_grads, call.in_grads
    tmp, one = call.scratch(y.shape, y.dtype), y.dtype.type(1)

    def run() -> None:
        xp.multiply(y, y, out=tmp)
        xp.subtract(one, tmp, out=tmp)
        xp.multiply(dy, tmp, out=dx)

    return run


def _softrelu(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    zero = x.dtype.type(0)
    return lambda: xp.logaddexp(x, zero, out=y)  # log(1 + exp(x)) that does not overflow


def _softrelu_grad(call: Call) -> Step:
    xp, (y,), (dy,), (dx,) = call.xp, call.outputs, call.out_grads, call.in_grads
    tmp = call.scratch(y.shape, y.dtype)

    def run() -> None:
        xp.negative(y, out=tmp)
        xp.expm1(tmp, out=tmp)
        xp.negative(tmp, out=tmp)  # 1 - exp(-y), the sigmoid of the input
        xp.multiply(dy, tmp, out=dx)

    return run


def _softsign(call: Call) -> Step:
    xp, (x,), (y,) = call.xp, call.inputs, call.outputs
    tmp, one = call.scratch(x.shape, x.dtype), x.dtype.type(1)

    def run() -> None:
        xp.absolute(x, out=tmp)
        xp.add(tmp, one, out=tmp)
        xp.divide(x, tmp, out=y)

    return run


def _softsign_grad(call: Call) -> Step:
    xp, (y,), (dy,), (dx,) = call.xp, call.outputs, call.out_grads, call.in_grads
    tmp, one = call.scratch(y.shape, y.dtype), y.dtype.type(1)

    def run() -> None:
        xp.absolute(y, out=tmp)
        xp.subtract(one, tmp, out=tmp)  # 1 - |y| is 1 / (1 + |x|)
        xp.multiply(tmp, tmp, out=tmp)
        xp.multiply(dy, tmp, out=dx)

    return run


def _grad(kind: str) -> Callable[[Call], Step]:
    """The builder of a gradient: one compiled kernel where there is one for the arrays."""

    def build(call: Call) -> Step:
        y, dy, dx = call.outputs[0], call.out_grads[0], call.in_grads[0]
        kernels = kernels_for(y, dy, dx)
        in_place = kernels is not None and np.may_share_memory(dy, dx)
        kernel = getattr(kernels, f"{kind}_grad{'_inplace' if in_place else ''}", None)
        if kernel is None:
            return KINDS[kind][1](call)
        out, grad, into = y.reshape(-1), dy.reshape(-1), dx.reshape(-1)
        if in_place:
            return lambda: kernel(out, into)
        return lambda: kernel(out, grad, into)

    return build


KINDS: dict[str, tuple[Callable[[Call], Step], Callable[[Call], Step]]] = {
    "relu": (_relu, _relu_grad),
    "sigmoid": (_sigmoid, _sigmoid_grad),
    "softrelu": (_softrelu, _softrelu_grad),
    "softsign": (_softsign, _softsign_grad),
    "tanh": (_tanh, _tanh_grad),
}

_GRADS = {kind: _grad(kind) for kind in KINDS}

register(
    "Activation",
    params=[Param("act_type", choice(tuple(KINDS)), doc="The function.")],
    infer_shape=same_shape,
    forward=lambda call: KINDS[call.attrs.act_type][0](call),
    backward=lambda call: _GRADS[call.attrs.act_type](call),
    backward_reads=((), (0,)),
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    doc="Apply a function to each element; the output has the input's shape.",
)
