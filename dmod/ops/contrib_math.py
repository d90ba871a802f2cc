"""Small functions of contrib: div_sqrt_dim, gradientmultiplier, quadratic, allclose, fft and others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes, same_shape
from dmod.ops.params import Param, boolean, integer, number
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register, zero_gradient


def _register_scaled(name: str, factor: Any, back: Any, params: list[Param], doc: str) -> None:
    """Register ``data * factor``; both factors are functions of the attributes and the shape."""

    def forward(call: Call) -> Step:
        xp, x, y = call.xp, call.inputs[0], call.outputs[0]
        scale = x.dtype.type(factor(call.attrs, x.shape))
        return lambda: xp.multiply(x, scale, out=y)

    def backward(call: Call) -> Step:
        xp, dy, dx = call.xp, call.out_grads[0], call.in_grads[0]
        scale = dy.dtype.type(back(call.attrs, dy.shape))
        return lambda: xp.multiply(dy, scale, out=dx)

    register(
        name,
        params=params,
        infer_shape=same_shape,
        forward=forward,
        backward=backward,
        inplace=[(0, 0)],
        backward_inplace=[(0, 0)],
        doc=doc,
    )


def _root(attrs: Attrs, shape: Any) -> float:
    return 1 / math.sqrt(shape[-1])


_register_scaled(
    "_contrib_div_sqrt_dim", _root, _root, [], "data over the square root of the length of its last axis."
)
_register_scaled(
    "_contrib_gradientmultiplier",
    lambda attrs, shape: 1,
    lambda attrs, shape: attrs.scalar,
    [
        Param("scalar", number, 1.0, "The factor for the gradient."),
        Param("is_int", boolean, True, "Ignored."),
    ],
    "data itself, with its gradient multiplied by a number.",
)


def _quadratic(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    a, b, c = (x.dtype.type(v) for v in (call.attrs.a, call.attrs.b, call.attrs.c))
    tmp = call.scratch(x.shape, x.dtype)

    def run() -> None:
        xp.multiply(x, a, out=tmp)
        xp.add(tmp, b, out=tmp)
        xp.multiply(tmp, x, out=y)
        xp.add(y, c, out=y)

    return run


def _quadratic_grad(call: Call) -> Step:
    xp, x, dy, dx = call.xp, call.inputs[0], call.out_grads[0], call.in_grads[0]
    a, b, tmp = x.dtype.type(2 * call.attrs.a), x.dtype.type(call.attrs.b), call.scratch(x.shape, x.dtype)

    def run() -> None:
        xp.multiply(x, a, out=tmp)
        xp.add(tmp, b, out=tmp)
        xp.multiply(tmp, dy, out=dx)

    return run


register(
    "_contrib_quadratic",
    params=[
        Param("a", number, 0.0, "The factor of the square."),
        Param("b", number, 0.0, "The factor of data."),
        Param("c", number, 0.0, "The constant."),
    ],
    infer_shape=same_shape,
    forward=_quadratic,
    backward=_quadratic_grad,
    backward_reads=((0,), ()),
    inplace=[(0, 0)],
    backward_inplace=[(0, 0)],
    doc="``a * data**2 + b * data + c``.",
)


def _allclose(call: Call) -> Step:
    xp, (a, b), out, attrs = call.xp, call.inputs, call.outputs[0], call.attrs

    def run() -> None:
        close = xp.abs(a - b) <= attrs.atol + attrs.rtol * xp.abs(b)
        close = close | (a == b)
        if attrs.equal_nan:
            close = close | (xp.isnan(a) & xp.isnan(b))
        out[...] = close.all()

    return run


def _infer_allclose(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    shape = merge_shapes(inputs[0], inputs[1], "b")
    return [shape, shape], [()], []


def _allclose_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    known = inputs[0] if inputs[0] is not None else inputs[1]
    return [known, known], [np.dtype(np.uint8)], []


register(
    "_contrib_allclose",
    params=[
        Param("rtol", number, 1e-5, "The tolerance relative to b."),
        Param("atol", number, 1e-8, "The absolute tolerance."),
        Param("equal_nan", boolean, True, "Whether not-a-number equals itself."),
    ],
    arguments=["a", "b"],
    infer_shape=_infer_allclose,
    infer_type=_allclose_type,
    forward=_allclose,
    backward=zero_gradient,
    doc="1 if all elements of a and b are close to each other, else 0, without axes.",
)


def _straight_through(name: str, function: Callable[[Any, Any, Any], None], doc: str) -> None:
    def forward(call: Call) -> Step:
        return lambda: function(call.xp, call.inputs[0], call.outputs[0])

    register(
        f"_contrib_{name}_ste",
        aliases=[f"_sparse__contrib_{name}_ste"],
        infer_shape=same_shape,
        forward=forward,
        backward=lambda call: lambda: call.xp.copyto(call.in_grads[0], call.out_grads[0]),
        inplace=[(0, 0)],
        backward_inplace=[(0, 0)],
        doc=doc,
    )


def _round(xp: Any, x: Any, y: Any) -> None:
    """Halves go away from 0."""
    xp.copyto(y, xp.copysign(xp.floor(xp.abs(x) + x.dtype.type(0.5)), x), casting="same_kind")


_straight_through("round", _round, "The nearest whole numbers, with the gradient of the identity.")
_straight_through(
    "sign",
    lambda xp, x, y: xp.sign(x, out=y),
    "The signs of the elements, with the gradient of the identity.",
)

_COMPUTE_SIZE = Param("compute_size", integer, 128, "Ignored.")


def _as_complex(xp: Any, pairs: Any) -> Any:
    """An array (..., 2 d) of real and imaginary parts in turn, as complex numbers (..., d)."""
    split = pairs.reshape((*pairs.shape[:-1], -1, 2))
    return split[..., 0] + 1j * split[..., 1]


def _put_pairs(xp: Any, values: Any, out: Any) -> None:
    split = out.reshape((*out.shape[:-1], -1, 2))
    split[..., 0], split[..., 1] = values.real, values.imag


def _infer_fft(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    return [data], [None if data is None else (*data[:-1], 2 * data[-1])], []


def _infer_ifft(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is not None and data[-1] % 2:
        raise InvalidArgument(f"data has shape {data}, expected an even last axis: real and imaginary parts")
    return [data], [None if data is None else (*data[:-1], data[-1] // 2)], []


def _fft(call: Call) -> Step:
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]
    return lambda: _put_pairs(xp, xp.fft.fft(x, axis=-1), y)


def _fft_grad(call: Call) -> Step:
    xp, dy, dx = call.xp, call.out_grads[0], call.in_grads[0]

    def run() -> None:
        back = xp.fft.ifft(_as_complex(xp, dy), axis=-1)
        dx[...] = back.real * dx.shape[-1]

    return run


def _ifft(call: Call) -> Step:
    """Like cuFFT, and MXNet on it, without the division by the length."""
    xp, x, y = call.xp, call.inputs[0], call.outputs[0]

    def run() -> None:
        y[...] = xp.fft.ifft(_as_complex(xp, x), axis=-1).real * y.shape[-1]

    return run


def _ifft_grad(call: Call) -> Step:
    xp, dy, dx = call.xp, call.out_grads[0], call.in_grads[0]
    return lambda: _put_pairs(xp, xp.fft.fft(dy, axis=-1), dx)


for _name, _infer, _forward, _backward, _doc in (
    ("fft", _infer_fft, _fft, _fft_grad, "Fourier transform over the last axis: (..., d) to (..., 2 d)."),
    ("ifft", _infer_ifft, _ifft, _ifft_grad, "The real part of its inverse times d: (..., 2 d) to (..., d)."),
):
    register(
        f"_contrib_{_name}",
        params=[_COMPUTE_SIZE],
        infer_shape=_infer,
        forward=_forward,
        backward=_backward,
        doc=f"{_doc} Complex numbers lie as real and imaginary parts in turn.",
    )


def _infer_sketch(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data, h, s = inputs
    if data is not None:
        row = (1, data[-1])
        h, s = merge_shapes(row, h, "h"), merge_shapes(row, s, "s")
    return [data, h, s], [None if data is None else (*data[:-1], attrs.out_dim)], []


def _sketch(call: Call) -> Step:
    xp, (data, h, s), out = call.xp, call.inputs, call.outputs[0]

    def run() -> None:
        out.fill(0)
        xp.add.at(out, (Ellipsis, h[0].astype(np.int64)), data * s[0])

    return run


def _sketch_grad(call: Call) -> Step:
    xp, (_, h, s), dy, (dx, dh, ds) = call.xp, call.inputs, call.out_grads[0], call.in_grads

    def run() -> None:
        if dx is not None:
            xp.multiply(dy[..., h[0].astype(np.int64)], s[0], out=dx)
        for grad in (dh, ds):
            if grad is not None:
                grad.fill(0)

    return run


register(
    "_contrib_count_sketch",
    params=[
        Param("out_dim", integer, doc="The length of the sketch."),
        Param("processing_batch_size", integer, 32, "Ignored."),
    ],
    arguments=["data", "h", "s"],
    infer_shape=_infer_sketch,
    forward=_sketch,
    backward=_sketch_grad,
    backward_reads=((1, 2), ()),
    doc="Element i of each row of data (N, d), times s[0, i], is added to place h[0, i] of (N, out_dim).",
)
