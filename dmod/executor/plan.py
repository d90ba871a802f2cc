"""The plan compiler: a symbol becomes two flat lists of steps, forward and backward.

This is the heart of the executor. It walks the graph once and decides for every result where it lies
(`Buffer`), which step writes it and which step reads it last; `memory` then places the buffers, and each
operator builds its steps over them. Running a plan is calling the steps in order: no graph, no
allocation, no choice.

Gradients: an entry that several nodes read gets the sum of their contributions, added in reverse
topological order, so the bits do not depend on anything but the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dmod.base import MXNetError
from dmod.device import HOST, Backend, copy, to_host
from dmod.device.random import SlotStream
from dmod.executor import passes
from dmod.executor.memory import Workspace, assign_offsets
from dmod.executor.passes.graph import Key, needs_gradient
from dmod.executor.storage import clear_rows, densified
from dmod.ops.registry import Call, Operator, Step
from dmod.ops.sparse_rows import is_sparse
from dmod.symbol.graph import Entry, Node, output_name

__all__ = ["Binding", "Plan", "compile_plan"]


@dataclass
class Binding:
    """What a plan is compiled over: a graph, and the arrays that are there already.

    Attributes
    ----------
    order, heads : list of Node, list of Entry
    shapes, dtypes : dict
        Of every entry, by ``(id(node), output)``.
    values : dict of str to array
        Every variable's array: arguments and auxiliary states.
    grads, reqs : dict of str to array, dict of str to str
        Where gradients of arguments go, and whether they are written ('write') or added ('add').
    outputs, head_grads : list of array or None
        The arrays of the heads; the gradients that backward starts from (None for losses).
    workspace : Workspace
        The executor's device, and memory there.
    places : dict of int to Workspace
        Nodes, by id, that are on other devices (``group2ctx``).
    numbers : dict of int to int, optional
        The number, by id, under which a node draws random numbers; default: its position in `order`.
    """

    order: list[Node]
    heads: list[Entry]
    shapes: dict[Key, Any]
    dtypes: dict[Key, Any]
    values: dict[str, Any]
    grads: dict[str, Any]
    reqs: dict[str, str]
    outputs: list[Any]
    head_grads: list[Any]
    workspace: Workspace
    stream: SlotStream
    places: dict[int, Workspace] = field(default_factory=dict)
    numbers: Mapping[int, int] | None = None

    def place(self, node: Node) -> Workspace:
        """The device that computes a node, and its memory."""
        return self.places.get(id(node), self.workspace)


@dataclass
class Plan:
    """A compiled graph.

    Attributes
    ----------
    forward, backward : list of callable
    names : list
        For each forward step: the names and arrays of the outputs it has written (for monitors).
    forward_titles, backward_titles : list of (str, str)
        For each step, the operator and the node that it belongs to (for profiles).
    nbytes : int
        The memory that intermediate results take.
    gradient_steps : dict of str to int
        For each argument that wants a gradient, the number of the last backward step that writes it.
    """

    forward: list[Step] = field(default_factory=list)
    backward: list[Step] = field(default_factory=list)
    names: list[list[tuple[str, Any]]] = field(default_factory=list)
    forward_titles: list[tuple[str, str]] = field(default_factory=list)
    backward_titles: list[tuple[str, str]] = field(default_factory=list)
    nbytes: int = 0
    gradient_steps: dict[str, int] = field(default_factory=dict)


class Buffer:
    """One result's memory: bound to an array from the start, or placed by the planner.

    `base` is the buffer whose memory this one takes over (a view, or an operation in place).
    """

    __slots__ = ("array", "base", "dtype", "first", "last", "place", "shape")

    def __init__(self, place: Workspace, shape: Any, dtype: Any, array: Any = None):
        self.place, self.shape, self.dtype, self.array = place, shape, dtype, array
        self.base: Buffer | None = None
        self.first, self.last = -1, -1

    @property
    def root(self) -> Buffer:
        """The buffer that owns the memory."""
        return self if self.base is None else self.base.root

    @property
    def is_bound(self) -> bool:
        """Whether the memory was there before the plan."""
        return self.root.array is not None

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def touch(self, time: int) -> None:
        """Note that the step at `time` reads or writes this buffer."""
        root = self.root
        if root.first < 0:
            root.first = time
        root.last = max(root.last, time)


@dataclass
class _Draft:
    """A step before its buffers have memory."""

    build: Callable[[], Step]
    place: Workspace
    title: tuple[str, str]  # operator and node
    names: list[tuple[str, Buffer]] = field(default_factory=list)


class _Compiler:
    """One compilation: `forward`, then `backward`, then `finish`."""

    def __init__(self, binding: Binding, is_train: bool):
        self.binding = binding
        self.is_train = is_train
        self.number = binding.numbers or {id(node): i for i, node in enumerate(binding.order)}
        self.values: dict[Key, Buffer] = {}
        self.viewed: set[int] = set()
        self.last_read = self._last_reads() if is_train else {}
        self.forward_drafts: list[_Draft] = []
        self.backward_drafts: list[_Draft] = []
        self.buffers: list[Buffer] = []
        self.copies: dict[tuple[Key, int], Buffer] = {}
        self.last_writes: dict[int, int] = {}  # the id of an array that was there -> backward step
        self.time = 0

    # ---- forward

    def _needs_grad(self) -> set[int]:
        """The ids of the nodes whose gradient leads to an argument that wants one."""
        return needs_gradient(self.binding.order, self.binding.reqs)

    def _last_reads(self) -> dict[Key, bool]:
        """The entries that backward reads."""
        needed = self._needs_grad()
        read: dict[Key, bool] = {}
        for node in self.binding.order:
            if node.op is None or id(node) not in needed:
                continue
            inputs, outputs = node.op.backward_reads(node.attrs)
            read.update({_key(node.inputs[i]): True for i in inputs if i < len(node.inputs)})
            read.update({(id(node), i): True for i in outputs})
        return read

    def forward(self) -> None:
        """Draft a step for every operator, in order."""
        binding = self.binding
        heads = {_key(e): array for e, array in zip(binding.heads, binding.outputs, strict=True)}
        readers: dict[Key, int] = {}
        for i, node in enumerate(binding.order):
            for entry in node.inputs:
                readers[_key(entry)] = i
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
        draft = _Draft(lambda: _build(op, op.forward, call()), place, (op.name, node.name))
        draft.names = self._named(node, outputs)
        self.forward_drafts.append(draft)
        self.time += 1

    def _value_at(self, entry: Entry, place: Workspace) -> Buffer:
        """The value of an entry on a device, copied there once if it is computed on another one."""
        key = _key(entry)
        value = self.values[key]
        if value.place is place:
            return value
        copied = self.copies.get((key, id(place)))
        if copied is None:
            copied = self.copies[key, id(place)] = Buffer(place, value.shape, value.dtype)
            self._copy(value, copied, self.forward_drafts)
        return copied

    def _named(self, node: Node, outputs: list[Buffer]) -> list[tuple[str, Buffer]]:
        return [(output_name(Entry(node, k)), outputs[k]) for k in range(node.num_visible)]

    def _forward_names(self, node: Node, outputs: list[Buffer]) -> None:
        """A view has no step: its name is reported with the step before it."""
        if not self.forward_drafts:
            self.forward_drafts.append(
                _Draft(lambda: _nothing, self.binding.place(node), ("_nothing", node.name))
            )
        self.forward_drafts[-1].names.extend(self._named(node, outputs))

    def _share(self, i: int, entry: Entry, source: Buffer, target: Buffer, readers: dict[Key, int]) -> None:
        """Let `target` take over `source`'s memory if nobody reads the source after node number `i`."""
        if target.base is not None or target.is_bound or source.is_bound or source.nbytes != target.nbytes:
            return
        if source is not self.values[_key(entry)]:  # a copy from another device: backward may read it
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

    def _draft_call(
        self,
        node: Node,
        inputs: list[Buffer],
        outputs: list[Buffer],
        out_grads: Sequence[Buffer | None] = (),
        in_grads: Sequence[Buffer | None] = (),
    ) -> Callable[[], Call]:
        """A function that makes the node's `Call` once all buffers have memory."""
        binding = self.binding
        count = node.num_arguments
        workspace = binding.place(node)

        def make() -> Call:
            workspace.begin_step()
            arrays = [_array(b) for b in inputs]
            return Call(
                device=workspace.backend,
                xp=workspace.backend.xp,
                attrs=node.attrs,
                is_train=self.is_train,
                inputs=arrays[:count],
                outputs=[_array(b) for b in outputs],
                aux=arrays[count:],
                stream=binding.stream,
                node=self.number[id(node)],
                scratch=workspace.scratch,
                out_grads=[None if b is None else _array(b) for b in out_grads],
                in_grads=[None if b is None else _array(b) for b in in_grads],
            )

        return make

    # ---- backward

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
            if in_grads[k] is not None and _key(entry) in seen:
                in_grads[k] = Buffer(place, in_grads[k].shape, in_grads[k].dtype)  # type: ignore[union-attr]
            seen.add(_key(entry))
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
            _Draft(lambda: _build(op, build, call()), self.binding.place(node), title)
        )
        self._writes(in_grads)
        self.time += 1

    def _writes(self, buffers: Sequence[Buffer | None]) -> None:
        """Note that the newest backward step writes these."""
        for buffer in buffers:
            if buffer is not None and buffer.is_bound:
                self.last_writes[id(buffer.root.array)] = len(self.backward_drafts) - 1

    def _gradient_for(self, entry: Entry, grads: dict[Key, Buffer], place: Workspace) -> Buffer:
        """A buffer for a contribution to the gradient of `entry`: the argument's own array if it is free."""
        node, key = entry.node, _key(entry)
        free = key not in grads and place is self.binding.place(node)
        if node.is_variable and free and self.binding.reqs.get(node.name) == "write":
            array = self.binding.grads[node.name]
            if is_sparse(array) and self._readers(key) > 1:  # a sum is made of dense arrays
                return Buffer(place, array.shape, array.dtype)
            return Buffer(place, array.shape, array.dtype, array)
        return Buffer(place, self.binding.shapes[key], self.binding.dtypes[key])

    def _readers(self, key: Key) -> int:
        return sum(_key(e) == key for node in self.binding.order for e in node.inputs)

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
        key, place = _key(entry), self.binding.place(entry.node)
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
            self.backward_drafts.append(_Draft(lambda: clear, place, ("_zeros", node.name)))
            self._writes([target])
        elif grad.root.array is not array:
            self._copy(grad, target, self.backward_drafts)

    def _zeros(self, like: Buffer) -> Buffer:
        buffer = Buffer(like.place, like.shape, like.dtype)
        buffer.touch(self.time)
        self.buffers.append(buffer)
        self.time += 1

        def build() -> Step:
            array = _array(buffer)
            return lambda: array.fill(0)

        self.backward_drafts.append(_Draft(build, like.place, ("_zeros", "")))
        return buffer

    def _add(self, left: Buffer, right: Buffer, target: Buffer) -> None:
        self._note([left, right], target)
        add = target.place.backend.xp.add

        def build() -> Step:
            out = _array(target)
            first, second = (_array(b).reshape(out.shape) for b in (left, right))
            return lambda: add(first, second, out=out)

        self.backward_drafts.append(_Draft(build, target.place, ("_grad_add", "")))
        self._writes([target])

    def _copy(self, source: Buffer, target: Buffer, drafts: list[_Draft]) -> None:
        self._note([source], target)

        def build() -> Step:
            into = _array(target)
            array = _array(source)
            if is_sparse(into):
                return lambda: into.__setitem__(slice(None), to_host(array))
            array = array.reshape(into.shape)
            return lambda: copy(into, array)

        drafts.append(_Draft(build, target.place, ("_copy", "")))
        if drafts is self.backward_drafts:
            self._writes([target])

    def _note(self, sources: list[Buffer], target: Buffer) -> None:
        """Note who reads and writes in a step of the plan's own."""
        for buffer in (*sources, target):
            buffer.touch(self.time)
        self.time += 1
        self.buffers.append(target)

    # ---- memory

    def finish(self) -> Plan:
        """Give every buffer memory and build the steps."""
        places = list({id(w): w for w in (self.binding.workspace, *self.binding.places.values())}.values())
        plan = Plan(nbytes=sum(self._place_buffers(place) for place in places))

        def built(draft: _Draft) -> Step:
            step = draft.build()
            return step if len(places) == 1 else _on(draft.place.backend, step)

        for draft in self.forward_drafts:
            plan.forward.append(built(draft))
            plan.names.append([(name, _array(buffer)) for name, buffer in draft.names])
            plan.forward_titles.append(draft.title)
        plan.backward = [built(draft) for draft in self.backward_drafts]
        plan.backward_titles = [draft.title for draft in self.backward_drafts]
        written = {name: self.last_writes.get(id(array)) for name, array in self.binding.grads.items()}
        plan.gradient_steps = {name: step for name, step in written.items() if step is not None}
        return plan

    def _place_buffers(self, place: Workspace) -> int:
        """Give the buffers of one device memory; returns how many bytes they take together."""
        own = (b.root for b in self.buffers if b.root.place is place and not b.is_bound)
        roots = list({id(root): root for root in own}.values())
        offsets, total = assign_offsets([(b.first, b.last, b.nbytes) for b in roots])
        block = place.block(total)
        for buffer, offset in zip(roots, offsets, strict=True):
            part = block[offset : offset + buffer.nbytes]
            buffer.array = part.view(buffer.dtype).reshape(buffer.shape)
        return total


def _on(device: Backend, step: Step) -> Step:
    """A step that runs with its device active; where all steps share one, the executor does that."""

    def run() -> None:
        with device.activate():
            step()

    return run


def _build(op: Operator, build: Callable[[Call], Step], call: Call) -> Step:
    """Build a step; one that needs the host gets copies there, and its results are copied back.

    One that doesn't take sparse arrays gets dense copies of them.
    """
    if any(map(is_sparse, (*call.inputs, *call.in_grads))) and not op.takes_sparse(call):
        return densified(lambda dense: _build(op, build, dense), call)
    if not op.host or call.device.is_host:
        return build(call)
    pairs: list[tuple[Any, Any]] = []

    def mirrored(arrays: list[Any]) -> list[Any]:
        mirrors = [None if a is None else HOST.zeros(a.shape, a.dtype) for a in arrays]
        pairs.extend((m, a) for m, a in zip(mirrors, arrays, strict=True) if a is not None)
        return mirrors

    mirror = replace(call, device=HOST, xp=HOST.xp, scratch=HOST.empty)
    for field_name in ("inputs", "outputs", "aux", "out_grads", "in_grads"):
        setattr(mirror, field_name, mirrored(getattr(call, field_name)))
    step = build(mirror)

    def run() -> None:
        for host, own in pairs:
            call.device.copy_out(host, own)
        step()
        for host, own in pairs:
            call.device.copy_in(own, host)

    return run


def _nothing() -> None:
    """The step of a network that starts with a view."""


def _key(entry: Entry) -> Key:
    return id(entry.node), entry.index


def _array(buffer: Buffer) -> Any:
    """The buffer's array, in its own shape."""
    if buffer.base is None:
        return buffer.array
    return _array(buffer.base).reshape(buffer.shape)


def compile_plan(binding: Binding, is_train: bool, switches: str = "all", monitored: bool = False) -> Plan:
    """Compile the graph of `binding` for training (forward and backward) or inference (forward only).

    Parameters
    ----------
    binding : Binding
    is_train : bool
    switches : str
        Which passes may rewrite the graph first, as in ``DMOD_PASSES``.
    monitored : bool
        Whether every operator's outputs are to be seen, which leaves out the passes that hide some.
    """
    compiler = _Compiler(_rewritten(binding, is_train, switches, monitored), is_train)
    compiler.forward()
    if is_train:
        compiler.backward()
    return compiler.finish()


def _rewritten(binding: Binding, is_train: bool, switches: str, monitored: bool) -> Binding:
    """`binding` with the graph that the passes make of it."""
    graph = passes.Graph(
        binding.order,
        binding.heads,
        binding.shapes,
        binding.dtypes,
        binding.reqs,
        binding.places,
        binding.workspace,
        is_train,
    )
    if not any(passes.apply(graph, switches, monitored).values()):
        return binding
    return replace(
        binding,
        order=graph.order,
        heads=graph.heads,
        shapes=graph.shapes,
        dtypes=graph.dtypes,
        places=graph.places,
        numbers=graph.numbers,
    )
