"""One direction of one layer of the fused RNN, forward and backward through time: what all cells share.

All inputs of a layer are multiplied by the weight in one product; what is left for each time step is the
product with the state and the gates. Backward computes everything that does not depend on later steps for
all steps at once, so that a step is a few operations around its product; the weights' gradients are
products over all steps again.

A sigmoid is ``tanh(x / 2) / 2 + 1 / 2``: halving these gates' weights makes all gates of a step one tanh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmod.device.gemm import product
from dmod.ops.registry import Call, Shape, Step

__all__ = ["Cell", "Direction"]


@dataclass
class Direction:
    """One direction of one layer.

    T, N, I, H, S: steps, samples, width of the input, of a gate, of the state (less than H with a
    projection).

    Attributes
    ----------
    x, y : array (T, N, I), array (T, N, S)
        Input and output.
    weights : dict
        'i2h_weight' (gates * H, I), 'h2h_weight' (gates * H, S), 'h2r_weight' (S, H), biases.
    first, first_cell : array (N, S), array (N, H)
        The states before the first step.
    kept : dict
        What forward leaves for backward, by name; see `kept_shapes`.
    is_reverse : bool
        Whether it goes backwards in time.
    beyond : array (T, N, 1) of bool or None
        True where a sequence has ended; there the state stays as it is and the output is 0.
    within : array (T, N, 1) or None
        1 where it has not ended, in the data's dtype.
    """

    call: Call
    x: Any
    y: Any
    weights: dict[str, Any]
    first: Any
    first_cell: Any
    kept: dict[str, Any]
    is_reverse: bool
    beyond: Any = None
    within: Any = None

    @property
    def times(self) -> list[tuple[int, int, int]]:
        """For each step, in order: its time, and where the states before and after it lie in `states`."""
        steps = self.x.shape[0]
        if self.is_reverse:
            return [(t, t + 1, t) for t in range(steps - 1, -1, -1)]
        return [(t, t, t + 1) for t in range(steps)]

    @property
    def ends(self) -> tuple[int, int]:
        """Where the states before the first and after the last step lie in `states`."""
        return (self.x.shape[0], 0) if self.is_reverse else (0, self.x.shape[0])

    def before(self, states: Any) -> Any:
        """The states before each step, in the order of time."""
        return states[1:] if self.is_reverse else states[:-1]

    def after(self, states: Any) -> Any:
        """The states after each step, in the order of time."""
        return states[:-1] if self.is_reverse else states[1:]


class Cell:
    """What cells have in common; a subclass is a mode."""

    gates = 1
    halved: tuple[float, ...] = (1.0,)
    """By what each gate's weights are multiplied."""
    has_cell = False

    def __init__(self, direction: Direction):
        self.d = direction
        call = direction.call
        self.xp, self.scratch, self.dtype = call.xp, call.scratch, direction.x.dtype
        self.T, self.N, self.I = direction.x.shape
        self.S = direction.first.shape[-1]
        self.H = direction.weights["i2h_bias"].shape[0] // self.gates
        self.kept = direction.kept

    @classmethod
    def kept_shapes(cls, steps: int, samples: int, hidden: int, out: int) -> dict[str, Shape]:
        """The shapes of what forward leaves for backward."""
        return {"gates": (steps, samples, cls.gates * hidden), "states": (steps + 1, samples, out)}

    # ---- forward

    def _scaled_weights(self) -> tuple[Any, Any, Any, Step]:
        """Copies of both weights and the bias with the gates scaled, and the step that makes them."""
        xp, w = self.xp, self.d.weights
        rows = self.gates * self.H
        i2h, h2h = self.scratch((rows, self.I), self.dtype), self.scratch((rows, self.S), self.dtype)
        bias = self.scratch((rows,), self.dtype)
        scale = self._row(self.halved)
        column = scale.reshape(-1, 1)

        def run() -> None:
            xp.multiply(w["i2h_weight"], column, out=i2h)
            xp.multiply(w["h2h_weight"], column, out=h2h)
            xp.multiply(w["i2h_bias"], scale, out=bias)
            self._add_state_bias(bias, scale)

        return i2h, h2h, bias, run

    def _add_state_bias(self, bias: Any, scale: Any) -> None:
        """The state's bias is added to the input's wherever the two are only summed."""
        self.xp.add(bias, self.d.weights["h2h_bias"] * scale, out=bias)

    def _row(self, per_gate: tuple[float, ...]) -> Any:
        """A vector with one value for each gate."""
        return self.d.call.device.from_host(np.repeat(np.asarray(per_gate, self.dtype), self.H))

    def forward(self) -> Step:
        """The step that computes the outputs and all that is kept."""
        xp, d = self.xp, self.d
        gates, states = self.kept["gates"], self.kept["states"]
        i2h, h2h, bias, scale = self._scaled_weights()
        x, gates_rows = d.x.reshape(-1, self.I), gates.reshape(-1, self.gates * self.H)
        multiply_input = product(d.call.device, x, i2h.T, gates_rows)
        step = self._step_forward(h2h.T)
        views = [self._views_forward(*time) for time in d.times]
        start = states[d.ends[0]]
        masked, after, within = d.beyond is not None, d.after(states), d.within

        def run() -> None:
            scale()
            multiply_input()
            xp.add(gates_rows, bias, out=gates_rows)
            xp.copyto(start, d.first)
            self._start_forward()
            for view in views:
                step(*view)
            if masked:
                xp.multiply(after, within, out=d.y)
            else:
                xp.copyto(d.y, after)

        return run

    def _start_forward(self) -> None:
        """Whatever else precedes the first step."""

    def _views_forward(self, t: int, before: int, after: int) -> tuple[Any, ...]:
        raise NotImplementedError

    def _step_forward(self, h2h_t: Any) -> Callable[..., None]:
        raise NotImplementedError

    def _mask_of(self, t: int) -> Any:
        return None if self.d.beyond is None else self.d.beyond[t]

    # ---- backward

    def backward(self, dy: Any, d_last: Any, d_cell: Any, grads: dict[str, Any], dx: Any) -> Step:
        """The step that computes all gradients.

        Parameters
        ----------
        dy : array (T, N, S)
            The output's gradient.
        d_last, d_cell : array
            In: the last states' gradients; out: the first ones'. They change in place.
        grads : dict
            Where the weights' gradients go; empty if they are not wanted.
        dx : array (T, N, I) or None
            Where the input's gradient is added.
        """
        rows = self.gates * self.H
        d_gates = self.scratch((self.T, self.N, rows), self.dtype)
        d_state = self._state_gates(d_gates)
        prepare = self._prepare()
        step = self._step_backward(self.d.weights["h2h_weight"], d_last, d_cell)
        views = [self._views_backward(dy, d_gates, d_state, *time) for time in reversed(self.d.times)]
        finish = self._finish(grads, d_gates, d_state)
        end = self._weight_gradients(d_gates, d_state, grads, dx)

        def run() -> None:
            prepare()
            for view in views:
                step(*view)
            finish()
            end()

        return run

    def _weight_gradients(self, d_gates: Any, d_state: Any, grads: dict[str, Any], dx: Any) -> Step:
        """The gradients of weights, biases and the input: products over all steps at once."""
        xp, d, device = self.xp, self.d, self.d.call.device
        rows = self.gates * self.H
        flat, flat_state = d_gates.reshape(-1, rows), d_state.reshape(-1, rows)
        steps: list[Step] = []
        if grads:
            x, before = d.x.reshape(-1, self.I), d.before(self.kept["states"]).reshape(-1, self.S)
            input_bias, state_bias = grads["i2h_bias"], grads["h2h_bias"]
            steps += [
                product(device, flat.T, x, grads["i2h_weight"]),
                product(device, flat_state.T, before, grads["h2h_weight"]),
                lambda: xp.sum(flat, axis=0, out=input_bias),
            ]
            if d_state is d_gates:
                steps.append(lambda: xp.copyto(state_bias, input_bias))
            else:
                steps.append(lambda: xp.sum(flat_state, axis=0, out=state_bias))
        if dx is not None:
            part = self.scratch((self.T * self.N, self.I), self.dtype)
            steps += [
                product(device, flat, d.weights["i2h_weight"], part),
                lambda: xp.add(dx, part.reshape(dx.shape), out=dx),
            ]

        def run() -> None:
            for step in steps:
                step()

        return run

    def _state_gates(self, d_gates: Any) -> Any:
        """The gradient of the gates' share of the state; the same array if it is the input's too."""
        return d_gates

    def _prepare(self) -> Step:
        """Compute the gates' factors for all steps at once."""
        raise NotImplementedError

    def _views_backward(
        self, dy: Any, d_gates: Any, d_state: Any, t: int, before: int, after: int
    ) -> tuple[Any, ...]:
        raise NotImplementedError

    def _step_backward(self, h2h: Any, dh: Any, dc: Any) -> Callable[..., None]:
        raise NotImplementedError

    def _finish(self, grads: dict[str, Any], d_gates: Any, d_state: Any) -> Step:
        return lambda: None

    def _masks(self, t: int) -> Any:
        """Where step `t` counts, as numbers: (within, beyond)."""
        return None if self.d.within is None else self.d.within[t]
