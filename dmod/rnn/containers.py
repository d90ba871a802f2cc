"""Cells made of cells: one above the other, or one for each direction in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dmod.symbol as sym
from dmod.base import InvalidArgument
from dmod.ndarray import NDArray
from dmod.rnn.base_cell import Arrays, BaseRNNCell
from dmod.rnn.params import RNNParams
from dmod.rnn.steps import as_steps, time_axis
from dmod.symbol import Symbol

__all__ = ["BidirectionalCell", "SequentialRNNCell"]


class _Container(BaseRNNCell):
    """What all cells made of cells have in common."""

    def __init__(self, cells: Sequence[BaseRNNCell], params: RNNParams | None):
        self._cells: list[BaseRNNCell] = []
        super().__init__("", params)
        self._override_cell_params = params is not None
        for cell in cells:
            self._put(cell)

    def _put(self, cell: BaseRNNCell) -> None:
        if self._override_cell_params:
            if not cell._own_params:
                raise InvalidArgument(
                    f"{type(self).__name__}: give params to it or to the cells in it, not to both; "
                    f"{type(cell).__name__} {cell._prefix!r} has its own"
                )
            cell.params._params.update(self._params._params)
        self._params._params.update(cell.params._params)
        self._cells.append(cell)

    def reset(self) -> None:
        """Let this cell and those in it count anew."""
        super().reset()
        for cell in self._cells:
            cell.reset()

    @property
    def state_info(self) -> list[dict[str, Any]]:
        return [info for cell in self._cells for info in cell.state_info]

    def begin_state(self, **kwargs: Any) -> list[Symbol]:  # type: ignore[override]
        """The states before the first step, of all cells in one list; see `BaseRNNCell.begin_state`."""
        self._refuse_modified()
        return [state for cell in self._cells for state in cell.begin_state(**kwargs)]

    def unpack_weights(self, args: Mapping[str, NDArray]) -> Arrays:
        """Cut the weights of all cells; see `BaseRNNCell.unpack_weights`."""
        args = dict(args)
        for cell in self._cells:
            args = cell.unpack_weights(args)
        return args

    def pack_weights(self, args: Mapping[str, NDArray]) -> Arrays:
        """Join the weights of all cells; see `BaseRNNCell.pack_weights`."""
        args = dict(args)
        for cell in self._cells:
            args = cell.pack_weights(args)
        return args


class SequentialRNNCell(_Container):
    """Cells one above the other: the output of each is the input of the next.

    Parameters
    ----------
    params : RNNParams, optional

    Examples
    --------
    >>> from dmod.rnn import LSTMCell, DropoutCell
    >>> stack = SequentialRNNCell()
    >>> stack.add(LSTMCell(8, prefix='l0_'))
    >>> stack.add(DropoutCell(0.5))
    >>> stack.add(LSTMCell(8, prefix='l1_'))
    >>> len(stack.state_info)
    4
    """

    def __init__(self, params: RNNParams | None = None):
        super().__init__([], params)

    def add(self, cell: BaseRNNCell) -> None:
        """Put `cell` above those that are there."""
        self._put(cell)

    def _cut(self, states: Sequence[Symbol]) -> list[list[Symbol]]:
        """Each cell's part of the states."""
        parts, start = [], 0
        for cell in self._cells:
            stop = start + len(cell.state_info)
            parts.append(list(states[start:stop]))
            start = stop
        return parts

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        self._counter += 1
        after: list[Symbol] = []
        for cell, own in zip(self._cells, self._cut(states), strict=True):
            inputs, new = cell(inputs, own)
            after.extend(new)
        return inputs, after

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Any = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, Any]:
        """Unroll each cell over the outputs of the one below; see `BaseRNNCell.unroll`."""
        self.reset()
        after: list[Any] = []
        if begin_state is not None or not self._cells:
            begin_state = self._first_states(begin_state)
        else:
            begin_state = self.begin_state()
        for cell, own in zip(self._cells, self._cut(begin_state), strict=True):
            merged = merge_outputs if cell is self._cells[-1] else None
            inputs, states = cell.unroll(length, inputs, own, layout, merged)
            after.extend(states)
        return inputs, after


class BidirectionalCell(_Container):
    """Two cells, one of which goes backwards in time; their outputs are joined.

    Parameters
    ----------
    l_cell, r_cell : BaseRNNCell
        The one that goes forwards, and the other.
    params : RNNParams, optional
    output_prefix : str
        Stands before the names of the joined outputs.
    """

    def __init__(
        self,
        l_cell: BaseRNNCell,
        r_cell: BaseRNNCell,
        params: RNNParams | None = None,
        output_prefix: str = "bi_",
    ):
        super().__init__([l_cell, r_cell], params)
        self._output_prefix = output_prefix

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        raise NotImplementedError("BidirectionalCell cannot go step by step: call unroll")

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Any = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, Any]:
        """Unroll both cells; see `BaseRNNCell.unroll`. The states are a list of each cell's list."""
        self.reset()
        axis, steps = time_axis(layout), as_steps(length, inputs, layout)
        states = self._first_states(begin_state)
        forward, backward = self._cells
        cut = len(forward.state_info)
        ahead, ahead_states = forward.unroll(length, steps, states[:cut], layout, merge_outputs)
        back, back_states = backward.unroll(length, steps[::-1], states[cut:], layout, merge_outputs)
        after = [ahead_states, back_states]
        if merge_outputs is None:
            merge_outputs = isinstance(ahead, Symbol) and isinstance(back, Symbol)
        if merge_outputs:
            back = sym.reverse(back, axis=axis)
            return sym.Concat(ahead, back, dim=2, name=f"{self._output_prefix}out"), after
        pairs = zip(_steps(ahead, length, axis), _steps(back, length, axis)[::-1], strict=True)
        outputs = [
            sym.Concat(*pair, dim=1, name=f"{self._output_prefix}t{step}") for step, pair in enumerate(pairs)
        ]
        return outputs, after


def _steps(outputs: Any, length: int, axis: int) -> list[Symbol]:
    if isinstance(outputs, Symbol):
        outputs = sym.SliceChannel(outputs, axis=axis, num_outputs=length, squeeze_axis=1)
    return list(outputs)
