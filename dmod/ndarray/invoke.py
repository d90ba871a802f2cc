"""Imperative use of the operator table: infer, allocate, build the forward step, run it once.

Auxiliary states, such as the momentum of an update, are written in place. Random operators draw from one
stream of the process, which `dmod.random.seed` restarts and which only random draws advance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context, current_context
from dmod.device import HOST, Backend, backend
from dmod.device.random import SlotStream
from dmod.ndarray.arithmetic import same_device
from dmod.ndarray.ndarray import NDArray
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
from dmod.ops.elementwise import merge_shapes
from dmod.ops.registry import Attrs, Call

__all__ = ["SPARSE_RULES", "invoke", "make_functions", "make_namespace", "run"]

_IMPERATIVE_SLOT = (1 << 64) - 2  # no device has this slot, and the host's generator has the next one


class _DrawStream(SlotStream):
    """A stream whose step only counts if it was drawn from: other operators in between change nothing."""

    @property
    def step(self) -> int:
        """The number of the step, which whoever draws asks for."""
        self._drawn = True
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = value

    def begin(self) -> None:
        """Begin a step."""
        self._drawn = False
        self.advance()

    def end(self) -> None:
        """End the step; take it back if nothing was drawn."""
        if not self._drawn:
            self._counts[True] -= 1


_STREAM = _DrawStream(_IMPERATIVE_SLOT)

SparseRule = Callable[[Operator, Attrs, list[NDArray], list[NDArray]], NDArray | None]
SPARSE_RULES: dict[str, SparseRule] = {}
"""By operator: what it does with sparse inputs. A rule that gives None leaves it to dense copies."""


@dataclass
class _Invocation:
    """One use of an operator: what is known before anything is allocated."""

    op: Operator
    attrs: Attrs
    where: str
    inputs: list[NDArray]
    outs: list[NDArray]
    memory: Backend
    ctx: Context

    @property
    def count(self) -> int:
        """How many of the inputs are arguments; the others are auxiliary states."""
        return len(self.op.arguments(self.attrs))


def invoke(
    op: Operator,
    inputs: Sequence[NDArray | None],
    params: Mapping[str, Any],
    out: NDArray | Sequence[NDArray] | None = None,
    where: str = "",
) -> Any:
    """Run an operator on arrays.

    Parameters
    ----------
    op : Operator
    inputs : list of NDArray
        In the order of the operator's arguments and auxiliary states.
    params : dict
        The operator's parameters.
    out : NDArray or list of NDArray, optional
        Where the results go; they may be inputs.
    where : str
        What messages call the operator; default: its name.

    Returns
    -------
    NDArray, or a list of them
        `out`, if it was given.

    Raises
    ------
    InvalidArgument
        Something is missing or does not fit; the message names operator and argument.
    """
    where = where or op.name
    outs = _listed(out)
    attrs = op.parse(texts_of(_following_out(op, inputs, params, outs), op), where)
    return run(op, attrs, inputs, outs, out, where)


def run(
    op: Operator,
    attrs: Attrs,
    inputs: Sequence[NDArray | None],
    outs: list[NDArray],
    out: Any,
    where: str,
) -> Any:
    """Run an operator whose parameters are parsed; see `invoke`."""
    arrays = _checked_inputs(op, attrs, inputs, where)
    if any(a.stype != "default" for a in arrays):
        rule = SPARSE_RULES.get(op.name)
        result = rule(op, attrs, arrays, outs) if rule is not None else None
        if result is not None:
            return result if out is None or result is outs[0] else result.copyto(outs[0])
    call = _invocation(op, attrs, arrays, outs, where)
    results = _compute(call)
    for result, target in zip(results, outs, strict=False):
        if result is not target:
            result.copyto(target)
    for given, dense in zip(arrays[call.count :], call.inputs[call.count :], strict=True):
        if dense is not given:  # a sparse auxiliary state was updated as a dense copy
            dense.copyto(given)
    if out is not None:
        return out
    return results[0] if len(results) == 1 else results


def _listed(out: Any) -> list[NDArray]:
    """The arrays of ``out=``."""
    if out is None:
        return []
    return [out] if isinstance(out, NDArray) else list(out)


def _following_out(
    op: Operator, inputs: Sequence[Any], params: Mapping[str, Any], outs: list[NDArray]
) -> Mapping[str, Any]:
    """The parameters, with shape and dtype of `outs` where nothing else determines them."""
    if inputs or not outs:
        return params
    found = dict(params)
    for p in op.params:
        if p.name in ("shape", "dtype") and found.get(p.name) is None:
            found[p.name] = getattr(outs[0], p.name)
    return found


def _checked_inputs(
    op: Operator, attrs: Attrs, inputs: Sequence[NDArray | None], where: str
) -> list[NDArray]:
    names = [*op.arguments(attrs), *op.aux(attrs)]
    if len(inputs) > len(names):
        raise InvalidArgument(f"{where}: {len(inputs)} inputs, expected {', '.join(names) or 'none'}")
    given = [*inputs, *[None] * (len(names) - len(inputs))]
    for name, array in zip(names, given, strict=True):
        if array is None:
            raise InvalidArgument(f"{where}: input {name!r} is missing; it takes {', '.join(names)}")
        if not isinstance(array, NDArray):
            raise TypeError(f"{where}: {name} needs an NDArray, got {type(array).__name__}")
    return given  # type: ignore[return-value]


def _invocation(
    op: Operator, attrs: Attrs, arrays: list[NDArray], outs: list[NDArray], where: str
) -> _Invocation:
    visible = op.num_visible(attrs)
    if outs and len(outs) != visible:
        raise InvalidArgument(f"{where}: out has {len(outs)} arrays, there are {visible} outputs")
    if arrays:
        ctx = arrays[0].context
    elif outs:
        ctx = outs[0].context
    else:
        ctx = _context_of(getattr(attrs, "ctx", None))
    for array in (*arrays, *outs):
        same_device(ctx, array.context, where)
    return _Invocation(op, attrs, where, [a._dense() for a in arrays], outs, backend(ctx), ctx)


def _context_of(text: Any) -> Context:
    """The context of a parameter ``ctx``, such as 'gpu(1)'."""
    if not text:
        return current_context()
    if isinstance(text, Context):
        return text
    kind, _, number = str(text).rstrip(")").partition("(")
    if not (number or "0").isdigit():
        raise InvalidArgument(f"ctx={text!r}: expected a context such as 'cpu(0)'")
    return Context(kind, int(number or 0))


def _inferred(call: _Invocation) -> tuple[list[Any], list[Any]]:
    """Shapes and dtypes of all outputs; inputs that do not fit are refused."""
    op, attrs, count = call.op, call.attrs, call.count
    names = [*op.arguments(attrs), *op.aux(attrs)]
    outputs: list[Any] = [None] * len(op.outputs(attrs))
    for i, out in enumerate(call.outs):
        outputs[i] = out.shape if out.stype == "default" else None
    shapes = [a.shape for a in call.inputs]
    try:
        needed, out_shapes, aux = op.infer_shape(attrs, shapes[:count], outputs)
        for name, have, need in zip(names, shapes, [*needed, *aux], strict=True):
            merge_shapes(need, have, name)
        for have, need in zip(outputs, out_shapes, strict=True):
            merge_shapes(need, have, "out")
        _, out_dtypes, _ = op.infer_type(attrs, [a._data.dtype for a in call.inputs[:count]])
    except InvalidArgument as error:
        raise InvalidArgument(f"{call.where}: {error}") from None
    for shape in out_shapes:
        if shape is None or -1 in shape:
            raise InvalidArgument(
                f"{call.where}: the output's shape does not follow from the inputs: {shape}"
            )
    return list(out_shapes), [np.dtype(np.float32) if t is None else np.dtype(t) for t in out_dtypes]


def _compute(call: _Invocation) -> list[NDArray]:
    """Run the operator; the visible outputs, which are those of ``out=`` where these could be written."""
    op, attrs, memory = call.op, call.attrs, call.memory
    shapes, dtypes = _inferred(call)
    inputs = [_contiguous(a, memory) for a in call.inputs]
    results = []
    for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True)):
        out = call.outs[i] if i < len(call.outs) else None
        if out is not None and out.dtype is not dtype.type:
            raise InvalidArgument(f"{call.where}: out has dtype {np.dtype(out.dtype)}, expected {dtype}")
        direct = out is not None and _can_write(out, i, inputs, call)
        results.append(out._data if direct else memory.empty(shape, dtype))  # type: ignore[union-attr]
    _step(call, inputs, results)
    for array, data in zip(call.inputs, inputs, strict=True):
        if data is not array._data:  # a copy; updates write into their states, which are inputs too
            with memory.activate():
                if not memory.xp.array_equal(data, array._data):
                    memory.xp.copyto(array._data, data)
    wrapped = []
    for i, data in enumerate(results[: op.num_visible(attrs)]):
        direct = i < len(call.outs) and data is call.outs[i]._data
        wrapped.append(call.outs[i] if direct else NDArray(data, call.ctx))
    return wrapped


def _contiguous(array: NDArray, memory: Backend) -> Any:
    """The array's memory, as one block: steps look at it in other shapes, and kernels by its address."""
    data = array._data
    if data.flags.c_contiguous:
        return data
    with memory.activate():
        return memory.xp.ascontiguousarray(data)


def _can_write(out: NDArray, index: int, inputs: list[Any], call: _Invocation) -> bool:
    """Whether the step can write into `out` itself: it is one block, and no input that is still read."""
    if out.stype != "default" or not out._data.flags.c_contiguous:
        return False
    pairs = call.op.inplace(call.attrs)
    for i, data in enumerate(inputs):
        if data is out._data and (i, index) in pairs:
            continue
        with call.memory.activate():
            if data.size and out.size and call.memory.xp.may_share_memory(data, out._data):
                return False
    return True


def _step(call: _Invocation, inputs: list[Any], outputs: list[Any]) -> None:
    """Build and run the forward step, on the host if the operator needs it."""
    op, count, device = call.op, call.count, call.memory
    arrays = [*inputs, *outputs]
    if op.host and not device.is_host:
        device = HOST
        arrays = [call.memory.to_host(a) for a in arrays]
    own_inputs, own_outputs = arrays[: len(inputs)], arrays[len(inputs) :]
    with np.errstate(all="ignore"), device.activate():
        step = op.forward(
            Call(
                device=device,
                xp=device.xp,
                attrs=call.attrs,
                is_train=False,
                inputs=own_inputs[:count],
                outputs=own_outputs,
                aux=own_inputs[count:],
                stream=_STREAM,
                node=0,
                scratch=device.empty,
            )
        )
        _STREAM.begin()
        step()
        _STREAM.end()
    if device is not call.memory:
        written = [*zip(inputs[count:], own_inputs[count:], strict=True)]
        written += zip(outputs, own_outputs, strict=True)
        for target, source in written:
            call.memory.copy_in(target, source)


# ---- one function per operator


def _is_array(value: Any) -> bool:
    return isinstance(value, NDArray)


def _make(name: str, op: Operator) -> Callable[..., Any]:
    """The function `name` of an operator."""
    make = _make_variadic if any_number_of_inputs(op) else _make_fixed
    return make(name, op)


def _make_variadic(name: str, op: Operator) -> Callable[..., Any]:
    def function(*data: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        kwargs.pop("name", None)
        named = {k: kwargs.pop(k) for k in list(kwargs) if _is_array(kwargs[k])}
        if data and named:
            raise InvalidArgument(f"{name}: give inputs by position or by name, not both")
        arrays = list(data[0]) if len(data) == 1 and isinstance(data[0], (list, tuple)) else list(data)
        params = with_count(op, kwargs, len(arrays) or len(named))
        attrs = op.parse(texts_of(params, op), name)
        if named:
            arrays = inputs_in_order(op, attrs, named)
        return run(op, attrs, arrays, _listed(out), out, name)

    describe(function, name, op, [], "NDArray", ["out", "name"])
    return function


def _make_fixed(name: str, op: Operator) -> Callable[..., Any]:
    slots, params = input_names(op), [p.name for p in op.params]

    def function(*args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        kwargs.pop("name", None)
        arrays, given = sort_arguments(name, slots, params, args, kwargs, _is_array)
        outs = _listed(out)
        attrs = op.parse(texts_of(_following_out(op, slots, given, outs), op), name)
        return run(op, attrs, inputs_in_order(op, attrs, arrays), outs, out, name)

    describe(function, name, op, slots, "NDArray", ["out", "name"])
    return function


@cache
def make_functions() -> dict[str, Callable[..., Any]]:
    """A function for every name in the operator table."""
    return {name: _make(name, op) for name, op in OPERATORS.items()}


def make_namespace(which: str) -> dict[str, Callable[..., Any]]:
    """The functions of a namespace such as ``mx.nd.linalg``."""
    return namespace(which, OPERATORS.items(), _make)
