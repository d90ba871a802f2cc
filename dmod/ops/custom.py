"""Custom: an operator that a user wrote in Python, run as a step like any other.

What the user registers (`dmod.operator`) is a property class: it names arguments, infers shapes and
dtypes, and makes the object that computes. That object is made once for each executor and shape, so what
`forward` keeps on it is there in `backward`. Its arrays are host arrays on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from dmod.base import InvalidArgument, MXNetError
from dmod.context import Context
from dmod.ops.params import Param, text
from dmod.ops.registry import (
    OPERATORS,
    Attrs,
    Call,
    Dtypes,
    Operator,
    Shape,
    Shapes,
    Step,
)
from dmod.registry import nearest

__all__ = ["PROPERTIES", "set_array_class"]

PROPERTIES: dict[str, Callable[..., Any]] = {}
"""The registered property classes, by ``op_type``."""
_HOST = Context("cpu", 0)
_wrap: Callable[[Any, Context], Any] | None = None


def set_array_class(array_class: Callable[[Any, Context], Any]) -> None:
    """Install what wraps an array for the user: NDArray, which is defined above the operators."""
    global _wrap
    _wrap = array_class


class _CustomOperator(Operator):
    """The row of the table whose parameters a user's class declares."""

    def parse(self, raw: dict[str, str], where: str) -> Attrs:
        """An instance of the property class, made from the parameters as strings."""
        kwargs = {k: v for k, v in raw.items() if not (k.startswith("__") and k.endswith("__"))}
        op_type = kwargs.pop("op_type", None)
        if op_type is None:
            raise InvalidArgument(f"{where}: Custom needs op_type, the name of a registered operator")
        if op_type not in PROPERTIES:
            raise InvalidArgument(
                f"{where}: no custom operator {op_type!r} is registered{nearest(op_type, PROPERTIES)}"
            )
        node = "" if where == "Custom" else f"{where} "  # imperative calls have no node
        where = f"Custom {node}of op_type {op_type!r}"
        prop = _call_user(where, "the property class", PROPERTIES[op_type], **kwargs)
        return Attrs(
            prop=prop, where=where, out_grad=bool(prop.need_top_grad_), instances=WeakKeyDictionary()
        )


def _call_user(where: str, what: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a user's code; what it raises surfaces with the node's name."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        raise MXNetError(f"{where}: {what} raised {type(error).__name__}: {error}") from error


def _names(method: str) -> Callable[[Attrs], list[str]]:
    def names(attrs: Attrs) -> list[str]:
        return list(_call_user(attrs.where, method, getattr(attrs.prop, method)))

    return names


_arguments, _outputs, _aux = map(_names, ("list_arguments", "list_outputs", "list_auxiliary_states"))


def _ask(attrs: Attrs, method: str, given: list[Any], complete: bool) -> tuple[list[Any], ...] | None:
    """What the property infers: (inputs, outputs, aux), or None if it needs to know more."""
    where, function = attrs.where, getattr(attrs.prop, method)
    if complete:
        found = _call_user(where, method, function, given)
    else:
        try:
            found = function(given)
        except Exception:  # it may look at a shape that is not known yet
            return None
    parts = [list(part) for part in found]
    parts += [[]] * (3 - len(parts))
    counts = [len(_arguments(attrs)), len(_outputs(attrs)), len(_aux(attrs))]
    if [len(part) for part in parts] != counts:
        raise InvalidArgument(
            f"{method} returned {[len(p) for p in parts]} entries for {counts} arguments, outputs and "
            "auxiliary states"
        )
    return tuple(parts)


def _as_shape(shape: Sequence[int]) -> Shape | None:
    dims = tuple(int(n) for n in shape)
    return tuple(-1 if n < 0 else n for n in dims) if dims else None


def _infer_shape(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    nothing: tuple[Shapes, Shapes, Shapes] = (inputs, outputs, [None] * len(_aux(attrs)))
    if inputs and all(shape is None for shape in inputs):
        return nothing
    complete = all(shape is not None and -1 not in shape for shape in inputs)
    given = [[] if shape is None else [max(0, n) for n in shape] for shape in inputs]
    found = _ask(attrs, "infer_shape", given, complete)
    if found is None or (not complete and any(0 in shape for part in found for shape in part)):
        return nothing
    ins, outs, aux = ([_as_shape(shape) for shape in part] for part in found)
    return ins, outs, aux


def _infer_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    nothing: tuple[Dtypes, Dtypes, Dtypes] = (
        inputs,
        [None] * len(_outputs(attrs)),
        [None] * len(_aux(attrs)),
    )
    if inputs and all(dtype is None for dtype in inputs):
        return nothing
    given = [None if dtype is None else np.dtype(dtype).type for dtype in inputs]
    found = _ask(attrs, "infer_type", given, None not in given)
    if found is None:
        return nothing
    ins, outs, aux = ([None if t is None else np.dtype(t) for t in part] for part in found)
    return ins, outs, aux


def _instance(call: Call) -> Any:
    """The user's operator for this executor, shapes and dtypes."""
    attrs = call.attrs
    arrays = [*call.inputs, *call.aux]
    shapes, dtypes = [a.shape for a in arrays], [a.dtype.type for a in arrays]
    of_executor = attrs.instances.setdefault(call.stream, {})
    key = (tuple(shapes), tuple(dtypes))
    if key not in of_executor:
        make = attrs.prop.create_operator
        of_executor[key] = _call_user(attrs.where, "create_operator", make, _HOST, shapes, dtypes)
    return of_executor[key]


def _arrays(arrays: list[Any]) -> list[Any]:
    if _wrap is None:
        raise MXNetError("custom operators are not set up; import dmod, which does it")
    return [_wrap(array, _HOST) for array in arrays]


def _forward(call: Call) -> Step:
    operator, where = _instance(call), call.attrs.where
    in_data, out_data, aux = map(_arrays, (call.inputs, call.outputs, call.aux))
    req, is_train = ["write"] * len(out_data), call.is_train

    def run() -> None:
        _call_user(
            where,
            "forward",
            operator.forward,
            is_train=is_train,
            req=req,
            in_data=in_data,
            out_data=out_data,
            aux=aux,
        )

    return run


def _backward(call: Call) -> Step:
    operator, where = _instance(call), call.attrs.where
    in_data, out_data, aux = map(_arrays, (call.inputs, call.outputs, call.aux))
    missing = [call.scratch(y.shape, y.dtype) for y in call.outputs]
    top = [z if g is None else g for g, z in zip(call.out_grads, missing, strict=True)]
    zeroed = [z for g, z in zip(call.out_grads, missing, strict=True) if g is None]
    req = ["null" if g is None else "write" for g in call.in_grads]
    unwanted = [call.scratch(x.shape, x.dtype) for x in call.inputs]
    out_grad = _arrays(top)
    in_grad = _arrays([u if g is None else g for g, u in zip(call.in_grads, unwanted, strict=True)])
    wanted = [g for g in call.in_grads if g is not None]
    blocked = call.attrs.out_grad and len(zeroed) == len(top)

    def run() -> None:
        for gradient in zeroed:
            gradient.fill(0)
        for gradient in wanted:
            gradient.fill(0)  # a user may leave one out
        if blocked:
            return
        _call_user(
            where,
            "backward",
            operator.backward,
            req=req,
            out_grad=out_grad,
            in_data=in_data,
            out_data=out_data,
            in_grad=in_grad,
            aux=aux,
        )

    return run


OPERATORS["Custom"] = _CustomOperator(
    name="Custom",
    params=(Param("op_type", text, doc="The name under which the operator is registered."),),
    arguments=_arguments,
    outputs=_outputs,
    aux=_aux,
    num_visible=lambda attrs: len(_outputs(attrs)),
    infer_shape=_infer_shape,
    infer_type=_infer_type,
    forward=_forward,
    backward=_backward,
    backward_reads=lambda attrs: (range(len(_arguments(attrs))), range(len(_outputs(attrs)))),
    is_loss=True,  # with `out_grad` where the property asks for the gradient of its outputs
    variadic="*",
    host=True,
    doc="""An operator written in Python and registered by ``mx.operator.register``.

data are its arguments, in the order of `list_arguments`, by position or by name; other parameters go to
the property class, as strings.""",
)
