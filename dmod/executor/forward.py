"""The forward pass of a plan: a step for every operator, and where each result lies.

A result takes over the memory of an input that nobody reads any more; a view is its input's memory, and has
no step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.executor.drafts import Binding, Buffer, Draft, Drafts, key_of
from dmod.executor.passes.graph import Key
from dmod.executor.steps import build_step, nothing
from dmod.ops.sparse_rows import is_sparse
from dmod.symbol.graph import Entry, Node, output_name

__all__ = ["ForwardDrafts"]


class ForwardDrafts(Drafts):
    """Drafts the forward steps of a graph.

    Attributes
    ----------
    last_read : dict of (int, int) to bool
        The entries that backward reads, whose memory nobody may take over.
    """

    def __init__(self, binding: Binding, is_train: bool):
        super().__init__(binding, is_train)
        self.last_read = self._last_reads() if is_train else {}

    def _last_reads(self) -> dict[Key, bool]:
        """The entries that backward reads."""
        needed = self._needs_grad()
        read: dict[Key, bool] = {}
        for node in self.binding.order:
            if node.op is None or id(node) not in needed:
                continue
            inputs, outputs = node.op.backward_reads(node.attrs)
            read.update({key_of(node.inputs[i]): True for i in inputs if i < len(node.inputs)})
            read.update({(id(node), i): True for i in outputs})
        return read

    def forward(self) -> None:
        """Draft a step for every operator, in order."""
        binding = self.binding
        heads = {key_of(e): array for e, array in zip(binding.heads, binding.outputs, strict=True)}
        readers: dict[Key, int] = {}
        for i, node in enumerate(binding.order):
            for entry in node.inputs:
                readers[key_of(entry)] = i
        for i, node in enumerate(binding.order):
            if node.op is None:
                key = (id(node), 0)
                array = binding.values[node.name]
                self.values[key] = Buffer(binding.place(node), array.shape, array.dtype, array)
            else:
                self._forward_node(i, node, heads, readers)

    def _forward_node(self, i: int, node: Node, heads: dict[Key, Any], readers: dict[Key, int]) -> None:
        assert node.op is not None
        place = self.binding.place(node)
        inputs = [self._value_at(e, place) for e in node.inputs]
        outputs = []
        for k in range(len(node.op.outputs(node.attrs))):
            key = (id(node), k)
            buffer = Buffer(place, self.binding.shapes[key], self.binding.dtypes[key], heads.get(key))
            self.values[key] = buffer
            outputs.append(buffer)
        is_view = node.op.view(node.attrs, self.is_train) and not is_sparse(inputs[0].root.array)
        if is_view and (id(node), 0) not in heads:
            outputs[0].base = inputs[0]
            self.viewed.add(id(node))
            for buffer in outputs[:1]:
                buffer.touch(self.time)
            self.values.update({(id(node), k): b for k, b in enumerate(outputs)})
            self._forward_names(node, outputs)
            return
        for source, target in node.op.inplace(node.attrs):
            self._share(i, node.inputs[source], inputs[source], outputs[target], readers)
        for buffer in (*inputs, *outputs):
            buffer.touch(self.time)
        self.buffers.extend(outputs)
        call = self._draft_call(node, inputs, outputs)
        op = node.op
        draft = Draft(lambda: build_step(op, op.forward, call()), place, (op.name, node.name))
        draft.names = self._named(node, outputs)
        self.forward_drafts.append(draft)
        self.time += 1

    def _named(self, node: Node, outputs: list[Buffer]) -> list[tuple[str, Buffer]]:
        return [(output_name(Entry(node, k)), outputs[k]) for k in range(node.num_visible)]

    def _forward_names(self, node: Node, outputs: list[Buffer]) -> None:
        """A view has no step: its name is reported with the step before it."""
        if not self.forward_drafts:
            self.forward_drafts.append(
                Draft(lambda: nothing, self.binding.place(node), ("_nothing", node.name))
            )
        self.forward_drafts[-1].names.extend(self._named(node, outputs))

    def _share(self, i: int, entry: Entry, source: Buffer, target: Buffer, readers: dict[Key, int]) -> None:
        """Let `target` take over `source`'s memory if nobody reads the source after node number `i`."""
        if target.base is not None or target.is_bound or source.is_bound or source.nbytes != target.nbytes:
            return
        if source is not self.values[key_of(entry)]:  # a copy from another device: backward may read it
            return
        root = source.root
        for key, buffer in self.values.items():
            if (
                buffer is not target
                and buffer.root is root
                and (readers.get(key, -1) > i or key in self.last_read)
            ):
                return
        if np.dtype(source.dtype) == np.dtype(target.dtype):
            target.base = source
