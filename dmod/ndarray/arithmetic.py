"""Arithmetic and comparisons of arrays: broadcasting, and in the dtype of the arrays.

A Python number never changes the dtype of an array, and arrays of two dtypes do not mix: `astype` says
what is meant. Comparisons give 0 and 1 in that dtype. Whole numbers are divided towards zero.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context
from dmod.device import backend

if TYPE_CHECKING:
    from dmod.ndarray.ndarray import NDArray

__all__ = ["FUNCTIONS", "Arithmetic", "same_device"]


def _is_whole(array: Any) -> bool:
    return array.dtype.kind in "iu"


def _divide(xp: Any, left: Any, right: Any) -> Any:
    if not (_is_whole(left) and _is_whole(right)):
        return xp.divide(left, right)
    down = xp.floor_divide(left, right)
    inexact_below_zero = (xp.remainder(left, right) != 0) & (xp.less(left, 0) != xp.less(right, 0))
    return down + inexact_below_zero.astype(down.dtype)


def _power(xp: Any, left: Any, right: Any) -> Any:
    if _is_whole(left) and _is_whole(right):  # numpy refuses negative exponents of whole numbers
        return xp.trunc(xp.power(xp.asarray(left, dtype=np.float64), right))
    return xp.power(left, right)


def _modulo(xp: Any, left: Any, right: Any) -> Any:
    out = xp.mod(left, right)
    return out if _is_whole(out) else xp.where(xp.equal(right, 0), out.dtype.type(0), out)


def _plain(name: str) -> Callable[[Any, Any, Any], Any]:
    return lambda xp, left, right: getattr(xp, name)(left, right)


FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    **{
        name: _plain(name)
        for name in ("add", "subtract", "multiply", "maximum", "minimum", "equal", "not_equal")
    },
    **{
        name: _plain(name)
        for name in ("greater", "greater_equal", "logical_and", "logical_or", "logical_xor")
    },
    "modulo": _modulo,
    "lesser": _plain("less"),
    "lesser_equal": _plain("less_equal"),
    "divide": _divide,
    "power": _power,
}
"""What each function of two arrays does: ``(array module, left, right) -> array``."""


def same_device(first: Context, second: Context, where: str) -> None:
    """Refuse arrays whose memories differ; all CPU contexts share the host's.

    Raises
    ------
    InvalidArgument
        One must be copied first.
    """
    if first != second and backend(first) is not backend(second):
        raise InvalidArgument(
            f"{where}: arrays on {first} and on {second}; copy one by as_in_context() first"
        )


def _number(value: Any, dtype: np.dtype) -> Any:
    """A Python number in `dtype`: cut to whole numbers, and wrapped, as casts do."""
    try:
        return dtype.type(value)
    except OverflowError:
        return np.asarray(value).astype(dtype)[()]


class Arithmetic:
    """The operators of `NDArray`."""

    __slots__ = ()
    _data: Any
    _ctx: Context

    def _binary(self, other: Any, name: str, swap: bool = False) -> Any:
        """Apply a function of `FUNCTIONS` to this array and another, or a number."""
        right = self._operand(other, name)
        left, memory = self._data, backend(self._ctx)
        pair = (right, left) if swap else (left, right)
        try:
            with np.errstate(all="ignore"), memory.activate():
                out = FUNCTIONS[name](memory.xp, *pair)
                if out.dtype != left.dtype:
                    out = out.astype(left.dtype)
        except ValueError as error:
            raise InvalidArgument(f"{name}: shapes {left.shape} and {right.shape}: {error}") from None
        return type(self)(out, self._ctx)  # type: ignore[call-arg]

    def _operand(self, other: Any, name: str) -> Any:
        """`other` as an operand on this array's device.

        A type that cannot be one raises here: numpy would take an array of ours for its own, if it could.
        """
        if isinstance(other, Arithmetic):
            other = other._dense()  # type: ignore[attr-defined]
            same_device(self._ctx, other._ctx, name)
            if other._data.dtype != self._data.dtype:
                raise InvalidArgument(
                    f"{name}: dtypes {self._data.dtype} and {other._data.dtype}; convert one by astype()"
                )
            return other._data
        if isinstance(other, (bool, int, float, np.bool_, np.integer, np.floating)):
            return _number(other, self._data.dtype)
        raise TypeError(f"{name}: type {type(other)} not supported")

    def _inplace(self, other: Any, name: str) -> Any:
        result = self._binary(other, name)
        if result.shape != self._data.shape:
            raise InvalidArgument(
                f"{name}: the result has shape {result.shape}, it does not fit into {self._data.shape}"
            )
        memory = backend(self._ctx)
        with memory.activate():
            memory.xp.copyto(self._data, result._data)
        return self

    def __add__(self, other: Any) -> NDArray:
        return self._binary(other, "add")

    __radd__ = __add__

    def __sub__(self, other: Any) -> NDArray:
        return self._binary(other, "subtract")

    def __rsub__(self, other: Any) -> NDArray:
        return self._binary(other, "subtract", swap=True)

    def __mul__(self, other: Any) -> NDArray:
        return self._binary(other, "multiply")

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> NDArray:
        return self._binary(other, "divide")

    def __rtruediv__(self, other: Any) -> NDArray:
        return self._binary(other, "divide", swap=True)

    __div__, __rdiv__ = __truediv__, __rtruediv__

    def __mod__(self, other: Any) -> NDArray:
        return self._binary(other, "modulo")

    def __rmod__(self, other: Any) -> NDArray:
        return self._binary(other, "modulo", swap=True)

    def __pow__(self, other: Any) -> NDArray:
        return self._binary(other, "power")

    def __rpow__(self, other: Any) -> NDArray:
        return self._binary(other, "power", swap=True)

    def __neg__(self) -> NDArray:
        return self._unary("negative")

    def __abs__(self) -> NDArray:
        return self._unary("absolute")

    def _unary(self, name: str) -> Any:
        memory = backend(self._ctx)
        with memory.activate():
            return type(self)(getattr(memory.xp, name)(self._data), self._ctx)  # type: ignore[call-arg]

    def __iadd__(self, other: Any) -> NDArray:
        return self._inplace(other, "add")

    def __isub__(self, other: Any) -> NDArray:
        return self._inplace(other, "subtract")

    def __imul__(self, other: Any) -> NDArray:
        return self._inplace(other, "multiply")

    def __itruediv__(self, other: Any) -> NDArray:
        return self._inplace(other, "divide")

    __idiv__ = __itruediv__

    def __imod__(self, other: Any) -> NDArray:
        return self._inplace(other, "modulo")

    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> Any:
        return False if other is None else self._binary(other, "equal")

    def __ne__(self, other: Any) -> Any:
        return True if other is None else self._binary(other, "not_equal")

    def __lt__(self, other: Any) -> NDArray:
        return self._binary(other, "lesser")

    def __le__(self, other: Any) -> NDArray:
        return self._binary(other, "lesser_equal")

    def __gt__(self, other: Any) -> NDArray:
        return self._binary(other, "greater")

    def __ge__(self, other: Any) -> NDArray:
        return self._binary(other, "greater_equal")


# ---- mx.nd.add and its kin: arrays or numbers on either side


def _function(name: str, of_numbers: Callable[[Any, Any], Any], doc: str) -> Callable[[Any, Any], Any]:
    def function(lhs: Any, rhs: Any) -> Any:
        if isinstance(lhs, Arithmetic):
            return lhs._binary(rhs, name)
        if isinstance(rhs, Arithmetic):
            return rhs._binary(lhs, name, swap=True)
        return of_numbers(lhs, rhs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""{doc}, element by element; shapes broadcast.

    Parameters
    ----------
    lhs, rhs : NDArray or number
        On one device, in one dtype.

    Returns
    -------
    NDArray, or a number for two numbers
    """
    return function


add = _function("add", operator.add, "lhs + rhs")
subtract = _function("subtract", operator.sub, "lhs - rhs")
multiply = _function("multiply", operator.mul, "lhs * rhs")
divide = true_divide = _function("divide", operator.truediv, "lhs / rhs, towards zero for whole numbers")
modulo = _function("modulo", operator.mod, "lhs % rhs, with the sign of rhs")
maximum = _function("maximum", lambda a, b: a if a > b else b, "The larger one")
minimum = _function("minimum", lambda a, b: a if a < b else b, "The smaller one")
equal = _function("equal", lambda a, b: int(a == b), "1 where lhs == rhs, else 0")
not_equal = _function("not_equal", lambda a, b: int(a != b), "1 where lhs != rhs, else 0")
greater = _function("greater", lambda a, b: int(a > b), "1 where lhs > rhs, else 0")
greater_equal = _function("greater_equal", lambda a, b: int(a >= b), "1 where lhs >= rhs, else 0")
lesser = _function("lesser", lambda a, b: int(a < b), "1 where lhs < rhs, else 0")
lesser_equal = _function("lesser_equal", lambda a, b: int(a <= b), "1 where lhs <= rhs, else 0")
logical_and = _function(
    "logical_and", lambda a, b: int(bool(a) and bool(b)), "1 where both are not 0, else 0"
)
logical_or = _function("logical_or", lambda a, b: int(bool(a) or bool(b)), "1 where one is not 0, else 0")
logical_xor = _function(
    "logical_xor", lambda a, b: int(bool(a) != bool(b)), "1 where just one is not 0, else 0"
)


def power(base: Any, exp: Any) -> Any:
    """``base ** exp``, element by element; shapes broadcast.

    Parameters
    ----------
    base, exp : NDArray or number
    """
    return _power_function(base, exp)


_power_function = _function("power", operator.pow, "lhs ** rhs")
__all__ += "add divide equal greater greater_equal lesser lesser_equal logical_and logical_or".split()  # noqa: SIM905
__all__ += "logical_xor maximum minimum modulo multiply not_equal power subtract true_divide".split()  # noqa: SIM905
