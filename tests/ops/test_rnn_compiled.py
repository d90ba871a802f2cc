"""The compiled LSTM: it agrees with numpy's functions, repeats bit for bit, and is chosen by a fixed rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.device.compiled_rnn import lstm_step, lstm_step_gradient
from dmod.ops import rnn_lstm_compiled

T, N, C, H = 5, 3, 4, 6


def run(bidirectional: bool = False, num_layers: int = 2, **options: Any) -> list[np.ndarray]:
    """Outputs, last states and all gradients of a network of random numbers."""
    net = mx.sym.RNN(
        mx.sym.Variable("data"),
        mode="lstm",
        state_size=H,
        num_layers=num_layers,
        bidirectional=bidirectional,
        state_outputs=True,
        name="rnn",
        **options,
    )
    exe = net.simple_bind(mx.cpu(), data=(T, N, C))
    rng = np.random.default_rng(1)
    for array in exe.arg_arrays:
        array[:] = rng.normal(size=array.shape)
    outputs = exe.forward(is_train=True)
    exe.backward([mx.nd.array(rng.normal(size=out.shape)) for out in outputs])
    return [a.asnumpy() for a in (*outputs, *exe.grad_arrays)]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_agrees_with_numpy_and_repeats(bidirectional: bool, request: pytest.FixtureRequest) -> None:
    compiled, again = run(bidirectional), run(bidirectional)
    assert [a.tobytes() for a in compiled] == [a.tobytes() for a in again]
    request.getfixturevalue("without_numba")
    for one, other in zip(compiled, run(bidirectional), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"projection_size": 2}, False),
        ({"lstm_state_clip_min": -1.0, "lstm_state_clip_max": 1.0}, False),
        ({"use_sequence_length": True}, False),
    ],
    ids=["plain", "projected", "clipped", "lengths"],
)
def test_what_is_compiled(options: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    rule = rnn_lstm_compiled.is_for
    monkeypatch.setattr(rnn_lstm_compiled, "is_for", lambda d: found.append(rule(d)) or found[-1])
    run(num_layers=1, **options)
    assert set(found) == {expected}


def test_large_numbers_saturate() -> None:
    gates = np.full((1, 4), 1e4, np.float32)
    gates[0, 1] = -1e4  # forget everything
    none, cells = np.zeros((1, 4), np.float32), [np.full((1, 1), 2, np.float32) for _ in range(4)]
    lstm_step(gates, none, none[0], *cells)
    assert gates.tolist() == [[1, 0, 1, 1]]
    assert [c.item() for c in cells[1:]] == pytest.approx([1, np.tanh(1), np.tanh(1)])
    ones, d_cell, d_gates = np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), none.copy()
    lstm_step_gradient(gates, cells[0], cells[2], ones, ones, d_cell, d_gates)
    assert d_gates.tolist() == [[0, 0, 0, 0]] and d_cell.item() == 0
