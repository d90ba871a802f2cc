"""Operators that put arrays together: Concat along an axis, stack along a new one."""

from __future__ import annotations

from typing import Any

from dmod.ops.axes import normal_axis
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, integer
from dmod.ops.registry import Attrs, Call, Dtypes, Shape, Shapes, Step, register, same_type

__all__ = ["parts"]


def parts(array: Any, axis: int, lengths: list[int]) -> list[Any]:
    """Views of consecutive parts of `array` along `axis`."""
    views, start = [], 0
    for length in lengths:
        views.append(array[(slice(None),) * axis + (slice(start, start + length),)])
        start += length
    return views


def _names(attrs: Attrs) -> list[str]:
    return [f"arg{i}" for i in range(attrs.num_args)]


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return same_type()(attrs, inputs)


def _with(dims: Shape, axis: int, length: int) -> Shape:
    return (*dims[:axis], length, *dims[axis + 1 :])


def _infer_concat(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    first = next((dims for dims in [*inputs, *outputs] if dims is not None), None)
    if first is None:
        return list(inputs), [None], []
    axis = normal_axis(attrs.dim, first, "dim")
    common: Any = _with(first, axis, -1)
    for i, dims in enumerate([*inputs, *outputs]):
        if dims is not None:
            what = f"arg{i}" if i < len(inputs) else "output"
            merge_shapes(common, dims, what)
            common = merge_shapes(common, (*dims[:axis], -1, *dims[axis + 1 :]), what)
    lengths = [-1 if dims is None else dims[axis] for dims in inputs]
    total = -1 if outputs[0] is None else outputs[0][axis]
    if -1 not in lengths:
        total = sum(lengths)
    elif lengths.count(-1) == 1 and total >= 0:
        lengths[lengths.index(-1)] = total - sum(n for n in lengths if n >= 0)
    return [_with(common, axis, n) for n in lengths], [_with(common, axis, total)], []


def _concat(call: Call) -> Step:
    xp, inputs, (y,) = call.xp, call.inputs, call.outputs
    axis = call.attrs.dim % y.ndim
    pairs = list(zip(parts(y, axis, [x.shape[axis] for x in inputs]), inputs, strict=True))

    def run() -> None:
        for target, source in pairs:
            xp.copyto(target, source)

    return run


def _concat_grad(call: Call) -> Step:
    xp, dy, grads = call.xp, call.out_grads[0], call.in_grads
    axis = call.attrs.dim % dy.ndim
    sources = parts(dy, axis, [x.shape[axis] for x in call.inputs])
    pairs = [(grad, source) for grad, source in zip(grads, sources, strict=True) if grad is not None]

    def run() -> None:
        for target, source in pairs:
            xp.copyto(target, source)

    return run


_NUM_ARGS = Param("num_args", integer, doc="The number of arrays; counted if not given.")
register(
    "Concat",
    aliases=["concat"],
    params=[_NUM_ARGS, Param("dim", integer, 1, "The axis along which the arrays are joined.")],
    arguments=_names,
    variadic="num_args",
    infer_shape=_infer_concat,
    infer_type=_infer_type,
    forward=_concat,
    backward=_concat_grad,
    doc="Join arrays along an axis; their other axes have the same lengths.",
)


def _infer_stack(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    common, (out,) = None, outputs
    if out is not None:
        axis = normal_axis(attrs.axis, out)
        common = (*out[:axis], *out[axis + 1 :])
    for i, dims in enumerate(inputs):
        common = merge_shapes(common, dims, f"arg{i}")
    if common is None:
        return list(inputs), [None], []
    axis = normal_axis(attrs.axis, common, ndim=len(common) + 1)
    return [common] * len(inputs), [(*common[:axis], len(inputs), *common[axis:])], []


def _layers(array: Any, axis: int) -> list[Any]:
    axis %= array.ndim
    return [array[(slice(None),) * axis + (i,)] for i in range(array.shape[axis])]


def _stack(call: Call) -> Step:
    xp = call.xp
    pairs = list(zip(_layers(call.outputs[0], call.attrs.axis), call.inputs, strict=True))

    def run() -> None:
        for target, source in pairs:
            xp.copyto(target, source)

    return run


def _stack_grad(call: Call) -> Step:
    xp = call.xp
    layers = _layers(call.out_grads[0], call.attrs.axis)
    pairs = [(grad, layer) for grad, layer in zip(call.in_grads, layers, strict=True) if grad is not None]

    def run() -> None:
        for target, source in pairs:
            xp.copyto(target, source)

    return run


register(
    "stack",
    params=[Param("axis", integer, 0, "Where the new axis stands in the output."), _NUM_ARGS],
    arguments=_names,
    variadic="num_args",
    infer_shape=_infer_stack,
    infer_type=_infer_type,
    forward=_stack,
    backward=_stack_grad,
    doc="Join arrays of one shape along a new axis.",
)
