"""``mx.sym.*``: variables, groups, and one function per operator, generated from the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from dmod.attribute import current_attributes
from dmod.base import InvalidArgument
from dmod.ops import OPERATORS, Operator
from dmod.ops.calling import (
    any_number_of_inputs,
    describe,
    input_names,
    inputs_in_order,
    namespace,
    sort_arguments,
    texts_of,
    with_count,
)
from dmod.registry import nearest
from dmod.symbol.graph import Entry, Node
from dmod.symbol.infer import DTYPE_BY_FLAG
from dmod.symbol.symbol import Symbol, create, pop_attributes

_STORAGE_TYPES = ("default", "row_sparse", "csr")

__all__ = ["Group", "Variable", "make_functions", "make_namespace", "var"]


def var(
    name: str,
    attr: dict[str, str] | None = None,
    shape: Sequence[int] | None = None,
    lr_mult: float | None = None,
    wd_mult: float | None = None,
    dtype: Any = None,
    init: Any = None,
    stype: str | None = None,
    profiler_scope: str | None = None,
    **kwargs: Any,
) -> Symbol:
    """A variable: an input, a parameter or a label.

    Parameters
    ----------
    name : str
    attr : dict of str, optional
        Further attributes.
    shape, dtype : optional
        What inference starts from; 0 is an unknown length.
    lr_mult, wd_mult : float, optional
        Factors for the learning rate and the weight decay of this parameter.
    init : Initializer or str, optional
        Overrides the initializer given to `init_params`.
    stype : {'default', 'row_sparse', 'csr'}, optional
        The storage type that users give arrays in; executors compute with dense copies.
    **kwargs
        Attributes with two underscores at both ends.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"Variable({name!r}): expected a name")
    if stype not in (None, *_STORAGE_TYPES):
        raise InvalidArgument(
            f"Variable({name!r}, stype={stype!r}): expected one of {', '.join(_STORAGE_TYPES)}"
        )
    raw = current_attributes(attr)
    if shape is not None:
        raw["__shape__"] = str(tuple(shape))
    if lr_mult is not None:
        raw["__lr_mult__"] = str(lr_mult)
    if wd_mult is not None:
        raw["__wd_mult__"] = str(wd_mult)
    if dtype is not None:
        raw["__dtype__"] = str(DTYPE_BY_FLAG.index(np.dtype(dtype).name))
    if stype is not None:
        raw["__storage_type__"] = str(_STORAGE_TYPES.index(stype))
    if init is not None:
        raw["__init__"] = init if isinstance(init, str) else init.dumps()
    for key, value in kwargs.items():
        if not (key.startswith("__") and key.endswith("__")):
            hint = nearest(key, inspect.signature(var).parameters)
            raise InvalidArgument(
                f"Variable({name!r}): unknown argument {key!r}{hint}; "
                f"further attributes have two underscores at both ends, such as __{key}__"
            )
        raw[key] = str(value)
    for key, value in raw.items():
        if not isinstance(value, str):
            raise InvalidArgument(f"Variable({name!r}): attribute {key} is {value!r}, expected a string")
    return Symbol([Entry(Node(None, name, raw, []), 0)])


Variable = var


def Group(symbols: Sequence[Symbol], create_fn: Callable[[list[Entry]], Symbol] = Symbol) -> Symbol:
    """One symbol with the outputs of several.

    Parameters
    ----------
    symbols : list of Symbol
    create_fn : callable
        Makes the group of the outputs.

    Examples
    --------
    >>> Group([var('a'), var('b')]).list_outputs()
    ['a', 'b']
    """
    symbols = list(symbols)
    if not symbols or not all(isinstance(s, Symbol) for s in symbols):
        raise TypeError("Group: expected a list of at least one Symbol")
    return create_fn([head for symbol in symbols for head in symbol._heads])


def _make(name: str, op: Operator) -> Callable[..., Symbol]:
    """The function `name` of an operator; a generated node name starts with the function's."""
    make = _make_variadic if any_number_of_inputs(op) else _make_fixed
    return make(name, op)


def _make_variadic(name: str, op: Operator) -> Callable[..., Symbol]:
    """The function of an operator that takes any number of inputs, as ``f(*data, **params)``."""

    def function(*data: Any, **kwargs: Any) -> Symbol:
        node_name, attr = kwargs.pop("name", None), pop_attributes(kwargs)
        kwargs.pop("out", None)
        named = {k: kwargs.pop(k) for k in list(kwargs) if isinstance(kwargs[k], Symbol)}
        if data and named:
            raise InvalidArgument(f"{name}: give inputs by position or by name, not both")
        symbols = list(data[0]) if len(data) == 1 and isinstance(data[0], (list, tuple)) else list(data)
        params = with_count(op, kwargs, len(symbols) or len(named))
        if named:
            attrs = op.parse(texts_of(params, op), name)
            slots = [*op.arguments(attrs), *op.aux(attrs)]
            unknown = [k for k in named if k not in slots]
            if unknown:
                raise InvalidArgument(f"{name}: no input {unknown[0]!r}; it takes {', '.join(slots)}")
            symbols = [named.get(slot) for slot in slots]
        return create(op, symbols, params, node_name, attr, hint=name.lower())

    describe(function, name, op, [], "Symbol", ["name", "attr", "out"])
    return function


def _make_fixed(name: str, op: Operator) -> Callable[..., Symbol]:
    slots, params = input_names(op), [p.name for p in op.params]

    def function(*args: Any, **kwargs: Any) -> Symbol:
        node_name, attr = kwargs.pop("name", None), pop_attributes(kwargs)
        kwargs.pop("out", None)
        symbols, given = sort_arguments(name, slots, params, args, kwargs, _is_symbol)
        try:
            attrs = op.parse(texts_of(given, op), op.name)
        except InvalidArgument:
            inputs = [symbols.get(slot) for slot in slots]  # `create` reports it, with the node's name
        else:
            inputs = inputs_in_order(op, attrs, symbols)
        return create(op, inputs, given, node_name, attr, hint=name.lower())

    describe(function, name, op, slots, "Symbol", ["name", "attr", "out"])
    return function


def _is_symbol(value: Any) -> bool:
    return isinstance(value, Symbol)


@cache
def make_functions() -> dict[str, Callable[..., Symbol]]:
    """A function for every name in the operator table."""
    return {name: _make(name, op) for name, op in OPERATORS.items()}


def make_namespace(which: str) -> dict[str, Callable[..., Symbol]]:
    """The functions of a namespace such as ``mx.sym.linalg``."""
    return namespace(which, OPERATORS.items(), _make)
