"""The GRU cell of the fused RNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmod.ops.registry import Shape, Step
from dmod.ops.rnn_cells import Cell

__all__ = ["Gru"]


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
        r, _, n = (gates[:, :, k] for k in range(3))
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
