"""`Graph`: what passes rewrite, a copy of a symbol's graph with all that the plan compiler knows about it.

Its nodes are copies, so that a pass may change them: the symbol keeps its own. Passes read `order`, ask
`readers`, `only_reader`, `same_place`, and change the graph by `add` and `replace`; `finish` brings the
order up to date and drops what nobody reads any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dmod.ops.registry import Attrs, Operator, zero_gradient
from dmod.symbol.graph import Entry, Node

__all__ = ["Graph", "Key", "key_of", "needs_gradient"]

Key = tuple[int, int]
"""An entry as a key of dicts: ``(id(node), output)``."""


def key_of(entry: Entry) -> Key:
    """The key of an entry in `Graph.shapes` and `Graph.dtypes`."""
    return id(entry.node), entry.index


def needs_gradient(order: Iterable[Node], reqs: Mapping[str, str]) -> set[int]:
    """The ids of the nodes whose gradient leads to an argument that wants one."""
    needed: set[int] = set()
    for node in order:
        if node.op is None:
            wanted = reqs.get(node.name, "null") != "null"
        else:  # below an operator that passes nothing on, such as BlockGrad, there is nothing to do
            arguments = node.inputs[: node.num_arguments]
            wanted = node.op.backward is not zero_gradient and any(id(e.node) in needed for e in arguments)
        if wanted:
            needed.add(id(node))
    return needed


class Graph:
    """A graph to rewrite.

    Parameters
    ----------
    order : list of Node
        Each after its inputs.
    heads : list of Entry
    shapes, dtypes : mapping
        Of every entry, by ``(id(node), output)``.
    reqs : mapping of str to str
        'write', 'add' or 'null' for each argument.
    places : mapping of int to object
        What says where a node is computed, by id; nodes that are not in it are at `place`.
    place : object
    is_train : bool
        Whether backward steps are wanted.

    Attributes
    ----------
    order, heads, shapes, dtypes, reqs, places, place, is_train
        As given, for this graph's copies of the nodes.
    numbers : dict of int to int
        Each node's position in the symbol, by id: random operators draw by it, so it never changes. A node
        that a pass adds has the number of one that it stands for.
    """

    def __init__(
        self,
        order: Sequence[Node],
        heads: Sequence[Entry],
        shapes: Mapping[Key, Any],
        dtypes: Mapping[Key, Any],
        reqs: Mapping[str, str],
        places: Mapping[int, Any],
        place: Any,
        is_train: bool,
    ):
        copies: dict[int, Node] = {}
        for node in order:
            twin = Node(None, node.name, node.raw, [Entry(copies[id(e.node)], e.index) for e in node.inputs])
            twin.op, twin.attrs = node.op, node.attrs
            copies[id(node)] = twin
        self._original = [*order]  # ids are keys: no node may go while others come
        self._all = list(copies.values())
        self.order = list(copies.values())
        self.heads = [Entry(copies[id(e.node)], e.index) for e in heads]
        self.shapes = {(id(copies[i]), k): v for (i, k), v in shapes.items() if i in copies}
        self.dtypes = {(id(copies[i]), k): v for (i, k), v in dtypes.items() if i in copies}
        self.places = {id(copies[i]): v for i, v in places.items() if i in copies}
        self.numbers = {id(node): i for i, node in enumerate(self.order)}
        self.reqs, self.place, self.is_train = reqs, place, is_train
        self._readers: dict[Key, list[tuple[Node, int]]] | None = None

    # ---- asking

    def place_of(self, node: Node) -> Any:
        """Where a node is computed."""
        return self.places.get(id(node), self.place)

    def same_place(self, *nodes: Node) -> bool:
        """Whether nodes are computed on one device: only such may be joined."""
        first = self.place_of(nodes[0])
        return all(self.place_of(node) is first for node in nodes)

    def on_host(self, node: Node) -> bool:
        """Whether a node is computed in host memory, where compiled kernels run."""
        return bool(self.place_of(node).backend.is_host)

    def shape(self, entry: Entry) -> tuple[int, ...]:
        """The shape of an entry."""
        return tuple(self.shapes[key_of(entry)])

    def all_float32(self, node: Node) -> bool:
        """Whether all inputs and outputs of a node are float32."""
        entries = [*map(key_of, node.inputs), *((id(node), k) for k in range(self.num_outputs(node)))]
        return all(np.dtype(self.dtypes[key]) == np.float32 for key in entries)

    def num_outputs(self, node: Node) -> int:
        """How many outputs a node has, hidden ones included."""
        return 1 if node.op is None else len(node.op.outputs(node.attrs))

    def readers(self, entry: Entry) -> list[tuple[Node, int]]:
        """The nodes that read an entry, with the number of the input, in order."""
        if self._readers is None:
            self._readers = {}
            for node in self.order:
                for k, source in enumerate(node.inputs):
                    self._readers.setdefault(key_of(source), []).append((node, k))
        return self._readers.get(key_of(entry), [])

    def is_head(self, entry: Entry) -> bool:
        """Whether an entry is an output of the symbol."""
        return any(head == entry for head in self.heads)

    def only_reader(self, entry: Entry) -> tuple[Node, int] | None:
        """The one input that reads an entry; None if there are more or fewer, or it is an output too."""
        found = self.readers(entry)
        return found[0] if len(found) == 1 and not self.is_head(entry) else None

    def needs_gradient(self) -> set[int]:
        """The ids of the nodes whose gradient is wanted: none for inference."""
        return needs_gradient(self.order, self.reqs) if self.is_train else set()

    # ---- changing

    def add(
        self,
        op: Operator,
        attrs: Attrs,
        inputs: Sequence[Entry],
        like: Node,
        outputs: Sequence[tuple[tuple[int, ...], Any]],
    ) -> Node:
        """A new node, right after `like`, whose name, number and place it takes.

        Parameters
        ----------
        op : Operator
            Registered by `register_internal`, mostly.
        attrs : Attrs
            Its parameters, as `op`'s builders read them.
        inputs : list of Entry
            Arguments, then auxiliary states.
        like : Node
            The last of the nodes that this one stands for.
        outputs : list of (shape, dtype)
            Of every output, hidden ones included.
        """
        node = Node(None, like.name, like.raw, list(inputs))
        node.op, node.attrs = op, attrs
        self._all.append(node)
        for k, (shape, dtype) in enumerate(outputs):
            self.shapes[id(node), k], self.dtypes[id(node), k] = tuple(shape), np.dtype(dtype)
        self.numbers[id(node)] = self.numbers[id(like)]
        if id(like) in self.places:
            self.places[id(node)] = self.places[id(like)]
        self.order.insert(self._position(like) + 1, node)
        self._readers = None
        return node

    def _position(self, node: Node) -> int:
        return next(i for i, other in enumerate(self.order) if other is node)

    def replace(self, changes: Mapping[Key, Entry], but: Sequence[Node] = ()) -> None:
        """Let whoever reads an entry read another one instead, heads included.

        Parameters
        ----------
        changes : dict of (id(node), output) to Entry
        but : list of Node
            Nodes that go on reading what they read.
        """
        spared = {id(node) for node in but}
        for node in self.order:
            if id(node) not in spared and any(key_of(e) in changes for e in node.inputs):
                node.inputs = [changes.get(key_of(e), e) for e in node.inputs]
        self.heads = [changes.get(key_of(e), e) for e in self.heads]
        self._readers = None

    def finish(self) -> None:
        """Put the nodes in an order in which each follows its inputs; drop those that nobody reads.

        Nodes keep their order otherwise, and variables stay, read or not.
        """
        needed: set[int] = set()
        todo = [e.node for e in self.heads]
        while todo:
            node = todo.pop()
            if id(node) not in needed:
                needed.add(id(node))
                todo.extend(e.node for e in node.inputs)
        order: list[Node] = []
        done: set[int] = set()
        for start in self.order:
            if start.op is not None and id(start) not in needed:
                continue
            stack = [(start, 0)]
            while stack:
                node, child = stack.pop()
                if id(node) in done:
                    continue
                if child < len(node.inputs):
                    stack.append((node, child + 1))
                    stack.append((node.inputs[child].node, 0))
                else:
                    done.add(id(node))
                    order.append(node)
        self.order = order
        self._readers = None
