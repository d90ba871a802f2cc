"""Correlation: the patches of one map compared with the displaced patches of another.

Fischer et al.: FlowNet, 2015.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, integer
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register


class _Geometry:
    """Sizes of the output, and the slices of the padded maps that meet in each of its channels."""

    def __init__(self, attrs: Attrs, data: Shape):
        self.attrs, self.data = attrs, data
        kernel, border = attrs.kernel_size, attrs.max_displacement + (attrs.kernel_size - 1) // 2
        self.padded = tuple(n + 2 * attrs.pad_size for n in data[2:])
        self.out = tuple(-(-(n - 2 * border) // attrs.stride1) for n in self.padded)
        self.radius = attrs.max_displacement // attrs.stride2
        self.side = 2 * self.radius + 1
        if kernel % 2 == 0:
            raise InvalidArgument(f"kernel_size is {kernel}, expected an odd number")
        if min(self.out) < 1:
            raise InvalidArgument(f"data1 has shape {data}, too small for displacements and kernel")
        self.count = kernel * kernel * data[1]

    def pairs(self) -> Iterator[tuple[int, Any, Any]]:
        """The output's channel, the index into the first map, and that into the second one."""
        attrs = self.attrs
        for channel in range(self.side**2):
            down = (channel // self.side - self.radius) * attrs.stride2
            right = (channel % self.side - self.radius) * attrs.stride2
            for i in range(attrs.kernel_size):
                for j in range(attrs.kernel_size):
                    yield channel, self._index(i, j), self._index(i + down, j + right)

    def _index(self, down: int, right: int) -> Any:
        start = (self.attrs.max_displacement + down, self.attrs.max_displacement + right)
        step = self.attrs.stride1
        spans = [slice(s, s + (n - 1) * step + 1, step) for s, n in zip(start, self.out, strict=True)]
        return (slice(None), slice(None), *spans)

    def pad(self, xp: Any, data: Any) -> Any:
        """The map with zeros around it."""
        p = self.attrs.pad_size
        return xp.pad(data, ((0, 0), (0, 0), (p, p), (p, p))) if p else data

    def unpad(self, padded: Any) -> Any:
        """The map without what `pad` put around it."""
        p, (height, width) = self.attrs.pad_size, self.data[2:]
        return padded[:, :, p : p + height, p : p + width]


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = merge_shapes(inputs[0], inputs[1], "data2")
    if data is None or -1 in data:
        return [data, data], [None], []
    if len(data) != 4:
        raise InvalidArgument(f"data1 has shape {data}, expected maps (N, C, H, W)")
    geometry = _Geometry(attrs, data)
    return [data, data], [(data[0], geometry.side**2, *geometry.out)], []


def _forward(call: Call) -> Step:
    xp, out, geometry = call.xp, call.outputs[0], _Geometry(call.attrs, call.inputs[0].shape)
    multiply, scale = call.attrs.is_multiply, out.dtype.type(1 / geometry.count)

    def run() -> None:
        a, b = (geometry.pad(xp, x) for x in call.inputs)
        out.fill(0)
        for channel, here, there in geometry.pairs():
            value = a[here] * b[there] if multiply else xp.abs(a[here] - b[there])
            out[:, channel] += value.sum(axis=1)
        xp.multiply(out, scale, out=out)

    return run


def _backward(call: Call) -> Step:
    xp, dy, geometry = call.xp, call.out_grads[0], _Geometry(call.attrs, call.inputs[0].shape)
    multiply, scale = call.attrs.is_multiply, dy.dtype.type(1 / geometry.count)

    def run() -> None:
        a, b = (geometry.pad(xp, x) for x in call.inputs)
        da, db = xp.zeros_like(a), xp.zeros_like(b)
        for channel, here, there in geometry.pairs():
            grad = dy[:, channel, None] * scale
            if multiply:
                da[here] += grad * b[there]
                db[there] += grad * a[here]
            else:
                sign = grad * xp.sign(a[here] - b[there])
                da[here] += sign
                db[there] -= sign
        for target, grad in zip(call.in_grads, (da, db), strict=True):
            if target is not None:
                xp.copyto(target, geometry.unpad(grad))

    return run


register(
    "Correlation",
    params=[
        Param("kernel_size", integer, 1, "The side of the patches, odd."),
        Param("max_displacement", integer, 1, "How far patches of data2 are moved."),
        Param("stride1", integer, 1, "The step between patches of data1."),
        Param("stride2", integer, 1, "The step between displacements."),
        Param("pad_size", integer, 0, "Zeros around both maps."),
        Param("is_multiply", boolean, True, "Products of the patches; else absolute differences."),
    ],
    arguments=["data1", "data2"],
    json_outputs=3,
    infer_shape=_infer,
    forward=_forward,
    backward=_backward,
    backward_reads=((0, 1), ()),
    doc="""The mean product of each patch of data1 with patches of data2, a channel per displacement.

data1 and data2 (N, C, H, W); the output is (N, D * D, h, w), D = 2 * (max_displacement // stride2) + 1.""",
)
