"""BatchNorm, then a ReLU: the ReLU and its gradient ride on BatchNorm's passes over the data.

This is the pass for the plain layout; convolutions in blocked layouts have their own, which runs before.
"""

from __future__ import annotations

from dmod.device.kernels import compiled_kernels
from dmod.executor.passes.graph import Graph, key_of
from dmod.ops.fused_batch_norm import BATCH_NORM_RELU
from dmod.symbol.graph import Entry, Node

__all__ = ["run"]


def run(graph: Graph) -> int:
    """Join every BatchNorm whose result only a ReLU reads with it; returns how many."""
    if compiled_kernels() is None:
        return 0
    found = 0
    for node in list(graph.order):
        reader = _relu_of(graph, node)
        if reader is not None:
            keys = [(id(node), k) for k in range(3)]
            outputs = [(graph.shapes[key], graph.dtypes[key]) for key in keys]
            joined = graph.add(BATCH_NORM_RELU, node.attrs, node.inputs, reader, outputs)
            graph.replace({key_of(Entry(reader, 0)): Entry(joined, 0)})
            found += 1
    return found


def _relu_of(graph: Graph, node: Node) -> Node | None:
    """The ReLU that alone reads a BatchNorm's result, if the two can be one node."""
    if node.op is None or node.op.name not in ("BatchNorm", "BatchNorm_v1") or node.num_visible != 1:
        return None
    found = graph.only_reader(Entry(node, 0))
    if found is None or not _is_relu(found[0]):
        return None
    reader = found[0]
    fits = graph.same_place(node, reader) and graph.on_host(node) and graph.all_float32(node)
    return reader if fits else None


def _is_relu(node: Node) -> bool:
    if node.op is None:
        return False
    return node.op.name == "relu" or (node.op.name == "Activation" and node.attrs.act_type == "relu")
