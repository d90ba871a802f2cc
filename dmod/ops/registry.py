"""The operator table: what an operator is, once, for symbols, arrays and every device.

An `Operator` says which parameters it takes, how shapes and dtypes follow, and how to *build* its
forward and backward steps. A step is a callable without arguments over buffers that are fixed when
it is built: the builder does all choosing and reshaping, so that running a step is arithmetic only.

``forward(call)`` and ``backward(call)`` get a `Call` (the buffers) and return the step. A backward step
writes each wanted gradient whole; sums over several consumers, and ``grad_req='add'``, are the plan's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.device.base import Backend
from dmod.device.random import SlotStream
from dmod.ops.params import Param
from dmod.registry import nearest

__all__ = [
    "INTERNAL",
    "OPERATORS",
    "Attrs",
    "Call",
    "Operator",
    "Shape",
    "Step",
    "get_operator",
    "in_order",
    "register",
    "register_internal",
    "same_type",
    "zero_gradient",
]

Shape = tuple[int, ...]
"""The lengths of the axes; -1 stands for one that is not known yet."""
Step = Callable[[], None]
Attrs = SimpleNamespace
"""An operator's parameters, parsed: one attribute each."""
Shapes = Sequence[Shape | None]
Dtypes = Sequence[np.dtype | None]


@dataclass
class Call:
    """The buffers that one step is built over.

    Attributes
    ----------
    device : Backend
        The device that the buffers are on.
    xp : module
        Its array module: numpy, or one with its functions.
    attrs : Attrs
    is_train : bool
    inputs, outputs, aux : list of array
        `outputs` has the hidden ones too.
    out_grads : list of array or None
        In backward: the gradient of each output; None if nothing depends on that output.
    in_grads : list of array or None
        In backward: where each input's gradient goes; None if it is not wanted.
    stream : SlotStream
        Random numbers, for `node` in the current step.
    scratch : callable
        ``scratch(shape, dtype)``: memory that is this step's own while it runs, and no longer.
    """

    device: Backend
    xp: ModuleType
    attrs: Attrs
    is_train: bool
    inputs: list[Any]
    outputs: list[Any]
    aux: list[Any]
    stream: SlotStream
    node: int
    scratch: Callable[[Shape, Any], Any]
    out_grads: list[Any] = field(default_factory=list)
    in_grads: list[Any] = field(default_factory=list)


InferShape = Callable[[Attrs, Shapes, Shapes], tuple[Shapes, Shapes, Shapes]]
InferType = Callable[[Attrs, Dtypes], tuple[Dtypes, Dtypes, Dtypes]]
Builder = Callable[[Call], Step]


def _constant(value: Any) -> Callable[..., Any]:
    return lambda *args: value


_NO_NAMES = _constant([])
_ONE = _constant(1)
_READS_NOTHING = _constant(((), ()))
_NO_PAIRS = _constant(())
_NEVER = _constant(False)
_AS_OURS = _constant(None)


@dataclass(frozen=True)
class Operator:
    """One row of the table.

    Attributes
    ----------
    name : str
        As it stands in a symbol's JSON.
    params : tuple of Param
    arguments, aux, outputs : callable
        Names of the inputs, auxiliary states and outputs for given attributes.
    num_visible : callable
        How many outputs users see; the others carry what backward needs.
    infer_shape : callable
        ``(attrs, inputs, outputs) -> (inputs, outputs, aux)``: whatever follows from what is known.
        It raises `InvalidArgument` for shapes that do not fit.
    infer_type : callable
        ``(attrs, inputs) -> (inputs, outputs, aux)``, likewise for dtypes.
    forward, backward : callable
        Builders of steps; `backward` is None for an operator without gradient.
    backward_reads : callable
        ``attrs -> (inputs, outputs)``: the numbers of those that backward reads, so that all other
        buffers can be used again.
    inplace : callable
        ``attrs -> pairs (input, output)`` that may share memory in forward.
    backward_inplace : callable
        ``attrs -> pairs (output, input)`` whose gradients may share memory in backward.
    view : callable
        ``(attrs, is_train) -> bool``: the output is the first input in another shape; there is no step.
    is_loss : bool
        The head of a network: its gradient does not depend on the output's gradient.
    slots : tuple of str
        The names of all inputs that some attributes ask for, if the default ones leave some out.
    json_outputs : callable
        How many outputs MXNet counts in a symbol's JSON, where its hidden ones are others than ours.
    variadic : str
        The parameter that counts the inputs, such as 'num_args', of an operator that takes any number.
    host : bool
        Whether its steps need numpy arrays on every device: the plan copies them to the host and back.
    takes_sparse : callable
        ``call -> bool``: whether its steps take the sparse arrays among the call's inputs and gradients as
        they are (see `dmod.ops.sparse_rows`); else the plan gives it dense copies.
    aux_init : dict
        The ``__init__`` attribute of auxiliary variables that composition creates.
    """

    name: str
    params: tuple[Param, ...]
    arguments: Callable[[Attrs], list[str]]
    outputs: Callable[[Attrs], list[str]]
    infer_shape: InferShape
    forward: Builder
    backward: Builder | None
    infer_type: InferType
    aux: Callable[[Attrs], list[str]] = _NO_NAMES
    num_visible: Callable[[Attrs], int] = _ONE
    backward_reads: Callable[[Attrs], tuple[Sequence[int], Sequence[int]]] = _READS_NOTHING
    inplace: Callable[[Attrs], Sequence[tuple[int, int]]] = _NO_PAIRS
    backward_inplace: Callable[[Attrs], Sequence[tuple[int, int]]] = _NO_PAIRS
    view: Callable[[Attrs, bool], bool] = _NEVER
    is_loss: bool = False
    slots: tuple[str, ...] = ()
    json_outputs: Callable[[Attrs], int | None] = _AS_OURS
    variadic: str = ""
    host: bool = False
    takes_sparse: Callable[[Call], bool] = _NEVER
    aux_init: dict[str, str] = field(default_factory=dict)
    doc: str = ""

    def parse(self, raw: dict[str, str], where: str) -> Attrs:
        """The attributes from their JSON strings.

        Raises
        ------
        InvalidArgument
            An unknown or malformed attribute, or a required one that is missing; `where` names the node.
        """
        known = {p.name: p for p in self.params}
        values = {}
        for key, text in raw.items():
            if key.startswith("__") and key.endswith("__"):
                continue
            if key not in known:
                raise InvalidArgument(
                    f"{where}: {self.name} has no parameter {key!r}{nearest(key, known)}"
                    f" It takes {', '.join(known) or 'none'}."
                )
            values[key] = known[key].parse(text, f"{where}: {self.name}({key}=...)")
        for param in self.params:
            if param.name not in values:
                if param.required:
                    raise InvalidArgument(f"{where}: {self.name} needs {param.name} ({param.kind.describe})")
                values[param.name] = param.default
        return Attrs(**values)


def in_order(steps: list[Step]) -> Step:
    """One step that runs several."""
    if len(steps) == 1:
        return steps[0]

    def run() -> None:
        for step in steps:
            step()

    return run


OPERATORS: dict[str, Operator] = {}
"""Every operator under its name and its aliases."""

INTERNAL: dict[str, Operator] = {}
"""Operators that only the plan compiler's passes put into graphs: no symbol, array or JSON names them."""


def same_type(n_outputs: int = 1) -> InferType:
    """The dtype rule of most operators: all inputs and outputs have one dtype."""

    def infer(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        known = next((t for t in inputs if t is not None), None)
        for i, t in enumerate(inputs):
            if t is not None and t != known:
                raise InvalidArgument(f"input {i} has dtype {t}, an earlier one {known}")
        return [known] * len(inputs), [known] * n_outputs, []

    return infer


def zero_gradient(call: Call) -> Step:
    """The backward builder of operators that are flat almost everywhere, such as comparisons."""
    grads = [grad for grad in call.in_grads if grad is not None]

    def run() -> None:
        for grad in grads:
            grad.fill(0)

    return run


def register(
    name: str,
    *,
    infer_shape: InferShape,
    forward: Builder,
    backward: Builder | None,
    params: Sequence[Param] = (),
    arguments: Sequence[str] | Callable[[Attrs], list[str]] = ("data",),
    outputs: Sequence[str] | Callable[[Attrs], list[str]] = ("output",),
    aliases: Sequence[str] = (),
    infer_type: InferType | None = None,
    **rest: Any,
) -> Operator:
    """Put an operator into the table under its name and aliases; see `Operator` for the rest."""
    operator = Operator(
        name=name,
        params=tuple(params),
        arguments=arguments if callable(arguments) else _constant(list(arguments)),
        outputs=outputs if callable(outputs) else _constant(list(outputs)),
        infer_shape=infer_shape,
        forward=forward,
        backward=backward,
        infer_type=infer_type or same_type(),
        **_as_functions(rest),
    )
    for key in (name, *aliases):
        OPERATORS[key] = operator
    return operator


def register_internal(
    name: str,
    *,
    forward: Builder,
    backward: Builder | None,
    arguments: Sequence[str] | Callable[[Attrs], list[str]],
    outputs: Sequence[str] | Callable[[Attrs], list[str]] = ("output",),
    **rest: Any,
) -> Operator:
    """Make an operator for passes of the plan compiler; see `Operator` for the rest.

    A pass gives such a node its attributes, shapes and dtypes itself, so there is nothing to parse or infer.
    """
    operator = Operator(
        name=name,
        params=(),
        arguments=arguments if callable(arguments) else _constant(list(arguments)),
        outputs=outputs if callable(outputs) else _constant(list(outputs)),
        infer_shape=_inferred_already,
        infer_type=_inferred_already,
        forward=forward,
        backward=backward,
        **_as_functions(rest),
    )
    INTERNAL[name] = operator
    return operator


def _inferred_already(*args: Any) -> Any:
    raise TypeError("internal operators come into graphs whose shapes and dtypes are known")


def _as_functions(fields: dict[str, Any]) -> dict[str, Any]:
    """Constants as functions of the attributes, where the field is one."""
    return {k: v if callable(v) or k in _PLAIN else _constant(v) for k, v in fields.items()}


_PLAIN = ("is_loss", "slots", "variadic", "host", "takes_sparse", "aux_init", "doc")


def get_operator(name: str) -> Operator:
    """The operator registered as `name`.

    Raises
    ------
    InvalidArgument
        There is none; the message offers near names.
    """
    operator = OPERATORS.get(name)
    if operator is None:
        public = [n for n in OPERATORS if not n.startswith("_")]
        raise InvalidArgument(f"unknown operator {name!r}{nearest(name, public)}")
    return operator


def public_operators() -> Iterator[tuple[str, Operator]]:
    """Names that ``mx.sym`` and ``mx.nd`` offer, with their operators."""
    return iter(sorted((k, op) for k, op in OPERATORS.items() if not k.startswith("_")))
