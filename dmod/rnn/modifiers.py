"""Cells that change what other cells do: `DropoutCell`, `ZoneoutCell`, `ResidualCell`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dmod.symbol as sym
from dmod.base import InvalidArgument
from dmod.ndarray import NDArray
from dmod.rnn.base_cell import Arrays, BaseRNNCell
from dmod.rnn.params import RNNParams
from dmod.rnn.steps import merge
from dmod.symbol import Symbol

__all__ = ["DropoutCell", "ModifierCell", "ResidualCell", "ZoneoutCell"]


class DropoutCell(BaseRNNCell):
    """Drops elements of what goes through it, in training. It has neither states nor weights.

    Parameters
    ----------
    dropout : float
        The share that is dropped.
    prefix : str
    params : RNNParams, optional
    """

    def __init__(self, dropout: float, prefix: str = "dropout_", params: RNNParams | None = None):
        super().__init__(prefix, params)
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)):
            raise InvalidArgument(f"DropoutCell: dropout={dropout!r}, expected a number")
        self.dropout = dropout

    @property
    def state_info(self) -> list[dict[str, Any]]:
        return []

    def _drop(self, inputs: Symbol) -> Symbol:
        return sym.Dropout(inputs, p=self.dropout) if self.dropout > 0 else inputs

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        return self._drop(inputs), list(states)

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Any = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, Any]:
        """Drop elements of a sequence, in one node if it is in one symbol; see `BaseRNNCell.unroll`."""
        self.reset()
        inputs = merge(length, inputs, layout, merge_outputs)
        if isinstance(inputs, Symbol):
            return self._drop(inputs), []
        return [self._drop(step) for step in inputs], []


class ModifierCell(BaseRNNCell):
    """Base of cells that change what another one does; from then on only the modifier may be called.

    Parameters
    ----------
    base_cell : BaseRNNCell
    """

    def __init__(self, base_cell: BaseRNNCell):
        self.base_cell = base_cell
        super().__init__()
        base_cell._modified = True

    @contextmanager
    def _base(self) -> Iterator[BaseRNNCell]:
        """The cell inside, which may be called within the block."""
        self.base_cell._modified = False
        try:
            yield self.base_cell
        finally:
            self.base_cell._modified = True

    @property
    def params(self) -> RNNParams:
        """The variables of the cell inside."""
        self._own_params = False
        return self.base_cell.params

    @property
    def state_info(self) -> list[dict[str, Any]]:
        return self.base_cell.state_info

    def begin_state(self, init_sym: Callable[..., Symbol] = sym.zeros, **kwargs: Any) -> list[Symbol]:  # type: ignore[override]  # the name is MXNet's
        """The states before the first step; `init_sym` is what `BaseRNNCell.begin_state` calls `func`."""
        self._refuse_modified()
        init_sym = kwargs.pop("func", init_sym)  # as a SequentialRNNCell calls it
        with self._base() as cell:
            return cell.begin_state(func=init_sym, **kwargs)

    def unpack_weights(self, args: Mapping[str, NDArray]) -> Arrays:
        """Cut the weights of the cell inside; see `BaseRNNCell.unpack_weights`."""
        return self.base_cell.unpack_weights(args)

    def pack_weights(self, args: Mapping[str, NDArray]) -> Arrays:
        """Join the weights of the cell inside; see `BaseRNNCell.pack_weights`."""
        return self.base_cell.pack_weights(args)

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(inputs, states)")

    def reset(self) -> None:
        """Let this cell and the one inside count anew."""
        super().reset()
        self.base_cell.reset()


class ZoneoutCell(ModifierCell):
    """Lets random elements of outputs and states keep their last value, in training (Krueger et al., 2016).

    Parameters
    ----------
    base_cell : BaseRNNCell
        One that can go step by step.
    zoneout_outputs, zoneout_states : float
        The share of elements that keep their value. Outputs before the first step are zeros.
    """

    def __init__(self, base_cell: BaseRNNCell, zoneout_outputs: float = 0.0, zoneout_states: float = 0.0):
        if any(hasattr(base_cell, name) for name in ("unfuse", "_output_prefix")):
            remedy = "unfuse it first" if hasattr(base_cell, "unfuse") else "put a ZoneoutCell into its cells"
            raise InvalidArgument(f"ZoneoutCell: {type(base_cell).__name__} cannot go step by step; {remedy}")
        super().__init__(base_cell)
        self.zoneout_outputs = zoneout_outputs
        self.zoneout_states = zoneout_states

    def reset(self) -> None:
        """Forget the last output too."""
        super().reset()
        self.prev_output: Symbol | None = None

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        with self._base() as cell:
            output, after = cell(inputs, states)
        if self.zoneout_outputs > 0:
            before = sym.zeros((0, 0)) if self.prev_output is None else self.prev_output
            output = _zone_out(self.zoneout_outputs, output, before)
        if self.zoneout_states > 0:
            after = [_zone_out(self.zoneout_states, new, old) for new, old in zip(after, states, strict=True)]
        self.prev_output = output
        return output, after


def _zone_out(share: float, new: Symbol, old: Symbol) -> Symbol:
    return sym.where(sym.Dropout(sym.ones_like(new), p=share), new, old)


class ResidualCell(ModifierCell):
    """Adds the input to the output (Wu et al., 2016).

    Parameters
    ----------
    base_cell : BaseRNNCell
        One whose output is as wide as its input.
    """

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        with self._base() as cell:
            output, after = cell(inputs, states)
        return _add(output, inputs), after

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Any = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, Any]:
        """Unroll the cell inside, and add the inputs; see `BaseRNNCell.unroll`."""
        self.reset()
        with self._base() as cell:
            outputs, states = cell.unroll(length, inputs, begin_state, layout, merge_outputs)
        merged = isinstance(outputs, Symbol)
        inputs = merge(length, inputs, layout, merged)
        if merged:
            return _add(outputs, inputs), states
        return [_add(*pair) for pair in zip(outputs, inputs, strict=True)], states


def _add(output: Symbol, inputs: Symbol) -> Symbol:
    return sym._plus(output, inputs, name=f"{output.name}_plus_residual")
