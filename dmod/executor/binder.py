"""What `Symbol.bind`, `simple_bind` and `eval` do: check and complete the arrays, make the executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context, current_context
from dmod.device import backend
from dmod.executor.executor import GRAD_REQS, Executor, Handle
from dmod.executor.storage import csr_inputs, empty_csr, empty_rows, row_sparse_gradients
from dmod.log import logger
from dmod.ndarray import NDArray
from dmod.registry import nearest
from dmod.symbol import Symbol
from dmod.symbol.infer import infer_dtypes, infer_shapes, is_complete

__all__ = ["bind", "evaluate", "grad_reqs", "simple_bind"]


def grad_reqs(grad_req: Any, names: Sequence[str]) -> dict[str, str]:
    """The gradient requirement of each argument, from a string, list or dict.

    Raises
    ------
    InvalidArgument
        An unknown requirement or argument, or a list of another length.
    """
    if isinstance(grad_req, str):
        reqs = dict.fromkeys(names, grad_req)
    elif isinstance(grad_req, Mapping):
        for name in grad_req:
            if name not in names:
                raise InvalidArgument(f"grad_req: no argument {name!r}{nearest(name, names)}")
        reqs = {name: grad_req.get(name, "null") for name in names}
    elif isinstance(grad_req, (list, tuple)):
        if len(grad_req) != len(names):
            raise InvalidArgument(f"grad_req: {len(grad_req)} values for {len(names)} arguments")
        reqs = dict(zip(names, grad_req, strict=True))
    else:
        raise InvalidArgument(f"grad_req: expected a string, list or dict, got {type(grad_req).__name__}")
    for name, req in reqs.items():
        if req not in GRAD_REQS:
            raise InvalidArgument(f"grad_req of {name!r} is {req!r}, expected one of {', '.join(GRAD_REQS)}")
    return reqs


def _by_name(what: str, arrays: Any, names: list[str], partial: bool = False) -> dict[str, NDArray]:
    if arrays is None:
        arrays = {}
    if isinstance(arrays, Mapping):
        for name in arrays:
            if name not in names:
                raise InvalidArgument(
                    f"bind: {what} has {name!r}, which is no argument{nearest(name, names)}"
                )
        found = dict(arrays)
    else:
        if len(arrays) != len(names):
            raise InvalidArgument(
                f"bind: {what} has {len(arrays)} arrays, expected {len(names)}: {', '.join(names)}"
            )
        found = {n: a for n, a in zip(names, arrays, strict=True) if a is not None}
    missing = [name for name in names if name not in found]
    if missing and not partial:
        raise InvalidArgument(f"bind: {what} lacks {', '.join(map(repr, missing))}")
    for name, array in found.items():
        if not isinstance(array, NDArray):
            raise InvalidArgument(f"bind: {what}[{name!r}] is a {type(array).__name__}, expected an NDArray")
    return found


def bind(
    symbol: Symbol,
    ctx: Context,
    args: Any,
    args_grad: Any = None,
    grad_req: Any = "write",
    aux_states: Any = None,
    group2ctx: Any = None,
    shared_exec: Executor | None = None,
) -> Executor:
    """See `Symbol.bind`."""
    if not isinstance(ctx, Context):
        raise TypeError(f"bind: expected a Context, got {type(ctx).__name__}")
    names = symbol.list_arguments()
    handle = Handle(
        _by_name("args", args, names),
        _by_name("args_grad", args_grad, names, partial=True),
        _by_name("aux_states", aux_states, symbol.list_auxiliary_states()),
    )
    return Executor(handle, symbol, ctx, grad_reqs(grad_req, names), _groups(group2ctx))


def simple_bind(
    symbol: Symbol,
    ctx: Context,
    grad_req: Any,
    type_dict: Mapping[str, Any] | None,
    group2ctx: Any,
    shapes: Mapping[str, Sequence[int]],
) -> Executor:
    """See `Symbol.simple_bind`."""
    groups = _groups(group2ctx)
    arg_names, aux_names = symbol.list_arguments(), symbol.list_auxiliary_states()
    for name in [*shapes, *(type_dict or {})]:
        if name not in arg_names and name not in aux_names:  # such as a label's, where there is no loss
            logger.warning("simple_bind: no argument %r, ignored%s", name, nearest(name, arg_names))
    order = symbol._order()
    inferred = infer_shapes(order, shapes)
    dtypes = infer_dtypes(order, type_dict or {})
    variables = {node.name: (id(node), 0) for node in order if node.is_variable}
    unknown = [name for name, key in variables.items() if not is_complete(inferred[key])]
    if unknown:
        raise InvalidArgument(
            f"simple_bind: the shapes given ({', '.join(shapes) or 'none'}) do not determine those of "
            f"{', '.join(unknown)}; give them as keywords, such as {unknown[0]}=(...)"
        )
    placed = {n.name: groups.get(n.raw.get("__ctx_group__", ""), ctx) for n in order if n.is_variable}

    def zeros(name: str) -> NDArray:
        key, place = variables[name], placed[name]
        return NDArray(backend(place).zeros(inferred[key] or (), dtypes[key] or np.float32), place)

    csr, rows = csr_inputs(symbol), row_sparse_gradients(symbol)

    def argument(name: str) -> NDArray:
        key = variables[name]
        if name not in csr:
            return zeros(name)
        return empty_csr(inferred[key] or (), dtypes[key] or np.float32, placed[name])

    def gradient(name: str) -> NDArray:
        key = variables[name]
        if name not in rows or reqs[name] == "add":
            return zeros(name)
        return empty_rows(inferred[key] or (), dtypes[key] or np.float32, placed[name])

    reqs = grad_reqs(grad_req, arg_names)
    handle = Handle(
        {name: argument(name) for name in arg_names},
        {name: gradient(name) for name in arg_names if reqs[name] != "null"},
        {name: zeros(name) for name in aux_names},
    )
    return Executor(handle, symbol, ctx, reqs, groups)


def evaluate(symbol: Symbol, ctx: Context | None, args: Mapping[str, NDArray]) -> list[NDArray]:
    """See `Symbol.eval`."""
    return bind(symbol, ctx or current_context(), args, grad_req="null").forward()


def _groups(group2ctx: Any) -> dict[str, Context]:
    """`group2ctx`, checked: names of groups to contexts."""
    groups = dict(group2ctx or {})
    for group, ctx in groups.items():
        if not isinstance(ctx, Context):
            raise InvalidArgument(f"group2ctx[{group!r}]: expected a Context, got {type(ctx).__name__}")
    return groups
