"""FullyConnected with a bias, then Activation: bias and activation become one pass over the product."""

from __future__ import annotations

from dmod.device.kernels import compiled_kernels
from dmod.executor.passes.graph import Graph, key_of
from dmod.ops.fused_fully_connected import FULLY_CONNECTED_ACTIVATION
from dmod.ops.registry import Attrs
from dmod.symbol.graph import Entry, Node

__all__ = ["run"]


def run(graph: Graph) -> int:
    """Join every FullyConnected whose sum only an Activation reads with it; returns how many."""
    if compiled_kernels() is None:
        return 0
    found = 0
    for node in list(graph.order):
        reader = _activation_of(graph, node)
        if reader is not None:
            attrs = Attrs(**vars(node.attrs), act_type=reader.attrs.act_type)
            entry = Entry(reader, 0)
            outputs = [(graph.shape(entry), graph.dtypes[key_of(entry)])]
            joined = graph.add(FULLY_CONNECTED_ACTIVATION, attrs, node.inputs, reader, outputs)
            graph.replace({key_of(entry): Entry(joined, 0)})
            found += 1
    return found


def _activation_of(graph: Graph, node: Node) -> Node | None:
    """The Activation that alone reads a FullyConnected's sum, if the two can be one node."""
    if node.op is None or node.op.name != "FullyConnected" or node.attrs.no_bias:
        return None
    found = graph.only_reader(Entry(node, 0))
    if found is None or found[0].op is None or found[0].op.name != "Activation":
        return None
    reader = found[0]
    fits = graph.same_place(node, reader) and graph.on_host(node) and graph.all_float32(node)
    return reader if fits else None
