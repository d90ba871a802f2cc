"""Shapes and dtypes of a whole graph from those that are known, in both directions, to a fixed point.

And the methods of symbols that ask for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import dtype as dtype_kind
from dmod.ops.params import shape as shape_kind
from dmod.ops.registry import Shape
from dmod.registry import nearest
from dmod.symbol.graph import Entry, Node, auxiliary_variables

__all__ = ["InferenceMethods", "dtype_of_flag", "infer_dtypes", "infer_shapes", "is_complete"]

DTYPE_BY_FLAG = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64", "bool")


def is_complete(shape: Shape | None) -> bool:
    """Whether every length is known."""
    return shape is not None and -1 not in shape


def _normal(shape: Iterable[int]) -> Shape:
    """A user's shape: 0 stands for a length that is not known."""
    dims = tuple(int(n) for n in shape)
    if any(n > 2**40 for n in dims):
        raise InvalidArgument(f"shape {dims}: an axis is longer than any memory")
    return tuple(-1 if n <= 0 else n for n in dims)


def _outputs(node: Node) -> int:
    assert node.op is not None
    return len(node.op.outputs(node.attrs))


def infer_shapes(
    order: list[Node], known: Mapping[str, Sequence[int]]
) -> dict[tuple[int, int], Shape | None]:
    """Infer the shape of every entry.

    Parameters
    ----------
    order : list of Node
        In topological order.
    known : dict of str to shape
        Shapes of variables; 0 or -1 is an unknown length.

    Returns
    -------
    dict
        ``(id(node), output) -> shape``, None where nothing is known, -1 for unknown lengths.

    Raises
    ------
    InvalidArgument
        Shapes contradict each other; the message names operator, node and argument.
    """
    shapes: dict[tuple[int, int], Shape | None] = {}
    for node in order:
        if node.is_variable:
            given = known.get(node.name)
            if given is None and "__shape__" in node.raw:
                given = shape_kind.parse(node.raw["__shape__"])
            shapes[id(node), 0] = _normal(given) if given is not None else None
        else:
            shapes.update({(id(node), i): None for i in range(_outputs(node))})
    operators = [node for node in order if not node.is_variable]
    for sweep in range(len(operators) + 2):
        changed = False
        for node in operators if sweep % 2 == 0 else reversed(operators):
            changed |= _infer_node(node, shapes)
        if not changed:
            break
    return shapes


def _infer_node(node: Node, shapes: dict[tuple[int, int], Shape | None]) -> bool:
    """Apply one operator's rule; whether anything new followed."""
    assert node.op is not None
    count = node.num_arguments
    entries = [(id(e.node), e.index) for e in node.inputs]
    outs = [(id(node), i) for i in range(_outputs(node))]
    try:
        result = node.op.infer_shape(
            node.attrs, [shapes[e] for e in entries[:count]], [shapes.get(o) for o in outs]
        )
    except InvalidArgument as error:
        raise InvalidArgument(f"{node.op.name} {node.name!r}: {error}") from None
    changed = False
    arguments, outputs, aux = result
    for i, (key, shape) in enumerate(zip(entries + outs, [*arguments, *aux, *outputs], strict=True)):
        old = shapes.get(key)
        if shape is None or shape == old:
            continue
        where = node.inputs[i].node.name if i < len(entries) else "output"
        merged = merge_shapes(shape, old, f"{node.op.name} {node.name!r}: {where}")
        if merged != old:
            shapes[key] = merged
            changed = True
    return changed


def infer_dtypes(order: list[Node], known: Mapping[str, Any]) -> dict[tuple[int, int], np.dtype | None]:
    """Infer the dtype of every entry, likewise; what nothing determines stays None."""
    dtypes: dict[tuple[int, int], np.dtype | None] = {}
    for node in order:
        if node.is_variable:
            given = known.get(node.name)
            if given is None and "__dtype__" in node.raw:
                given = dtype_of_flag(node.raw["__dtype__"])
            dtypes[id(node), 0] = np.dtype(given) if given is not None else None
    for _ in range(2):
        for node in order:
            if not node.is_variable:
                _infer_node_dtype(node, dtypes)
    return dtypes


def _infer_node_dtype(node: Node, dtypes: dict[tuple[int, int], np.dtype | None]) -> None:
    assert node.op is not None
    count = node.num_arguments
    entries = [(id(e.node), e.index) for e in node.inputs]
    outs = [(id(node), i) for i in range(_outputs(node))]
    try:
        arguments, outputs, aux = node.op.infer_type(node.attrs, [dtypes[e] for e in entries[:count]])
    except InvalidArgument as error:
        raise InvalidArgument(f"{node.op.name} {node.name!r}: {error}") from None
    for key, dtype in zip(entries + outs, [*arguments, *aux, *outputs], strict=True):
        if dtype is not None and dtypes.get(key) is None:
            dtypes[key] = dtype
        dtypes.setdefault(key, None)


def dtype_of_flag(text: str) -> np.dtype:
    """The dtype of a ``__dtype__`` attribute: MXNet's number of it, or its name."""
    if text.isdigit() and int(text) < len(DTYPE_BY_FLAG):
        return np.dtype(DTYPE_BY_FLAG[int(text)])
    try:
        return dtype_kind.parse(text)
    except ValueError:
        raise InvalidArgument(f"__dtype__={text!r}: expected a dtype, or MXNet's number of one") from None


def entry_key(entry: Entry) -> tuple[int, int]:
    """How the results of this file are keyed."""
    return id(entry.node), entry.index


class InferenceMethods:
    """What a symbol knows of the shapes and dtypes of its arguments, outputs and auxiliary states."""

    __slots__ = ()
    if TYPE_CHECKING:
        _heads: list[Entry]

        def _order(self) -> list[Node]: ...
        def list_arguments(self) -> list[str]: ...
        def list_inputs(self) -> list[str]: ...

    def infer_shape(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Infer all shapes from known ones.

        Parameters
        ----------
        *args, **kwargs
            Shapes of arguments, by position or by name.

        Returns
        -------
        (arg_shapes, out_shapes, aux_shapes)
            Lists of tuples in the order of `list_arguments`, `list_outputs` and
            `list_auxiliary_states`; ``(None, None, None)`` if they do not follow from what is known.

        Raises
        ------
        InvalidArgument
            Shapes contradict each other; the message names operator, node and argument.
        """
        args_, outs, aux = self._infer_shape(*args, **kwargs)
        if not all(map(is_complete, [*args_, *outs, *aux])):
            return None, None, None
        return args_, outs, aux

    def infer_shape_partial(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Like `infer_shape`, but with what follows: 0 for an unknown length, () for an unknown shape."""

        def partial(shapes: list[Any]) -> list[Any]:
            return [() if s is None else tuple(max(n, 0) for n in s) for s in shapes]

        args_, outs, aux = self._infer_shape(*args, **kwargs)
        return partial(args_), partial(outs), partial(aux)

    def _infer_shape(self, *args: Any, **kwargs: Any) -> tuple[list[Any], list[Any], list[Any]]:
        known = self._by_name("infer_shape", args, kwargs)
        order = self._order()
        shapes = infer_shapes(order, {k: v for k, v in known.items() if v is not None and len(v)})
        return self._split(order, shapes)

    def infer_type(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Infer all dtypes from known ones; ``(None, None, None)`` if they do not follow.

        Returns
        -------
        (arg_types, out_types, aux_types)
            Lists of numpy types.
        """
        known = self._by_name("infer_type", args, kwargs)
        order = self._order()
        dtypes = infer_dtypes(order, {k: v for k, v in known.items() if v is not None})
        parts = self._split(order, dtypes)
        if any(t is None for part in parts for t in part):
            return None, None, None
        args_, outs, aux = ([t.type for t in part] for part in parts)
        return args_, outs, aux

    def infer_type_partial(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Like `infer_type`, but with what follows: None for a dtype that does not."""
        known = self._by_name("infer_type_partial", args, kwargs)
        order = self._order()
        dtypes = infer_dtypes(order, {k: v for k, v in known.items() if v is not None})
        args_, outs, aux = (
            [None if t is None else t.type for t in part] for part in self._split(order, dtypes)
        )
        return args_, outs, aux

    def _split(
        self, order: list[Node], values: dict[tuple[int, int], Any]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        aux = auxiliary_variables(order)
        variables = [n for n in order if n.is_variable]
        return (
            [values[id(n), 0] for n in variables if id(n) not in aux],
            [values[entry_key(e)] for e in self._heads],
            [values[id(n), 0] for n in variables if id(n) in aux],
        )

    def _by_name(self, what: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if args and kwargs:
            raise InvalidArgument(f"{what}: give arguments by position or by name, not both")
        if args:
            names = self.list_arguments()
            if len(args) > len(names):
                raise InvalidArgument(f"{what}: {len(args)} values for {len(names)} arguments")
            return dict(zip(names, args, strict=False))
        known = self.list_inputs()
        for name in kwargs:
            if name not in known:
                hint = nearest(name, known) or "; list_inputs() names them"
                raise InvalidArgument(f"{what}: {self!r} has no argument {name!r}{hint}")
        return dict(kwargs)
