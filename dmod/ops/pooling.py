"""Pooling: the maximum, average, sum or p-norm of windows, in one, two or three dimensions.

Maxima and sums over a box are taken one axis at a time, by slices of the whole array, so that each
element is read once per point of a side of the window and not once per point of the window.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.convolution import float_type
from dmod.ops.params import Param, boolean, choice, integer, optional, shape
from dmod.ops.pool_windows import PoolWindows, expand, pool_windows, reduce, to_channels_first
from dmod.ops.registry import Attrs, Builder, Call, Shape, Shapes, Step, register

__all__: list[str] = []

_BLOCK_NBYTES = 512 * 1024


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if attrs.pool_type == "lp" and attrs.p_value is None:
        raise InvalidArgument("p_value: required for pool_type 'lp'")
    if data is None:
        return [None], [None], []
    windows = pool_windows(attrs, data)
    if attrs.layout is not None and attrs.layout.endswith("C"):
        return [data], [(data[0], *windows.out, data[-1])], []
    return [data], [(*data[:2], *windows.out)], []


def _infer_v1(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is not None and len(data) not in (4, 5):
        raise InvalidArgument(f"data: expected 4 or 5 axes, got {len(data)}")
    return [data], [None if data is None else (*data[:2], *pool_windows(attrs, data).out)], []


class _Job:
    """What all kinds of pooling need of a call: the arrays with channels first, and their windows."""

    def __init__(self, call: Call):
        self.call, self.xp, self.attrs = call, call.xp, call.attrs
        self.windows: PoolWindows = pool_windows(call.attrs, call.inputs[0].shape)
        self.x = to_channels_first(call.attrs, call.inputs[0])
        self.is_v1 = not hasattr(call.attrs, "cudnn_off")

    def padded(self, fill: float) -> tuple[Any, Step]:
        """The input with what lies beyond its edges, and the step that fills it in."""
        xp, x, windows = self.xp, self.x, self.windows
        if not windows.is_padded:
            return x, lambda: None
        memory = self.call.scratch((*x.shape[:2], *windows.length), x.dtype)
        inner = memory[windows.inner]
        # Pooling_v1 pads with zeros; what lies further out, under the 'full' convention, doesn't count.
        zeros = memory[windows.zeros] if self.is_v1 else None

        def run() -> None:
            memory.fill(fill)
            if zeros is not None:
                zeros.fill(0)
            xp.copyto(inner, x)

        return memory, run

    def gradient(self, dx: Any) -> tuple[Any, Step]:
        """Where gradients are collected, edges included, and the step that brings them into `dx`."""
        windows, xp = self.windows, self.xp
        if not windows.is_padded:
            return dx, lambda: None
        memory = self.call.scratch((*dx.shape[:2], *windows.length), dx.dtype)
        inner = memory[windows.inner]
        return memory, lambda: xp.copyto(dx, inner)

    def scale(self) -> Any:
        """What sums are multiplied by: 1 over the number of elements of an average's window."""
        dtype = self.x.dtype
        if self.attrs.pool_type != "avg":
            return dtype.type(1)
        include = self.is_v1 or self.attrs.count_include_pad is not False
        counts = self.windows.counts(include, clip=not self.is_v1)
        if counts.min() == counts.max():
            return dtype.type(1 / counts.flat[0])
        return self.call.device.from_host((1 / counts).astype(dtype))


def _forward(call: Call) -> Step:
    job = _Job(call)
    y = to_channels_first(call.attrs, call.outputs[0])
    kind = call.attrs.pool_type
    if kind == "lp":
        return _lp_forward(job, y)
    if kind == "max":
        padded, fill = job.padded(float(np.finfo(job.x.dtype).min))
        steps = reduce(call, job.windows, "max", padded, y)
        scale = None
    else:
        padded, fill = job.padded(0.0)
        steps = reduce(call, job.windows, "sum", padded, y)
        scale = job.scale() if kind == "avg" else None

    def run() -> None:
        fill()
        for step in steps:
            step()
        if scale is not None:
            call.xp.multiply(y, scale, out=y)

    return run


def _lp_forward(job: _Job, y: Any) -> Step:
    xp, p = job.xp, job.attrs.p_value
    padded, fill = job.padded(0.0)
    powers = job.call.scratch(padded.shape, padded.dtype)
    steps = reduce(job.call, job.windows, "sum", powers, y)
    sign = job.call.scratch(y.shape, y.dtype)

    def run() -> None:
        fill()
        xp.power(padded, p, out=powers)
        for step in steps:
            step()
        if p == 2:
            xp.sqrt(y, out=y)
        elif p != 1:
            xp.sign(y, out=sign)
            xp.absolute(y, out=y)
            xp.power(y, y.dtype.type(1 / p), out=y)
            xp.multiply(y, sign, out=y)

    return run


def _backward(call: Call) -> Step:
    job = _Job(call)
    dy = to_channels_first(call.attrs, call.out_grads[0])
    dx = to_channels_first(call.attrs, call.in_grads[0])
    kind = call.attrs.pool_type
    if kind == "max":
        return _max_backward(job, dy, dx)
    if kind == "lp":
        return _lp_backward(job, dy, dx)
    xp, scale = call.xp, job.scale()
    scaled = call.scratch(dy.shape, dy.dtype)
    target, finish = job.gradient(dx)
    steps = expand(call, job.windows, scaled, target)

    def run() -> None:
        xp.multiply(dy, scale, out=scaled)
        for step in steps:
            step()
        finish()

    return run


def _lp_backward(job: _Job, dy: Any, dx: Any) -> Step:
    """``dx = dy * (x / y)**(p - 1)``, and 0 where y is 0."""
    xp, call, p = job.xp, job.call, job.attrs.p_value
    y = to_channels_first(call.attrs, call.outputs[0])
    scaled, tmp = call.scratch(dy.shape, dy.dtype), call.scratch(job.x.shape, dx.dtype)
    nonzero = call.scratch(dy.shape, bool)
    target, finish = job.gradient(dx)
    steps = expand(call, job.windows, scaled, target)

    def run() -> None:
        if p == 1:
            xp.copyto(scaled, dy)
        else:
            xp.equal(y, 0, out=nonzero)
            xp.add(y, nonzero, out=scaled)  # 1 instead of 0
            xp.power(scaled, p - 1, out=scaled)
            xp.divide(dy, scaled, out=scaled)
            xp.logical_not(nonzero, out=nonzero)
            xp.multiply(scaled, nonzero, out=scaled)
        for step in steps:
            step()
        finish()
        if p != 1:
            xp.power(job.x, p - 1, out=tmp)
            xp.multiply(dx, tmp, out=dx)

    return run


def _max_backward(job: _Job, dy: Any, dx: Any) -> Step:
    """The first maximum of a window gets its gradient; with Pooling_v1, every one does."""
    if job.windows.is_global:
        return _global_max_backward(job, dy, dx)
    xp, call, windows = job.xp, job.call, job.windows
    y = to_channels_first(call.attrs, call.outputs[0])
    padded, fill = job.padded(float(np.finfo(job.x.dtype).min))
    target, finish = job.gradient(dx)
    rest, part = (call.scratch(dy.shape, dy.dtype) for _ in range(2))
    hit = call.scratch(dy.shape, bool)
    taps = [(padded[i], target[i]) for i in windows.taps()]
    disjoint, covers, first_only = windows.is_disjoint, windows.covers(target.shape[2:]), not job.is_v1

    def run() -> None:
        fill()
        if not covers:
            target.fill(0)
        if first_only:
            xp.copyto(rest, dy)
        source = rest if first_only else dy
        for values, grads in taps:
            xp.equal(values, y, out=hit)
            if disjoint:
                xp.multiply(source, hit, out=grads)
                if first_only:
                    xp.subtract(rest, grads, out=rest)
            else:
                xp.multiply(source, hit, out=part)
                xp.add(grads, part, out=grads)
                if first_only:
                    xp.subtract(rest, part, out=rest)
        finish()

    return run


def _global_max_backward(job: _Job, dy: Any, dx: Any) -> Step:
    xp, y = job.xp, to_channels_first(job.attrs, job.call.outputs[0])
    n, c = job.x.shape[:2]
    axes = (n, c, math.prod(job.x.shape[2:]))
    if job.is_v1:
        return _all_maxima(job, y, dy, dx)
    rows, columns = xp.arange(n).reshape(n, 1), xp.arange(c).reshape(1, c)
    x, grad = job.x, dy.reshape(n, c)

    def run() -> None:
        dx.fill(0)
        where = xp.argmax(x.reshape(axes), axis=2)
        inside = xp.unravel_index(where, x.shape[2:])
        dx[(rows, columns, *inside)] = grad

    return run


def _all_maxima(job: _Job, y: Any, dy: Any, dx: Any) -> Step:
    xp, hit = job.xp, job.call.scratch(job.x.shape, bool)

    def run() -> None:
        xp.equal(job.x, y, out=hit)
        xp.multiply(dy, hit, out=dx)

    return run


class _SameScratch:
    """Scratch memory that each of several like steps, which run one after the other, gets again."""

    def __init__(self, call: Call):
        self.take, self.arrays, self.next = call.scratch, list[Any](), 0

    def restart(self) -> None:
        self.next = 0

    def __call__(self, dims: Shape, dtype: Any) -> Any:
        if self.next == len(self.arrays):
            self.arrays.append(self.take((math.prod(dims),), dtype))
        self.next += 1
        return self.arrays[self.next - 1][: math.prod(dims)].reshape(dims)


def _in_blocks(build: Builder) -> Builder:
    """Build a step for as many images, of one channel each, at a time as stay in the cache."""

    def build_all(call: Call) -> Step:
        data, layout = call.inputs[0], getattr(call.attrs, "layout", None)
        if data.size == 0 or (layout is not None and layout.endswith("C")):
            return build(call)
        planes = data.shape[0] * data.shape[1]
        block = max(1, _BLOCK_NBYTES * planes // data.nbytes)
        scratch, steps = _SameScratch(call), []

        def cut(arrays: list[Any], start: int) -> list[Any]:
            return [
                None if a is None else a.reshape(1, planes, *a.shape[2:])[:, start : start + block]
                for a in arrays
            ]

        for start in range(0, planes, block):
            scratch.restart()
            parts: dict[str, Any] = {
                name: cut(getattr(call, name), start)
                for name in ("inputs", "outputs", "out_grads", "in_grads")
            }
            steps.append(build(dataclasses.replace(call, scratch=scratch, **parts)))

        def run() -> None:
            for step in steps:
                step()

        return run if len(steps) > 1 else steps[0]

    return build_all


_KINDS = ("avg", "lp", "max", "sum")
_COMMON = [
    Param("stride", shape, (), "How far the window moves; default 1."),
    Param("pad", shape, (), "How far windows reach beyond both ends of each axis; default 0."),
]
_KERNEL = Param("kernel", shape, (), "The window's lengths: (w,), (h, w) or (d, h, w).")
_GLOBAL = Param("global_pool", boolean, False, "One window over all spatial axes; kernel is ignored.")

register(
    "Pooling",
    params=[
        _KERNEL,
        Param("pool_type", choice(_KINDS), "max", "What is taken of a window."),
        _GLOBAL,
        Param("cudnn_off", boolean, False, "Ignored."),
        Param(
            "pooling_convention",
            choice(("full", "same", "valid")),
            "valid",
            "How a last window that is not complete counts: 'valid' drops it, 'full' clips it; 'same' has "
            "one window for each stride.",
        ),
        *_COMMON,
        Param("p_value", optional(integer), None, "The p of pool_type 'lp'."),
        Param(
            "count_include_pad", optional(boolean), None, "Whether padding counts in averages; default True."
        ),
        Param(
            "layout",
            optional(choice(("NCDHW", "NCHW", "NCW", "NDHWC", "NHWC", "NWC"))),
            None,
            "The order of the axes; default NCW, NCHW or NCDHW.",
        ),
    ],
    json_outputs=lambda a: 2 if a.pool_type == "max" and not a.global_pool else 1,
    infer_shape=_infer,
    infer_type=float_type,
    forward=_in_blocks(_forward),
    backward=_in_blocks(_backward),
    backward_reads=((0,), (0,)),
    doc="""The maximum, average, sum or p-norm of windows that slide over the spatial axes.

data (N, C, ...) has one, two or three spatial axes (with channels last: (N, ..., C)). Each spatial axis of
the output has length ``floor((size + 2 * pad - kernel) / stride) + 1``, under the convention 'full' ceil in
place of floor, under 'same' ``ceil(size / stride)``. The gradient of a maximum goes to the first element
that has it.""",
)
register(
    "Pooling_v1",
    params=[
        _KERNEL,
        Param("pool_type", choice(("avg", "max", "sum")), "max", "What is taken of a window."),
        _GLOBAL,
        Param(
            "pooling_convention",
            choice(("full", "valid")),
            "valid",
            "Whether a last window that is not complete is clipped ('full') or dropped.",
        ),
        *_COMMON,
    ],
    infer_shape=_infer_v1,
    infer_type=float_type,
    forward=_in_blocks(_forward),
    backward=_in_blocks(_backward),
    backward_reads=((0,), (0,)),
    doc="""Pooling as old versions had it.

It pads maxima with zeros, divides averages by the whole window's size, and gives the gradient of a maximum
to every element that has it.""",
)
