"""A chain of element-wise operators as one node of a plan: one compiled loop instead of a step for each.

A `Program` lists what is computed from each element. Its forward and backward loops are generated as Python
source for numba; backward computes the values in between again from the inputs, so none of them is kept.
Formulas and the order of operations are those of the operators, so only exponentials round differently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from dmod.device.generated import module_from
from dmod.ops.registry import Attrs, Call, Step, register_internal

__all__ = ["ELEMENTWISE", "FORMULAS", "Formula", "Program", "Value", "formula_of"]


class Formula(NamedTuple):
    """How an operator computes one element: texts over a, b, the scalar s, the result y, its gradient d."""

    value: str
    slopes: tuple[str, ...]
    """The gradient of each input."""


def _greater(what: str) -> str:
    return f"({{a}} if {{a}} >= {what} or {{a}} != {{a}} else {what})"


def _lesser(what: str) -> str:
    return f"({{a}} if {{a}} <= {what} or {{a}} != {{a}} else {what})"


FORMULAS: dict[str, Formula] = {
    "add": Formula("{a} + {b}", ("{d}", "{d}")),
    "sub": Formula("{a} - {b}", ("{d}", "-{d}")),
    "mul": Formula("{a} * {b}", ("{d} * {b}", "{d} * {a}")),
    "div": Formula("{a} / {b}", ("{d} / {b}", "-({d} / {b} * {a} / {b})")),
    "maximum": Formula(_greater("{b}"), ("F({a} >= {b}) * {d}", "F({a} < {b}) * {d}")),
    "minimum": Formula(_lesser("{b}"), ("F({a} <= {b}) * {d}", "F({a} > {b}) * {d}")),
    "_plus_scalar": Formula("{a} + {s}", ("{d}",)),
    "_minus_scalar": Formula("{a} - {s}", ("{d}",)),
    "_rminus_scalar": Formula("{s} - {a}", ("-{d}",)),
    "_mul_scalar": Formula("{a} * {s}", ("{d} * {s}",)),
    "_div_scalar": Formula("{a} / {s}", ("{d} * (F(1) / {s})",)),
    "_rdiv_scalar": Formula("{s} / {a}", ("{d} * (-{s} / ({a} * {a}))",)),
    "_maximum_scalar": Formula(_greater("{s}"), ("{d} * F({a} >= {s})",)),
    "_minimum_scalar": Formula(_lesser("{s}"), ("{d} * F({a} <= {s})",)),
    "power_of_2": Formula("{a} * {a}", ("{d} * ({a} * {s})",)),
    "negative": Formula("-{a}", ("-{d}",)),
    "abs": Formula("abs({a})", ("{d} * (F({a} > 0) - F({a} < 0))",)),
    "square": Formula("{a} * {a}", ("{d} * F(2) * {a}",)),
    "sqrt": Formula("np.sqrt({a})", ("{d} * (F(0.5) / {y})",)),
    "rsqrt": Formula("F(1) / np.sqrt({a})", ("{d} * (F(-0.5) / (np.sqrt({a}) * {a}))",)),
    "reciprocal": Formula("F(1) / {a}", ("{d} * (F(-1) / ({a} * {a}))",)),
    "exp": Formula("exp({a})", ("{d} * {y}",)),
    "relu": Formula("(F(0) if {a} < 0 else {a})", ("{d} * F({y} > 0)",)),
    "sigmoid": Formula("sigmoid({a})", ("{d} * ((F(1) - {y}) * {y})",)),
    "tanh": Formula("tanh({a})", ("{d} * (F(1) - {y} * {y})",)),
    "softrelu": Formula("log1p_exp({a})", ("{d} * sigmoid({a})",)),
    "softsign": Formula("{a} / (F(1) + abs({a}))", ("{d} * ((F(1) - abs({y})) * (F(1) - abs({y})))",)),
}
_NAMES = {f"elemwise_{name}": name for name in ("add", "sub", "mul", "div")}
_NAMES.update({f"broadcast_{name}": name for name in (*_NAMES.values(), "maximum", "minimum")})
_NAMES.update({"_maximum": "maximum", "_minimum": "minimum"})


def formula_of(name: str, attrs: Attrs) -> str | None:
    """The name of an operator's formula; None if it has none.

    That of a broadcasting operator holds where its inputs have one shape.
    """
    if name == "Activation":
        return str(attrs.act_type)
    if name == "_power_scalar":
        return "power_of_2" if attrs.scalar == 2 else None
    name = _NAMES.get(name, name)
    return name if name in FORMULAS else None


class Value(NamedTuple):
    """One step of a program.

    Attributes
    ----------
    formula : str
    operands : tuple of str
        ``x0``, ``x1``, ... are the inputs, ``v0``, ``v1``, ... the results of earlier steps.
    scalar : int
        The number of its scalar; -1 if it has none.
    """

    formula: str
    operands: tuple[str, ...]
    scalar: int = -1


@dataclass(frozen=True)
class Program:
    """What is computed from each element; the last value is the output."""

    num_inputs: int
    values: tuple[Value, ...]

    @property
    def num_scalars(self) -> int:
        """How many scalars it takes."""
        return sum(value.scalar >= 0 for value in self.values)

    def _text(self, k: int, text: str, **more: str) -> str:
        value = self.values[k]
        names = dict(zip("ab", value.operands, strict=False))
        return text.format(**names, s=f"s{value.scalar}", y=f"v{k}", **more)

    def forward_source(self) -> str:
        """The source of ``forward(x0, ..., s0, ..., out)``."""
        inputs = [f"x{k}" for k in range(self.num_inputs)]
        lines = [self._line(k) for k in range(len(self.values))]
        lines.append(f"out_[i] = v{len(self.values) - 1}")
        return self._loop("forward", inputs, "out_", lines, ["out_"])

    def backward_source(self, wanted: tuple[bool, ...]) -> str:
        """The source of ``backward(x..., s..., dy, dx...)``: the inputs read, the gradients wanted."""
        lines, read = self._backward_lines(wanted)
        targets = [f"dx{k}" for k, is_wanted in enumerate(wanted) if is_wanted]
        lines += [f"{target}_[i] = {target}" for target in targets]
        return self._loop(
            "backward", [f"x{k}" for k in read], "dy_", lines, ["dy_", *(f"{t}_" for t in targets)]
        )

    def backward_reads(self, wanted: tuple[bool, ...]) -> list[int]:
        """The numbers of the inputs that the gradients of the wanted ones are computed from."""
        return self._backward_lines(wanted)[1]

    def _backward_lines(self, wanted: tuple[bool, ...]) -> tuple[list[str], list[int]]:
        """The lines of a gradient, without loads and stores, and the inputs that they read."""
        leads = {f"x{k}" for k, is_wanted in enumerate(wanted) if is_wanted}
        for k, value in enumerate(self.values):
            if leads.intersection(value.operands):
                leads.add(f"v{k}")
        last = len(self.values) - 1
        needed: set[str] = set()  # values that slopes read
        lines, begun = [f"dv{last} = dy_[i]"], {f"v{last}"}
        for k in range(last, -1, -1):
            value = self.values[k]
            for operand, slope in zip(value.operands, FORMULAS[value.formula].slopes, strict=True):
                if f"v{k}" not in begun or operand not in leads:
                    continue
                fields = {"a": value.operands[0], "b": value.operands[-1], "y": f"v{k}"}
                needed.update(name for letter, name in fields.items() if f"{{{letter}}}" in slope)
                part = self._text(k, slope, d=f"dv{k}")
                lines.append(f"d{operand} = {f'd{operand} + ({part})' if operand in begun else part}")
                begun.add(operand)
        for k in range(last, -1, -1):
            if f"v{k}" in needed:
                needed.update(self.values[k].operands)
        again = [self._line(k) for k in range(len(self.values)) if f"v{k}" in needed]
        return [*again, *lines], [k for k in range(self.num_inputs) if f"x{k}" in needed]

    def _line(self, k: int) -> str:
        return f"v{k} = {self._text(k, FORMULAS[self.values[k].formula].value)}"

    def _loop(self, name: str, inputs: list[str], sized: str, lines: list[str], arrays: list[str]) -> str:
        scalars = [f"s{k}" for k in range(self.num_scalars)]
        loads = [f"{x} = {x}_[i]" for x in inputs]
        body = "".join(f"        {line}\n" for line in (*loads, *lines))
        parameters = ", ".join([*(f"{x}_" for x in inputs), *scalars, *arrays])
        return f"{_HEADER}@compiled\ndef {name}({parameters}):\n    for i in range({sized}.size):\n{body}"


_HEADER = '''"""Generated by dmod.ops.fused_elementwise."""

import numpy as np

from dmod.device.compiled_math import compiled, exp, log1p_exp, sigmoid, tanh

F = np.float32


'''


@cache
def _forward_kernel(program: Program) -> Callable[..., None]:
    kernel: Callable[..., None] = module_from(program.forward_source()).forward
    return kernel


@cache
def _backward_kernel(program: Program, wanted: tuple[bool, ...]) -> Callable[..., None]:
    kernel: Callable[..., None] = module_from(program.backward_source(wanted)).backward
    return kernel


def _flat(array: Any) -> Any:
    return array.reshape(-1)


def _forward(call: Call) -> Step:
    kernel = _forward_kernel(call.attrs.program)
    arguments = [*map(_flat, call.inputs), *map(np.float32, call.attrs.scalars), _flat(call.outputs[0])]
    return lambda: kernel(*arguments)


def _backward(call: Call) -> Step:
    program = call.attrs.program
    wanted = tuple(grad is not None for grad in call.in_grads)
    kernel = _backward_kernel(program, wanted)
    inputs = [_flat(call.inputs[k]) for k in program.backward_reads(wanted)]
    grads = [_flat(grad) for grad in call.in_grads if grad is not None]
    arguments = [*inputs, *map(np.float32, call.attrs.scalars), _flat(call.out_grads[0]), *grads]
    return lambda: kernel(*arguments)


ELEMENTWISE = register_internal(
    "_fused_elementwise",
    arguments=lambda attrs: [f"x{k}" for k in range(attrs.program.num_inputs)],
    forward=_forward,
    backward=_backward,
    backward_reads=lambda attrs: (attrs.program.backward_reads(attrs.wanted), ()),
    doc="""Attributes: program (Program), scalars (tuple of float), wanted (tuple of bool: the inputs that get
gradients). Nothing is computed in place: LLVM makes vector instructions only where arrays lie apart.""",
)
