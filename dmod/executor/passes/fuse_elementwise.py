"""Element-wise operators that only each other read become one loop over the elements.

A group grows from its last node towards the inputs, and takes in whatever nobody outside it reads.
"""

from __future__ import annotations

import math

import numpy as np

from dmod.device.kernels import compiled_kernels
from dmod.executor.passes.graph import Graph, Key, key_of
from dmod.ops.fused_elementwise import ELEMENTWISE, Program, Value, formula_of
from dmod.ops.registry import Attrs
from dmod.symbol.graph import Entry, Node

__all__ = ["run"]

MIN_SIZE = 4096
"""Elements from which a loop of its own pays: below, a step is mostly the call, and compiling takes long."""
MAX_VALUES, MAX_INPUTS = 24, 6
"""Limits of a group: of the time to compile it, and of the arrays that LLVM compares for overlap."""


def run(graph: Graph) -> int:
    """Join groups of two or more; returns how many groups."""
    if compiled_kernels() is None:
        return 0
    taken: set[int] = set()
    groups = []
    for node in reversed(graph.order):
        if id(node) not in taken and _formula(graph, node) is not None:
            members = _group(graph, node, taken)
            if len(members) > 1:
                taken.update(map(id, members))
                groups.append(members)
    needed = graph.needs_gradient()
    for members in reversed(groups):  # the inputs of later groups may be the outputs of earlier ones
        _join(graph, members, needed)
    return len(groups)


def _formula(graph: Graph, node: Node) -> str | None:
    """The formula of a node that can be part of a group."""
    if node.op is None or graph.num_outputs(node) != 1 or node.num_arguments != len(node.inputs):
        return None
    shape = graph.shape(Entry(node, 0))
    if math.prod(shape) < MIN_SIZE or any(graph.shape(e) != shape for e in node.inputs):
        return None
    if not graph.on_host(node) or not graph.all_float32(node):
        return None
    return formula_of(node.op.name, node.attrs)


def _group(graph: Graph, last: Node, taken: set[int]) -> list[Node]:
    """The nodes that can be computed together with `last`, which is the only one read outside."""
    members = {id(last): last}
    shape = graph.shape(Entry(last, 0))
    refused: set[int] = set()
    while len(members) < MAX_VALUES:
        inputs = {key_of(e): e for node in members.values() for e in node.inputs if id(e.node) not in members}
        chosen = None
        for entry in inputs.values():
            node = entry.node
            if id(node) in taken or id(node) in refused or graph.is_head(entry):
                continue
            inside = all(id(reader) in members for reader, _ in graph.readers(entry))
            fits = graph.same_place(node, last) and graph.shape(entry) == shape
            if not (inside and fits and _formula(graph, node) is not None):
                continue
            after = (set(inputs) - {key_of(entry)}) | {key_of(e) for e in node.inputs}
            if len(after) > MAX_INPUTS:
                refused.add(id(node))
                continue
            chosen = node
            break
        if chosen is None:
            break
        members[id(chosen)] = chosen
    return [node for node in graph.order if id(node) in members]


def _join(graph: Graph, members: list[Node], needed: set[int]) -> None:
    """Put one node in the place of a group, which is in order."""
    names: dict[Key, str] = {}
    inputs: list[Entry] = []
    values: list[Value] = []
    scalars: list[float] = []
    for k, node in enumerate(members):
        operands = []
        for entry in node.inputs:
            key = key_of(entry)
            if key not in names:
                names[key] = f"x{len(inputs)}"
                inputs.append(entry)
            operands.append(names[key])
        formula = _formula(graph, node)
        assert formula is not None
        scalar = getattr(node.attrs, "scalar", None)
        values.append(Value(formula, tuple(operands), -1 if scalar is None else len(scalars)))
        if scalar is not None:
            scalars.append(scalar)
        names[id(node), 0] = f"v{k}"
    last = members[-1]
    attrs = Attrs(
        program=Program(len(inputs), tuple(values)),
        scalars=tuple(scalars),
        wanted=tuple(id(e.node) in needed for e in inputs),
    )
    joined = graph.add(ELEMENTWISE, attrs, inputs, last, [(graph.shape(Entry(last, 0)), np.float32)])
    if id(last) in needed:
        needed.add(id(joined))
    graph.replace({(id(last), 0): Entry(joined, 0)})
