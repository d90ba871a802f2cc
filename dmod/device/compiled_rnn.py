"""Compiled kernels of recurrent cells. Importing this file imports numba.

One call does everything of a time step that is not a matrix product. Loops run over one row at a time and
over few arrays each, so that LLVM makes vector instructions of them; a row stays in the first cache.
"""

from __future__ import annotations

import numpy as np

from dmod.device.compiled_math import compiled, sigmoid, tanh

__all__ = ["lstm_step", "lstm_step_gradient"]

_ONE = np.float32(1)


@compiled
def _sigmoids(gate, product, bias):  # type: ignore[no-untyped-def]
    for j in range(gate.size):
        gate[j] = sigmoid(gate[j] + product[j] + bias[j])


@compiled
def _tanhs(gate, product, bias):  # type: ignore[no-untyped-def]
    for j in range(gate.size):
        gate[j] = tanh(gate[j] + product[j] + bias[j])


@compiled
def _states(gate, before, cell, tanh_cell, state):  # type: ignore[no-untyped-def]
    size = cell.size
    i, f, g, o = gate[:size], gate[size : 2 * size], gate[2 * size : 3 * size], gate[3 * size :]
    for j in range(size):
        cell[j] = f[j] * before[j] + i[j] * g[j]
    for j in range(size):
        tanh_cell[j] = tanh(cell[j])
    for j in range(size):
        state[j] = o[j] * tanh_cell[j]


@compiled
def lstm_step(gates, product, bias, before, cell, tanh_cell, state):  # type: ignore[no-untyped-def]
    """One step of an LSTM.

    Parameters
    ----------
    gates : array (N, 4 * H)
        In: the input's products; out: the gates i, f, g, o.
    product : array (N, 4 * H)
        The products with the state before.
    bias : array (4 * H,)
    before : array (N, H)
        The cell before.
    cell, tanh_cell, state : array (N, H)
        What comes out.
    """
    samples, hidden = before.shape
    for n in range(samples):
        gate, added = gates[n], product[n]
        _sigmoids(gate[: 2 * hidden], added[: 2 * hidden], bias[: 2 * hidden])
        _tanhs(gate[2 * hidden : 3 * hidden], added[2 * hidden : 3 * hidden], bias[2 * hidden : 3 * hidden])
        _sigmoids(gate[3 * hidden :], added[3 * hidden :], bias[3 * hidden :])
        _states(gate, before[n], cell[n], tanh_cell[n], state[n])


@compiled
def _gate_gradients(gate, before, tanh_cell, dh, dy, dc, d_gate):  # type: ignore[no-untyped-def]
    size = dc.size
    i, f, g, o = gate[:size], gate[size : 2 * size], gate[2 * size : 3 * size], gate[3 * size :]
    of_i, of_f, of_g, of_o = (
        d_gate[:size],
        d_gate[size : 2 * size],
        d_gate[2 * size : 3 * size],
        d_gate[3 * size :],
    )
    for j in range(size):
        total = dh[j] + dy[j]
        of_o[j] = total * tanh_cell[j] * (o[j] * (_ONE - o[j]))
        dc[j] = dc[j] + total * (o[j] * (_ONE - tanh_cell[j] * tanh_cell[j]))
    for j in range(size):
        of_i[j] = dc[j] * (g[j] * (i[j] * (_ONE - i[j])))
    for j in range(size):
        of_f[j] = dc[j] * (before[j] * (f[j] * (_ONE - f[j])))
    for j in range(size):
        of_g[j] = dc[j] * (i[j] * (_ONE - g[j] * g[j]))
    for j in range(size):
        dc[j] = dc[j] * f[j]


@compiled
def lstm_step_gradient(gates, before, tanh_cell, dh, dy, dc, d_gates):  # type: ignore[no-untyped-def]
    """The gradients of one step of an LSTM.

    Parameters
    ----------
    gates, before, tanh_cell : array
        As `lstm_step` left them.
    dh, dy : array (N, H)
        The state's gradient from the next step, and from the output.
    dc : array (N, H)
        The cell's gradient; in: of the cell after, out: of the cell before.
    d_gates : array (N, 4 * H)
        Out: the gradient of the gates' inputs.
    """
    for n in range(dc.shape[0]):
        _gate_gradients(gates[n], before[n], tanh_cell[n], dh[n], dy[n], dc[n], d_gates[n])
