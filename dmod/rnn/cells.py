"""The plain cells: `RNNCell`, `LSTMCell`, `GRUCell`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dmod.symbol as sym
from dmod.initializer import LSTMBias
from dmod.ops.rnn_layout import GATE_NAMES
from dmod.rnn.base_cell import BaseRNNCell
from dmod.rnn.params import RNNParams
from dmod.symbol import Symbol

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "gru_step", "lstm_step"]


def lstm_step(
    cell: BaseRNNCell, gates: Symbol, before: Symbol, name: str, activation: Any, **split: Any
) -> tuple[Symbol, Symbol]:
    """The output and the inner state of an LSTM after a step, from what its gates get."""
    i, f, c, o = sym.SliceChannel(gates, num_outputs=4, name=f"{name}slice", **split)
    i = sym.Activation(i, act_type="sigmoid", name=f"{name}i")
    f = sym.Activation(f, act_type="sigmoid", name=f"{name}f")
    c = cell._get_activation(c, activation, name=f"{name}c")
    o = sym.Activation(o, act_type="sigmoid", name=f"{name}o")
    inner = sym._plus(f * before, i * c, name=f"{name}state")
    output = sym._mul(o, cell._get_activation(inner, activation), name=f"{name}out")
    return output, inner


def gru_step(
    cell: BaseRNNCell, i2h: Symbol, h2h: Symbol, before: Symbol, name: str, activation: Any
) -> Symbol:
    """The state of a GRU after a step, from what its gates get from the input and from the state."""
    i2h_r, i2h_z, i2h = sym.SliceChannel(i2h, num_outputs=3, name=f"{name}_i2h_slice")
    h2h_r, h2h_z, h2h = sym.SliceChannel(h2h, num_outputs=3, name=f"{name}_h2h_slice")
    reset = sym.Activation(i2h_r + h2h_r, act_type="sigmoid", name=f"{name}_r_act")
    update = sym.Activation(i2h_z + h2h_z, act_type="sigmoid", name=f"{name}_z_act")
    new = cell._get_activation(i2h + reset * h2h, activation, name=f"{name}_h_act")
    return sym._plus((1.0 - update) * new, update * before, name=f"{name}out")


class _DenseCell(BaseRNNCell):
    """A cell whose gates get products of two matrices, of the input and of the state."""

    def __init__(self, num_hidden: int, prefix: str, params: RNNParams | None, bias_init: Any = None):
        super().__init__(prefix, params)
        self._num_hidden = num_hidden
        self._iW = self.params.get("i2h_weight")
        self._iB = self.params.get("i2h_bias", init=bias_init)
        self._hW = self.params.get("h2h_weight")
        self._hB = self.params.get("h2h_bias")

    @property
    def state_info(self) -> list[dict[str, Any]]:
        return [{"shape": (0, self._num_hidden), "__layout__": "NC"}]

    def _products(self, inputs: Symbol, state: Symbol, name: str) -> tuple[Symbol, Symbol]:
        width = self._num_hidden * len(self._gate_names)
        i2h = sym.FullyConnected(inputs, self._iW, self._iB, num_hidden=width, name=f"{name}i2h")
        h2h = sym.FullyConnected(state, self._hW, self._hB, num_hidden=width, name=f"{name}h2h")
        return i2h, h2h


class RNNCell(_DenseCell):
    """A plain recurrent cell: ``activation(W_i x + b_i + W_h h + b_h)``.

    Parameters
    ----------
    num_hidden : int
        The width of the state, which is also the output.
    activation : str or callable
        'tanh', 'relu', ..., or a function of a Symbol and ``name=``.
    prefix : str
    params : RNNParams, optional
    """

    def __init__(
        self,
        num_hidden: int,
        activation: Any = "tanh",
        prefix: str = "rnn_",
        params: RNNParams | None = None,
    ):
        super().__init__(num_hidden, prefix, params)
        self._activation = activation

    @property
    def _gate_names(self) -> Sequence[str]:
        return ("",)

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        name = self._step_name()
        i2h, h2h = self._products(inputs, states[0], name)
        output = self._get_activation(i2h + h2h, self._activation, name=f"{name}out")
        return output, [output]


class LSTMCell(_DenseCell):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), with a forget gate.

    Its states are the output and the inner state.

    Parameters
    ----------
    num_hidden : int
    prefix : str
    params : RNNParams, optional
    forget_bias : float
        The first bias of the forget gate (Jozefowicz, Zaremba and Sutskever, 2015).
    """

    def __init__(
        self,
        num_hidden: int,
        prefix: str = "lstm_",
        params: RNNParams | None = None,
        forget_bias: float = 1.0,
    ):
        super().__init__(num_hidden, prefix, params, LSTMBias(forget_bias=forget_bias))

    @property
    def state_info(self) -> list[dict[str, Any]]:
        return [{"shape": (0, self._num_hidden), "__layout__": "NC"} for _ in range(2)]

    @property
    def _gate_names(self) -> Sequence[str]:
        return list(GATE_NAMES["lstm"])

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        name = self._step_name()
        i2h, h2h = self._products(inputs, states[0], name)
        output, inner = lstm_step(self, i2h + h2h, states[1], name, "tanh")
        return output, [output, inner]


class GRUCell(_DenseCell):
    """A gated recurrent unit (Cho et al., 2014), with the reset gate after the product, as in cuDNN.

    Parameters
    ----------
    num_hidden : int
    prefix : str
    params : RNNParams, optional
    """

    def __init__(self, num_hidden: int, prefix: str = "gru_", params: RNNParams | None = None):
        super().__init__(num_hidden, prefix, params)

    @property
    def _gate_names(self) -> Sequence[str]:
        return list(GATE_NAMES["gru"])

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        name = self._step_name()
        i2h, h2h = self._products(inputs, states[0], name + "_")
        output = gru_step(self, i2h, h2h, states[0], name, "tanh")
        return output, [output]
