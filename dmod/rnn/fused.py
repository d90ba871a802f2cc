"""`FusedRNNCell`: layers of cells over a whole sequence in one operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dmod.symbol as sym
from dmod.base import InvalidArgument
from dmod.initializer import FusedRNN
from dmod.ndarray import NDArray, zeros
from dmod.ops.rnn_layout import GATE_NAMES, packed_gates, packed_input_size, packed_size
from dmod.rnn.base_cell import Arrays, BaseRNNCell
from dmod.rnn.cells import GRUCell, LSTMCell, RNNCell
from dmod.rnn.containers import BidirectionalCell, SequentialRNNCell
from dmod.rnn.modifiers import DropoutCell
from dmod.rnn.params import RNNParams
from dmod.rnn.steps import as_symbol, merge, time_axis
from dmod.symbol import Symbol

__all__ = ["FusedRNNCell"]


class FusedRNNCell(BaseRNNCell):
    """Layers of cells in one `RNN` operator: faster than single cells, but it cannot go step by step.

    All weights are in one vector, ``<prefix>parameters``; `unpack_weights` tells them apart.

    Parameters
    ----------
    num_hidden : int
        The width of each layer's state.
    num_layers : int
    mode : {'lstm', 'gru', 'rnn_tanh', 'rnn_relu'}
    bidirectional : bool
        Go both ways in each layer; outputs are then twice as wide.
    dropout : float
        The share of each layer's output but the last one's that is dropped in training.
    get_next_state : bool
        Whether `unroll` returns the states after the last step.
    forget_bias : float
        The first bias of an LSTM's forget gates.
    prefix : str, optional
        Default: the mode and an underscore.
    params : RNNParams, optional
    """

    def __init__(
        self,
        num_hidden: int,
        num_layers: int = 1,
        mode: str = "lstm",
        bidirectional: bool = False,
        dropout: float = 0.0,
        get_next_state: bool = False,
        forget_bias: float = 1.0,
        prefix: str | None = None,
        params: RNNParams | None = None,
    ):
        if mode not in GATE_NAMES:
            raise InvalidArgument(f"FusedRNNCell: mode={mode!r}, expected one of {', '.join(GATE_NAMES)}")
        super().__init__(f"{mode}_" if prefix is None else prefix, params)
        self._num_hidden = num_hidden
        self._num_layers = num_layers
        self._mode = mode
        self._bidirectional = bidirectional
        self._dropout = dropout
        self._get_next_state = get_next_state
        self._forget_bias = forget_bias
        init = FusedRNN(None, num_hidden, num_layers, mode, bidirectional, forget_bias)
        self._parameter = self.params.get("parameters", init=init)

    @property
    def _network(self) -> tuple[str, int, bool]:
        return self._mode, self._num_layers, self._bidirectional

    @property
    def state_info(self) -> list[dict[str, Any]]:
        rows = self._num_layers * (2 if self._bidirectional else 1)
        count = 2 if self._mode == "lstm" else 1
        return [{"shape": (rows, 0, self._num_hidden), "__layout__": "LNC"} for _ in range(count)]

    @property
    def _gate_names(self) -> Sequence[str]:
        return list(GATE_NAMES[self._mode])

    @property
    def _num_gates(self) -> int:
        return len(self._gate_names)

    def unpack_weights(self, args: Mapping[str, NDArray]) -> Arrays:
        """Cut the vector into the gates' arrays: those of the cells that `unfuse` makes."""
        args, prefix = dict(args), self._params._prefix
        vector = self._take(args, f"{prefix}parameters")
        try:
            width = packed_input_size(*self._network, vector.size, self._num_hidden)
        except InvalidArgument as error:
            raise InvalidArgument(f"{prefix}parameters: {error}") from None
        for name, start, shape in packed_gates(*self._network, width, self._num_hidden):
            args[prefix + name] = vector[start : start + math.prod(shape)].reshape(shape).copy()
        return args

    def pack_weights(self, args: Mapping[str, NDArray]) -> Arrays:
        """Undo `unpack_weights`."""
        args, prefix = dict(args), self._params._prefix
        first_name = f"{prefix}l0_i2h{self._gate_names[0]}_weight"
        if first_name not in args:
            raise InvalidArgument(f"FusedRNNCell: there is no parameter {first_name!r} to pack")
        first = args[first_name]
        width = first.shape[1]
        size = packed_size(*self._network, width, self._num_hidden)
        vector = zeros((size,), ctx=first.context, dtype=first.dtype)
        for name, start, shape in packed_gates(*self._network, width, self._num_hidden):
            part = self._take(args, prefix + name)
            if part.shape != shape:
                raise InvalidArgument(f"{prefix}{name}: shape {part.shape}, expected {shape}")
            vector[start : start + math.prod(shape)] = part.reshape((-1,))
        args[f"{prefix}parameters"] = vector
        return args

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        raise NotImplementedError("FusedRNNCell cannot go step by step: call unroll, or unfuse it first")

    def unroll(
        self,
        length: int,
        inputs: Any,
        begin_state: Any = None,
        layout: str = "NTC",
        merge_outputs: bool | None = None,
    ) -> tuple[Any, Any]:
        """Make the operator; see `BaseRNNCell.unroll`. 'TNC' needs no transposition."""
        self.reset()
        batch_first = time_axis(layout) == 1
        whole = as_symbol(length, inputs, layout)
        if batch_first:
            whole = sym.swapaxes(whole, dim1=0, dim2=1)
        states = self._first_states(begin_state)
        names = ("state", "state_cell")[: len(states)]
        rnn = sym.RNN(
            whole,
            self._parameter,
            **dict(zip(names, states, strict=True)),
            state_size=self._num_hidden,
            num_layers=self._num_layers,
            bidirectional=self._bidirectional,
            p=self._dropout,
            state_outputs=self._get_next_state,
            mode=self._mode,
            name=f"{self._prefix}rnn",
        )
        outputs, states = rnn, []
        if self._get_next_state:
            rnn[0]._set_attr(__layout__="LNC")
            outputs, *states = list(rnn)
        if batch_first:
            outputs = sym.swapaxes(outputs, dim1=0, dim2=1)
        return merge(length, outputs, layout, merge_outputs), states

    def unfuse(self) -> SequentialRNNCell:
        """The same network of single cells, whose weights are those that `unpack_weights` gives, packed.

        Returns
        -------
        SequentialRNNCell
        """
        stack = SequentialRNNCell()
        make = self._cell_maker()
        for layer in range(self._num_layers):
            cell = make(f"{self._prefix}l{layer}_")
            if self._bidirectional:
                back = make(f"{self._prefix}r{layer}_")
                cell = BidirectionalCell(cell, back, output_prefix=f"{self._prefix}bi_l{layer}_")
            stack.add(cell)
            if self._dropout > 0 and layer != self._num_layers - 1:
                stack.add(DropoutCell(self._dropout, prefix=f"{self._prefix}_dropout{layer}_"))
        return stack

    def _cell_maker(self) -> Callable[[str], BaseRNNCell]:
        if self._mode == "lstm":
            return lambda prefix: LSTMCell(self._num_hidden, prefix, forget_bias=self._forget_bias)
        if self._mode == "gru":
            return lambda prefix: GRUCell(self._num_hidden, prefix)
        activation = self._mode.removeprefix("rnn_")
        return lambda prefix: RNNCell(self._num_hidden, activation, prefix)
