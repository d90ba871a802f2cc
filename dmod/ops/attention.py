"""Products of attention over interleaved projections: contrib.interleaved_matmul_*.

A tensor (length, batch, heads * parts * d) holds queries, keys and values (3 parts), or keys and values
(2 parts), of each head side by side.
"""

from __future__ import annotations

import math
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, integer
from dmod.ops.registry import Attrs, Call, Shape, Shapes, Step, register

_HEADS = Param("heads", integer, doc="How many heads there are.")


def _checked(name: str, dims: Shape | None, attrs: Attrs, parts: int) -> None:
    if dims is not None and (len(dims) != 3 or dims[2] % (attrs.heads * parts)):
        raise InvalidArgument(
            f"{name} has shape {dims}, expected (length, batch, a multiple of {attrs.heads * parts})"
        )


def _part(array: Any, heads: int, parts: int, which: int) -> Any:
    """One part, as (batch, heads, length, d): a view."""
    length, batch, _ = array.shape
    return array.reshape(length, batch, heads, parts, -1)[:, :, :, which].transpose(1, 2, 0, 3)


def _per_head(attention: Any, heads: int) -> Any:
    """Maps (batch * heads, n, m) as (batch, heads, n, m): a view."""
    return attention.reshape(-1, heads, *attention.shape[1:])


class _Layout:
    """Where an operator finds its parts: in one tensor of three (self attention), or in two."""

    def __init__(self, self_attention: bool):
        self.self_attention = self_attention
        self.parts = 3 if self_attention else 2

    def queries(self, arrays: list[Any], heads: int) -> Any:
        """The queries among inputs, or among their gradients; None if that one is not wanted."""
        if arrays[0] is None:
            return None
        return _part(arrays[0], heads, 3 if self.self_attention else 1, 0)

    def keys(self, arrays: list[Any], heads: int) -> Any:
        """The keys, likewise."""
        array = arrays[0] if self.self_attention else arrays[1]
        return None if array is None else _part(array, heads, self.parts, self.parts - 2)

    def values(self, arrays: list[Any], heads: int) -> Any:
        """The values, likewise; they come in the first input of valatt."""
        return None if arrays[0] is None else _part(arrays[0], heads, self.parts, self.parts - 1)


def _infer_qk(layout: _Layout) -> Any:
    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        first, second = inputs[0], inputs[-1]
        if layout.self_attention:
            _checked("queries_keys_values", first, attrs, 3)
        else:
            _checked("queries", first, attrs, 1)
            _checked("keys_values", second, attrs, 2)
        if first is None or second is None:
            return inputs, [None], []
        if not layout.self_attention:
            merge_shapes((second[0], first[1], 2 * first[2]), second, "keys_values")
        return inputs, [(first[1] * attrs.heads, first[0], second[0])], []

    return infer


def _qk(layout: _Layout) -> Any:
    def build(call: Call) -> Step:
        xp, heads = call.xp, call.attrs.heads
        q, k = layout.queries(call.inputs, heads), layout.keys(call.inputs, heads)
        out = _per_head(call.outputs[0], heads)
        scale = out.dtype.type(1 / math.sqrt(q.shape[-1]))

        def run() -> None:
            xp.multiply(xp.matmul(q, k.swapaxes(-1, -2)), scale, out=out)

        return run

    return build


def _qk_grads(layout: _Layout) -> Any:
    def build(call: Call) -> Step:
        xp, heads = call.xp, call.attrs.heads
        q, k = layout.queries(call.inputs, heads), layout.keys(call.inputs, heads)
        dq, dk = layout.queries(call.in_grads, heads), layout.keys(call.in_grads, heads)
        dy = _per_head(call.out_grads[0], heads)
        scale = dy.dtype.type(1 / math.sqrt(q.shape[-1]))

        def run() -> None:
            for grad in call.in_grads:
                if grad is not None:
                    grad.fill(0)  # the values take no part
            if dq is not None:
                dq[...] = xp.matmul(dy, k) * scale
            if dk is not None:
                dk[...] = xp.matmul(dy.swapaxes(-1, -2), q) * scale

        return run

    return build


def _infer_valatt(layout: _Layout, name: str) -> Any:
    def infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
        tensor, maps = inputs
        _checked(name, tensor, attrs, layout.parts)
        if tensor is None:
            return inputs, [None], []
        length, batch, width = tensor
        maps = merge_shapes((batch * attrs.heads, -1, length), maps, "attention")
        assert maps is not None
        return [tensor, maps], [(maps[1], batch, width // layout.parts)], []

    return infer


def _valatt(layout: _Layout) -> Any:
    def build(call: Call) -> Step:
        xp, heads = call.xp, call.attrs.heads
        v, maps = layout.values(call.inputs, heads), _per_head(call.inputs[1], heads)
        out = _part(call.outputs[0], heads, 1, 0)

        def run() -> None:
            out[...] = xp.matmul(maps, v)

        return run

    return build


def _valatt_grads(layout: _Layout) -> Any:
    def build(call: Call) -> Step:
        xp, heads, (dtensor, dmaps) = call.xp, call.attrs.heads, call.in_grads
        v, maps = layout.values(call.inputs, heads), _per_head(call.inputs[1], heads)
        dy, dv = _part(call.out_grads[0], heads, 1, 0), layout.values(call.in_grads, heads)

        def run() -> None:
            if dtensor is not None:
                dtensor.fill(0)  # queries and keys take no part
                dv[...] = xp.matmul(maps.swapaxes(-1, -2), dy)
            if dmaps is not None:
                xp.matmul(dy, v.swapaxes(-1, -2), out=_per_head(dmaps, heads))

        return run

    return build


for _kind, _self in (("selfatt", True), ("encdec", False)):
    _layout = _Layout(_self)
    _tensor = "queries_keys_values" if _self else "keys_values"
    register(
        f"_contrib_interleaved_matmul_{_kind}_qk",
        params=[_HEADS],
        arguments=[_tensor] if _self else ["queries", _tensor],
        infer_shape=_infer_qk(_layout),
        forward=_qk(_layout),
        backward=_qk_grads(_layout),
        backward_reads=((0, 1), ()),
        doc="""Each query times each key over the square root of their length: (batch * heads, n, m).

The projections are (length, batch, heads * parts * d), the parts of a head side by side.""",
    )
    register(
        f"_contrib_interleaved_matmul_{_kind}_valatt",
        params=[_HEADS],
        arguments=[_tensor, "attention"],
        infer_shape=_infer_valatt(_layout, _tensor),
        forward=_valatt(_layout),
        backward=_valatt_grads(_layout),
        backward_reads=((0, 1), ()),
        doc="""The values, weighted by attention (batch * heads, n, m): (n, batch, heads * d).

The projections are (m, batch, heads * parts * d), the parts of a head side by side.""",
    )
