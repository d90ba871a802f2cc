"""shuffle: the rows of an array in a random order, which follows from seed, slot, node and step."""

from __future__ import annotations

from dmod.ops.elementwise import same_shape
from dmod.ops.registry import Call, Step, register


def _forward(call: Call) -> Step:
    xp, (x,), (y,), stream, node = call.xp, call.inputs, call.outputs, call.stream, call.node
    return lambda: xp.take(x, stream.generator(node).permutation(x.shape[0]), axis=0, out=y, mode="clip")


register(
    "_shuffle",
    aliases=["shuffle"],
    infer_shape=same_shape,
    forward=_forward,
    backward=None,
    host=True,
    doc="Put the entries along the first axis into a random order.",
)
