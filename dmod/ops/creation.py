"""Operators that make arrays of nothing but their parameters, such as _zeros, _arange and _eye."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.axes import normal_axis
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean, dtype, integer, number, optional, shape, text
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register, zero_gradient

_CTX = Param("ctx", text, "", "Ignored: arrays are made where the network computes.")
_DTYPE = Param("dtype", dtype, np.dtype(np.float32), "The dtype.")


def _register(
    name: str,
    params: list[Param],
    dims: Callable[[Attrs], Shape | None],
    values: Callable[[Attrs, Shape], Any],
    doc: str,
    kind: Callable[[Attrs], np.dtype] = lambda attrs: attrs.dtype,
) -> None:
    """Register an operator without inputs; `values` gives one number, or an array."""

    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        return [], [merge_shapes(dims(attrs), outputs[0], "output")], []

    def infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        return [], [kind(attrs)], []

    def forward(call: Call) -> Step:
        return _constant(call, values(call.attrs, call.outputs[0].shape))

    register(
        name,
        params=params,
        arguments=[],
        infer_shape=infer,
        infer_type=infer_type,
        forward=forward,
        backward=zero_gradient,
        doc=doc,
    )


def _constant(call: Call, values: Any) -> Step:
    """Write fixed values: the output's memory may have been used for something else since."""
    (out,), xp = call.outputs, call.xp
    with np.errstate(over="ignore", invalid="ignore"):
        host = np.asarray(values).astype(out.dtype)
    if host.ndim == 0:
        value = host[()]
        return lambda: out.fill(value)
    fixed = call.device.from_host(np.ascontiguousarray(host))
    return lambda: xp.copyto(out, fixed)


def _given_shape(attrs: Attrs) -> Shape | None:
    """The `shape` parameter; 0 stands for a length that follows from elsewhere."""
    return tuple(n if n > 0 else -1 for n in attrs.shape) or None


_SHAPE = Param("shape", shape, (), "The shape; 0 for lengths that follow from how the array is used.")
_register("_zeros", [_SHAPE, _CTX, _DTYPE], _given_shape, lambda attrs, dims: 0, "An array of zeros.")
_register("_ones", [_SHAPE, _CTX, _DTYPE], _given_shape, lambda attrs, dims: 1, "An array of ones.")
_register(
    "_zeros_without_dtype",
    [_SHAPE, _CTX, Param("dtype", integer, -1, "Ignored: the array is float32.")],
    _given_shape,
    lambda attrs, dims: 0,
    "An array of zeros.",
    kind=lambda attrs: np.dtype(np.float32),
)
_register(
    "_full",
    [_SHAPE, _CTX, _DTYPE, Param("value", number, doc="The value of all elements.")],
    _given_shape,
    lambda attrs, dims: attrs.value,
    "An array of one number.",
)


def _steps(count: int, start: float, step: float, repeat: int) -> np.ndarray:
    return start + (np.arange(count) // repeat) * step


def _arange_dims(attrs: Attrs) -> Shape | None:
    if attrs.infer_range:
        return (-1,)
    start, stop = (0.0, attrs.start) if attrs.stop is None else (attrs.start, attrs.stop)
    if attrs.repeat < 1 or not attrs.step:
        raise InvalidArgument(
            f"step is {attrs.step} and repeat {attrs.repeat}, expected any but 0 and at least 1"
        )
    if (stop - start) * attrs.step <= 0:
        raise InvalidArgument(f"start {start}, stop {stop} and step {attrs.step} name no numbers")
    return (math.ceil((stop - start) / attrs.step) * attrs.repeat,)


def _arange_values(attrs: Attrs, dims: Shape) -> np.ndarray:
    start = 0.0 if attrs.stop is None and not attrs.infer_range else attrs.start
    return _steps(dims[0], start, attrs.step, attrs.repeat)


_RANGE = [
    Param("start", number, doc="The first number, or with `stop` None the end of numbers from 0."),
    Param("stop", optional(number), None, "The end, which is not included."),
]
_register(
    "_arange",
    [
        *_RANGE,
        Param("step", number, 1.0, "The distance between numbers."),
        Param("repeat", integer, 1, "How often each number stands."),
        Param("infer_range", boolean, False, "Take the length from how the array is used."),
        _CTX,
        _DTYPE,
    ],
    _arange_dims,
    _arange_values,
    "Numbers at equal distances.",
)


def _linspace_dims(attrs: Attrs) -> Shape | None:
    if attrs.num < 0:
        raise InvalidArgument(f"num is {attrs.num}, expected at least 0")
    return (attrs.num,)


def _linspace_values(attrs: Attrs, dims: Shape) -> np.ndarray:
    gaps = attrs.num - 1 if attrs.endpoint else attrs.num
    stop = attrs.start if attrs.stop is None else attrs.stop
    return _steps(attrs.num, attrs.start, (stop - attrs.start) / gaps if gaps > 0 else 0.0, 1)


_register(
    "_linspace",
    [
        Param("start", number, doc="The first number."),
        Param("stop", optional(number), None, "The last number."),
        Param("num", integer, doc="How many numbers."),
        Param("endpoint", boolean, True, "Whether `stop` is included."),
        _CTX,
        _DTYPE,
    ],
    _linspace_dims,
    _linspace_values,
    "A given count of numbers at equal distances.",
)


def _eye_dims(attrs: Attrs) -> Shape | None:
    if attrs.N < 0 or attrs.M < 0:
        raise InvalidArgument(f"N is {attrs.N} and M {attrs.M}, expected at least 0")
    return (attrs.N, attrs.M or attrs.N)


_register(
    "_eye",
    [
        Param("N", integer, doc="The number of rows."),
        Param("M", integer, 0, "The number of columns; 0: as many as rows."),
        Param("k", integer, 0, "The diagonal's number: above the main one if positive."),
        _CTX,
        _DTYPE,
    ],
    _eye_dims,
    lambda attrs, dims: np.eye(dims[0], dims[1], attrs.k),
    "A matrix with ones on a diagonal.",
)


def _infer_like(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if attrs.repeat < 1:
        raise InvalidArgument(f"repeat is {attrs.repeat}, expected at least 1")
    if data is None or attrs.axis is None:
        return [data], [data], []
    return [data], [(data[normal_axis(attrs.axis, data)],)], []


def _like(call: Call) -> Step:
    attrs, shape = call.attrs, call.outputs[0].shape
    return _constant(call, _steps(math.prod(shape), attrs.start, attrs.step, attrs.repeat).reshape(shape))


register(
    "_contrib_arange_like",
    params=[
        Param("start", number, 0.0, "The first number."),
        Param("step", number, 1.0, "The distance between numbers."),
        Param("repeat", integer, 1, "How often each number stands."),
        _CTX,
        Param("axis", optional(integer), None, "Make a vector as long as this axis; None: data's shape."),
    ],
    infer_shape=_infer_like,
    forward=_like,
    backward=zero_gradient,
    doc="Numbers at equal distances, in the shape of data or as many as one of its axes is long.",
)
