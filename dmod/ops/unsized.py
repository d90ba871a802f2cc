"""Operators that do not fit a network of fixed shapes: boolean_mask, reset_arrays."""

from __future__ import annotations

from typing import Any

from dmod.base import InvalidArgument
from dmod.ops.params import Param, integer
from dmod.ops.registry import Attrs, Call, Shapes, Step, register

__all__ = ["masked_rows"]


def masked_rows(xp: Any, data: Any, index: Any) -> Any:
    """The rows of `data` where `index` is not zero: for arrays, whose shapes may depend on values."""
    if index.ndim != 1 or index.shape[0] != data.shape[0]:
        raise InvalidArgument(
            f"boolean_mask: index has shape {index.shape}, expected ({data.shape[0]},) for data {data.shape}"
        )
    return data[xp.nonzero(index)[0]]


def _refuse(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    raise InvalidArgument(
        "the output's shape depends on the values of index, which a network of fixed shapes does not have; "
        "use SequenceMask or where, which keep the shape"
    )


def _forward(call: Call) -> Step:
    raise InvalidArgument("boolean_mask: no step has outputs of unknown shapes")


register(
    "_contrib_boolean_mask",
    arguments=["data", "index"],
    params=[Param("axis", integer, 0, "The axis: only 0.")],
    infer_shape=_refuse,
    forward=_forward,
    backward=None,
    doc="The rows of data where index is not zero. Only for arrays: networks have fixed shapes.",
)


def _reset(call: Call) -> Step:
    arrays = list(call.inputs)

    def run() -> None:
        for array in arrays:
            array.fill(0)

    return run


register(
    "reset_arrays",
    params=[Param("num_arrays", integer, doc="The number of arrays; counted if not given.")],
    arguments=lambda attrs: [f"arg{i}" for i in range(attrs.num_arrays)],
    variadic="num_arrays",
    outputs=[],
    num_visible=0,
    infer_shape=lambda attrs, inputs, outputs: (list(inputs), [], []),
    infer_type=lambda attrs, inputs: (list(inputs), [], []),
    forward=_reset,
    backward=None,
    doc="Set arrays to zero, in place.",
)
