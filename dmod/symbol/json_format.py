"""A symbol's JSON, byte for byte as MXNet writes it, and a reader that trusts nothing."""

from __future__ import annotations

import json
from typing import Any

from dmod.base import GraphError, InvalidArgument, MXNetError
from dmod.ops import get_operator
from dmod.symbol.graph import Entry, Node, topological_order

__all__ = ["dumps", "load_file", "loads", "without_casts"]

VERSION = 10901
"""The version that files name: that of the format, MXNet 1.9.1's."""
_AMP_CASTS = ("amp_cast", "amp_multicast")
_MULTI_LINE_FROM = 11
"""Lists of at least so many elements are written one element per line."""


def dumps(heads: list[Entry]) -> str:
    """The JSON of the graph below `heads`."""
    order = topological_order(heads)
    number = {id(node): i for i, node in enumerate(order)}
    aux_from = {id(node): node.num_arguments for node in order}
    nodes, row_ptr = [], [0]
    for node in order:
        item: dict[str, Any] = {"op": node.op.name if node.op else "null", "name": node.name}
        if node.raw:
            item["attrs"] = dict(sorted(node.raw.items()))
        item["inputs"] = [
            _Triple((number[id(e.node)], e.index, int(i >= aux_from[id(node)])))
            for i, e in enumerate(node.inputs)
        ]
        nodes.append(item)
        row_ptr.append(row_ptr[-1] + _counted_outputs(node))
    graph = {
        "nodes": nodes,
        "arg_nodes": [i for i, node in enumerate(order) if node.is_variable],
        "node_row_ptr": row_ptr,
        "heads": [_Triple((number[id(e.node)], e.index, 0)) for e in heads],
        "attrs": {"mxnet_version": _Triple(("int", VERSION))},
    }
    return _write(graph, 0)


def _counted_outputs(node: Node) -> int:
    """How many outputs MXNet counts."""
    if node.op is None:
        return 1
    return node.op.json_outputs(node.attrs) or len(node.op.outputs(node.attrs))


class _Triple(tuple):
    """A tuple that is written on one line."""


def _write(value: Any, depth: int) -> str:
    if isinstance(value, _Triple):
        return "[" + ", ".join(json.dumps(v) for v in value) + "]"
    if isinstance(value, dict):
        items = [f"{json.dumps(k)}: {_write(v, depth + 1)}" for k, v in value.items()]
        multi = len(value) > 1
        return _join(items, "{}", multi, depth)
    if isinstance(value, list):
        items = [_write(v, depth + 1) for v in value]
        multi = len(value) >= _MULTI_LINE_FROM or any(isinstance(v, dict) for v in value)
        return _join(items, "[]", multi, depth)
    return json.dumps(value, ensure_ascii=False)


def _join(items: list[str], brackets: str, multi: bool, depth: int) -> str:
    if not multi:
        return brackets[0] + ", ".join(items) + brackets[1]
    pad = "\n" + "  " * (depth + 1)
    return brackets[0] + pad + (", " + pad).join(items) + "\n" + "  " * depth + brackets[1]


def without_casts(heads: list[Entry]) -> list[Entry]:
    """`heads` of the graph without the casts of mixed precision: themselves, if it has none."""
    order = topological_order(heads)
    if not any(n.op is not None and n.op.name in _AMP_CASTS for n in order):
        return heads
    copies: dict[int, Node] = {}
    sources: dict[tuple[int, int], Entry] = {}
    outputs = {id(e.node) for e in heads}
    for node in order:
        inputs = [
            sources.get((id(e.node), e.index)) or Entry(copies[id(e.node)], e.index) for e in node.inputs
        ]
        is_cast = node.op is not None and node.op.name in _AMP_CASTS
        if is_cast:
            sources.update({(id(node), i): e for i, e in enumerate(inputs)})
        if not is_cast or id(node) in outputs:
            copies[id(node)] = Node(node.op, node.name, dict(node.raw), inputs)
    return [Entry(copies[id(e.node)], e.index) for e in heads]


def loads(text: str, where: str = "JSON") -> list[Entry]:
    """Read a graph; returns its heads.

    Nodes may only refer to nodes before them, so no file can make a cycle.

    Raises
    ------
    GraphError
        The text is not JSON, or not a valid graph; the message says where.
    """
    try:
        graph = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        at = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise GraphError(f"{where}: not JSON{at}: {getattr(error, 'msg', 'nested too deeply')}") from None
    _expect(isinstance(graph, dict), where, "expected an object at the top")
    rows = graph.get("nodes")
    _expect(isinstance(rows, list) and rows, where, "'nodes' is missing or not a list")
    nodes: list[Node] = []
    for i, row in enumerate(rows):
        nodes.append(_read_node(row, i, nodes, where))
    heads = graph.get("heads")
    _expect(isinstance(heads, list) and heads, where, "'heads' is missing or not a list")
    return [_entry(head, nodes, len(nodes), f"{where}: heads[{i}]") for i, head in enumerate(heads)]


def _expect(condition: Any, where: str, message: str) -> None:
    if not condition:
        raise GraphError(f"{where}: {message}")


def _read_node(row: Any, i: int, nodes: list[Node], where: str) -> Node:
    at = f"{where}: nodes[{i}]"
    _expect(isinstance(row, dict), at, "expected an object")
    op, name = row.get("op"), row.get("name")
    _expect(isinstance(op, str) and isinstance(name, str), at, "'op' and 'name' must be strings")
    inputs = row.get("inputs", [])
    _expect(isinstance(inputs, list), at, "'inputs' must be a list")
    entries = [_entry(e, nodes, i, f"{at}: inputs[{k}]") for k, e in enumerate(inputs)]
    raw = _read_attrs(row, at)
    if op == "null":
        _expect(not entries, at, f"variable {name!r} has inputs")
        return Node(None, name, raw, [])
    try:
        node = Node(get_operator(op), name, raw, entries)
    except InvalidArgument as error:
        raise GraphError(f"{at}: {error}") from None
    assert node.op is not None
    needed = len(node.op.arguments(node.attrs)) + len(node.op.aux(node.attrs))
    if len(entries) < needed and needed - len(entries) == len(node.op.aux(node.attrs)):
        entries.extend(_old_aux(node, nodes))  # before 0.9 files did not list auxiliary states
    _expect(len(entries) == needed, at, f"{op} {name!r} has {len(entries)} inputs, expected {needed}")
    return node


def _old_aux(node: Node, nodes: list[Node]) -> list[Entry]:
    assert node.op is not None
    return [
        Entry(Node(None, f"{node.name}_{aux}", {"__init__": node.op.aux_init[aux]}, []), 0)
        for aux in node.op.aux(node.attrs)
    ]


def _read_attrs(row: dict[str, Any], at: str) -> dict[str, str]:
    """Attributes: 'attrs' since 1.0, 'attr' before it, 'param' beside 'attr' before 0.9."""
    raw: dict[str, str] = {}
    for key in ("param", "attr", "attrs"):
        part = row.get(key, {})
        _expect(isinstance(part, dict), at, f"{key!r} must be an object")
        for name, value in part.items():
            _expect(isinstance(value, str), at, f"attribute {name!r} must be a string")
            raw[name] = value
    return raw


def _entry(value: Any, nodes: list[Node], limit: int, at: str) -> Entry:
    _expect(isinstance(value, list) and 2 <= len(value) <= 3, at, "expected [node, output, version]")
    number, index = value[0], value[1]
    _expect(all(type(v) is int for v in value), at, "expected whole numbers")
    _expect(
        0 <= number < limit, at, f"refers to node {number}, of which only 0 to {limit - 1} come before it"
    )
    node = nodes[number]
    count = 1 if node.op is None else len(node.op.outputs(node.attrs))
    _expect(0 <= index < count, at, f"refers to output {index} of {node.name!r}, which has {count}")
    return Entry(node, index)


def load_file(path: str) -> list[Entry]:
    """Read a graph from a file."""
    try:
        with open(path, encoding="utf-8") as file:
            return loads(file.read(), path)
    except OSError as error:
        raise MXNetError(f"symbol.load: cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise GraphError(f"{path}: not text at byte {error.start}") from None
