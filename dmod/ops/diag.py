"""diag: take the diagonal of matrices, or make a matrix of its diagonal."""

from __future__ import annotations

from dmod.base import InvalidArgument
from dmod.ops.axes import is_known, normal_axis
from dmod.ops.params import Param, integer
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register


def _plane(attrs: Attrs, data: Shape) -> tuple[int, int]:
    first, second = normal_axis(attrs.axis1, data, "axis1"), normal_axis(attrs.axis2, data, "axis2")
    if first == second:
        raise InvalidArgument(f"axis1 {attrs.axis1} and axis2 {attrs.axis2} are the same axis of {data}")
    return first, second


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is None or not is_known(data):
        return [data], [None], []
    if len(data) == 1:
        n = data[0] + abs(attrs.k)
        return [data], [(n, n)], []
    first, second = _plane(attrs, data)
    rest = tuple(n for i, n in enumerate(data) if i not in (first, second))
    rows, columns = data[first] + min(attrs.k, 0), data[second] - max(attrs.k, 0)
    return [data], [(*rest, max(0, min(rows, columns)))], []


def _extract(call: Call) -> Step:
    xp, (x,), (y,), attrs = call.xp, call.inputs, call.outputs, call.attrs
    source = xp.diagonal(x, attrs.k, *_plane(attrs, x.shape))
    return lambda: xp.copyto(y, source)


def _put(call: Call) -> Step:
    """The gradient of `_extract`; numpy's own view of a diagonal cannot be written to."""
    xp, (dy,), (dx,), attrs = call.xp, call.out_grads, call.in_grads, call.attrs
    target = xp.moveaxis(dx, _plane(attrs, dx.shape), (-2, -1))
    rows = xp.arange(dy.shape[-1]) - min(attrs.k, 0)
    columns = xp.arange(dy.shape[-1]) + max(attrs.k, 0)

    def run() -> None:
        dx.fill(0)
        target[..., rows, columns] = dy

    return run


def _construct(call: Call) -> Step:
    xp, (x,), (y,), k = call.xp, call.inputs, call.outputs, call.attrs.k
    start = k if k > 0 else -k * y.shape[1]
    diagonal = y.reshape(-1)[start :: y.shape[1] + 1][: x.size]

    def run() -> None:
        y.fill(0)
        xp.copyto(diagonal, x)

    return run


def _construct_grad(call: Call) -> Step:
    xp, (dy,), (dx,), k = call.xp, call.out_grads, call.in_grads, call.attrs.k
    source = xp.diagonal(dy, k)
    return lambda: xp.copyto(dx, source)


register(
    "diag",
    params=[
        Param("k", integer, 0, "The diagonal's number: above the main one if positive, below if negative."),
        Param("axis1", integer, 0, "The axis of the rows."),
        Param("axis2", integer, 1, "The axis of the columns."),
    ],
    infer_shape=_infer,
    forward=lambda call: (_construct if call.inputs[0].ndim == 1 else _extract)(call),
    backward=lambda call: (_construct_grad if call.inputs[0].ndim == 1 else _put)(call),
    doc="The diagonals of matrices, along a new last axis; of a vector: the matrix with it as its diagonal.",
)
