"""Cells whose states are images: their products are convolutions."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import dmod.symbol as sym
from dmod.base import InvalidArgument
from dmod.ops.rnn_layout import GATE_NAMES
from dmod.rnn.base_cell import BaseRNNCell
from dmod.rnn.cells import gru_step, lstm_step
from dmod.rnn.params import RNNParams
from dmod.symbol import Symbol

__all__ = ["BaseConvRNNCell", "ConvGRUCell", "ConvLSTMCell", "ConvRNNCell"]

Numbers = Sequence[int]
_LEAKY = functools.partial(sym.LeakyReLU, act_type="leaky", slope=0.2)


class BaseConvRNNCell(BaseRNNCell):
    """Base of the convolutional cells.

    Parameters
    ----------
    input_shape : tuple of int
        The shape of the input of a step, with the batch, whose size doesn't matter: (1, 3, 32, 32).
    num_hidden : int
        How many channels the state has.
    h2h_kernel, h2h_dilate : tuple of int
        Of the convolution of the state, which keeps its size: the kernel's lengths are odd.
    i2h_kernel, i2h_stride, i2h_pad, i2h_dilate : tuple of int
        Of the convolution of the input.
    i2h_weight_initializer, h2h_weight_initializer, i2h_bias_initializer, h2h_bias_initializer
        Initializers or their names; None: the one of all parameters.
    activation : str or callable
    prefix : str
    params : RNNParams, optional
    conv_layout : str
    """

    def __init__(
        self,
        input_shape: Numbers,
        num_hidden: int,
        h2h_kernel: Numbers,
        h2h_dilate: Numbers,
        i2h_kernel: Numbers,
        i2h_stride: Numbers,
        i2h_pad: Numbers,
        i2h_dilate: Numbers,
        i2h_weight_initializer: Any,
        h2h_weight_initializer: Any,
        i2h_bias_initializer: Any,
        h2h_bias_initializer: Any,
        activation: Any,
        prefix: str = "",
        params: RNNParams | None = None,
        conv_layout: str = "NCHW",
    ):
        super().__init__(prefix, params)
        if any(length % 2 == 0 for length in h2h_kernel):
            raise InvalidArgument(
                f"{type(self).__name__}: h2h_kernel={tuple(h2h_kernel)}, expected odd numbers only"
            )
        self._num_hidden = num_hidden
        self._conv_layout = conv_layout
        self._activation = activation
        self._h2h = {
            "kernel": tuple(h2h_kernel),
            "dilate": tuple(h2h_dilate),
            "pad": tuple(d * (k - 1) // 2 for d, k in zip(h2h_dilate, h2h_kernel, strict=True)),
            "stride": (1,) * len(h2h_kernel),
        }
        self._i2h = {
            "kernel": tuple(i2h_kernel),
            "stride": tuple(i2h_stride),
            "pad": tuple(i2h_pad),
            "dilate": tuple(i2h_dilate),
        }
        self._state_shape = self._shape_of_state(tuple(input_shape))
        self._iW = self.params.get("i2h_weight", init=i2h_weight_initializer)
        self._hW = self.params.get("h2h_weight", init=h2h_weight_initializer)
        self._iB = self.params.get("i2h_bias", init=i2h_bias_initializer)
        self._hB = self.params.get("h2h_bias", init=h2h_bias_initializer)

    def _shape_of_state(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        # Without a name of its own, as in MXNet: names that follow, such as convolution1, are then the same.
        net = sym.Convolution(
            sym.Variable("data"), num_filter=self._num_hidden, layout=self._conv_layout, **self._i2h
        )
        batch = self._conv_layout.find("N")
        known = tuple(1 if axis == batch else length for axis, length in enumerate(input_shape))
        shape = net.infer_shape(data=known)[1][0]
        return tuple(0 if axis == batch else length for axis, length in enumerate(shape))

    @property
    def _num_gates(self) -> int:
        return len(self._gate_names)

    @property
    def state_info(self) -> list[dict[str, Any]]:
        return [{"shape": self._state_shape, "__layout__": self._conv_layout}]

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        raise NotImplementedError(f"{type(self).__name__} does not define __call__(inputs, states)")

    def _conv_forward(self, inputs: Symbol, states: Sequence[Symbol], name: str) -> tuple[Symbol, Symbol]:
        """The convolutions of the input and of the state."""
        shared = {"num_filter": self._num_hidden * self._num_gates, "layout": self._conv_layout}
        i2h = sym.Convolution(inputs, self._iW, self._iB, name=f"{name}i2h", **self._i2h, **shared)
        h2h = sym.Convolution(states[0], self._hW, self._hB, name=f"{name}h2h", **self._h2h, **shared)
        return i2h, h2h


class ConvRNNCell(BaseConvRNNCell):
    """A plain recurrent cell with convolutions.

    Parameters
    ----------
    input_shape, num_hidden, ...
        See `BaseConvRNNCell`.
    """

    def __init__(
        self,
        input_shape: Numbers,
        num_hidden: int,
        h2h_kernel: Numbers = (3, 3),
        h2h_dilate: Numbers = (1, 1),
        i2h_kernel: Numbers = (3, 3),
        i2h_stride: Numbers = (1, 1),
        i2h_pad: Numbers = (1, 1),
        i2h_dilate: Numbers = (1, 1),
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        activation: Any = _LEAKY,
        prefix: str = "ConvRNN_",
        params: RNNParams | None = None,
        conv_layout: str = "NCHW",
    ):
        super().__init__(
            input_shape,
            num_hidden,
            h2h_kernel,
            h2h_dilate,
            i2h_kernel,
            i2h_stride,
            i2h_pad,
            i2h_dilate,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            activation,
            prefix,
            params,
            conv_layout,
        )

    @property
    def _gate_names(self) -> Sequence[str]:
        return ("",)

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        name = self._step_name()
        i2h, h2h = self._conv_forward(inputs, states, name)
        output = self._get_activation(i2h + h2h, self._activation, name=f"{name}out")
        return output, [output]


class ConvLSTMCell(BaseConvRNNCell):
    """An LSTM with convolutions (Shi et al., 2015).

    Parameters
    ----------
    input_shape, num_hidden, ...
        See `BaseConvRNNCell`.
    """

    def __init__(
        self,
        input_shape: Numbers,
        num_hidden: int,
        h2h_kernel: Numbers = (3, 3),
        h2h_dilate: Numbers = (1, 1),
        i2h_kernel: Numbers = (3, 3),
        i2h_stride: Numbers = (1, 1),
        i2h_pad: Numbers = (1, 1),
        i2h_dilate: Numbers = (1, 1),
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        activation: Any = _LEAKY,
        prefix: str = "ConvLSTM_",
        params: RNNParams | None = None,
        conv_layout: str = "NCHW",
    ):
        super().__init__(
            input_shape,
            num_hidden,
            h2h_kernel,
            h2h_dilate,
            i2h_kernel,
            i2h_stride,
            i2h_pad,
            i2h_dilate,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            activation,
            prefix,
            params,
            conv_layout,
        )

    @property
    def _gate_names(self) -> Sequence[str]:
        return list(GATE_NAMES["lstm"])

    @property
    def state_info(self) -> list[dict[str, Any]]:
        return super().state_info * 2

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        name = self._step_name()
        i2h, h2h = self._conv_forward(inputs, states, name)
        axis = self._conv_layout.find("C")
        output, inner = lstm_step(self, i2h + h2h, states[1], name, self._activation, axis=axis)
        return output, [output, inner]


class ConvGRUCell(BaseConvRNNCell):
    """A gated recurrent unit with convolutions.

    Parameters
    ----------
    input_shape, num_hidden, ...
        See `BaseConvRNNCell`.
    """

    def __init__(
        self,
        input_shape: Numbers,
        num_hidden: int,
        h2h_kernel: Numbers = (3, 3),
        h2h_dilate: Numbers = (1, 1),
        i2h_kernel: Numbers = (3, 3),
        i2h_stride: Numbers = (1, 1),
        i2h_pad: Numbers = (1, 1),
        i2h_dilate: Numbers = (1, 1),
        i2h_weight_initializer: Any = None,
        h2h_weight_initializer: Any = None,
        i2h_bias_initializer: Any = "zeros",
        h2h_bias_initializer: Any = "zeros",
        activation: Any = _LEAKY,
        prefix: str = "ConvGRU_",
        params: RNNParams | None = None,
        conv_layout: str = "NCHW",
    ):
        super().__init__(
            input_shape,
            num_hidden,
            h2h_kernel,
            h2h_dilate,
            i2h_kernel,
            i2h_stride,
            i2h_pad,
            i2h_dilate,
            i2h_weight_initializer,
            h2h_weight_initializer,
            i2h_bias_initializer,
            h2h_bias_initializer,
            activation,
            prefix,
            params,
            conv_layout,
        )

    @property
    def _gate_names(self) -> Sequence[str]:
        return list(GATE_NAMES["gru"])

    def __call__(self, inputs: Symbol, states: Sequence[Symbol]) -> tuple[Symbol, list[Symbol]]:
        name = self._step_name()
        i2h, h2h = self._conv_forward(inputs, states, name)
        output = gru_step(self, i2h, h2h, states[0], name, self._activation)
        return output, [output]
