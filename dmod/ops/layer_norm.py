"""LayerNorm, GroupNorm and InstanceNorm: normalisation of each sample by itself.

Ba et al., 2016; Wu and He, 2018; Ulyanov et al., 2016. All three see the data as (outer, middle, inner),
with statistics over the middle axis (LayerNorm) or the inner one, and scale and shift along the middle one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dmod.base import InvalidArgument
from dmod.ops.columns import work_dtype
from dmod.ops.convolution import float_type
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer, number
from dmod.ops.registry import Attrs, Builder, Call, Dtypes, Shape, Shapes, Step, register

__all__: list[str] = []


@dataclass(frozen=True)
class _View:
    """The data as (outer, middle, inner), the axis of the statistics, and their shape as an output."""

    dims: tuple[int, int, int]
    axis: int
    stats: Shape

    @property
    def column(self) -> tuple[int, ...]:
        """The statistics' shape beside `dims`."""
        return tuple(1 if i == self.axis else n for i, n in enumerate(self.dims))


def _layer_view(attrs: Attrs, data: Shape) -> _View:
    if not -len(data) <= attrs.axis < len(data):
        raise InvalidArgument(f"axis is {attrs.axis}, data has {len(data)} axes")
    axis = attrs.axis % len(data)
    stats = tuple(1 if i == axis else n for i, n in enumerate(data))
    return _View((math.prod(data[:axis]), data[axis], math.prod(data[axis + 1 :])), 1, stats)


def _group_view(attrs: Attrs, data: Shape) -> _View:
    groups = attrs.num_groups
    if len(data) < 3:
        raise InvalidArgument(f"data: expected at least 3 axes, got shape {data}")
    if groups < 1 or data[1] % groups:
        raise InvalidArgument(f"data: expected channels in a multiple of num_groups {groups}, got {data[1]}")
    return _View((data[0], groups, math.prod(data[1:]) // groups), 2, (data[0], groups))


def _instance_view(attrs: Attrs, data: Shape) -> _View:
    if len(data) < 3:
        raise InvalidArgument(f"data: expected at least 3 axes, got shape {data}")
    return _View((data[0], data[1], math.prod(data[2:])), 2, (data[0], data[1]))


_VIEWS = {"LayerNorm": _layer_view, "GroupNorm": _group_view, "InstanceNorm": _instance_view}


def _infer_for(name: str):  # type: ignore[no-untyped-def]
    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        data = inputs[0] if inputs[0] is not None else outputs[0]
        if data is None:
            return list(inputs), [None] * 3, []
        if -1 in data:
            return [data, *inputs[1:]], [data, None, None], []
        view = _VIEWS[name](attrs, data)
        vectors = [merge_shapes((view.dims[1],), inputs[i], n) for i, n in ((1, "gamma"), (2, "beta"))]
        return [data, *vectors], [data, view.stats, view.stats], []

    return infer


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    arguments, outputs, aux = float_type(attrs, inputs)
    return arguments, list(outputs) * 3, aux


def _forward_for(name: str) -> Builder:
    def build(call: Call) -> Step:
        xp, view = call.xp, _VIEWS[name](call.attrs, call.inputs[0].shape)
        x, y = call.inputs[0].reshape(view.dims), call.outputs[0].reshape(view.dims)
        gamma, beta = (a.reshape(1, -1, 1) for a in call.inputs[1:])
        mean_out, std_out = (a.reshape(view.column) for a in call.outputs[1:])
        dtype = work_dtype(x.dtype)
        centred, tmp = (call.scratch(view.dims, dtype) for _ in range(2))
        mean, std = (call.scratch(view.column, dtype) for _ in range(2))
        axis, count, eps = view.axis, dtype.type(max(1, view.dims[view.axis])), dtype.type(call.attrs.eps)
        mean_sum, std_sum = mean.squeeze(axis), std.squeeze(axis)

        def run() -> None:
            xp.sum(x, axis=axis, dtype=dtype, out=mean_sum)
            xp.divide(mean, count, out=mean)
            xp.subtract(x, mean, out=centred)
            xp.multiply(centred, centred, out=tmp)
            xp.sum(tmp, axis=axis, out=std_sum)
            xp.divide(std, count, out=std)
            xp.add(std, eps, out=std)
            xp.sqrt(std, out=std)
            xp.divide(centred, std, out=centred)
            xp.multiply(centred, gamma, out=centred)
            xp.add(centred, beta, out=centred)
            xp.copyto(y, centred, casting="same_kind")
            xp.copyto(mean_out, mean, casting="same_kind")
            xp.copyto(std_out, std, casting="same_kind")

        return run

    return build


def _backward_for(name: str) -> Builder:
    """``dx = (g - mean(g) - x_hat * mean(g * x_hat)) / std`` with ``g = gamma * dy``."""

    def build(call: Call) -> Step:
        xp, view = call.xp, _VIEWS[name](call.attrs, call.inputs[0].shape)
        x, dy = call.inputs[0].reshape(view.dims), call.out_grads[0].reshape(view.dims)
        gamma = call.inputs[1].reshape(1, -1, 1)
        mean, std = (a.reshape(view.column) for a in call.outputs[1:])
        dx, dgamma, dbeta = call.in_grads
        dx = None if dx is None else dx.reshape(view.dims)
        dtype = work_dtype(x.dtype)
        x_hat, product = (call.scratch(view.dims, dtype) for _ in range(2))
        part = call.scratch(view.column, dtype)
        part_sum, axis = part.squeeze(view.axis), view.axis
        inv_count = dtype.type(1 / max(1, view.dims[axis]))

        def run() -> None:
            xp.subtract(x, mean, out=x_hat)
            xp.divide(x_hat, std, out=x_hat)
            if dgamma is not None:
                xp.multiply(x_hat, dy, out=product)
                xp.sum(product, axis=(0, 2), out=dgamma)
            if dbeta is not None:
                xp.sum(dy, axis=(0, 2), out=dbeta)
            if dx is None:
                return
            xp.multiply(dy, gamma, out=product)
            xp.multiply(product, x_hat, out=product)
            xp.sum(product, axis=axis, out=part_sum)
            xp.multiply(part, inv_count, out=part)
            xp.multiply(x_hat, part, out=x_hat)
            xp.multiply(dy, gamma, out=product)
            xp.sum(product, axis=axis, out=part_sum)
            xp.multiply(part, inv_count, out=part)
            xp.subtract(product, part, out=product)
            xp.subtract(product, x_hat, out=product)
            xp.divide(product, std, out=product)
            xp.copyto(dx, product, casting="same_kind")

        return run

    return build


_STATISTICS = Param(
    "output_mean_var", boolean, False, "Also output mean and standard deviation; they have no gradient."
)
_DOC = """``gamma * (data - mean) / sqrt(var + eps) + beta``, with mean and variance over """

for _name, _params, _doc in (
    (
        "LayerNorm",
        [
            Param("axis", integer, -1, "The axis that is normalised."),
            Param("eps", number, 1e-5, "Added to the variance."),
            _STATISTICS,
        ],
        "the axis `axis`.\n\ngamma and beta have that axis's length; mean and standard deviation keep it, "
        "with length 1.",
    ),
    (
        "GroupNorm",
        [
            Param("num_groups", integer, 1, "The number of groups that the channels are split into."),
            Param("eps", number, 1e-5, "Added to the variance."),
            _STATISTICS,
        ],
        "each sample's groups of channels.\n\ndata (N, C, ...); gamma, beta (num_groups,); mean and standard "
        "deviation (N, num_groups).",
    ),
    (
        "InstanceNorm",
        [Param("eps", number, 1e-3, "Added to the variance.")],
        "each sample's channels.\n\ndata (N, C, ...) with at least one spatial axis; gamma, beta (C,).",
    ),
):
    register(
        _name,
        params=_params,
        arguments=["data", "gamma", "beta"],
        outputs=["output", "mean", "std"],
        num_visible=lambda attrs: 3 if getattr(attrs, "output_mean_var", False) else 1,
        infer_shape=_infer_for(_name),
        infer_type=_infer_type,
        forward=_forward_for(_name),
        backward=_backward_for(_name),
        backward_reads=((0, 1), (1, 2)),
        doc=_DOC + _doc,
    )
