"""BatchNorm: normalise each channel over the batch; in inference by moving statistics.

Ioffe and Szegedy, 2015. As in MXNet, the moving statistics change in the backward step, so a forward
pass in training that nobody learns from leaves them alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.batch_norm_compiled import backward_step, forward_step, kernels_of
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer, number, optional
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register


def _axis(attrs: Attrs) -> int:
    """The axis of the channels, which the first version of the operator has no parameter for."""
    return int(getattr(attrs, "axis", 1))


def _channels(attrs: Attrs, data: Shape) -> int:
    if not -len(data) <= _axis(attrs) < len(data):
        raise InvalidArgument(f"axis is {_axis(attrs)}, data has {len(data)} axes")
    return data[_axis(attrs)]


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0] if inputs[0] is not None else outputs[0]
    vector = None if data is None else (_channels(attrs, data),)
    gamma = merge_shapes(vector, inputs[1], "gamma")
    beta = merge_shapes(vector, inputs[2], "beta")
    return [data, gamma, beta], [data, vector, vector], [vector, vector]


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    data = inputs[0]
    stats = np.dtype(np.float32) if data == np.float16 else data
    return [data, stats, stats], [data, stats, stats], [stats, stats]


class Layout:
    """Views of an array as (outer, channels, inner), and sums over all but the channels."""

    def __init__(self, call: Call):
        shape = call.inputs[0].shape
        axis = _axis(call.attrs) % len(shape)
        self.dims = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
        self.column = (1, shape[axis], 1)
        self.count = max(1, self.dims[0] * self.dims[2])
        self.xp = call.xp

    def of(self, array: Any) -> Any:
        return array.reshape(self.dims)

    def per_channel(self, vector: Any) -> Any:
        return vector.reshape(self.column)

    def sum(self, array: Any, out: Any) -> None:
        """The sum of an (outer, channels, inner) array per channel, into a vector."""
        self.xp.sum(array, axis=(0, 2), out=out)


def uses_global(call: Call) -> bool:
    """Whether the moving statistics count, not the batch's."""
    return call.attrs.use_global_stats or not call.is_train


def _forward(call: Call) -> Step:
    xp, lay, attrs = call.xp, Layout(call), call.attrs
    if kernels_of(call) is not None:
        return forward_step(call, lay.dims, uses_global(call), -np.inf)
    x, y = lay.of(call.inputs[0]), lay.of(call.outputs[0])
    gamma, beta = call.inputs[1:]
    mean, inv_std = call.outputs[1:]
    moving_mean, moving_var = call.aux
    stats = mean.dtype.type
    eps, count = stats(attrs.eps), stats(lay.count)
    centred = y if y.dtype == mean.dtype else call.scratch(x.shape, mean.dtype)
    squares = call.scratch(x.shape, mean.dtype)
    scale = call.scratch(gamma.shape, gamma.dtype)
    mean_c, scale_c, beta_c = map(lay.per_channel, (mean, scale, beta))
    use_global, fix_gamma = uses_global(call), attrs.fix_gamma

    def run() -> None:
        if use_global:
            xp.copyto(mean, moving_mean)
            xp.copyto(inv_std, moving_var)
            xp.subtract(x, mean_c, out=centred)
        else:
            lay.sum(x, mean)
            xp.divide(mean, count, out=mean)
            xp.subtract(x, mean_c, out=centred)
            xp.multiply(centred, centred, out=squares)
            lay.sum(squares, inv_std)
            xp.divide(inv_std, count, out=inv_std)
        xp.add(inv_std, eps, out=inv_std)
        xp.sqrt(inv_std, out=inv_std)
        xp.divide(stats(1), inv_std, out=inv_std)
        if fix_gamma:
            gamma.fill(1)
        xp.multiply(gamma, inv_std, out=scale)
        xp.multiply(centred, scale_c, out=centred)
        xp.add(centred, beta_c, out=y)

    return run


def moving_update(call: Call) -> Step:
    """Move the auxiliary states towards the batch's statistics."""
    xp, (mean, inv_std), (moving_mean, moving_var) = call.xp, call.outputs[1:], call.aux
    stats = mean.dtype.type
    momentum = stats(call.attrs.momentum)
    rest, eps = stats(1 - call.attrs.momentum), stats(call.attrs.eps)
    tmp = call.scratch(mean.shape, mean.dtype)

    def run() -> None:
        xp.multiply(mean, rest, out=tmp)
        xp.multiply(moving_mean, momentum, out=moving_mean)
        xp.add(moving_mean, tmp, out=moving_mean)
        xp.multiply(inv_std, inv_std, out=tmp)
        xp.divide(stats(1), tmp, out=tmp)
        xp.subtract(tmp, eps, out=tmp)  # the batch's variance
        xp.multiply(tmp, rest, out=tmp)
        xp.multiply(moving_var, momentum, out=moving_var)
        xp.add(moving_var, tmp, out=moving_var)

    return run


def _backward(call: Call) -> Step:
    xp, lay, attrs = call.xp, Layout(call), call.attrs
    use_global = uses_global(call)
    move = None if use_global else moving_update(call)
    if kernels_of(call) is not None:
        return backward_step(call, lay.dims, use_global, -np.inf, move)
    x, dy = lay.of(call.inputs[0]), lay.of(call.out_grads[0])
    gamma = call.inputs[1]
    mean, inv_std = call.outputs[1:]
    dx, dgamma, dbeta = call.in_grads
    dx = None if dx is None else lay.of(dx)
    stats = mean.dtype.type
    inv_count = stats(1 / lay.count)
    x_hat = call.scratch(x.shape, mean.dtype)
    product = call.scratch(x.shape, mean.dtype)
    sum_dy, sum_dy_xhat, scale = (call.scratch(mean.shape, mean.dtype) for _ in range(3))
    columns = map(lay.per_channel, (mean, inv_std, sum_dy, sum_dy_xhat, scale))
    mean_c, inv_std_c, sum_dy_c, sum_dy_xhat_c, scale_c = columns

    def run() -> None:
        xp.subtract(x, mean_c, out=x_hat)
        xp.multiply(x_hat, inv_std_c, out=x_hat)
        lay.sum(dy, sum_dy)
        xp.multiply(x_hat, dy, out=product)
        lay.sum(product, sum_dy_xhat)
        if dgamma is not None:
            if attrs.fix_gamma:
                dgamma.fill(0)
            else:
                xp.copyto(dgamma, sum_dy_xhat)
        if dbeta is not None:
            xp.copyto(dbeta, sum_dy)
        if dx is not None:
            xp.multiply(gamma, inv_std, out=scale)
            if use_global:
                xp.multiply(dy, scale_c, out=dx)
            else:
                xp.multiply(sum_dy, inv_count, out=sum_dy)
                xp.multiply(sum_dy_xhat, inv_count, out=sum_dy_xhat)
                xp.multiply(x_hat, sum_dy_xhat_c, out=x_hat)
                xp.subtract(dy, x_hat, out=x_hat)
                xp.subtract(x_hat, sum_dy_c, out=x_hat)
                xp.multiply(x_hat, scale_c, out=dx)
        if move is not None:
            move()

    return run


_PARAMS = [
    Param("eps", number, 1e-3, "Added to the variance."),
    Param("momentum", number, 0.9, "The share of the old value in the moving statistics."),
    Param("fix_gamma", boolean, True, "Hold gamma at 1."),
    Param("use_global_stats", boolean, False, "Use the moving statistics in training too."),
    Param("output_mean_var", boolean, False, "Also output the mean and the inverse standard deviation."),
]
_SINCE_V1 = [
    Param("axis", integer, 1, "The axis of the channels."),
    Param("cudnn_off", optional(boolean), False, "Ignored."),
    Param("min_calib_range", optional(number), None, "Ignored: a range for quantisation."),
    Param("max_calib_range", optional(number), None, "Ignored: a range for quantisation."),
]
_DOC = """Normalise each channel: ``gamma * (data - mean) / sqrt(var + eps) + beta``.

data has any shape with the channels C at `axis`; gamma, beta, moving_mean and moving_var are (C,). In
training mean and variance are the batch's, and the moving ones follow in the backward pass."""


def _register(name: str, params: list[Param], aliases: list[str], doc: str) -> None:
    register(
        name,
        aliases=aliases,
        params=params,
        arguments=["data", "gamma", "beta"],
        aux=["moving_mean", "moving_var"],
        aux_init={"moving_mean": '["zero", {}]', "moving_var": '["one", {}]'},
        outputs=["output", "mean", "var"],
        num_visible=lambda attrs: 3 if attrs.output_mean_var else 1,
        infer_shape=_infer,
        infer_type=_infer_type,
        forward=_forward,
        backward=_backward,
        backward_reads=((0, 1), (1, 2)),
        inplace=(),
        doc=doc,
    )


_register("BatchNorm", _PARAMS + _SINCE_V1, ["batch_norm"], _DOC)
_register("BatchNorm_v1", _PARAMS, [], "The first version of BatchNorm; the channels lie along axis 1.")
