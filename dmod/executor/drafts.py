"""Drafts: the steps of a plan before their buffers have memory, and what every pass over a graph drafts.

A `Binding` is what a plan is compiled over. A `Buffer` is one result's memory, which knows the first and
the last step that need it; `Drafts` collects buffers and steps. `forward` and `backward` decide which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmod.device import copy, to_host
from dmod.device.random import SlotStream
from dmod.executor.memory import Workspace
from dmod.executor.passes.graph import Key, needs_gradient
from dmod.ops.registry import Call, Step
from dmod.ops.sparse_rows import is_sparse
from dmod.symbol.graph import Entry, Node

__all__ = ["Binding", "Buffer", "Draft", "Drafts", "array_of", "key_of"]


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


def array_of(buffer: Buffer) -> Any:
    """The buffer's array, in its own shape."""
    if buffer.base is None:
        return buffer.array
    return array_of(buffer.base).reshape(buffer.shape)


def key_of(entry: Entry) -> Key:
    """What results are noted under: the id of the node, and the number of its output."""
    return id(entry.node), entry.index


@dataclass
class Draft:
    """A step before its buffers have memory."""

    build: Callable[[], Step]
    place: Workspace
    title: tuple[str, str]  # operator and node
    names: list[tuple[str, Buffer]] = field(default_factory=list)


class Drafts:
    """The steps of one plan, and the buffers that they read and write.

    Attributes
    ----------
    forward_drafts, backward_drafts : list of Draft
    buffers : list of Buffer
        Those that a step writes.
    values : dict of (int, int) to Buffer
        Where the results of nodes lie.
    viewed : set of int
        The ids of nodes whose result is a view of their input, and which have no step.
    last_writes : dict of int to int
        By the id of an array that was there before the plan: the last backward step that writes it.
    time : int
        The number of the next step, by which buffers note when they are needed.
    """

    def __init__(self, binding: Binding, is_train: bool):
        self.binding = binding
        self.is_train = is_train
        self.number = binding.numbers or {id(node): i for i, node in enumerate(binding.order)}
        self.values: dict[Key, Buffer] = {}
        self.viewed: set[int] = set()
        self.forward_drafts: list[Draft] = []
        self.backward_drafts: list[Draft] = []
        self.buffers: list[Buffer] = []
        self.copies: dict[tuple[Key, int], Buffer] = {}
        self.last_writes: dict[int, int] = {}
        self.time = 0

    def _needs_grad(self) -> set[int]:
        """The ids of the nodes whose gradient leads to an argument that wants one."""
        return needs_gradient(self.binding.order, self.binding.reqs)

    def _value_at(self, entry: Entry, place: Workspace) -> Buffer:
        """The value of an entry on a device, copied there once if it is computed on another one."""
        key = key_of(entry)
        value = self.values[key]
        if value.place is place:
            return value
        copied = self.copies.get((key, id(place)))
        if copied is None:
            copied = self.copies[key, id(place)] = Buffer(place, value.shape, value.dtype)
            self._copy(value, copied, self.forward_drafts)
        return copied

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
            arrays = [array_of(b) for b in inputs]
            return Call(
                device=workspace.backend,
                xp=workspace.backend.xp,
                attrs=node.attrs,
                is_train=self.is_train,
                inputs=arrays[:count],
                outputs=[array_of(b) for b in outputs],
                aux=arrays[count:],
                stream=binding.stream,
                node=self.number[id(node)],
                scratch=workspace.scratch,
                out_grads=[None if b is None else array_of(b) for b in out_grads],
                in_grads=[None if b is None else array_of(b) for b in in_grads],
            )

        return make

    def _copy(self, source: Buffer, target: Buffer, drafts: list[Draft]) -> None:
        self._note([source], target)

        def build() -> Step:
            into = array_of(target)
            array = array_of(source)
            if is_sparse(into):
                return lambda: into.__setitem__(slice(None), to_host(array))
            array = array.reshape(into.shape)
            return lambda: copy(into, array)

        drafts.append(Draft(build, target.place, ("_copy", "")))
        if drafts is self.backward_drafts:
            self._writes([target])

    def _note(self, sources: list[Buffer], target: Buffer) -> None:
        """Note who reads and writes in a step of the plan's own."""
        for buffer in (*sources, target):
            buffer.touch(self.time)
        self.time += 1
        self.buffers.append(target)

    def _writes(self, buffers: Sequence[Buffer | None]) -> None:
        """Note that the newest backward step writes these."""
        for buffer in buffers:
            if buffer is not None and buffer.is_bound:
                self.last_writes[id(buffer.root.array)] = len(self.backward_drafts) - 1
