"""Convolution in one, two or three dimensions, as products of matrices.

Per block of images: ``output = weight @ columns(data)``. The gradient of the weight is a product with the
same columns; the gradient of the data is either scattered from ``weight.T @ gradient``, or, where the
stride is 1, gathered: it is a convolution of the output's gradient with the weight in reverse order, and
the weight's gradient then uses these columns too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.columns import Columns, work_dtype
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, choice, integer, optional, shape
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register, same_type
from dmod.ops.window import LAYOUTS, Window, window_of

__all__ = ["CONVOLUTION_PARAMS", "check_layout", "float_type"]

_GATHER_GROWTH = 1.3  # how much larger than the output the input may be
_GATHER_CHANNELS = 4  # how many times as many channels the output may have


def check_layout(attrs: Attrs) -> None:
    """Raise `InvalidArgument` for layouts with the channels last, which no CPU kernel has."""
    wanted = LAYOUTS.get(len(attrs.kernel))
    if attrs.layout not in (None, wanted):
        raise InvalidArgument(
            f"layout: {attrs.layout} with kernel {attrs.kernel} is not supported, expected {wanted}; "
            "transpose the data"
        )


def float_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    """One dtype for all, a floating one."""
    found = same_type()(attrs, inputs)
    known = found[1][0]
    if known is not None and known.kind != "f":
        raise InvalidArgument(f"data: expected a floating dtype, got {known}")
    return found


def _arguments(attrs: Attrs) -> list[str]:
    return ["data", "weight"] if attrs.no_bias else ["data", "weight", "bias"]


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
    window = window_of(attrs, data[2:])
    channels = data[1]
    if channels != -1 and channels % groups:
        raise InvalidArgument(f"data: expected channels in a multiple of num_group {groups}, got {channels}")
    part = -1 if channels == -1 else channels // groups
    weight = merge_shapes((filters, part, *attrs.kernel), inputs[1], "weight")
    if outputs[0] is not None and data[0] == -1:
        data = (outputs[0][0], *data[1:])
    return [data, weight, *bias], [(data[0], filters, *window.out)], []


def _window(call: Call) -> Window:
    return window_of(call.attrs, call.inputs[0].shape[2:])


def _bias_adder(call: Call, y: Any) -> Callable[[], None] | None:
    if call.attrs.no_bias:
        return None
    xp, bias = call.xp, call.inputs[2].reshape(-1, *(1,) * len(call.attrs.kernel))
    return lambda: xp.add(y, bias, out=y)


def _cast(call: Call, array: Any, dtype: np.dtype) -> tuple[Any, Callable[[], None]]:
    """`array` as `dtype`, and what brings it up to date: nothing if it has that dtype."""
    if array.dtype == dtype:
        return array, _nothing
    xp, copy = call.xp, call.scratch(array.shape, dtype)
    return copy, lambda: xp.copyto(copy, array)


def _nothing() -> None:
    pass


def _forward(call: Call) -> Step:
    window, groups = _window(call), call.attrs.num_group
    x, y = call.inputs[0], call.outputs[0]
    dtype = work_dtype(x.dtype)
    if window.is_pointwise and dtype == x.dtype:
        return _pointwise_forward(call)
    xp, filters = call.xp, call.attrs.num_filter
    w, cast = _cast(call, call.inputs[1], dtype)
    w = w.reshape(groups, filters // groups, -1)
    columns = Columns(call, window, x.shape[1], x.shape[0], filters // groups, dtype)
    product = columns.gapped(call, filters)
    blocks = []
    for block in columns.blocks():
        out, inner = columns.on_grid(product, filters, block.count, groups)
        blocks.append((block, block.matrix(groups), out, inner, y[block.start : block.stop]))
    bias = None if call.attrs.no_bias else call.inputs[2].reshape(-1, *(1,) * len(window.kernel))

    def run() -> None:
        cast()
        columns.clear()
        for block, points, out, inner, target in blocks:
            block.gather(x)
            xp.matmul(w, points, out=out)
            if bias is None:
                xp.copyto(target, inner)
            else:
                xp.add(inner, bias, out=target)

    return run


def _backward(call: Call) -> Step:
    window, x = _window(call), call.inputs[0]
    dx, db = call.in_grads[0], None if call.attrs.no_bias else call.in_grads[2]
    xp, dy = call.xp, call.out_grads[0]
    main: Step
    if window.is_pointwise and work_dtype(x.dtype) == x.dtype:
        main = _pointwise_backward(call)
    else:
        mirrored = window.mirrored()
        grows = math.prod(window.size) > _GATHER_GROWTH * math.prod(window.out)
        many = call.attrs.num_filter > _GATHER_CHANNELS * x.shape[1]
        if dx is None or mirrored is None or grows or many:
            main = _backward_by_scatter(call, window)
        else:
            main = _backward_by_gather(call, mirrored)
    rows = dy.reshape(*dy.shape[:2], math.prod(dy.shape[2:]))

    def run() -> None:
        main()
        if db is not None:
            xp.sum(rows, axis=(0, 2), out=db)

    return run


def _backward_by_scatter(call: Call, window: Window) -> Step:
    xp, groups, filters = call.xp, call.attrs.num_group, call.attrs.num_filter
    x, dy, (dx, dw) = call.inputs[0], call.out_grads[0], call.in_grads[:2]
    dtype = work_dtype(x.dtype)
    w, cast = _cast(call, call.inputs[1], dtype)
    w_t = w.reshape(groups, filters // groups, -1).transpose(0, 2, 1)
    columns = Columns(call, window, x.shape[1], x.shape[0], filters // groups, dtype)
    gapped = columns.gapped(call, filters)
    total, part = (call.scratch((groups, *w_t.shape[:0:-1]), dtype) for _ in range(2))
    blocks = []
    for block in columns.blocks():
        grad, inner = columns.on_grid(gapped, filters, block.count, groups)
        points = block.matrix(groups)
        blocks.append((block, points, points.transpose(0, 2, 1), grad, inner, dy[block.start : block.stop]))

    def run() -> None:
        cast()
        gapped.fill(0)
        total.fill(0)
        columns.clear()
        for block, points, points_t, grad, inner, source in blocks:
            xp.copyto(inner, source)
            if dw is not None:
                block.gather(x)
                xp.matmul(grad, points_t, out=part)
                xp.add(total, part, out=total)
            if dx is not None:
                xp.matmul(w_t, grad, out=points)
                block.scatter(dx)
                columns.clear()
        if dw is not None:
            xp.copyto(dw, total.reshape(dw.shape))

    return run


def _backward_by_gather(call: Call, window: Window) -> Step:
    """`window` is the mirrored one, over the output's gradient."""
    xp, groups, filters = call.xp, call.attrs.num_group, call.attrs.num_filter
    x, dy, (dx, dw) = call.inputs[0], call.out_grads[0], call.in_grads[:2]
    dtype, channels, n = work_dtype(x.dtype), x.shape[1], len(window.kernel)
    mirrored = (channels // groups, filters // groups, *window.kernel)
    total, part = (call.scratch((groups, *mirrored), dtype) for _ in range(2))

    def turned(weight: Any) -> Any:
        """The weight as (groups, C / groups, filters / groups, ...), in reverse order along the kernel."""
        grouped = weight.reshape(groups, filters // groups, *weight.shape[1:])
        return grouped.swapaxes(1, 2)[(..., *(slice(None, None, -1),) * n)]

    columns = Columns(call, window, filters, x.shape[0], channels // groups, dtype)
    products, gapped = (columns.gapped(call, channels) for _ in range(2))
    rows = (groups, channels // groups, -1)
    w_view, dw_view = turned(call.inputs[1]), None if dw is None else turned(dw)
    w = call.scratch(part.shape, dtype)
    w_rows = w.reshape(rows)
    total_rows, part_rows = total.reshape(rows), part.reshape(rows)
    blocks = []
    for block in columns.blocks():
        out, inner = columns.on_grid(products, channels, block.count, groups)
        data, data_inner = columns.on_grid(gapped, channels, block.count, groups)
        part_of = slice(block.start, block.stop)
        points = block.matrix(groups)
        blocks.append((block, points, points.transpose(0, 2, 1), out, inner, data, data_inner, part_of))

    def run() -> None:
        xp.copyto(w, w_view)
        gapped.fill(0)
        total.fill(0)
        columns.clear()
        for block, points, points_t, out, inner, data, data_inner, part_of in blocks:
            block.gather(dy)
            xp.matmul(w_rows, points, out=out)
            xp.copyto(dx[part_of], inner)
            if dw is not None:
                xp.copyto(data_inner, x[part_of])
                xp.matmul(data, points_t, out=part_rows)
                xp.add(total_rows, part_rows, out=total_rows)
        if dw is not None:
            xp.copyto(dw_view, total)

    return run


def _pointwise_views(call: Call, x: Any, y: Any, w: Any) -> tuple[Any, Any, Any]:
    """Data and output as (N, groups, channels, positions), the weight as (groups, out, in)."""
    groups, filters = call.attrs.num_group, call.attrs.num_filter
    positions = math.prod(x.shape[2:])
    return (
        x.reshape(x.shape[0], groups, x.shape[1] // groups, positions),
        y.reshape(y.shape[0], groups, filters // groups, positions),
        w.reshape(groups, filters // groups, x.shape[1] // groups),
    )


def _pointwise_forward(call: Call) -> Step:
    """A window of one point needs no columns."""
    xp, add = call.xp, _bias_adder(call, call.outputs[0])
    x, y, w = _pointwise_views(call, call.inputs[0], call.outputs[0], call.inputs[1])

    def run() -> None:
        xp.matmul(w, x, out=y)
        if add is not None:
            add()

    return run


def _pointwise_backward(call: Call) -> Step:
    xp, (dx, dw) = call.xp, call.in_grads[:2]
    x, dy, w = _pointwise_views(call, call.inputs[0], call.out_grads[0], call.inputs[1])
    dx = None if dx is None else dx.reshape(x.shape)
    total = None if dw is None else dw.reshape(w.shape)
    parts = None if dw is None else call.scratch((x.shape[0], *w.shape), x.dtype)
    w_t, x_t = w.transpose(0, 2, 1), x.transpose(0, 1, 3, 2)

    def run() -> None:
        if total is not None:
            xp.matmul(dy, x_t, out=parts)
            xp.sum(parts, axis=0, out=total)
        if dx is not None:
            xp.matmul(w_t, dy, out=dx)

    return run


def CONVOLUTION_PARAMS(workspace: int, no_bias: bool, layouts: tuple[str, ...]) -> list[Param]:
    """The parameters that Convolution and Deconvolution share, from num_filter on."""
    return [
        Param("num_filter", integer, doc="The number of output channels."),
        Param("num_group", integer, 1, "Split the channels into that many groups, each convolved by itself."),
        Param("workspace", integer, workspace, "Ignored: memory for temporary results in MB."),
        Param("no_bias", boolean, no_bias, "Whether to leave the bias out."),
        Param("cudnn_tune", optional(choice(("fastest", "limited_workspace", "off"))), None, "Ignored."),
        Param("cudnn_off", boolean, False, "Ignored."),
        Param("layout", optional(choice(layouts)), None, "NCW, NCHW or NCDHW; channels last is refused."),
    ]


_WINDOW_PARAMS = [
    Param("kernel", shape, doc="The window's lengths: (w,), (h, w) or (d, h, w)."),
    Param("stride", shape, (), "How far the window moves; default 1."),
    Param("dilate", shape, (), "How far the window's points lie apart; default 1."),
    Param("pad", shape, (), "Zeros on both sides of each axis; default 0."),
]

_DOC = """Slide filters over the spatial axes: ``out[n, f] = bias[f] + sum_c data[n, c] * weight[f, c]``.

data (N, C, ...) has one, two or three spatial axes, weight (num_filter, C / num_group, *kernel), bias
(num_filter,). The output is (N, num_filter, ...), each spatial axis of length
``floor((size + 2 * pad - dilate * (kernel - 1) - 1) / stride) + 1``."""

for _name, _layouts in (
    ("Convolution", ("NCDHW", "NCHW", "NCW", "NDHWC", "NHWC")),
    ("Convolution_v1", ("NCDHW", "NCHW", "NDHWC", "NHWC")),
):
    register(
        _name,
        params=[*_WINDOW_PARAMS, *CONVOLUTION_PARAMS(1024, False, _layouts)],
        arguments=_arguments,
        infer_shape=_infer,
        infer_type=float_type,
        forward=_forward,
        backward=_backward,
        backward_reads=((0, 1), ()),
        doc=_DOC,
    )
