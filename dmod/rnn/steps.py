"""Sequences as one symbol or as a list with a symbol per step, and the way from one to the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dmod.symbol as sym
from dmod.base import InvalidArgument
from dmod.symbol import Symbol

__all__ = ["as_steps", "as_symbol", "flat_states", "merge", "time_axis"]

Sequenced = Symbol | list[Symbol]


def time_axis(layout: str) -> int:
    """The place of ``T`` in `layout`."""
    if "T" not in layout or "N" not in layout:
        raise InvalidArgument(f"layout={layout!r}: expected a T and an N, such as in 'NTC' or 'TNC'")
    return layout.find("T")


def _checked(length: int, inputs: Any) -> Sequenced:
    if isinstance(inputs, Symbol):
        if len(inputs.list_outputs()) != 1:
            raise InvalidArgument(
                f"unroll: inputs has {len(inputs.list_outputs())} outputs; give a list: list(inputs)"
            )
        return inputs
    if not isinstance(inputs, (list, tuple)) or not all(isinstance(x, Symbol) for x in inputs):
        raise InvalidArgument(f"unroll: inputs={inputs!r}, expected a Symbol or a list of one per step")
    if len(inputs) != length:
        raise InvalidArgument(f"unroll: {len(inputs)} inputs, expected one for each of {length} steps")
    return list(inputs)


def as_steps(length: int, inputs: Any, layout: str) -> list[Symbol]:
    """One symbol per step, without the time axis."""
    axis, inputs = time_axis(layout), _checked(length, inputs)
    if isinstance(inputs, list):
        return inputs
    return list(sym.split(inputs, axis=axis, num_outputs=length, squeeze_axis=1))


def as_symbol(length: int, inputs: Any, layout: str) -> Symbol:
    """One symbol with a time axis."""
    axis, inputs = time_axis(layout), _checked(length, inputs)
    if isinstance(inputs, Symbol):
        return inputs
    steps = [sym.expand_dims(step, axis=axis) for step in inputs]
    return sym.Concat(*steps, dim=axis)


def merge(length: int, inputs: Any, layout: str, merged: bool | None) -> Sequenced:
    """One symbol, a list, or with None whichever `inputs` is."""
    if merged is None:
        time_axis(layout)
        return _checked(length, inputs)
    return as_symbol(length, inputs, layout) if merged else as_steps(length, inputs, layout)


def flat_states(states: Any) -> list[Symbol]:
    """States without the lists in the list, as a bidirectional cell's `unroll` returns them."""
    if isinstance(states, Symbol):
        return [states]
    if not isinstance(states, Sequence):
        raise InvalidArgument(f"begin_state={states!r}: expected a list of Symbols")
    return [state for part in states for state in flat_states(part)]
