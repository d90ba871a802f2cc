"""``mx.sym.*``: variables, groups, and one function per operator, generated from the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmod.attribute import current_attributes
from dmod.base import InvalidArgument
from dmod.ops import OPERATORS, Operator
from dmod.ops.params import REQUIRED
from dmod.registry import nearest
from dmod.symbol.graph import Entry, Node
from dmod.symbol.infer import DTYPE_BY_FLAG
from dmod.symbol.symbol import Symbol, create

__all__ = ["Group", "Variable", "make_functions", "var"]


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
    **kwargs
        Attributes with two underscores at both ends.
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f"Variable({name!r}): expected a name")
    if stype not in (None, "default"):
        raise InvalidArgument(
            f"Variable({name!r}, stype={stype!r}): only dense variables are supported so far"
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


def Group(symbols: Sequence[Symbol]) -> Symbol:
    """One symbol with the outputs of several.

    Examples
    --------
    >>> Group([var('a'), var('b')]).list_outputs()
    ['a', 'b']
    """
    symbols = list(symbols)
    if not symbols or not all(isinstance(s, Symbol) for s in symbols):
        raise TypeError("Group: expected a list of at least one Symbol")
    return Symbol([head for symbol in symbols for head in symbol._heads])


def _slots(op: Operator) -> list[str]:
    """All names of inputs that the operator can have, whatever its attributes."""
    if op.slots:
        return list(op.slots)
    defaults = op.parse({p.name: _any_text(p) for p in op.params if p.required}, op.name)
    return op.arguments(defaults) + op.aux(defaults)


def _any_text(param: Any) -> str:
    for text in ("1", "None", "float32", "(1,)"):
        try:
            param.kind.parse(text)
        except ValueError:
            continue
        return text
    return str(param.kind.describe.removeprefix("one of ").split(", ")[0])


def _make_variadic(name: str, op: Operator) -> Callable[..., Symbol]:
    """The function of an operator that takes any number of inputs, as ``f(*data, **params)``."""

    def function(*data: Any, **kwargs: Any) -> Symbol:
        node_name, attr = kwargs.pop("name", None), kwargs.pop("attr", None)
        kwargs.pop("out", None)
        named = {k: kwargs.pop(k) for k in list(kwargs) if isinstance(kwargs[k], Symbol)}
        if data and named:
            raise InvalidArgument(f"{name}: give inputs by position or by name, not both")
        symbols = list(data[0]) if len(data) == 1 and isinstance(data[0], (list, tuple)) else list(data)
        params = {op.variadic: kwargs.pop(op.variadic, len(symbols) or len(named)), **kwargs}
        if named:
            attrs = op.parse({k: str(v) for k, v in params.items() if v is not None}, name)
            slots = op.arguments(attrs)
            unknown = [k for k in named if k not in slots]
            if unknown:
                raise InvalidArgument(f"{name}: no input {unknown[0]!r}; it takes {', '.join(slots)}")
            symbols = [named.get(slot) for slot in slots]
        return create(op, symbols, params, node_name, attr, hint=name.lower())

    _describe(function, name, op, ["*data"])
    return function


def _make(name: str, op: Operator) -> Callable[..., Symbol]:
    if op.variadic:
        return _make_variadic(name, op)
    slots = _slots(op)
    params = [p.name for p in op.params]

    def function(*args: Any, **kwargs: Any) -> Symbol:
        symbols: dict[str, Any] = {}
        for slot, value in zip([*slots, *params], args, strict=False):
            (symbols if slot in slots else kwargs)[slot] = value
        if len(args) > len(slots) + len(params):
            raise TypeError(f"{name}: {len(args)} positional arguments, at most {len(slots) + len(params)}")
        node_name, attr = kwargs.pop("name", None), kwargs.pop("attr", None)
        kwargs.pop("out", None)
        given: dict[str, Any] = {}
        for key, value in kwargs.items():
            if key in slots:
                symbols[key] = value
            elif isinstance(value, Symbol):
                raise InvalidArgument(
                    f"{name}: no input {key!r}{nearest(key, slots)} It takes {', '.join(slots)}."
                )
            else:
                given[key] = value
        last = max((i for i, slot in enumerate(slots) if symbols.get(slot) is not None), default=-1)
        inputs = _without_absent(op, slots, symbols, last, given)
        return create(op, inputs, given, node_name, attr, hint=name.lower())

    _describe(function, name, op, slots)
    return function


def _without_absent(
    op: Operator, slots: list[str], symbols: dict[str, Any], last: int, given: dict[str, Any]
) -> list[Any]:
    """The inputs for the arguments that these attributes leave, such as no bias with ``no_bias``."""
    raw = {k: str(v) for k, v in given.items() if v is not None}
    try:
        attrs = op.parse(raw, op.name)
    except InvalidArgument:
        return [symbols.get(slot) for slot in slots[: last + 1]]  # `create` reports it, with the node's name
    present = op.arguments(attrs) + op.aux(attrs)
    extra = [slot for slot in symbols if slot not in present and symbols[slot] is not None]
    if extra:
        raise InvalidArgument(f"{op.name}: input {extra[0]!r} is not used with these parameters")
    return [symbols.get(slot) for slot in present]


def _describe(function: Any, name: str, op: Operator, slots: list[str]) -> None:
    """Give a generated function its name, signature and docstring."""
    keyword: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    if op.variadic:
        parameters = [inspect.Parameter("data", inspect.Parameter.VAR_POSITIONAL)]
        keyword = inspect.Parameter.KEYWORD_ONLY
    else:
        parameters = [inspect.Parameter(s, keyword, default=None) for s in slots]
    parameters += [
        inspect.Parameter(p.name, keyword, default=None if p.required else p.default) for p in op.params
    ]
    parameters += [inspect.Parameter(s, keyword, default=None) for s in ("name", "attr", "out")]
    parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
    function.__name__ = function.__qualname__ = name
    function.__signature__ = inspect.Signature(parameters)
    lines = [op.doc, "", "Parameters", "----------"]
    lines += [f"{slot} : Symbol" for slot in slots]
    for p in op.params:
        default = "required" if p.default is REQUIRED else f"default {p.default}"
        lines += [f"{p.name} : {p.kind.describe}, {default}", f"    {p.doc}"]
    lines += ["name : str, optional", "    The node's name.", "attr : dict of str, optional"]
    lines += ["    Further attributes, such as ``__lr_mult__``.", "", "Returns", "-------", "Symbol"]
    function.__doc__ = "\n".join(lines)


def make_functions() -> dict[str, Callable[..., Symbol]]:
    """A function for every name in the operator table."""
    return {name: _make(name, op) for name, op in OPERATORS.items()}
