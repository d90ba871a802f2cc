"""``mx.viz``: pictures and tables of networks.

`plot_network` describes the picture in the DOT language. With the package ``graphviz`` installed it
returns that package's ``Digraph``, else one of ours, which offers the same of it: source, save, render.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dmod.atomic_file import write_atomic
from dmod.base import InvalidArgument, MXNetError
from dmod.symbol import Symbol

__all__ = ["Digraph", "plot_network", "print_summary"]

_FORMATS = ("svg", "png", "pdf", "ps", "jpg", "gif", "dot")
_TIMEOUT_S = 60
_PARAMETERS = (
    "_weight",
    "_bias",
    "_gamma",
    "_beta",
    "_moving_mean",
    "_moving_var",
    "_running_mean",
    "_running_var",
)

# ColorBrewer's Set3, a colour per family of operators.
_COLOURS = {
    "input": "#8dd3c7",
    "layer": "#fb8072",
    "norm": "#bebada",
    "activation": "#ffffb3",
    "pooling": "#80b1d3",
    "shape": "#fdb462",
    "loss": "#b3de69",
    "other": "#fccde5",
}
_FAMILIES = {
    **dict.fromkeys(("Convolution", "Deconvolution", "FullyConnected", "RNN", "Embedding"), "layer"),
    **dict.fromkeys(("BatchNorm", "LayerNorm", "InstanceNorm", "LRN", "L2Normalization"), "norm"),
    **dict.fromkeys(("Activation", "LeakyReLU", "SoftmaxActivation", "softmax", "Dropout"), "activation"),
    "Pooling": "pooling",
    **dict.fromkeys(("Concat", "Flatten", "Reshape", "SliceChannel", "transpose"), "shape"),
    **dict.fromkeys(("SoftmaxOutput", "LinearRegressionOutput", "MakeLoss"), "loss"),
}


class Digraph:
    """A directed graph in the DOT language: of ``graphviz.Digraph``, what `plot_network` needs.

    Parameters
    ----------
    name : str
    format : str
        What `render` makes: 'svg', 'png', 'pdf', ...

    Examples
    --------
    >>> graph = Digraph('net')
    >>> graph.edge('fc', 'data', label='8')
    >>> print(graph.source)
    digraph net {
        fc -> data [label=8]
    }
    """

    def __init__(self, name: str = "plot", format: str = "pdf"):
        if format not in _FORMATS:
            raise InvalidArgument(f"format {format!r}: expected one of {', '.join(_FORMATS)}")
        self.name = name
        self.format = format
        self._lines: list[str] = []

    def node(self, name: str, label: str | None = None, **attrs: Any) -> None:
        """Add a node."""
        self._lines.append(f"\t{_quoted(name)}{_attributes(label, attrs)}")

    def edge(self, tail_name: str, head_name: str, label: str | None = None, **attrs: Any) -> None:
        """Add an edge."""
        self._lines.append(f"\t{_quoted(tail_name)} -> {_quoted(head_name)}{_attributes(label, attrs)}")

    @property
    def source(self) -> str:
        """The graph in the DOT language."""
        return "\n".join([f"digraph {_quoted(self.name)} {{", *self._lines, "}"])

    def __str__(self) -> str:
        return self.source

    def save(self, filename: str | None = None, directory: str | None = None) -> str:
        """Write the DOT text; returns the file's path, by default ``NAME.gv``."""
        path = os.path.join(directory or "", filename or f"{self.name}.gv")
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        write_atomic(path, [self.source.encode() + b"\n"])
        return path

    def render(
        self,
        filename: str | None = None,
        directory: str | None = None,
        view: bool = False,
        cleanup: bool = False,
        format: str | None = None,
    ) -> str:
        """Draw the graph with the program ``dot`` of Graphviz.

        Parameters
        ----------
        filename, directory : str, optional
            For the DOT text; the picture gets the format's ending too.
        view : bool
            Not supported here; open the file yourself.
        cleanup : bool
            Remove the DOT text afterwards.
        format : str, optional
            Instead of the graph's own.

        Returns
        -------
        str
            The picture's path.

        Raises
        ------
        MXNetError
            There is no ``dot``, or it failed.
        """
        if view:
            raise InvalidArgument("render: view=True needs the package graphviz (pip install graphviz)")
        path, kind = self.save(filename, directory), format or self.format
        picture = f"{path}.{kind}"
        write_atomic(picture, [self._drawn(kind)])
        if cleanup:
            os.unlink(path)
        return picture

    def _drawn(self, kind: str) -> bytes:
        program = shutil.which("dot")
        if program is None:
            raise MXNetError(
                "drawing needs the program 'dot' of Graphviz (https://graphviz.org/download), which is not "
                "on the PATH; save() writes the DOT text, which any Graphviz viewer shows"
            )
        try:
            done = subprocess.run(
                [program, f"-T{kind}"],
                input=self.source.encode(),
                capture_output=True,
                timeout=_TIMEOUT_S,
                check=True,
            )
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
            raise MXNetError(f"dot failed: {said or error}") from None
        return done.stdout

    def _repr_svg_(self) -> str | None:
        """The picture for notebooks; None, which makes them print the object, if it cannot be drawn."""
        try:
            return self._drawn("svg").decode()
        except MXNetError:
            return None


def _quoted(text: str) -> str:
    """`text` as an identifier of the DOT language."""
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*|-?(\.[0-9]+|[0-9]+(\.[0-9]*)?)", text)
    reserved = text.lower() in ("node", "edge", "graph", "digraph", "subgraph", "strict")
    if plain and not reserved:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _attributes(label: str | None, attrs: Mapping[str, Any]) -> str:
    given = ([("label", label)] if label is not None else []) + sorted(attrs.items())
    return " [" + " ".join(f"{k}={_quoted(str(v))}" for k, v in given) + "]" if given else ""


class _Node(NamedTuple):
    """A node of a symbol's JSON."""

    op: str
    name: str
    attrs: dict[str, str]
    inputs: list[tuple[int, int]]

    @property
    def is_variable(self) -> bool:
        return self.op == "null"

    @property
    def is_parameter(self) -> bool:
        return self.is_variable and self.name.endswith(_PARAMETERS)


def _nodes(symbol: Symbol) -> list[_Node]:
    graph = json.loads(symbol.tojson())
    return [
        _Node(n["op"], n["name"], n.get("attrs", {}), [(i[0], i[1]) for i in n["inputs"]])
        for n in graph["nodes"]
    ]


def _entry_shapes(symbol: Symbol, shape: Mapping[str, tuple[int, ...]] | None) -> dict[str, tuple[int, ...]]:
    """The shapes of everything that is computed, by the names of internal outputs; none without shapes."""
    if shape is None:
        return {}
    internals = symbol.get_internals()
    _, shapes, _ = internals.infer_shape(**shape)
    if shapes is None:
        raise InvalidArgument(f"the shapes {dict(shape)} do not determine those of the whole network")
    return dict(zip(internals.list_outputs(), shapes, strict=True))


def _shape_of(node: _Node, output: int, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    for name in (node.name, f"{node.name}_output", f"{node.name}_output{output}"):
        if name in shapes:
            return shapes[name]
    outputs = [s for n, s in shapes.items() if n.startswith(f"{node.name}_")]
    return outputs[output] if output < len(outputs) else None


def _times(values: Any) -> str:
    return "x".join(str(v) for v in values)


def _numbers(text: str) -> list[str]:
    """The numbers in text such as '(3, 3)'."""
    return re.findall(r"-?\d+", text)


def _label(node: _Node) -> str:
    """What stands in a node's box."""
    attrs, op = node.attrs, node.op
    stride = _times(_numbers(attrs.get("stride", ""))) or "1"
    if op in ("Convolution", "Deconvolution"):
        return f"{op}\n{_times(_numbers(attrs.get('kernel', '')))}/{stride}, {attrs.get('num_filter', '?')}"
    if op == "FullyConnected":
        return f"{op}\n{attrs.get('num_hidden', '?')}"
    if op in ("Activation", "LeakyReLU"):
        return f"{op}\n{attrs.get('act_type', 'leaky')}"
    if op == "Pooling":
        kernel = _times(_numbers(attrs.get("kernel", ""))) or "global"
        return f"{op}\n{attrs.get('pool_type', 'max')}, {kernel}/{stride}"
    return node.name


def plot_network(
    symbol: Symbol,
    title: str = "plot",
    save_format: str = "pdf",
    shape: Mapping[str, tuple[int, ...]] | None = None,
    dtype: Any = None,
    node_attrs: Mapping[str, Any] | None = None,
    hide_weights: bool = True,
) -> Any:
    """Draw a network as a graph.

    Parameters
    ----------
    symbol : Symbol
    title : str
        The graph's name, and the file's.
    save_format : str
        What ``render`` makes: 'pdf', 'svg', 'png', ...
    shape : dict of str to tuple of int, optional
        Shapes of inputs; the edges then tell the shapes of what passes along, without the batch axis.
    dtype : optional
        Accepted; shapes do not depend on it.
    node_attrs : dict, optional
        Graphviz attributes for all nodes.
    hide_weights : bool
        Leave parameters out.

    Returns
    -------
    graphviz.Digraph or Digraph
        With ``source``, ``save`` and ``render``; a notebook shows the picture.

    Examples
    --------
    >>> from dmod.symbol import Variable
    >>> print(plot_network(Variable('a') + Variable('b'), title='sum').source.split()[1])
    sum
    """
    if not isinstance(symbol, Symbol):
        raise TypeError(f"plot_network: expected a Symbol, got {type(symbol).__name__}")
    shapes = _entry_shapes(symbol, shape)
    style = {"shape": "box", "fixedsize": "true", "width": "1.3", "height": "0.8034", "style": "filled"}
    style.update({key: str(value) for key, value in (node_attrs or {}).items()})
    graph = _graph(title, save_format)
    nodes = _nodes(symbol)
    hidden = {i for i, node in enumerate(nodes) if hide_weights and node.is_parameter}
    for i, node in enumerate(nodes):
        if i not in hidden:
            family = "input" if node.is_variable else _FAMILIES.get(node.op, "other")
            looks = {**style, "fillcolor": _COLOURS[family]} | ({"shape": "oval"} if node.is_variable else {})
            graph.node(node.name, label=node.name if node.is_variable else _label(node), **looks)
    for node in nodes:
        for source, output in node.inputs:
            if source not in hidden:
                known = _shape_of(nodes[source], output, shapes)
                label = _times(known[1:]) if known else ""
                graph.edge(node.name, nodes[source].name, label=label, dir="back", arrowtail="open")
    return graph


def _graph(title: str, save_format: str) -> Any:
    try:
        import graphviz
    except ImportError:
        return Digraph(title, save_format)
    return graphviz.Digraph(name=title, format=save_format)


def print_summary(
    symbol: Symbol,
    shape: Mapping[str, tuple[int, ...]] | None = None,
    line_length: int = 120,
    positions: Any = (0.44, 0.64, 0.74, 1.0),
) -> None:
    """Print a table of layers, their output shapes and numbers of parameters.

    Parameters
    ----------
    symbol : Symbol
    shape : dict of str to tuple of int, optional
        Shapes of inputs; without them shapes stay empty and numbers 0 (MXNet then counts biases only).
    line_length : int
    positions : sequence of float
        Where the columns end, as shares of the line.
    """
    if not isinstance(symbol, Symbol):
        raise TypeError(f"print_summary: expected a Symbol, got {type(symbol).__name__}")
    ends = [int(line_length * p) if p <= 1 else int(p) for p in positions]
    nodes, shapes = _nodes(symbol), _entry_shapes(symbol, shape)
    print("_" * line_length)
    print(_row(["Layer (type)", "Output Shape", "Param #", "Previous Layer"], ends))
    print("=" * line_length)
    total = 0
    inputs, running = {"data", *(shape or ())}, set(symbol.list_auxiliary_states())
    for node, count, rows in _layers(nodes, shapes, inputs, running):
        total += count
        for row in rows:
            print(_row(row, ends))
        print(("=" if node is nodes[-1] else "_") * line_length)
    print(f"Total params: {total}")
    print("_" * line_length)


def _row(fields: list[str], ends: list[int]) -> str:
    line = ""
    for field, end in zip(fields, ends, strict=True):
        line = (line + field)[:end].ljust(end)
    return line


def _layers(
    nodes: list[_Node], shapes: Mapping[str, tuple[int, ...]], inputs: set[str], running: set[str]
) -> Iterator[tuple[_Node, int, list[list[str]]]]:
    """Each operator and input, with its number of parameters and its lines in the table."""
    counted: set[int] = set()
    for node in nodes:
        if node.is_variable and node.name not in inputs:
            continue
        count, previous = 0, []
        for source, _ in node.inputs:
            other = nodes[source]
            if not other.is_variable or other.name in inputs:
                previous.append(other.name)
            elif other.name not in running and source not in counted and not _is_fed(other.name):
                counted.add(source)  # a shared parameter counts once
                count += _product(_shape_of(other, 0, shapes) or (0,))
        known = _shape_of(node, 0, shapes)
        first = [
            f"{node.name}({node.op})",
            _times(known[1:]) if known else "",
            str(count),
            *(previous[:1] or [""]),
        ]
        yield node, count, [first, *(["", "", "", name] for name in previous[1:])]


def _is_fed(name: str) -> bool:
    """Whether a variable is one of the inputs that a module finds by its name."""
    return name.endswith("label") or "begin_state" in name


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
