"""`Symbol`: a handle on outputs of a graph. It describes a computation and computes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from dmod.atomic_file import write_atomic
from dmod.attribute import current_attributes
from dmod.base import GraphError, InvalidArgument, MXNetError, NotReadyError
from dmod.name import current_name_manager
from dmod.ops import Operator, get_operator
from dmod.ops.calling import texts_of
from dmod.registry import nearest
from dmod.symbol import json_format
from dmod.symbol.fluent import FluentMethods
from dmod.symbol.graph import (
    Entry,
    Node,
    auxiliary_variables,
    check_unique,
    output_name,
    topological_order,
)
from dmod.symbol.infer import entry_key, infer_dtypes, infer_shapes, is_complete

__all__ = ["Symbol", "set_binder"]

HIDDEN_KEYS = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage")
"""Attributes that MXNet knows with and without underscores."""

_AMP_CASTS = ("amp_cast", "amp_multicast")
_binder: Any = None


def set_binder(binder: Any) -> None:
    """Install the module that makes executors of symbols; the executor package calls this."""
    global _binder
    _binder = binder


class Symbol(FluentMethods):
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

    # ---- inference

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

    # ---- files

    def tojson(self, remove_amp_cast: bool = True) -> str:
        """The graph as JSON, as MXNet 1.9.1 writes it.

        Parameters
        ----------
        remove_amp_cast : bool
            Leave out the casts that mixed precision has put in, but for those that are outputs.
        """
        return json_format.dumps(self._without_casts()._heads if remove_amp_cast else self._heads)

    def save(self, fname: str | os.PathLike[str], remove_amp_cast: bool = True) -> None:
        """Write the graph's JSON to a file, whole or not at all; see `tojson`."""
        write_atomic(fname, [self.tojson(remove_amp_cast).encode()])

    def _without_casts(self) -> Symbol:
        """The graph without amp_cast and amp_multicast: itself, if it has none."""
        if not any(n.op is not None and n.op.name in _AMP_CASTS for n in self._order()):
            return self
        copies: dict[int, Node] = {}
        sources: dict[tuple[int, int], Entry] = {}

        heads = {id(e.node) for e in self._heads}
        for node in self._order():
            inputs = [
                sources.get((id(e.node), e.index)) or Entry(copies[id(e.node)], e.index) for e in node.inputs
            ]
            is_cast = node.op is not None and node.op.name in _AMP_CASTS
            if is_cast:
                sources.update({(id(node), i): e for i, e in enumerate(inputs)})
            if not is_cast or id(node) in heads:
                copies[id(node)] = Node(node.op, node.name, dict(node.raw), inputs)
        return Symbol([Entry(copies[id(e.node)], e.index) for e in self._heads])

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

    # ---- executors

    def bind(
        self,
        ctx: Any,
        args: Any,
        args_grad: Any = None,
        grad_req: Any = "write",
        aux_states: Any = None,
        group2ctx: Any = None,
        shared_exec: Any = None,
    ) -> Any:
        """Make an executor over the caller's own arrays.

        Parameters
        ----------
        ctx : Context
        args : list or dict of NDArray
            All arguments; the executor reads, and shares, these very arrays.
        args_grad : list or dict of NDArray, optional
            Where gradients go.
        grad_req : {'write', 'add', 'null'}, or list or dict of them
        aux_states : list or dict of NDArray, optional
        group2ctx : dict of str to Context, optional
            Devices for the nodes of a group, which ``AttrScope(ctx_group=...)`` names.
        shared_exec : Executor, optional
            Accepted; memory is not shared between executors.

        Returns
        -------
        Executor
        """
        return _need_binder().bind(self, ctx, args, args_grad, grad_req, aux_states, group2ctx, shared_exec)

    def simple_bind(
        self,
        ctx: Any,
        grad_req: Any = "write",
        type_dict: Any = None,
        stype_dict: Any = None,
        group2ctx: Any = None,
        shared_arg_names: Any = None,
        shared_exec: Any = None,
        shared_buffer: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Make an executor and all its arrays from the shapes of the inputs, such as ``data=(64, 784)``.

        Returns
        -------
        Executor
            Its arrays are zero.

        Raises
        ------
        InvalidArgument
            The shapes contradict each other, or do not determine all others.
        """
        return _need_binder().simple_bind(self, ctx, grad_req, type_dict, group2ctx, kwargs)

    def eval(self, ctx: Any = None, **kwargs: Any) -> Any:
        """Compute the outputs for given arguments, once; returns a list of NDArray."""
        return _need_binder().evaluate(self, ctx, kwargs)

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

    # ---- arithmetic

    def _arithmetic(self, other: Any, op: str, scalar_op: str, hints: tuple[str, str]) -> Symbol:
        if isinstance(other, Symbol):
            return create(get_operator(op), [self, other], {}, hint=hints[0])
        if isinstance(other, (int, float, np.integer, np.floating)) and not isinstance(other, bool):
            return create(get_operator(scalar_op), [self], {"scalar": other}, hint=hints[1])
        return NotImplemented

    def __add__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_add", "_plus_scalar", ("_plus", "_plusscalar"))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_sub", "_minus_scalar", ("_minus", "_minusscalar"))

    def __rsub__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_sub", "_rminus_scalar", ("_minus", "_rminusscalar"))

    def __mul__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_mul", "_mul_scalar", ("_mul", "_mulscalar"))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_div", "_div_scalar", ("_div", "_divscalar"))

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_div", "_rdiv_scalar", ("_div", "_rdivscalar"))

    __div__, __rdiv__ = __truediv__, __rtruediv__

    def __mod__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "_mod", "_mod_scalar", ("_mod", "_modscalar"))

    def __rmod__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "_mod", "_rmod_scalar", ("_mod", "_rmodscalar"))

    def __pow__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "_power", "_power_scalar", ("_power", "_powerscalar"))

    def __rpow__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "_power", "_rpower_scalar", ("_power", "_rpower_scalar"))

    def __neg__(self) -> Symbol:
        return self * -1.0

    # ---- comparisons: symbols of 0 and 1, in the operands' dtype

    __hash__ = object.__hash__

    def _comparison(self, other: Any, op: str) -> Symbol:
        result = self._arithmetic(other, op, f"{op}_scalar", (op, f"{op}_scalar"))
        if result is NotImplemented:  # not Python's default, which would be a truth value
            raise TypeError(f"a Symbol is compared with a Symbol or a number, not {type(other).__name__}")
        return result

    def __eq__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._comparison(other, "_equal")

    def __ne__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._comparison(other, "_not_equal")

    def __gt__(self, other: Any) -> Symbol:
        return self._comparison(other, "_greater")

    def __ge__(self, other: Any) -> Symbol:
        return self._comparison(other, "_greater_equal")

    def __lt__(self, other: Any) -> Symbol:
        return self._comparison(other, "_lesser")

    def __le__(self, other: Any) -> Symbol:
        return self._comparison(other, "_lesser_equal")


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


def _need_binder() -> Any:
    if _binder is None:
        raise NotReadyError("executors are not set up; import dmod, which does it")
    return _binder


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
