"""The LSTM cell of the fused RNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmod.ops.registry import Shape, Step
from dmod.ops.rnn_cells import Cell

__all__ = ["Lstm"]


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
        i, _, g, o = (gates[:, :, k] for k in range(4))
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
