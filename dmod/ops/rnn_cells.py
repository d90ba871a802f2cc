"""The cells of the fused RNN: one direction of one layer, forward and backward through time.

All inputs of a layer are multiplied by the weight in one product; what is left for each time step is the
product with the state and the gates. Backward computes everything that does not depend on later steps for
all steps at once, so that a step is a few operations around its product; the weights' gradients are
products over all steps again.

A sigmoid is ``tanh(x / 2) / 2 + 1 / 2``: halving these gates' weights makes all gates of a step one tanh.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmod.ops.registry import Call, Shape, Step

__all__ = ["CELLS", "Direction"]


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
        x, gates_rows = d.x.reshape(-1, self.I), gates.reshape(self.T * self.N, -1)
        i2h_t = i2h.T
        step = self._step_forward(h2h.T)
        views = [self._views_forward(*time) for time in d.times]
        start = states[d.ends[0]]
        masked, after, within = d.beyond is not None, d.after(states), d.within

        def run() -> None:
            scale()
            xp.dot(x, i2h_t, out=gates_rows)
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
        xp, d, w = self.xp, self.d, self.d.weights
        rows = self.gates * self.H
        d_gates = self.scratch((self.T, self.N, rows), self.dtype)
        d_state = self._state_gates(d_gates)
        flat, flat_state = d_gates.reshape(-1, rows), d_state.reshape(-1, rows)
        prepare = self._prepare()
        step = self._step_backward(w["h2h_weight"], d_last, d_cell)
        views = [self._views_backward(dy, d_gates, d_state, *time) for time in reversed(d.times)]
        x = d.x.reshape(-1, self.I)
        before = d.before(self.kept["states"]).reshape(-1, self.S)
        part = None if dx is None else self.scratch((self.T * self.N, self.I), self.dtype)
        finish = self._finish(grads, d_gates, d_state)

        def run() -> None:
            prepare()
            for view in views:
                step(*view)
            finish()
            if grads:
                xp.dot(flat.T, x, out=grads["i2h_weight"])
                xp.dot(flat_state.T, before, out=grads["h2h_weight"])
                xp.sum(flat, axis=0, out=grads["i2h_bias"])
                xp.sum(flat_state, axis=0, out=grads["h2h_bias"])
            if part is not None:
                xp.dot(flat, w["i2h_weight"], out=part)
                xp.add(dx, part.reshape(dx.shape), out=dx)

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


class Plain(Cell):
    """``h = f(W x + U h + b)`` with tanh or relu."""

    function = "tanh"

    def _views_forward(self, t: int, before: int, after: int) -> tuple[Any, ...]:
        states = self.kept["states"]
        return self.kept["gates"][t], states[before], states[after], self._mask_of(t)

    def _step_forward(self, h2h_t: Any) -> Callable[..., None]:
        xp, tmp = self.xp, self.scratch((self.N, self.H), self.dtype)
        zero, is_tanh = self.dtype.type(0), self.function == "tanh"

        def step(gate: Any, before: Any, after: Any, beyond: Any) -> None:
            xp.dot(before, h2h_t, out=tmp)
            xp.add(gate, tmp, out=gate)
            if is_tanh:
                xp.tanh(gate, out=gate)
            else:
                xp.maximum(gate, zero, out=gate)
            xp.copyto(after, gate)
            if beyond is not None:
                xp.copyto(after, before, where=beyond)

        return step

    def _prepare(self) -> Step:
        xp, gates = self.xp, self.kept["gates"]
        self.factors = self.scratch(gates.shape, self.dtype)
        factors, one, zero = self.factors, self.dtype.type(1), self.dtype.type(0)

        def tanh() -> None:
            xp.multiply(gates, gates, out=factors)
            xp.subtract(one, factors, out=factors)

        def relu() -> None:
            xp.greater(gates, zero, out=factors, casting="unsafe")

        return tanh if self.function == "tanh" else relu

    def _views_backward(
        self, dy: Any, d_gates: Any, d_state: Any, t: int, before: int, after: int
    ) -> tuple[Any, ...]:
        return dy[t], self.factors[t], d_gates[t], self._masks(t)

    def _step_backward(self, h2h: Any, dh: Any, dc: Any) -> Callable[..., None]:
        xp = self.xp
        carried = self.scratch(dh.shape, self.dtype)

        def step(dy: Any, factor: Any, d_gate: Any, within: Any) -> None:
            if within is not None:
                xp.multiply(dh, within, out=carried)
                xp.subtract(dh, carried, out=dh)
                xp.add(carried, dy, out=carried)
                xp.multiply(carried, within, out=carried)
                xp.multiply(carried, factor, out=d_gate)
                xp.dot(d_gate, h2h, out=carried)
                xp.add(dh, carried, out=dh)
                return
            xp.add(dh, dy, out=dh)
            xp.multiply(dh, factor, out=d_gate)
            xp.dot(d_gate, h2h, out=dh)

        return step


class PlainRelu(Plain):
    """`Plain` with relu."""

    function = "relu"


class Lstm(Cell):
    """Hochreiter and Schmidhuber, 1997; with a projection, Sak et al., 2014."""

    gates = 4
    halved = (0.5, 0.5, 1.0, 0.5)
    has_cell = True

    @classmethod
    def kept_shapes(cls, steps: int, samples: int, hidden: int, out: int) -> dict[str, Shape]:
        shapes = super().kept_shapes(steps, samples, hidden, out)
        shapes["cells"] = (steps + 1, samples, hidden)
        shapes["tanh_cells"] = (steps, samples, hidden)
        if out != hidden:
            shapes["hidden"] = (steps, samples, hidden)
        return shapes

    @property
    def _is_projected(self) -> bool:
        return "h2r_weight" in self.d.weights

    def _start_forward(self) -> None:
        self.xp.copyto(self.kept["cells"][self.d.ends[0]], self.d.first_cell)

    def _views_forward(self, t: int, before: int, after: int) -> tuple[Any, ...]:
        gates, h, c = self.kept["gates"][t], self.kept["states"], self.kept["cells"]
        parts = [gates[:, k * self.H : (k + 1) * self.H] for k in range(4)]
        hidden = self.kept["hidden"][t] if self._is_projected else h[after]
        return (
            gates,
            *parts,
            *(h[before], c[before], h[after], c[after]),
            *(self.kept["tanh_cells"][t], hidden, self._mask_of(t)),
        )

    def _step_forward(self, h2h_t: Any) -> Callable[..., None]:
        xp, attrs = self.xp, self.d.call.attrs
        tmp = self.scratch((self.N, 4 * self.H), self.dtype)
        product = self.scratch((self.N, self.H), self.dtype)
        scale, shift = self._row(self.halved), self._row((0.5, 0.5, 0.0, 0.5))
        h2r_t = self.d.weights["h2r_weight"].T if self._is_projected else None
        low, high = attrs.lstm_state_clip_min, attrs.lstm_state_clip_max

        def step(
            gates: Any, i: Any, f: Any, g: Any, o: Any, h0: Any, c0: Any, h: Any, c: Any, tanh_c: Any,
            hidden: Any, beyond: Any,
        ) -> None:  # fmt: skip
            xp.dot(h0, h2h_t, out=tmp)
            xp.add(gates, tmp, out=gates)
            xp.tanh(gates, out=gates)
            xp.multiply(gates, scale, out=gates)
            xp.add(gates, shift, out=gates)
            xp.multiply(f, c0, out=c)
            xp.multiply(i, g, out=product)
            xp.add(c, product, out=c)
            if low is not None:
                xp.clip(c, low, high, out=c)
            xp.tanh(c, out=tanh_c)
            xp.multiply(o, tanh_c, out=hidden)
            if h2r_t is not None:
                xp.dot(hidden, h2r_t, out=h)
            if beyond is not None:
                xp.copyto(h, h0, where=beyond)
                xp.copyto(c, c0, where=beyond)

        return step

    def _prepare(self) -> Step:
        """The factors of dc in the gradients of i, f, g, and of dh in those of o and c."""
        xp, H = self.xp, self.H
        gates = self.kept["gates"].reshape(self.T, self.N, 4, H)
        i, f, g, o = (gates[:, :, k] for k in range(4))
        tanh_c, c0 = self.kept["tanh_cells"], self.d.before(self.kept["cells"])
        self.factors = self.scratch((self.T, self.N, 4, H), self.dtype)
        self.to_cell = self.scratch((self.T, self.N, H), self.dtype)
        factors, to_cell, one = self.factors, self.to_cell, self.dtype.type(1)
        of_i, of_f, of_g, of_o = (factors[:, :, k] for k in range(4))

        def run() -> None:
            xp.subtract(one, gates, out=factors)
            xp.multiply(factors, gates, out=factors)  # the slopes of the sigmoids
            xp.multiply(of_i, g, out=of_i)
            xp.multiply(of_f, c0, out=of_f)
            xp.multiply(g, g, out=of_g)
            xp.subtract(one, of_g, out=of_g)
            xp.multiply(of_g, i, out=of_g)
            xp.multiply(of_o, tanh_c, out=of_o)
            xp.multiply(tanh_c, tanh_c, out=to_cell)
            xp.subtract(one, to_cell, out=to_cell)
            xp.multiply(to_cell, o, out=to_cell)

        return run

    def _views_backward(
        self, dy: Any, d_gates: Any, d_state: Any, t: int, before: int, after: int
    ) -> tuple[Any, ...]:
        d_parts = d_gates[t].reshape(self.N, 4, self.H)
        f = self.kept["gates"][t][:, self.H : 2 * self.H]
        d_hidden = self.d_projected[t] if self._is_projected else None
        return (
            dy[t], f, self.factors[t, :, :3], self.factors[t, :, 3], self.to_cell[t],
            d_gates[t], d_parts[:, :3], d_parts[:, 3], d_hidden, self._masks(t),
        )  # fmt: skip

    def _state_gates(self, d_gates: Any) -> Any:
        if self._is_projected:
            self.d_projected = self.scratch((self.T, self.N, self.S), self.dtype)
        return d_gates

    def _step_backward(self, h2h: Any, dh: Any, dc: Any) -> Callable[..., None]:
        xp, N, H = self.xp, self.N, self.H
        tmp, hidden = self.scratch((N, H), self.dtype), self.scratch((N, H), self.dtype)
        h_carried, c_carried = self.scratch(dh.shape, self.dtype), self.scratch((N, H), self.dtype)
        dc_wide = dc.reshape(N, 1, H)
        h2r = self.d.weights["h2r_weight"] if self._is_projected else None

        def step(
            dy: Any, f: Any, of_c: Any, of_o: Any, to_cell: Any, d_gates: Any, d_ifg: Any, d_o: Any,
            d_projected: Any, within: Any,
        ) -> None:  # fmt: skip
            if within is not None:
                xp.multiply(dh, within, out=h_carried)
                xp.subtract(dh, h_carried, out=h_carried)
                xp.multiply(dc, within, out=c_carried)
                xp.subtract(dc, c_carried, out=c_carried)
            xp.add(dh, dy, out=dh)
            if within is not None:
                xp.multiply(dh, within, out=dh)
                xp.multiply(dc, within, out=dc)
            inner = dh
            if h2r is not None:
                xp.copyto(d_projected, dh)
                inner = xp.dot(dh, h2r, out=hidden)
            xp.multiply(inner, to_cell, out=tmp)
            xp.add(dc, tmp, out=dc)
            xp.multiply(inner, of_o, out=d_o)
            xp.multiply(dc_wide, of_c, out=d_ifg)
            xp.multiply(dc, f, out=dc)
            xp.dot(d_gates, h2h, out=dh)
            if within is not None:
                xp.add(dh, h_carried, out=dh)
                xp.add(dc, c_carried, out=dc)

        return step

    def _finish(self, grads: dict[str, Any], d_gates: Any, d_state: Any) -> Step:
        if not grads or not self._is_projected:
            return lambda: None
        d_projected = self.d_projected.reshape(-1, self.S)
        hidden = self.kept["hidden"].reshape(-1, self.H)
        return lambda: self.xp.dot(d_projected.T, hidden, out=grads["h2r_weight"])


class Gru(Cell):
    """Cho et al., 2014, with the reset gate after the state's product."""

    gates = 3
    halved = (0.5, 0.5, 1.0)

    @classmethod
    def kept_shapes(cls, steps: int, samples: int, hidden: int, out: int) -> dict[str, Shape]:
        return {**super().kept_shapes(steps, samples, hidden, out), "candidates": (steps, samples, hidden)}

    def _add_state_bias(self, bias: Any, scale: Any) -> None:
        part = slice(0, 2 * self.H)
        self.xp.add(bias[part], self.d.weights["h2h_bias"][part] * scale[part], out=bias[part])

    def _views_forward(self, t: int, before: int, after: int) -> tuple[Any, ...]:
        gates, h, H = self.kept["gates"][t], self.kept["states"], self.H
        parts = gates[:, : 2 * H], gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H :]
        return (*parts, h[before], h[after], self.kept["candidates"][t], self._mask_of(t))

    def _step_forward(self, h2h_t: Any) -> Callable[..., None]:
        xp, H = self.xp, self.H
        tmp, product = self.scratch((self.N, 3 * H), self.dtype), self.scratch((self.N, H), self.dtype)
        of_rz, of_n, half = tmp[:, : 2 * H], tmp[:, 2 * H :], self.dtype.type(0.5)
        bias = self.d.weights["h2h_bias"][2 * H :]

        def step(rz: Any, r: Any, z: Any, n: Any, h0: Any, h: Any, candidate: Any, beyond: Any) -> None:
            xp.dot(h0, h2h_t, out=tmp)
            xp.add(rz, of_rz, out=rz)
            xp.tanh(rz, out=rz)
            xp.multiply(rz, half, out=rz)
            xp.add(rz, half, out=rz)
            xp.add(of_n, bias, out=candidate)
            xp.multiply(r, candidate, out=product)
            xp.add(n, product, out=n)
            xp.tanh(n, out=n)
            xp.subtract(h0, n, out=product)
            xp.multiply(z, product, out=product)
            xp.add(n, product, out=h)
            if beyond is not None:
                xp.copyto(h, h0, where=beyond)

        return step

    def _prepare(self) -> Step:
        """The factors of dh in the gradients of r, z, n, and of what n's share of the state gets."""
        xp, H = self.xp, self.H
        gates = self.kept["gates"].reshape(self.T, self.N, 3, H)
        r, z, n = (gates[:, :, k] for k in range(3))
        h0, candidate = self.d.before(self.kept["states"]), self.kept["candidates"]
        self.factors, self.state_factors = (
            self.scratch((self.T, self.N, 3, H), self.dtype) for _ in range(2)
        )
        factors, state_factors, one = self.factors, self.state_factors, self.dtype.type(1)
        of_r, of_z, of_n = (factors[:, :, k] for k in range(3))
        state_n, tmp = state_factors[:, :, 2], state_factors[:, :, 0]

        def run() -> None:
            xp.subtract(one, gates, out=factors)
            xp.copyto(tmp, factors[:, :, 1])  # 1 - z
            xp.multiply(factors, gates, out=factors)
            xp.multiply(n, n, out=of_n)
            xp.subtract(one, of_n, out=of_n)
            xp.multiply(of_n, tmp, out=of_n)
            xp.multiply(of_r, candidate, out=of_r)
            xp.multiply(of_r, of_n, out=of_r)
            xp.subtract(h0, n, out=tmp)
            xp.multiply(of_z, tmp, out=of_z)
            xp.copyto(state_factors, factors)
            xp.multiply(of_n, r, out=state_n)

        return run

    def _state_gates(self, d_gates: Any) -> Any:
        return self.scratch(d_gates.shape, self.dtype)

    def _views_backward(
        self, dy: Any, d_gates: Any, d_state: Any, t: int, before: int, after: int
    ) -> tuple[Any, ...]:
        H = self.H
        return (
            dy[t], self.kept["gates"][t][:, H : 2 * H], self.factors[t], self.state_factors[t],
            d_gates[t].reshape(self.N, 3, H), d_state[t].reshape(self.N, 3, H), d_state[t], self._masks(t),
        )  # fmt: skip

    def _step_backward(self, h2h: Any, dh: Any, dc: Any) -> Callable[..., None]:
        xp = self.xp
        tmp, carried = (self.scratch(dh.shape, self.dtype) for _ in range(2))
        dh_wide = dh.reshape(self.N, 1, self.H)

        def step(
            dy: Any, z: Any, factors: Any, state_factors: Any, d_gates: Any, d_state: Any, d_rows: Any,
            within: Any,
        ) -> None:  # fmt: skip
            if within is not None:
                xp.multiply(dh, within, out=carried)
                xp.subtract(dh, carried, out=carried)
            xp.add(dh, dy, out=dh)
            if within is not None:
                xp.multiply(dh, within, out=dh)
            xp.multiply(dh_wide, factors, out=d_gates)
            xp.multiply(dh_wide, state_factors, out=d_state)
            xp.multiply(dh, z, out=dh)
            xp.dot(d_rows, h2h, out=tmp)
            xp.add(dh, tmp, out=dh)
            if within is not None:
                xp.add(dh, carried, out=dh)

        return step


CELLS: dict[str, type[Cell]] = {"rnn_relu": PlainRelu, "rnn_tanh": Plain, "lstm": Lstm, "gru": Gru}
"""The cell of each mode."""


def kept_size(shapes: dict[str, Shape]) -> int:
    """The number of elements of all arrays."""
    return sum(math.prod(shape) for shape in shapes.values())
