"""Shapes and dtypes of a whole graph from those that are known, in both directions, to a fixed point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import dtype as dtype_kind
from dmod.ops.params import shape as shape_kind
from dmod.ops.registry import Shape
from dmod.symbol.graph import Entry, Node

__all__ = ["dtype_of_flag", "infer_dtypes", "infer_shapes", "is_complete"]

DTYPE_BY_FLAG = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")


def is_complete(shape: Shape | None) -> bool:
    """Whether every length is known."""
    return shape is not None and -1 not in shape


def _normal(shape: Iterable[int]) -> Shape:
    """A user's shape: 0 stands for a length that is not known."""
    dims = tuple(int(n) for n in shape)
    if any(n > 2**40 for n in dims):
        raise InvalidArgument(f"shape {dims}: an axis is longer than any memory")
    return tuple(-1 if n <= 0 else n for n in dims)


def _outputs(node: Node) -> int:
    assert node.op is not None
    return len(node.op.outputs(node.attrs))


def infer_shapes(
    order: list[Node], known: Mapping[str, Sequence[int]]
) -> dict[tuple[int, int], Shape | None]:
    """Infer the shape of every entry.

    Parameters
    ----------
    order : list of Node
        In topological order.
    known : dict of str to shape
        Shapes of variables; 0 or -1 is an unknown length.

    Returns
    -------
    dict
        ``(id(node), output) -> shape``, None where nothing is known, -1 for unknown lengths.

    Raises
    ------
    InvalidArgument
        Shapes contradict each other; the message names operator, node and argument.
    """
    shapes: dict[tuple[int, int], Shape | None] = {}
    for node in order:
        if node.is_variable:
            given = known.get(node.name)
            if given is None and "__shape__" in node.raw:
                given = shape_kind.parse(node.raw["__shape__"])
            shapes[id(node), 0] = _normal(given) if given is not None else None
        else:
            shapes.update({(id(node), i): None for i in range(_outputs(node))})
    operators = [node for node in order if not node.is_variable]
    for sweep in range(len(operators) + 2):
        changed = False
        for node in operators if sweep % 2 == 0 else reversed(operators):
            changed |= _infer_node(node, shapes)
        if not changed:
            break
    return shapes


def _infer_node(node: Node, shapes: dict[tuple[int, int], Shape | None]) -> bool:
    """Apply one operator's rule; whether anything new followed."""
    assert node.op is not None
    count = node.num_arguments
    entries = [(id(e.node), e.index) for e in node.inputs]
    outs = [(id(node), i) for i in range(_outputs(node))]
    try:
        result = node.op.infer_shape(
            node.attrs, [shapes[e] for e in entries[:count]], [shapes.get(o) for o in outs]
        )
    except InvalidArgument as error:
        raise InvalidArgument(f"{node.op.name} {node.name!r}: {error}") from None
    changed = False
    arguments, outputs, aux = result
    for i, (key, shape) in enumerate(zip(entries + outs, [*arguments, *aux, *outputs], strict=True)):
        old = shapes.get(key)
        if shape is None or shape == old:
            continue
        where = node.inputs[i].node.name if i < len(entries) else "output"
        merged = merge_shapes(shape, old, f"{node.op.name} {node.name!r}: {where}")
        if merged != old:
            shapes[key] = merged
            changed = True
    return changed


def infer_dtypes(order: list[Node], known: Mapping[str, Any]) -> dict[tuple[int, int], np.dtype | None]:
    """Infer the dtype of every entry, likewise; what nothing determines stays None."""
    dtypes: dict[tuple[int, int], np.dtype | None] = {}
    for node in order:
        if node.is_variable:
            given = known.get(node.name)
            if given is None and "__dtype__" in node.raw:
                given = dtype_of_flag(node.raw["__dtype__"])
            dtypes[id(node), 0] = np.dtype(given) if given is not None else None
    for _ in range(2):
        for node in order:
            if not node.is_variable:
                _infer_node_dtype(node, dtypes)
    return dtypes


def _infer_node_dtype(node: Node, dtypes: dict[tuple[int, int], np.dtype | None]) -> None:
    assert node.op is not None
    count = node.num_arguments
    entries = [(id(e.node), e.index) for e in node.inputs]
    outs = [(id(node), i) for i in range(_outputs(node))]
    try:
        arguments, outputs, aux = node.op.infer_type(node.attrs, [dtypes[e] for e in entries[:count]])
    except InvalidArgument as error:
        raise InvalidArgument(f"{node.op.name} {node.name!r}: {error}") from None
    for key, dtype in zip(entries + outs, [*arguments, *aux, *outputs], strict=True):
        if dtype is not None and dtypes.get(key) is None:
            dtypes[key] = dtype
        dtypes.setdefault(key, None)


def dtype_of_flag(text: str) -> np.dtype:
    """The dtype of a ``__dtype__`` attribute: MXNet's number of it, or its name."""
    if text.isdigit() and int(text) < len(DTYPE_BY_FLAG):
        return np.dtype(DTYPE_BY_FLAG[int(text)])
    try:
        return dtype_kind.parse(text)
    except ValueError:
        raise InvalidArgument(f"__dtype__={text!r}: expected a dtype, or MXNet's number of one") from None


def entry_key(entry: Entry) -> tuple[int, int]:
    """How the results of this file are keyed."""
    return id(entry.node), entry.index
