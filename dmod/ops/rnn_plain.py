"""The plain cells of the fused RNN: tanh and relu."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmod.ops.registry import Step
from dmod.ops.rnn_cells import Cell

__all__ = ["Plain", "PlainRelu"]


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
