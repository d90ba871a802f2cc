"""Deconvolution: the transpose of Convolution, from small images to large ones.

The window lies over the output; each of its positions is an element of the input. So the output is
scattered from ``weight.T @ data``, and both gradients are products with columns of the output's gradient.
"""

from __future__ import annotations

import math

from dmod.base import InvalidArgument
from dmod.ops.columns import Columns, work_dtype
from dmod.ops.convolution import CONVOLUTION_PARAMS, check_layout, float_type
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, shape
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register
from dmod.ops.window import LAYOUTS, Window, per_axis

__all__: list[str] = []


def _arguments(attrs: Attrs) -> list[str]:
    return ["data", "weight"] if attrs.no_bias else ["data", "weight", "bias"]


def _window(attrs: Attrs, size: Shape) -> Window:
    """The window over the output of an input with spatial axes `size`."""
    kernel = attrs.kernel
    if not 1 <= len(kernel) <= 3 or min(kernel) < 1:
        raise InvalidArgument(f"kernel: expected 1 to 3 positive numbers, got {kernel}")
    if len(size) != len(kernel):
        raise InvalidArgument(
            f"data: expected {len(kernel) + 2} axes ({LAYOUTS[len(kernel)]}) for kernel {kernel}, "
            f"got {len(size) + 2}"
        )
    stride = per_axis(attrs.stride, kernel, 1, "stride", 1)
    dilate = per_axis(attrs.dilate, kernel, 1, "dilate", 1)
    full = tuple(
        -1 if n == -1 else s * (n - 1) + d * (k - 1) + 1
        for n, k, s, d in zip(size, kernel, stride, dilate, strict=True)
    )
    if any(attrs.target_shape):
        target = per_axis(attrs.target_shape, kernel, 0, "target_shape", 1)
        for n, t in zip(full, target, strict=True):
            if n != -1 and t > n:
                raise InvalidArgument(f"target_shape: expected at most {full}, got {target}")
        extra = [max(0, n - t) for n, t in zip(full, target, strict=True)]
        pad, adj = tuple((e + 1) // 2 for e in extra), tuple(e % 2 for e in extra)
    else:
        pad = per_axis(attrs.pad, kernel, 0, "pad", 0)
        adj = per_axis(attrs.adj, kernel, 0, "adj", 0)
    for a, s in zip(adj, stride, strict=True):
        if a >= s:
            what = f"target_shape {attrs.target_shape} asks for adj {adj}" if any(attrs.target_shape) else ""
            raise InvalidArgument(f"adj: expected less than stride {stride}, got {what or adj}")
    out = tuple(-1 if n == -1 else n - 2 * p + a for n, p, a in zip(full, pad, adj, strict=True))
    if any(n < 1 and n != -1 for n in out):
        raise InvalidArgument(f"pad: {pad} leaves nothing of an output of {full}")
    return Window(kernel, stride, dilate, pad, out, size)


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    check_layout(attrs)
    filters, groups = attrs.num_filter, attrs.num_group
    if filters < 1 or groups < 1 or filters % groups:
        raise InvalidArgument(
            f"num_filter: expected a positive multiple of num_group {groups}, got {filters}"
        )
    bias = [] if attrs.no_bias else [merge_shapes((filters,), inputs[2], "bias")]
    data = inputs[0]
    if data is None:
        return [None, inputs[1], *bias], [None], []
    window = _window(attrs, data[2:])
    if data[1] != -1 and data[1] % groups:
        raise InvalidArgument(f"data: expected channels in a multiple of num_group {groups}, got {data[1]}")
    weight = merge_shapes((data[1], filters // groups, *attrs.kernel), inputs[1], "weight")
    if outputs[0] is not None and data[0] == -1:
        data = (outputs[0][0], *data[1:])
    return [data, weight, *bias], [(data[0], filters, *window.size)], []


def _forward(call: Call) -> Step:
    xp, (x, weight), y = call.xp, call.inputs[:2], call.outputs[0]
    window, groups, filters = _window(call.attrs, x.shape[2:]), call.attrs.num_group, call.attrs.num_filter
    dtype, channels = work_dtype(x.dtype), x.shape[1]
    columns = Columns(call, window, filters, x.shape[0], channels // groups, dtype)
    gapped = columns.gapped(call, channels)
    w = weight if weight.dtype == dtype else call.scratch(weight.shape, dtype)
    w_t = w.reshape(groups, channels // groups, -1).transpose(0, 2, 1)
    bias = None if call.attrs.no_bias else call.inputs[2].reshape(-1, *(1,) * len(window.kernel))
    blocks = []
    for block in columns.blocks():
        data, inner = columns.on_grid(gapped, channels, block.count, groups)
        blocks.append((block, block.matrix(groups), data, inner, x[block.start : block.stop]))

    def run() -> None:
        if w is not weight:
            xp.copyto(w, weight)
        gapped.fill(0)
        for block, points, data, inner, source in blocks:
            xp.copyto(inner, source)
            xp.matmul(w_t, data, out=points)
            block.scatter(y)
        if bias is not None:
            xp.add(y, bias, out=y)

    return run


def _backward(call: Call) -> Step:
    xp, (x, weight), dy = call.xp, call.inputs[:2], call.out_grads[0]
    window, groups, filters = _window(call.attrs, x.shape[2:]), call.attrs.num_group, call.attrs.num_filter
    dtype, channels = work_dtype(x.dtype), x.shape[1]
    dx, dw = call.in_grads[:2]
    db = None if call.attrs.no_bias else call.in_grads[2]
    columns = Columns(call, window, filters, x.shape[0], channels // groups, dtype)
    gapped, products = (columns.gapped(call, channels) for _ in range(2))
    w = weight if weight.dtype == dtype else call.scratch(weight.shape, dtype)
    w_rows = w.reshape(groups, channels // groups, -1)
    total, part = (call.scratch(w_rows.shape, dtype) for _ in range(2))
    rows = dy.reshape(*dy.shape[:2], math.prod(dy.shape[2:]))
    blocks = []
    for block in columns.blocks():
        data, data_inner = columns.on_grid(gapped, channels, block.count, groups)
        out, out_inner = columns.on_grid(products, channels, block.count, groups)
        points, part_of = block.matrix(groups), slice(block.start, block.stop)
        blocks.append((block, points, points.transpose(0, 2, 1), data, data_inner, out, out_inner, part_of))

    def run() -> None:
        if w is not weight:
            xp.copyto(w, weight)
        gapped.fill(0)
        total.fill(0)
        columns.clear()
        for block, points, points_t, data, data_inner, out, out_inner, part_of in blocks:
            block.gather(dy)
            if dx is not None:
                xp.matmul(w_rows, points, out=out)
                xp.copyto(dx[part_of], out_inner)
            if dw is not None:
                xp.copyto(data_inner, x[part_of])
                xp.matmul(data, points_t, out=part)
                xp.add(total, part, out=total)
        if dw is not None:
            xp.copyto(dw, total.reshape(dw.shape))
        if db is not None:
            xp.sum(rows, axis=(0, 2), out=db)

    return run


register(
    "Deconvolution",
    params=[
        Param("kernel", shape, doc="The window's lengths: (w,), (h, w) or (d, h, w)."),
        Param("stride", shape, (), "How far apart the inputs' windows lie in the output; default 1."),
        Param("dilate", shape, (), "How far the window's points lie apart; default 1."),
        Param("pad", shape, (), "How much is cut off on both sides of each axis; default 0."),
        Param("adj", shape, (), "How much longer the output is; less than the stride; default 0."),
        Param("target_shape", shape, (), "The output's spatial shape, from which pad and adj then follow."),
        *CONVOLUTION_PARAMS(512, True, ("NCDHW", "NCHW", "NCW", "NDHWC", "NHWC")),
    ],
    arguments=_arguments,
    slots=("data", "weight", "bias"),
    infer_shape=_infer,
    infer_type=float_type,
    forward=_forward,
    backward=_backward,
    backward_reads=((0, 1), ()),
    doc="""The transpose of Convolution: each input element adds the filters, times its value, to the output.

data (N, C, ...) has one, two or three spatial axes, weight (C, num_filter / num_group, *kernel), bias
(num_filter,). The output is (N, num_filter, ...), each spatial axis of length
``stride * (size - 1) + dilate * (kernel - 1) + 1 - 2 * pad + adj``.""",
)
