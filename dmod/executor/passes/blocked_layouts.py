"""Blocked layouts: chains of convolutions, and what lies between them, are computed by oneDNN.

A convolution for which the library has fast primitives starts a chain; batch normalisation, ReLU, pooling
and sums go on in the layout that it leaves, and a change of layout is made only where another operator
reads the result. Such an entry is an opaque flat array. A function that follows a convolution, a sum or a
batch normalisation becomes part of it, as does a sum that follows a convolution.

What is chosen depends on shapes and on the library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dmod.device.onednn import Engine, Layout, NotImplementedByLibrary, onednn
from dmod.device.onednn.api import Kind
from dmod.device.onednn.convolution import Convolution, Shapes
from dmod.device.onednn.layers import Addition, BatchNorm, Function, Pooling
from dmod.device.onednn.matmul import FUNCTIONS
from dmod.executor.passes.graph import Graph, Key, key_of
from dmod.executor.passes.pooling_windows import pooling_of
from dmod.ops.onednn_batch_norm import BATCH_NORM
from dmod.ops.onednn_convolution import CONVOLUTION
from dmod.ops.onednn_layers import ADDITION, FUNCTION, POOLING, REORDER
from dmod.ops.registry import Attrs
from dmod.ops.window import window_of
from dmod.symbol.graph import Entry, Node

__all__ = ["run"]


class _Laid(NamedTuple):
    """An entry of the new graph, and how it lies in memory."""

    entry: Entry
    layout: Layout


def run(graph: Graph) -> int:
    """Rewrite `graph`; returns how many operators oneDNN computes."""
    engine = onednn()
    return _Rewriting(graph, engine).run() if engine is not None else 0


class _Rewriting:
    """One run of the pass.

    Attributes
    ----------
    laid : dict
        The new entries, by the old ones that they stand for.
    computed : list of Node
        The old nodes that new ones stand for.
    """

    def __init__(self, graph: Graph, engine: Engine):
        self.graph, self.engine = graph, engine
        self.needed = graph.needs_gradient()
        self.laid: dict[Key, _Laid] = {}
        self.reordered: list[tuple[Key, _Laid]] = []
        self.computed: list[Node] = []

    def run(self) -> int:
        for node in list(self.graph.order):
            rule = _RULES.get(node.op.name) if node.op is not None else None
            if rule is None or not self.graph.on_host(node) or not self.graph.all_float32(node):
                continue
            try:
                made = rule(self, node)
            except NotImplementedByLibrary:
                made = False
            if made:
                self.computed.append(node)
        self._restore()
        return len(self.computed)

    def _restore(self) -> None:
        """Give those that still read the old entries plain arrays."""
        graph, changes = self.graph, {}
        computed = {id(node) for node in self.computed}
        for node in self.computed:
            entry = Entry(node, 0)
            laid = self.laid[key_of(entry)]
            if laid.layout.is_plain:
                changes[key_of(entry)] = laid.entry
            elif graph.is_head(entry) or any(id(r) not in computed for r, _ in graph.readers(entry)):
                plain = self.engine.plain(laid.layout.shape)
                changes[key_of(entry)] = self._reorder(laid.entry, laid.layout, plain, laid.entry.node)
        graph.replace(changes)

    # ---- entries

    def _reorder(self, entry: Entry, source: Layout, target: Layout, like: Node) -> Entry:
        attrs = Attrs(source=source, target=target)
        shape = target.shape if target.is_plain else _opaque(target)
        return Entry(self.graph.add(REORDER, attrs, [entry], like, [(shape, np.float32)]), 0)

    def _in_layout(self, entry: Entry, wanted: Layout, like: Node) -> Entry:
        """An entry of the old graph in a layout."""
        laid = self.laid.get(key_of(entry)) or _Laid(entry, self.engine.plain(self.graph.shape(entry)))
        if laid.layout == wanted or (laid.layout.is_plain and wanted.is_plain):
            return laid.entry
        for key, other in self.reordered:
            if key == key_of(entry) and other.layout == wanted:
                return other.entry
        made = self._reorder(laid.entry, laid.layout, wanted, like)
        self.reordered.append((key_of(entry), _Laid(made, wanted)))
        return made

    def _blocked(self, entry: Entry) -> _Laid | None:
        """The new entry for an old one, if it is in a layout of the library's."""
        laid = self.laid.get(key_of(entry))
        return None if laid is None or laid.layout.is_plain else laid

    def _put(
        self,
        node: Node,
        op: Any,
        attrs: Attrs,
        inputs: list[Entry],
        target: Layout,
        hidden: Sequence[tuple[tuple[int, ...], Any]] = (),
        after: Node | None = None,
    ) -> bool:
        """Let a new node stand for `node`; `after` is another new one that it follows."""
        shape = target.shape if target.is_plain else _opaque(target)
        new = self.graph.add(op, attrs, inputs, after or node, [(shape, np.float32), *hidden])
        self.laid[id(node), 0] = _Laid(Entry(new, 0), target)
        return True

    def _alone(self, entry: Entry, node: Node) -> bool:
        """Whether `node` is the only one that reads `entry`, so that it may be joined with its producer."""
        reader = self.graph.only_reader(entry)
        place = self.laid[key_of(entry)].entry.node
        return reader is not None and reader[0] is node and self.graph.same_place(place, node)

    # ---- rules

    def convolution(self, node: Node) -> bool:
        graph, engine = self.graph, self.engine
        shapes = _shapes_of(graph, node)
        laid = self.laid.get(key_of(node.inputs[0]))
        spec = Convolution(engine, shapes, is_train=graph.is_train)
        if laid is not None and laid.layout != spec.source:
            spec = self._kept(laid.layout, spec)
        self._check_gradients(node, spec)
        data = self._in_layout(node.inputs[0], spec.source, node)
        return self._put(node, CONVOLUTION, Attrs(convolution=spec), [data, *node.inputs[1:]], spec.target)

    def _kept(self, layout: Layout, spec: Convolution) -> Convolution:
        """The convolution in the layout that the data are in, if that is fast: else as it likes best."""
        try:
            return Convolution(self.engine, spec.shapes, layout, is_train=spec.is_train)
        except NotImplementedByLibrary:
            return spec

    def _check_gradients(self, node: Node, spec: Convolution) -> None:
        """Look for the primitives of the gradients that are wanted, which may not be there."""
        data, *parameters = (id(e.node) in self.needed for e in node.inputs)
        if data:
            spec.backward_data  # noqa: B018
        if any(parameters):
            spec.backward_weight  # noqa: B018

    def batch_norm(self, node: Node) -> bool:
        laid, attrs = self._blocked(node.inputs[0]), node.attrs
        hidden = [Entry(node, 1), Entry(node, 2)]
        if laid is None or getattr(attrs, "axis", 1) % len(laid.layout.shape) != 1:
            return False
        if any(self.graph.readers(e) or self.graph.is_head(e) for e in hidden):
            return False
        return self._put_batch_norm(node, laid.layout, [laid.entry, *node.inputs[1:]], attrs, False)

    def _put_batch_norm(
        self, node: Node, layout: Layout, inputs: list[Entry], attrs: Attrs, relu: bool
    ) -> bool:
        is_train = self.graph.is_train
        is_global = attrs.use_global_stats or not is_train
        spec = BatchNorm(self.engine, layout, attrs.eps, is_train, is_global, relu)
        if is_train:
            spec.backward  # noqa: B018
        vector: tuple[int, ...] = (layout.shape[1],)
        hidden: list[tuple[tuple[int, ...], Any]] = [(vector, np.float32), (vector, np.float32)]
        if spec.workspace is not None:
            hidden.append(((spec.workspace.nbytes,), np.uint8))
        values = Attrs(batch_norm=spec, momentum=attrs.momentum, fix_gamma=attrs.fix_gamma)
        values.original = attrs
        return self._put(node, BATCH_NORM, values, inputs, layout, hidden)

    def activation(self, node: Node) -> bool:
        laid, name = self._blocked(node.inputs[0]), getattr(node.attrs, "act_type", "relu")
        if laid is None or name not in FUNCTIONS:
            return False
        if self._alone(node.inputs[0], node) and self._joined(node, laid, name):
            return True
        spec = Function(self.engine, laid.layout, name, self.graph.is_train)
        return self._put(node, FUNCTION, Attrs(function=spec), [laid.entry], laid.layout)

    def _joined(self, node: Node, laid: _Laid, name: str) -> bool:
        """Make a function part of the operator before it."""
        before, engine = laid.entry.node, self.engine
        if before.op is CONVOLUTION and before.attrs.convolution.function is None:
            old: Convolution = before.attrs.convolution
            try:
                spec = Convolution(engine, old.shapes, old.source, name, old.is_added_to, self.graph.is_train)
            except NotImplementedByLibrary:
                return False
            if spec.target != old.target:
                return False
            return self._put(node, CONVOLUTION, Attrs(convolution=spec), before.inputs, spec.target)
        if before.op is BATCH_NORM and name == "relu" and not before.attrs.batch_norm.relu:
            try:
                return self._put_batch_norm(node, laid.layout, before.inputs, before.attrs.original, True)
            except NotImplementedByLibrary:
                return False
        if before.op is ADDITION and before.attrs.addition.function is None:
            sum_spec = Addition(engine, laid.layout, name)
            return self._put(node, ADDITION, Attrs(addition=sum_spec), before.inputs, laid.layout)
        return False

    def pooling(self, node: Node) -> bool:
        laid = self._blocked(node.inputs[0])
        window = pooling_of(node.attrs, self.graph.shape(node.inputs[0]))
        if laid is None or window is None:
            return False
        swapped = self._before_function(node, laid) if window[0] == Kind.POOLING_MAX else None
        source, name = swapped or (laid.entry, None)
        out = self.graph.shape(Entry(node, 0))
        spec = Pooling(self.engine, laid.layout, out, *window, is_train=self.graph.is_train)
        if self.graph.is_train:
            spec.backward  # noqa: B018
        places = [] if spec.workspace is None else [((spec.workspace.nbytes,), np.uint8)]
        self._put(node, POOLING, Attrs(pooling=spec), [source], spec.target, places)
        if name is None:
            return True
        function = Function(self.engine, spec.target, name, self.graph.is_train)
        pooled = self.laid[id(node), 0].entry
        return self._put(node, FUNCTION, Attrs(function=function), [pooled], spec.target, after=pooled.node)

    def _before_function(self, node: Node, laid: _Laid) -> tuple[Entry, str] | None:
        """What a function that only this pooling reads was computed from, and the function's name.

        All of `FUNCTIONS` are monotone, so the maximum may be taken before them: of fewer elements.
        """
        before = laid.entry.node
        if not self._alone(node.inputs[0], node):
            return None
        if before.op is FUNCTION:
            return before.inputs[0], before.attrs.function.name
        if before.op is not CONVOLUTION or before.attrs.convolution.function is None:
            return None
        old: Convolution = before.attrs.convolution
        spec = Convolution(
            self.engine, old.shapes, old.source, None, old.is_added_to, is_train=self.graph.is_train
        )
        if spec.target != old.target:
            return None
        shape = _opaque(spec.target)
        bare = self.graph.add(
            CONVOLUTION, Attrs(convolution=spec), before.inputs, before, [(shape, np.float32)]
        )
        return Entry(bare, 0), str(old.function)

    def addition(self, node: Node) -> bool:
        left, right = (self._blocked(e) for e in node.inputs)
        if left is None or right is None or left.layout != right.layout:
            return False
        for mine, other, entry in ((left, right, node.inputs[0]), (right, left, node.inputs[1])):
            before = mine.entry.node
            if before.op is CONVOLUTION and mine is not other and self._alone(entry, node):
                old: Convolution = before.attrs.convolution
                if old.function is None and not old.is_added_to and self._added(node, old, before, other):
                    return True
        spec = Addition(self.engine, left.layout)
        return self._put(node, ADDITION, Attrs(addition=spec), [left.entry, right.entry], left.layout)

    def _added(self, node: Node, old: Convolution, before: Node, other: _Laid) -> bool:
        """Make a sum part of the convolution that is one of its inputs."""
        try:
            spec = Convolution(
                self.engine, old.shapes, old.source, is_added_to=True, is_train=self.graph.is_train
            )
        except NotImplementedByLibrary:
            return False
        if spec.target != old.target:
            return False
        inputs = [*before.inputs, other.entry]
        return self._put(node, CONVOLUTION, Attrs(convolution=spec), inputs, spec.target)


def _opaque(layout: Layout) -> tuple[int, ...]:
    """The shape of the flat array for a layout."""
    return (layout.nbytes // 4,)


def _shapes_of(graph: Graph, node: Node) -> Shapes:
    attrs, data = node.attrs, graph.shape(node.inputs[0])
    window = window_of(attrs, data[2:])
    return Shapes(
        data=data,
        weight=graph.shape(node.inputs[1]),
        out=graph.shape(Entry(node, 0)),
        stride=window.stride,
        dilate=window.dilate,
        pad=window.pad,
        groups=attrs.num_group,
        has_bias=not attrs.no_bias,
    )


_RULES: dict[str, Callable[[_Rewriting, Node], bool]] = {
    "Convolution": _Rewriting.convolution,
    "Convolution_v1": _Rewriting.convolution,
    "BatchNorm": _Rewriting.batch_norm,
    "BatchNorm_v1": _Rewriting.batch_norm,
    "Activation": _Rewriting.activation,
    "relu": _Rewriting.activation,
    "Pooling": _Rewriting.pooling,
    "elemwise_add": _Rewriting.addition,
}
