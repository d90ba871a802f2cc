"""``mx.operator``: operators written in Python.

An operator is two classes. A `CustomOpProp` says what it takes and gives; a `CustomOp` computes. `register`
makes it known, and ``mx.sym.Custom`` and ``mx.nd.Custom`` use it.

Examples
--------
>>> from dmod.ndarray import Custom, array
>>> class Twice(CustomOp):
...     def forward(self, is_train, req, in_data, out_data, aux):
...         self.assign(out_data[0], req[0], in_data[0] * 2)
...     def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
...         self.assign(in_grad[0], req[0], out_grad[0] * 2)
>>> @register('twice')
... class TwiceProp(CustomOpProp):
...     def create_operator(self, ctx, in_shapes, in_dtypes):
...         return Twice()
>>> Custom(array([1, 2]), op_type='twice').asnumpy()
array([2., 4.], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dmod.base import InvalidArgument
from dmod.ndarray import NDArray
from dmod.ops import OPERATORS, get_operator
from dmod.ops.calling import input_names
from dmod.ops.custom import PROPERTIES, set_array_class
from dmod.symbol import Symbol
from dmod.symbol.functions import make_functions

__all__ = [
    "CustomOp",
    "CustomOpProp",
    "NDArrayOp",
    "NumpyOp",
    "OperatorArguments",
    "PythonOp",
    "get_all_registered_operators",
    "get_operator_arguments",
    "register",
]

set_array_class(NDArray)


class CustomOp:
    """The computation of an operator. One serves one executor, so it may keep things for `backward`."""

    def forward(
        self,
        is_train: bool,
        req: list[str],
        in_data: list[NDArray],
        out_data: list[NDArray],
        aux: list[NDArray],
    ) -> None:
        """Compute the outputs.

        Parameters
        ----------
        is_train : bool
        req : list of str
            For each output what `assign` does: 'null', 'write', 'inplace' or 'add'.
        in_data, out_data, aux : list of NDArray
            The inputs, the outputs to fill, and the auxiliary states.
        """

    def backward(
        self,
        req: list[str],
        out_grad: list[NDArray],
        in_data: list[NDArray],
        out_data: list[NDArray],
        in_grad: list[NDArray],
        aux: list[NDArray],
    ) -> None:
        """Compute the gradients of the inputs into `in_grad` from those of the outputs, `out_grad`."""

    def assign(self, dst: NDArray, req: str, src: Any) -> None:
        """Put `src` into `dst` as `req` says.

        Parameters
        ----------
        dst : NDArray
        req : {'null', 'write', 'inplace', 'add'}
        src : NDArray, number or array-like
        """
        if req in ("write", "inplace"):
            dst[:] = src
        elif req == "add":
            dst += src
        elif req != "null":
            raise InvalidArgument(f"assign: req is {req!r}, expected 'null', 'write', 'inplace' or 'add'")


class CustomOpProp:
    """What an operator takes and gives. Parameters of the operator come to the constructor as strings.

    Parameters
    ----------
    need_top_grad : bool
        False for a loss, whose gradient does not depend on that of its outputs.
    """

    def __init__(self, need_top_grad: bool = True):
        self.need_top_grad_ = need_top_grad

    def infer_shape(self, in_shape: list[list[int]]) -> tuple[Any, ...]:
        """Shapes of (arguments, outputs, auxiliary states), from those of the arguments that are known.

        By default all are the first argument's. An unknown shape is ``[]``.
        """
        return in_shape, (in_shape[0],) * len(self.list_outputs()), ()

    def infer_type(self, in_type: list[Any]) -> tuple[Any, ...]:
        """Dtypes of (arguments, outputs, auxiliary states); by default all are the first argument's."""
        first = in_type[0]
        return (
            [first] * len(in_type),
            [first] * len(self.list_outputs()),
            [first] * len(self.list_auxiliary_states()),
        )

    def infer_storage_type(self, in_stype: list[str]) -> tuple[list[str], list[str], list[str]]:
        """Storage types likewise: all 'default', that is, dense."""
        return (
            ["default"] * len(in_stype),
            ["default"] * len(self.list_outputs()),
            ["default"] * len(self.list_auxiliary_states()),
        )

    def infer_storage_type_backward(
        self,
        ograd_stype: list[str],
        in_stype: list[str],
        out_stype: list[str],
        igrad_stype: list[str],
        aux_stype: list[str],
    ) -> tuple[list[str], ...]:
        """Storage types in `backward`: all 'default', that is, dense."""
        given = (ograd_stype, in_stype, out_stype, igrad_stype, aux_stype)
        return tuple(["default"] * len(stypes) for stypes in given)

    def list_arguments(self) -> list[str]:
        """The names of the inputs; default: one, 'data'."""
        return ["data"]

    def list_outputs(self) -> list[str]:
        """The names of the outputs; default: one, 'output'."""
        return ["output"]

    def list_auxiliary_states(self) -> list[str]:
        """The names of the auxiliary states; default: none."""
        return []

    def declare_backward_dependency(
        self, out_grad: Sequence[int], in_data: Sequence[int], out_data: Sequence[int]
    ) -> list[int]:
        """Which arrays `backward` reads, by number. Accepted, but all of them are kept for it."""
        return [*(out_grad if self.need_top_grad_ else ()), *in_data, *out_data]

    def create_operator(self, ctx: Any, in_shapes: list[Any], in_dtypes: list[Any]) -> CustomOp:
        """The `CustomOp` for these shapes and dtypes of inputs and auxiliary states.

        Parameters
        ----------
        ctx : Context
            Where its arrays are: the host, whatever device the network is on.
        in_shapes : list of tuple
        in_dtypes : list of numpy types
        """
        return CustomOp()


def register(reg_name: str) -> Callable[[type], type]:
    """Return a decorator that registers a `CustomOpProp` class as ``op_type=reg_name``.

    A second registration of a name replaces the first.
    """

    def decorate(prop_class: type) -> type:
        if not (isinstance(prop_class, type) and issubclass(prop_class, CustomOpProp)):
            raise InvalidArgument(f"register({reg_name!r}): expected a subclass of CustomOpProp")
        PROPERTIES[reg_name] = prop_class
        return prop_class

    return decorate


class OperatorArguments(NamedTuple):
    """What an operator takes: the number, names and types of its arguments."""

    narg: int
    names: list[str]
    types: list[str]


def get_all_registered_operators() -> list[str]:
    """The names of all operators, sorted."""
    return sorted(OPERATORS)


def get_operator_arguments(op_name: str) -> OperatorArguments:
    """The inputs and parameters of an operator.

    Examples
    --------
    >>> get_operator_arguments('Activation').names
    ['data', 'act_type']
    """
    op = get_operator(op_name)
    inputs = [] if op.variadic else input_names(op)
    types = ["NDArray-or-Symbol"] * len(inputs)
    types += [f"{p.kind.describe}, {'required' if p.required else f'default={p.default}'}" for p in op.params]
    names = [*inputs, *(p.name for p in op.params)]
    return OperatorArguments(len(names), names, types)


# ---- the older way, one object for everything; kept for scripts that still use it


class PythonOp:
    """The base of `NumpyOp` and `NDArrayOp`; new code uses `CustomOp`.

    Parameters
    ----------
    need_top_grad : bool
        False for a loss.
    """

    _made = 0

    def __init__(self, need_top_grad: bool = True):
        self.need_top_grad_ = need_top_grad

    def __call__(self, *args: Any, **kwargs: Any) -> Symbol:
        return self.get_symbol(*args, **kwargs)

    def _values(self, arrays: list[NDArray]) -> list[Any]:
        """What `forward` and `backward` get."""
        raise NotImplementedError

    def get_symbol(self, *args: Any, **kwargs: Any) -> Symbol:
        """A symbol of this operator, which lives as long as the process; files cannot keep it."""
        PythonOp._made += 1
        name = f"_python_op_{PythonOp._made}"
        register(name)(_property_of(self))
        return make_functions()["Custom"](*args, op_type=name, **kwargs)

    def forward(self, in_data: list[Any], out_data: list[Any]) -> None:
        """Compute the outputs; by default the first is the first input."""
        out_data[0][:] = in_data[0]

    def backward(
        self, out_grad: list[Any], in_data: list[Any], out_data: list[Any], in_grad: list[Any]
    ) -> None:
        """Compute the gradients of the inputs; by default the first is 1."""
        in_grad[0][:] = 1.0

    def infer_shape(self, in_shape: list[list[int]]) -> tuple[Any, Any]:
        """Shapes of (arguments, outputs); by default the first argument's."""
        return in_shape, [in_shape[0]]

    def list_outputs(self) -> list[str]:
        """The names of the outputs."""
        return ["output"]

    def list_arguments(self) -> list[str]:
        """The names of the inputs."""
        return ["data"]

    def need_top_grad(self) -> bool:
        """Whether `backward` needs the gradient of the outputs."""
        return self.need_top_grad_


class NumpyOp(PythonOp):
    """An operator on numpy arrays; new code uses `CustomOp`."""

    def _values(self, arrays: list[NDArray]) -> list[Any]:
        return [array._data for array in arrays]


class NDArrayOp(PythonOp):
    """An operator on NDArrays; new code uses `CustomOp`."""

    def _values(self, arrays: list[NDArray]) -> list[Any]:
        return arrays

    def declare_backward_dependency(
        self, out_grad: Sequence[int], in_data: Sequence[int], out_data: Sequence[int]
    ) -> list[int]:
        """Which arrays `backward` reads, by number. Accepted, but all of them are kept for it."""
        return [*(out_grad if self.need_top_grad() else ()), *in_data, *out_data]


def _property_of(op: PythonOp) -> type[CustomOpProp]:
    """A property class for an operator of the older kind."""

    class Operator(CustomOp):
        def forward(self, is_train: Any, req: Any, in_data: Any, out_data: Any, aux: Any) -> None:
            op.forward(in_data=op._values(in_data), out_data=op._values(out_data))

        def backward(
            self, req: Any, out_grad: Any, in_data: Any, out_data: Any, in_grad: Any, aux: Any
        ) -> None:
            values = map(op._values, (out_grad, in_data, out_data, in_grad))
            op.backward(**dict(zip(("out_grad", "in_data", "out_data", "in_grad"), values, strict=True)))

    class Property(CustomOpProp):
        def __init__(self) -> None:
            super().__init__(op.need_top_grad())

        def infer_shape(self, in_shape: list[list[int]]) -> tuple[Any, ...]:
            return (*op.infer_shape(in_shape), ())

        def list_arguments(self) -> list[str]:
            return op.list_arguments()

        def list_outputs(self) -> list[str]:
            return op.list_outputs()

        def create_operator(self, ctx: Any, in_shapes: list[Any], in_dtypes: list[Any]) -> CustomOp:
            return Operator()

    return Property
