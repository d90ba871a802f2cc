"""The graph behind symbols: nodes, and orders to walk them in.

A node is an operator with inputs, or a variable. Nodes do not change once they are part of a symbol,
but for their attributes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from dmod.base import InvalidArgument
from dmod.ops import Operator

__all__ = ["Entry", "Node", "auxiliary_variables", "output_name", "topological_order"]


class Entry(NamedTuple):
    """One output of a node."""

    node: Node
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class Node:
    """An operator with its inputs, or a variable (`op` is None).

    Attributes
    ----------
    op : Operator or None
    name : str
    raw : dict of str
        Attributes as they stand in JSON: the operator's parameters, and user's ones like ``__lr_mult__``.
    inputs : list of Entry
        Arguments first, then auxiliary states.
    attrs : Attrs or None
        The operator's parameters, parsed.
    """

    __slots__ = ("attrs", "inputs", "name", "op", "raw")

    def __init__(self, op: Operator | None, name: str, raw: dict[str, str], inputs: list[Entry]):
        self.op, self.name, self.raw, self.inputs = op, name, raw, inputs
        self.attrs: Any = op.parse(raw, repr(name)) if op is not None else None

    @property
    def is_variable(self) -> bool:
        """Whether this is a variable."""
        return self.op is None

    @property
    def num_visible(self) -> int:
        """How many outputs users see."""
        return 1 if self.op is None else self.op.num_visible(self.attrs)

    @property
    def num_arguments(self) -> int:
        """How many of the inputs are arguments; the rest are auxiliary states."""
        return 0 if self.op is None else len(self.op.arguments(self.attrs))

    def __repr__(self) -> str:
        return f"<Node {self.op.name if self.op else 'variable'} {self.name!r}>"


def topological_order(heads: Iterable[Entry]) -> list[Node]:
    """All nodes below `heads`, each after its inputs, in depth-first order (MXNet's order)."""
    order: list[Node] = []
    done: set[int] = set()
    for head in heads:
        stack = [(head.node, 0)]
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
    return order


def auxiliary_variables(order: Iterable[Node]) -> set[int]:
    """The ids of the variables that some operator takes as an auxiliary state."""
    return {id(entry.node) for node in order for entry in node.inputs[node.num_arguments :]}


def output_name(entry: Entry) -> str:
    """The name of an output: a variable's own, else node and output, such as ``fc1_output``."""
    node, index = entry
    if node.op is None:
        return node.name
    return f"{node.name}_{node.op.outputs(node.attrs)[index]}"


def check_unique(names: Iterable[str], what: str) -> list[str]:
    """`names` as a list; refuses duplicates, which would make arguments ambiguous."""
    seen: set[str] = set()
    listed = list(names)
    for name in listed:
        if name in seen:
            raise InvalidArgument(f"two {what} are named {name!r}; give them different names")
        seen.add(name)
    return listed
