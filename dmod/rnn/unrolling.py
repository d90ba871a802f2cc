"""`rnn_unroll`, the older way to call a cell's `unroll`."""

from __future__ import annotations

import warnings
from typing import Any

import dmod.symbol as sym
from dmod.rnn.base_cell import BaseRNNCell

__all__ = ["rnn_unroll"]


def rnn_unroll(
    cell: BaseRNNCell,
    length: int,
    inputs: Any = None,
    begin_state: Any = None,
    input_prefix: str = "",
    layout: str = "NTC",
) -> tuple[Any, Any]:
    """Deprecated: call ``cell.unroll``. (In MXNet 1.9.1 this function always fails.)

    Parameters
    ----------
    cell : BaseRNNCell
    length : int
    inputs : Symbol or list of Symbol, optional
        By default variables called ``<input_prefix>t0_data`` and so on.
    begin_state, layout
        As for `BaseRNNCell.unroll`.
    input_prefix : str
    """
    warnings.warn("rnn_unroll is deprecated: call cell.unroll", DeprecationWarning, stacklevel=2)
    if inputs is None:
        inputs = [sym.Variable(f"{input_prefix}t{step}_data") for step in range(length)]
    return cell.unroll(length, inputs, begin_state, layout)
