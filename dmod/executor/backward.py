"""The backward pass of a plan: gradients, from the heads to the arguments.

An entry that several nodes read gets the sum of their contributions, added in reverse topological order, so
the bits do not depend on anything but the graph.
"""

from __future__ import annotations

import numpy as np

from dmod.base import MXNetError
from dmod.executor.drafts import Buffer, Draft, array_of, key_of
from dmod.executor.forward import ForwardDrafts
from dmod.executor.memory import Workspace
from dmod.executor.passes.graph import Key
from dmod.executor.steps import build_step
from dmod.executor.storage import clear_rows
from dmod.ops.registry import Step
from dmod.ops.sparse_rows import is_sparse
from dmod.symbol.graph import Entry, Node

__all__ = ["BackwardDrafts"]


class BackwardDrafts(ForwardDrafts):
    """Drafts the backward steps of a graph whose forward steps are drafted."""

    def backward(self) -> None:
        """Draft the gradient steps, from the heads to the arguments."""
        binding = self.binding
        needed = self._needs_grad()
        if not needed:
            return
        grads: dict[Key, Buffer] = {}
        for entry, array in zip(binding.heads, binding.head_grads, strict=True):
            if array is not None and id(entry.node) in needed:
                place = binding.place(entry.node)
                self._contribute(entry, Buffer(place, array.shape, array.dtype, array), grads)
        for node in reversed(binding.order):
            if node.op is not None and id(node) in needed:
                self._backward_node(node, needed, grads)
        for node in binding.order:
            if node.is_variable and binding.reqs.get(node.name, "null") != "null":
                self._deliver(node, grads.get((id(node), 0)))

    def _backward_node(self, node: Node, needed: set[int], grads: dict[Key, Buffer]) -> None:
        op = node.op
        assert op is not None
        outputs = [self.values[id(node), k] for k in range(len(op.outputs(node.attrs)))]
        out_grads = [grads.get((id(node), k)) for k in range(len(outputs))]
        if not op.is_loss and all(g is None for g in out_grads):
            return
        if op.backward is None:
            raise MXNetError(f"{op.name} {node.name!r} has no gradient; block it, or set grad_req to 'null'")
        if not op.is_loss:
            for k in range(node.num_visible):
                if out_grads[k] is None:
                    out_grads[k] = self._zeros(outputs[k])
        entries = node.inputs[: node.num_arguments]
        place = self.binding.place(node)
        lenders = range(1, len(entries)) if id(node) in self.viewed else ()  # they lend a view their shape
        in_grads = [
            self._gradient_for(e, grads, place) if id(e.node) in needed and k not in lenders else None
            for k, e in enumerate(entries)
        ]
        seen: set[Key] = set()
        for k, entry in enumerate(entries):  # an entry that is read twice gets two contributions
            if in_grads[k] is not None and key_of(entry) in seen:
                in_grads[k] = Buffer(place, in_grads[k].shape, in_grads[k].dtype)  # type: ignore[union-attr]
            seen.add(key_of(entry))
        pairs = [(0, 0)] if id(node) in self.viewed else op.backward_inplace(node.attrs)
        for out, into in pairs:
            self._share_gradient(out_grads[out], in_grads[into], grads, (id(node), out))
        inputs = [self._value_at(e, place) for e in node.inputs]
        self._draft_backward(node, inputs, outputs, out_grads, in_grads)
        for k in range(len(outputs)):
            grads.pop((id(node), k), None)  # nobody else reads them
        for entry, grad in zip(entries, in_grads, strict=True):
            if grad is not None:
                self._contribute(entry, grad, grads)

    def _draft_backward(
        self,
        node: Node,
        inputs: list[Buffer],
        outputs: list[Buffer],
        out_grads: list[Buffer | None],
        in_grads: list[Buffer | None],
    ) -> None:
        op = node.op
        assert op is not None and op.backward is not None
        if id(node) in self.viewed:
            source, target = out_grads[0], in_grads[0]
            if source is not None and target is not None and target.root is not source.root:
                self._copy(source, target, self.backward_drafts)
            return
        reads_in, reads_out = op.backward_reads(node.attrs)
        read = [inputs[k] for k in reads_in if k < len(inputs)] + [outputs[k] for k in reads_out]
        for buffer in (*read, *out_grads, *in_grads):
            if buffer is not None:
                buffer.touch(self.time)
        self.buffers.extend(g for g in in_grads if g is not None)
        call, build = self._draft_call(node, inputs, outputs, out_grads, in_grads), op.backward
        title = (f"_backward_{op.name}", node.name)
        self.backward_drafts.append(
            Draft(lambda: build_step(op, build, call()), self.binding.place(node), title)
        )
        self._writes(in_grads)
        self.time += 1

    def _gradient_for(self, entry: Entry, grads: dict[Key, Buffer], place: Workspace) -> Buffer:
        """A buffer for a contribution to the gradient of `entry`: the argument's own array if it is free."""
        node, key = entry.node, key_of(entry)
        free = key not in grads and place is self.binding.place(node)
        if node.is_variable and free and self.binding.reqs.get(node.name) == "write":
            array = self.binding.grads[node.name]
            if is_sparse(array) and self._readers(key) > 1:  # a sum is made of dense arrays
                return Buffer(place, array.shape, array.dtype)
            return Buffer(place, array.shape, array.dtype, array)
        return Buffer(place, self.binding.shapes[key], self.binding.dtypes[key])

    def _readers(self, key: Key) -> int:
        return sum(key_of(e) == key for node in self.binding.order for e in node.inputs)

    def _share_gradient(
        self, source: Buffer | None, target: Buffer | None, grads: dict[Key, Buffer], key: Key
    ) -> None:
        """Let an input's gradient take over the output's: it has been read when the step ends."""
        if source is None or target is None or target.is_bound or source.is_bound:
            return
        if source.place is not target.place:
            return
        if source.nbytes != target.nbytes or np.dtype(source.dtype) != np.dtype(target.dtype):
            return
        if not any(k != key and g.root is source.root for k, g in grads.items()):
            target.base = source

    def _contribute(self, entry: Entry, grad: Buffer, grads: dict[Key, Buffer]) -> None:
        """Add `grad` to what `entry` has got so far."""
        key, place = key_of(entry), self.binding.place(entry.node)
        if grad.place is not place:
            moved = Buffer(place, grad.shape, grad.dtype)
            self._copy(grad, moved, self.backward_drafts)
            grad = moved
        total = grads.get(key)
        if total is None:
            grads[key] = grad
            return
        head = any(total.array is array for array in self.binding.head_grads if array is not None)
        # the caller's gradient stays as it is
        target = Buffer(place, total.shape, total.dtype) if head else total
        self._add(total, grad, target)
        grads[key] = target

    def _deliver(self, node: Node, grad: Buffer | None) -> None:
        """Bring the gradient of an argument into its array, unless it was made there."""
        array = self.binding.grads[node.name]
        place = self.binding.place(node)
        target = Buffer(place, array.shape, array.dtype, array)
        if self.binding.reqs[node.name] == "add":
            if grad is not None:
                self._add(target, grad, target)
        elif grad is None:
            clear = (lambda: clear_rows(array)) if is_sparse(array) else (lambda: array.fill(0))
            self.backward_drafts.append(Draft(lambda: clear, place, ("_zeros", node.name)))
            self._writes([target])
        elif grad.root.array is not array:
            self._copy(grad, target, self.backward_drafts)

    def _zeros(self, like: Buffer) -> Buffer:
        buffer = Buffer(like.place, like.shape, like.dtype)
        buffer.touch(self.time)
        self.buffers.append(buffer)
        self.time += 1

        def build() -> Step:
            array = array_of(buffer)
            return lambda: array.fill(0)

        self.backward_drafts.append(Draft(build, like.place, ("_zeros", "")))
        return buffer

    def _add(self, left: Buffer, right: Buffer, target: Buffer) -> None:
        self._note([left, right], target)
        add = target.place.backend.xp.add

        def build() -> Step:
            out = array_of(target)
            first, second = (array_of(b).reshape(out.shape) for b in (left, right))
            return lambda: add(first, second, out=out)

        self.backward_drafts.append(Draft(build, target.place, ("_grad_add", "")))
        self._writes([target])
