"""UpSampling: larger images, by repeating elements or by a learnt interpolation."""

from __future__ import annotations

import dataclasses
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops import deconvolution  # noqa: F401  (the bilinear kind is one)
from dmod.ops.convolution import float_type
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, choice, integer
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, get_operator, register

__all__: list[str] = []

_DECONVOLUTION = get_operator("Deconvolution")


def _arguments(attrs: Attrs) -> list[str]:
    if attrs.sample_type == "bilinear":
        return ["data", "weight"]
    return [f"arg{i}" for i in range(attrs.num_args)]


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    if attrs.scale < 1:
        raise InvalidArgument(f"scale: expected at least 1, got {attrs.scale}")
    first = inputs[0]
    if first is not None and len(first) != 4:
        raise InvalidArgument(f"{_arguments(attrs)[0]}: expected 4 axes (NCHW), got shape {first}")
    if first is None or -1 in first:
        return list(inputs), [None], []
    n, c, h, w = first
    size = (h * attrs.scale, w * attrs.scale)
    if attrs.sample_type == "bilinear":
        k = _kernel(attrs)
        return [first, merge_shapes((c, 1, k, k), inputs[1], "weight")], [(n, c, *size)], []
    channels = c
    for i, dims in enumerate(inputs[1:], 1):
        if dims is None or -1 in dims:
            return list(inputs), [None], []
        expected: Shape = (n, c if attrs.multi_input_mode == "sum" else -1, -1, -1)
        merge_shapes(expected, dims, f"arg{i}")
        if size[0] % dims[2] or size[1] % dims[3] or size[0] // dims[2] != size[1] // dims[3]:
            raise InvalidArgument(f"arg{i}: expected a size that divides the output's {size}, got {dims[2:]}")
        channels += dims[1]
    if attrs.multi_input_mode == "sum":
        channels = c
    return list(inputs), [(n, channels, *size)], []


def _kernel(attrs: Attrs) -> int:
    return 2 * attrs.scale - attrs.scale % 2


def _as_deconvolution(call: Call) -> Call:
    """The call of the Deconvolution, channel by channel, that the bilinear kind is."""
    scale, k, channels = call.attrs.scale, _kernel(call.attrs), call.inputs[0].shape[1]
    attrs = Attrs(
        kernel=(k, k),
        stride=(scale, scale),
        dilate=(),
        pad=(scale // 2, scale // 2),
        adj=(),
        target_shape=(),
        num_filter=channels,
        num_group=channels,
        no_bias=True,
    )
    return dataclasses.replace(call, attrs=attrs)


def _tiles(call: Call, large: Any, smalls: list[Any]) -> list[tuple[Any, Any, Any]]:
    """For each input: its part of the output as (N, C, h, scale, w, scale), itself, and the scale."""
    found, start = [], 0
    for small in smalls:
        n, c, h, w = small
        scale = large.shape[2] // h
        stop = start + c
        part = large[:, start:stop]
        if call.attrs.multi_input_mode != "sum":
            start = stop
        found.append((part.reshape(n, c, h, scale, w, scale), (n, c, h, 1, w, 1), scale))
    return found


def _forward(call: Call) -> Step:
    if call.attrs.sample_type == "bilinear":
        return _DECONVOLUTION.forward(_as_deconvolution(call))
    xp, y = call.xp, call.outputs[0]
    add_up = call.attrs.multi_input_mode == "sum"
    tiles = _tiles(call, y, [x.shape for x in call.inputs])
    pairs = [(part, x.reshape(dims)) for (part, dims, _), x in zip(tiles, call.inputs, strict=True)]

    def run() -> None:
        for i, (part, source) in enumerate(pairs):
            if add_up and i:
                xp.add(part, source, out=part)
            else:
                xp.copyto(part, source)

    return run


def _backward(call: Call) -> Step:
    if call.attrs.sample_type == "bilinear":
        assert _DECONVOLUTION.backward is not None
        return _DECONVOLUTION.backward(_as_deconvolution(call))
    xp, dy = call.xp, call.out_grads[0]
    tiles = _tiles(call, dy, [x.shape for x in call.inputs])
    pairs = [(part, dx) for (part, _, _), dx in zip(tiles, call.in_grads, strict=True) if dx is not None]

    def run() -> None:
        for part, dx in pairs:
            xp.sum(part, axis=(3, 5), out=dx)

    return run


register(
    "UpSampling",
    params=[
        Param("scale", integer, doc="How many times as large the output is, on both axes."),
        Param("num_filter", integer, 0, "Ignored: the kind 'bilinear' has the data's channels."),
        Param("sample_type", choice(("bilinear", "nearest")), doc="Interpolate, or repeat elements."),
        Param(
            "multi_input_mode",
            choice(("concat", "sum")),
            "concat",
            "Whether several inputs are joined along the channels or added up.",
        ),
        Param("num_args", integer, doc="The number of inputs."),
        Param("workspace", integer, 512, "Ignored: memory for temporary results in MB."),
    ],
    arguments=_arguments,
    variadic="num_args",
    infer_shape=_infer,
    infer_type=float_type,
    forward=_forward,
    backward=_backward,
    backward_reads=lambda attrs: ((0, 1) if attrs.sample_type == "bilinear" else (), ()),
    doc="""Make images `scale` times as large.

Inputs are (N, C, H, W). 'nearest' takes any number of them, each enlarged to the size that the first one
gets. 'bilinear' takes data and weight (C, 1, k, k) with ``k = 2 * scale - scale % 2``, and is a
Deconvolution of each channel by itself; initialise the weight by `Bilinear`.""",
)
