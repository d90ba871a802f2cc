"""How the generated functions ``mx.sym.X`` and ``mx.nd.X`` take their arguments.

Both are made from the operator table and differ only in what an input is and what is done with it, so
signatures, docstrings, the sorting of arguments and the namespaces are here, once.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.params import Param
from dmod.ops.registry import Attrs, Operator
from dmod.registry import nearest

__all__ = [
    "FLUENT",
    "NAMESPACES",
    "any_number_of_inputs",
    "describe",
    "input_names",
    "inputs_in_order",
    "namespace",
    "sort_arguments",
    "text_of",
    "texts_of",
    "with_count",
]

FLUENT: tuple[str, ...] = (
    *("abs", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "argmax", "argmax_channel"),
    *("argmin", "argsort", "broadcast_axes", "broadcast_like", "broadcast_to", "cbrt", "ceil", "clip"),
    *("cos", "cosh", "degrees", "depth_to_space", "diag", "exp", "expm1", "fix", "flip", "floor", "log"),
    *("log10", "log1p", "log2", "log_softmax", "max", "mean", "min", "nanprod", "nansum", "norm"),
    *("one_hot", "ones_like", "pad", "pick", "prod", "radians", "rcbrt", "reciprocal", "relu", "repeat"),
    *("reshape_like", "rint", "round", "rsqrt", "shape_array", "sigmoid", "sign", "sin", "sinh"),
    *("size_array", "slice", "slice_axis", "slice_like", "softmax", "softmin", "sort", "space_to_depth"),
    *("split", "sqrt", "square", "sum", "swapaxes", "take", "tan", "tanh", "tile", "topk", "transpose"),
    *("trunc", "zeros_like"),
)
"""The operators that arrays and symbols have as methods too: ``x.sum(axis=1)`` is ``sum(x, axis=1)``."""

SPARSE: tuple[str, ...] = (
    *("ElementWiseSum", "Embedding", "FullyConnected", "LinearRegressionOutput", "LogisticRegressionOutput"),
    *("MAERegressionOutput", "abs", "adam_update", "add_n", "arccos", "arccosh", "arcsin", "arcsinh"),
    *("arctan", "arctanh", "broadcast_add", "broadcast_div", "broadcast_minus", "broadcast_mul"),
    *("broadcast_plus", "broadcast_sub", "cast_storage", "cbrt", "ceil", "clip", "concat", "cos", "cosh"),
    *("degrees", "dot", "elemwise_add", "elemwise_div", "elemwise_mul", "elemwise_sub", "exp", "expm1"),
    *("fix", "floor", "ftrl_update", "gamma", "gammaln", "log", "log10", "log1p", "log2", "make_loss"),
    *("mean", "negative", "norm", "radians", "relu", "rint", "round", "rsqrt", "sgd_mom_update"),
    *("sgd_update", "sigmoid", "sign", "sin", "sinh", "slice", "sqrt", "square", "stop_gradient", "sum"),
    *("tan", "tanh", "trunc", "where", "zeros_like"),
)
"""The operators that ``mx.nd.sparse`` has besides those of its own prefix."""

NAMESPACES: dict[str, tuple[str, ...]] = {
    "contrib": ("_contrib_",),
    "image": ("_image_",),
    "linalg": ("_linalg_", "linalg_"),
    "random": ("_random_", "random_"),
    "sparse": ("_sparse_", "sparse_"),
}
"""Which names of the table a namespace such as ``mx.nd.linalg`` has, without these prefixes."""


def text_of(value: Any) -> str:
    """A parameter's value as symbols keep it.

    Examples
    --------
    >>> text_of(np.float16), text_of([np.int64(1), 2]), text_of(True)
    ('float16', '[1, 2]', 'True')
    """
    if isinstance(value, type) and issubclass(value, (np.generic, bool, int, float)):
        return np.dtype(value).name
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, np.generic):
        return str(value.item())
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    if isinstance(value, tuple):
        inner = ", ".join(map(text_of, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return str(value)


def texts_of(params: Mapping[str, Any], op: Operator | None = None) -> dict[str, str]:
    """The parameters that are given, as symbols keep them; None is none, unless `op` takes it.

    Examples
    --------
    ``slice_axis(x, axis=0, begin=2, end=None)`` keeps ``end='None'``.
    """
    takes_none = {
        p.name for p in (op.params if op is not None else ()) if p.kind.describe.endswith(" or None")
    }
    return {k: text_of(v) for k, v in params.items() if v is not None or k in takes_none}


def with_count(op: Operator, params: Mapping[str, Any], count: int) -> dict[str, Any]:
    """`params` with the one that counts the inputs, unless it is given."""
    return {op.variadic: count, **params} if op.variadic.isidentifier() else dict(params)


def any_number_of_inputs(op: Operator) -> bool:
    """Whether the operator takes any number of inputs, as ``f(*data, **params)``."""
    return bool(op.variadic)


def input_names(op: Operator) -> list[str]:
    """All names of inputs that the operator can have, whatever its attributes."""
    if op.slots:
        return list(op.slots)
    attrs = op.parse({p.name: _example(p) for p in op.params if p.required}, op.name)
    return [*op.arguments(attrs), *op.aux(attrs)]


def _example(param: Param) -> str:
    """Some text that the parameter can be."""
    for text in ("1", "None", "float32", "(1,)"):
        try:
            param.kind.parse(text)
        except ValueError:
            continue
        return text
    return param.kind.describe.removeprefix("one of ").split(", ")[0]


def sort_arguments(
    name: str,
    names: Sequence[str],
    params: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    is_input: Callable[[Any], bool],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort a call's arguments into inputs and parameters.

    Parameters
    ----------
    name : str
        The function's, for messages.
    names, params : list of str
        The inputs and the parameters that it takes, in this order by position.
    is_input : callable
        Whether a value can only be an input.
    """
    if len(args) > len(names) + len(params):
        raise TypeError(f"{name}: {len(args)} positional arguments, at most {len(names) + len(params)}")
    inputs: dict[str, Any] = {}
    given: dict[str, Any] = {}
    positional = zip((*names, *params), args, strict=False)
    for key, value in itertools.chain(positional, kwargs.items()):
        target = inputs if key in names else given
        if key in target:
            raise TypeError(f"{name}: {key!r} is given twice")
        if target is given and is_input(value):
            takes = ", ".join(names) or "none"
            raise InvalidArgument(f"{name}: no input {key!r}{nearest(key, names)} It takes {takes}.")
        target[key] = value
    return inputs, given


def inputs_in_order(op: Operator, attrs: Attrs, inputs: Mapping[str, Any]) -> list[Any]:
    """The inputs for the arguments and auxiliary states that `attrs` leave; None for missing ones."""
    present = [*op.arguments(attrs), *op.aux(attrs)]
    for name, value in inputs.items():
        if name not in present and value is not None:
            raise InvalidArgument(f"{op.name}: input {name!r} is not used with these parameters")
    return [inputs.get(name) for name in present]


def describe(
    function: Any, name: str, op: Operator, names: Sequence[str], noun: str, tail: list[str]
) -> None:
    """Give a generated function its name, signature and docstring.

    Parameters
    ----------
    names : list of str
        The inputs; ignored for an operator that takes any number.
    noun : str
        What an input is: 'Symbol' or 'NDArray'.
    tail : list of str
        The arguments that all functions of this kind have, documented in `_TAIL`.
    """
    keyword: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
    if any_number_of_inputs(op):
        names = ["*data"]
        parameters = [inspect.Parameter("data", inspect.Parameter.VAR_POSITIONAL)]
        keyword = inspect.Parameter.KEYWORD_ONLY
    else:
        parameters = [inspect.Parameter(s, keyword, default=None) for s in names]
    parameters += [
        inspect.Parameter(p.name, keyword, default=None if p.required else p.default) for p in op.params
    ]
    taken = {p.name for p in parameters}
    parameters += [inspect.Parameter(s, keyword, default=None) for s in tail if s not in taken]
    parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))
    function.__name__ = function.__qualname__ = name
    function.__signature__ = inspect.Signature(parameters)
    lines = [op.doc, "", "Parameters", "----------"]
    lines += [f"{slot} : {noun}" for slot in names]
    for p in op.params:
        default = "required" if p.required else f"default {p.default}"
        lines += [f"{p.name} : {p.kind.describe}, {default}", f"    {p.doc}"]
    lines += [line for s in tail for line in _TAIL[s].format(noun=noun).split("\n")]
    lines += ["", "Returns", "-------", noun]
    function.__doc__ = "\n".join(lines)


_TAIL = {
    "name": "name : str, optional\n    The node's name.",
    "attr": "attr : dict of str, optional\n    Further attributes, such as ``__lr_mult__``.",
    "out": "out : {noun}, or list of them, optional\n    What the results are written into.",
}


def namespace(
    which: str, table: Iterable[tuple[str, Operator]], make: Callable[[str, Operator], Any]
) -> dict[str, Any]:
    """The functions of the namespace `which`, made by ``make(name, operator)`` from the table.

    Examples
    --------
    The operator ``_contrib_ROIAlign`` is ``contrib.ROIAlign``.
    """
    functions = {}
    for full, op in table:
        for prefix in NAMESPACES[which]:
            short = full.removeprefix(prefix)
            if short != full and short not in functions:
                functions[short] = make(short, op)
        if which == "sparse" and full in SPARSE:
            functions[full] = make(full, op)
    return functions
