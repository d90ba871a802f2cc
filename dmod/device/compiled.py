"""The CPU's compiled kernels. Importing this file imports numba; `dmod.device.kernels` does so when asked.

Each does in one pass over memory what numpy does in several, and agrees with it within rounding. Those of
optimizers, whose bits are numpy's, are in `compiled_optimizers`, those of recurrent cells in `compiled_rnn`.
"""

from __future__ import annotations

from dmod.device.compiled_layers import (
    add_bias,
    bias_relu,
    bias_sigmoid,
    bias_softrelu,
    bias_softsign,
    bias_tanh,
    column_sums,
    count_correct,
    relu,
    relu_grad,
    relu_grad_inplace,
    relu_inplace,
    sigmoid_grad,
    sigmoid_grad_inplace,
    softmax,
    softmax_cross_entropy_grad,
    softrelu_grad,
    softsign_grad,
    tanh_grad,
    tanh_grad_inplace,
)
from dmod.device.compiled_norm import (
    norm_columns,
    norm_grad_columns,
    norm_grad_rows,
    norm_rows,
    norm_statistics_columns,
    norm_statistics_rows,
    norm_sums_columns,
    norm_sums_rows,
)

__all__ = [
    "add_bias",
    "bias_relu",
    "bias_sigmoid",
    "bias_softrelu",
    "bias_softsign",
    "bias_tanh",
    "column_sums",
    "count_correct",
    "norm_columns",
    "norm_grad_columns",
    "norm_grad_rows",
    "norm_rows",
    "norm_statistics_columns",
    "norm_statistics_rows",
    "norm_sums_columns",
    "norm_sums_rows",
    "relu",
    "relu_grad",
    "relu_grad_inplace",
    "relu_inplace",
    "sigmoid_grad",
    "sigmoid_grad_inplace",
    "softmax",
    "softmax_cross_entropy_grad",
    "softrelu_grad",
    "softsign_grad",
    "tanh_grad",
    "tanh_grad_inplace",
]
