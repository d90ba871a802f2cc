"""`Symbol`: a handle on outputs of a graph. It describes a computation and computes nothing.

What it is made of, its attributes, composition and files are here. Further methods are where their idea is:
operators as methods in `fluent`, Python's own in `python_operators`, shapes and dtypes in `infer`, executors
in `executor_methods`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from dmod.atomic_file import write_atomic
from dmod.attribute import current_attributes
from dmod.base import GraphError, InvalidArgument, MXNetError
from dmod.name import current_name_manager
from dmod.ops import Operator, get_operator
from dmod.ops.calling import texts_of
from dmod.registry import nearest
from dmod.symbol import json_format
from dmod.symbol.executor_methods import ExecutorMethods
from dmod.symbol.fluent import FluentMethods
from dmod.symbol.graph import (
    Entry,
    Node,
    auxiliary_variables,
    check_unique,
    output_name,
    topological_order,
)
from dmod.symbol.infer import InferenceMethods
from dmod.symbol.python_operators import PythonOperators

__all__ = ["Symbol"]

HIDDEN_KEYS = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage")
"""Attributes that MXNet knows with and without underscores."""


class Symbol(FluentMethods, InferenceMethods, ExecutorMethods, PythonOperators):
    """One or several outputs of a graph of operators and variables.

    Symbols come from `Variable`, from operators, and from arithmetic on symbols.

    Examples
    --------
    >>> from dmod.symbol import FullyConnected, Variable
    >>> net = FullyConnected(Variable('data'), num_hidden=10, name='fc')
    >>> net.list_arguments()
    ['data', 'fc_weight', 'fc_bias']
    >>> net.infer_shape(data=(2, 5))
    ([(2, 5), (10, 5), (10,)], [(2, 10)], [])
    """

    __slots__ = ("_heads",)
    __array_priority__ = 1000.0

    def __init__(self, heads: Sequence[Entry]):
        self._heads = list(heads)

    # ---- what it is

    @property
    def name(self) -> str | None:
        """The name of the node, or None for a group."""
        nodes = {id(e.node): e.node for e in self._heads}
        return next(iter(nodes.values())).name if len(nodes) == 1 else None

    @property
    def num_outputs(self) -> int:
        """The number of outputs."""
        return len(self._heads)

    def __len__(self) -> int:
        return len(self._heads)

    def __repr__(self) -> str:
        if self.name is not None:
            return f"<Symbol {self.name}>"
        return f"<Symbol group [{', '.join(e.node.name for e in self._heads)}]>"

    def __iter__(self) -> Iterator[Symbol]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        raise NotImplementedError("a Symbol has no truth value: it is not computed yet")

    def _order(self) -> list[Node]:
        return topological_order(self._heads)

    def list_arguments(self) -> list[str]:
        """The names of all variables but the auxiliary states, in depth-first order."""
        order = self._order()
        aux = auxiliary_variables(order)
        return [n.name for n in order if n.is_variable and id(n) not in aux]

    def list_auxiliary_states(self) -> list[str]:
        """The names of the auxiliary states: what operators keep beside their arguments."""
        order = self._order()
        aux = auxiliary_variables(order)
        return [n.name for n in order if n.is_variable and id(n) in aux]

    def list_inputs(self) -> list[str]:
        """The names of all variables."""
        return [n.name for n in self._order() if n.is_variable]

    def list_outputs(self) -> list[str]:
        """The names of the outputs."""
        return [output_name(e) for e in self._heads]

    # ---- parts

    def get_internals(self) -> Symbol:
        """A group of every node's outputs.

        Examples
        --------
        ``net.get_internals()['fc1_output']`` is the network up to fc1.
        """
        return Symbol([Entry(n, i) for n in self._order() for i in range(n.num_visible)])

    def get_children(self) -> Symbol | None:
        """A group of the inputs of this symbol's nodes; None for a variable."""
        seen, entries = set(), []
        for head in self._heads:
            if id(head.node) not in seen:
                seen.add(id(head.node))
                entries.extend(head.node.inputs)
        return Symbol(entries) if entries else None

    def __getitem__(self, index: int | str | slice) -> Symbol:
        if isinstance(index, str):
            names = self.list_outputs()
            found = [i for i, name in enumerate(names) if name == index]
            if len(found) != 1:
                problem = "no output" if not found else "several outputs"
                raise InvalidArgument(f"{self!r}: {problem} named {index!r}{nearest(index, names)}")
            index = found[0]
        if isinstance(index, slice):
            return Symbol(self._heads[index])
        if not -len(self._heads) <= index < len(self._heads):
            raise IndexError(f"{self!r} has {len(self._heads)} outputs, there is no output {index}")
        return Symbol([self._heads[index]])

    # ---- attributes

    def attr(self, key: str) -> str | None:
        """One attribute of this symbol's node, or None."""
        return self.list_attr().get(key)

    def list_attr(self, recursive: bool = False) -> dict[str, str]:
        """The attributes of this symbol's node."""
        if recursive:
            raise DeprecationWarning("list_attr(recursive=True) was removed; use attr_dict()")
        return _with_hidden(self._heads[0].node.raw) if self.name is not None else {}

    def attr_dict(self) -> dict[str, dict[str, str]]:
        """The attributes of all nodes that have any, by name."""
        return {n.name: _with_hidden(n.raw) for n in self._order() if n.raw}

    def _set_attr(self, **kwargs: str) -> None:
        """Set attributes of this symbol's node; names have two underscores at both ends."""
        if self.name is None:
            raise InvalidArgument("_set_attr: a group has no attributes of its own")
        for key, value in kwargs.items():
            if not isinstance(value, str):
                raise InvalidArgument(f"_set_attr({key}={value!r}): expected a string")
            self._heads[0].node.raw[_hidden_name(key)] = value

    # ---- composition

    def __call__(self, *args: Symbol, name: str | None = None, **kwargs: Symbol) -> Symbol:
        """This network with other symbols in place of its variables; the original stays as it is."""
        if args and kwargs:
            raise TypeError("compose: give symbols by position or by name, not both")
        names = self.list_inputs()
        if len(args) > len(names):
            raise TypeError(f"compose: {len(args)} symbols for {len(names)} variables")
        given = dict(zip(names, args, strict=False)) if args else kwargs
        for key, value in given.items():
            if key not in names:
                raise InvalidArgument(f"compose: no variable {key!r}{nearest(key, names)}")
            if not isinstance(value, Symbol) or len(value) != 1:
                raise TypeError(f"compose: {key} needs a Symbol with one output, got {value!r}")
        return self._copy({key: value._heads[0] for key, value in given.items()}, name)

    def _copy(self, replaced: Mapping[str, Entry], name: str | None = None) -> Symbol:
        """A copy of the graph with variables replaced by entries of other graphs."""
        copies: dict[int, Node] = {}
        aliases: dict[int, Entry] = {}
        for node in self._order():
            if node.is_variable and node.name in replaced:
                aliases[id(node)] = replaced[node.name]
                continue
            inputs = [aliases.get(id(e.node)) or Entry(copies[id(e.node)], e.index) for e in node.inputs]
            copies[id(node)] = Node(node.op, node.name, dict(node.raw), inputs)
        heads = [aliases.get(id(e.node)) or Entry(copies[id(e.node)], e.index) for e in self._heads]
        if name and len({id(e.node) for e in heads}) == 1:
            heads[0].node.name = name
        return Symbol(heads)

    def __copy__(self) -> Symbol:
        return self._copy({})

    def __deepcopy__(self, _: Any) -> Symbol:
        return self._copy({})

    # ---- files

    def tojson(self, remove_amp_cast: bool = True) -> str:
        """The graph as JSON, as MXNet 1.9.1 writes it.

        Parameters
        ----------
        remove_amp_cast : bool
            Leave out the casts that mixed precision has put in, but for those that are outputs.
        """
        return json_format.dumps(json_format.without_casts(self._heads) if remove_amp_cast else self._heads)

    def save(self, fname: str | os.PathLike[str], remove_amp_cast: bool = True) -> None:
        """Write the graph's JSON to a file, whole or not at all; see `tojson`."""
        write_atomic(fname, [self.tojson(remove_amp_cast).encode()])

    def debug_str(self) -> str:
        """The graph as text for reading."""
        lines = ["Symbol Outputs:"]
        lines += [f"\toutput[{i}]={e.node.name}({e.index})" for i, e in enumerate(self._heads)]
        for node in self._order():
            if node.op is None:
                lines.append(f"Variable:{node.name}")
                continue
            lines += ["--------------------", f"Op:{node.op.name}, Name={node.name}", "Inputs:"]
            lines += [f"\targ[{i}]={e.node.name}({e.index})" for i, e in enumerate(node.inputs)]
            if node.raw:
                lines += ["Attrs:", *(f"\t{k}={v}" for k, v in sorted(node.raw.items()))]
        return "\n".join(lines) + "\n"

    def __getstate__(self) -> dict[str, str]:
        return {"handle": self.tojson(remove_amp_cast=False)}

    def __setstate__(self, state: dict[str, str]) -> None:
        self._heads = load_json(state["handle"])._heads

    # ---- what MXNet declares and dmod, like it, does not have

    def gradient(self, wrt: Sequence[str]) -> NoReturn:
        """MXNet names this and does not implement it; bind the symbol and call `backward`."""
        raise MXNetError("Symbol.gradient is not implemented; bind the symbol and call backward()")

    def optimize_for(
        self,
        backend: str,
        args: Any = None,
        aux: Any = None,
        ctx: Any = None,
        shape_dict: Any = None,
        type_dict: Any = None,
        stype_dict: Any = None,
        skip_infer: bool = False,
        **kwargs: Any,
    ) -> NoReturn:
        """Refused: there are no graph backends such as TensorRT; dmod compiles a graph when it binds it."""
        raise MXNetError(f"optimize_for({backend!r}): dmod has no graph backends")

    def get_backend_symbol(self, backend: str) -> NoReturn:
        """Refused: there are no graph backends."""
        raise MXNetError(f"get_backend_symbol({backend!r}): dmod has no graph backends")

    # ---- operators

    def _operation(self, op: str, inputs: Sequence[Any], params: Mapping[str, Any], hint: str) -> Symbol:
        return create(get_operator(op), inputs, params, hint=hint)


def create(
    op: Operator,
    inputs: Sequence[Symbol | None],
    params: Mapping[str, Any],
    name: str | None = None,
    attr: dict[str, str] | None = None,
    hint: str | None = None,
) -> Symbol:
    """A node of `op`; inputs that are None become variables named after the node.

    Parameters
    ----------
    op : Operator
    inputs : list of Symbol or None
        In the order of the operator's arguments and auxiliary states; it may be shorter.
    params : dict
        The operator's parameters; values become strings.
    name : str, optional
    attr : dict of str, optional
        Further attributes, such as ``__lr_mult__``.
    hint : str, optional
        What a generated name starts with; default: the operator's name.
    """
    name = current_name_manager().get(name, hint or op.name.lower())
    raw = texts_of(params, op)
    for key, value in current_attributes(attr).items():
        if not isinstance(value, str):
            raise InvalidArgument(f"{op.name}(attr={{{key!r}: {value!r}}}): expected a string")
        raw[_hidden_name(key)] = value
    node = Node(op, name, raw, [])
    arguments, aux = op.arguments(node.attrs), op.aux(node.attrs)
    slots = arguments + aux
    if len(inputs) > len(slots):
        raise InvalidArgument(f"{op.name} {name!r}: {len(inputs)} inputs, expected {', '.join(slots)}")
    given = [*inputs, *[None] * (len(slots) - len(inputs))]
    for slot, symbol in zip(slots, given, strict=True):
        node.inputs.append(_as_input(op, node, slot, symbol))
    return Symbol([Entry(node, i) for i in range(node.num_visible)])


def _as_input(op: Operator, node: Node, slot: str, symbol: Any) -> Entry:
    if symbol is None:
        raw = dict(node.raw)
        if slot in op.aux_init:
            raw["__init__"] = op.aux_init[slot]
        return Entry(Node(None, f"{node.name}_{slot}", raw, []), 0)
    if not isinstance(symbol, Symbol):
        raise TypeError(f"{op.name} {node.name!r}: {slot} needs a Symbol, got {type(symbol).__name__}")
    if len(symbol) != 1:
        raise InvalidArgument(
            f"{op.name} {node.name!r}: {slot} is a group of {len(symbol)} outputs; choose one by [i]"
        )
    return symbol._heads[0]


def pop_attributes(kwargs: dict[str, Any]) -> dict[str, str] | None:
    """Take ``attr`` and attributes by their own names, such as ``__layout__``, out of a call's arguments."""
    attr = kwargs.pop("attr", None)
    own = [key for key in kwargs if key.startswith("__") and key.endswith("__")]
    return {**(attr or {}), **{key: str(kwargs.pop(key)) for key in own}} if own else attr


def _hidden_name(key: str) -> str:
    return f"__{key}__" if key in HIDDEN_KEYS else key


def _with_hidden(raw: Mapping[str, str]) -> dict[str, str]:
    """`raw`, with ``__lr_mult__`` and its kin under their plain names too."""
    plain = {key: raw[f"__{key}__"] for key in HIDDEN_KEYS if f"__{key}__" in raw}
    return {**raw, **plain}


def load_json(json_str: str) -> Symbol:
    """A symbol from JSON, of dmod or of any MXNet version.

    Raises
    ------
    GraphError
        It is malformed; the message says where.
    """
    if not isinstance(json_str, str):
        raise TypeError(f"load_json: expected a string, got {type(json_str).__name__}")
    return _checked(json_format.loads(json_str))


def load(fname: str | os.PathLike[str]) -> Symbol:
    """A symbol from a file that `Symbol.save`, or MXNet, wrote.

    Raises
    ------
    GraphError
        The file is malformed; the message has its name and says where.
    """
    return _checked(json_format.load_file(os.fspath(fname)))


def _checked(heads: list[Entry]) -> Symbol:
    symbol = Symbol(heads)
    try:
        check_unique(symbol.list_inputs(), "variables")
    except InvalidArgument as error:
        raise GraphError(str(error)) from None
    return symbol
