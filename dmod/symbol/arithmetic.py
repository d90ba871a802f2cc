"""Functions of two operands, of which one may be a number: maximum, minimum, power, hypot."""

from __future__ import annotations

import math
from numbers import Number
from typing import Any

from dmod.ops import get_operator
from dmod.symbol.symbol import Symbol, create

__all__ = ["hypot", "maximum", "minimum", "pow", "power"]


def _combine(what: str, left: Any, right: Any, op: str, swapped: str = "") -> Symbol:
    """The node of `op`, or of its form with a number; `swapped` is the one with the number first."""
    if isinstance(left, Symbol) and isinstance(right, Symbol):
        return create(get_operator(op), [left, right], {})
    symbol, other = (left, right) if isinstance(left, Symbol) else (right, left)
    if not isinstance(symbol, Symbol) or not isinstance(other, Number) or isinstance(other, bool):
        raise TypeError(
            f"{what}: expected Symbols or numbers, got {type(left).__name__} and {type(right).__name__}"
        )
    name = (swapped if swapped and symbol is right else op) + "_scalar"
    return create(get_operator(name), [symbol], {"scalar": other}, hint=f"{name[:-7]}scalar")


def _are_numbers(left: Any, right: Any) -> bool:
    return isinstance(left, Number) and isinstance(right, Number)


def maximum(left: Any, right: Any) -> Any:
    """The element-wise greater one of two operands of one shape.

    Parameters
    ----------
    left, right : Symbol or number
        With two numbers the result is a number.

    Returns
    -------
    Symbol or number

    Examples
    --------
    >>> from dmod.symbol import Variable
    >>> maximum(Variable('x'), 0).list_arguments(), maximum(2, 3)
    (['x'], 3)
    """
    return max(left, right) if _are_numbers(left, right) else _combine("maximum", left, right, "_maximum")


def minimum(left: Any, right: Any) -> Any:
    """The element-wise lesser one of two operands of one shape; see `maximum`."""
    return min(left, right) if _are_numbers(left, right) else _combine("minimum", left, right, "_minimum")


def power(base: Any, exp: Any) -> Any:
    """`base` to the power of `exp`, element-wise.

    Parameters
    ----------
    base, exp : Symbol or number
        With two numbers the result is a number.

    Returns
    -------
    Symbol or number
    """
    return base**exp if _are_numbers(base, exp) else _combine("power", base, exp, "_power", "_rpower")


pow = power


def hypot(left: Any, right: Any) -> Any:
    """sqrt(left**2 + right**2), element-wise; see `maximum`."""
    return math.hypot(left, right) if _are_numbers(left, right) else _combine("hypot", left, right, "_hypot")
