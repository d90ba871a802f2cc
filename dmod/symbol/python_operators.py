"""Python's operators on symbols: arithmetic such as ``a + b``, and comparisons such as ``a < b``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from dmod.symbol.symbol import Symbol

__all__ = ["PythonOperators"]


class PythonOperators:
    """Each makes a node of the operator that MXNet uses for it, named as MXNet names it."""

    __slots__ = ()

    def _operation(self, op: str, inputs: Sequence[Any], params: Mapping[str, Any], hint: str) -> Symbol:
        """A node of an operator; its name starts with `hint`."""
        raise NotImplementedError

    def _arithmetic(self, other: Any, op: str, scalar_op: str, hints: tuple[str, str]) -> Symbol:
        if isinstance(other, PythonOperators):
            return self._operation(op, [self, other], {}, hints[0])
        if isinstance(other, (int, float, np.integer, np.floating)) and not isinstance(other, bool):
            return self._operation(scalar_op, [self], {"scalar": other}, hints[1])
        return NotImplemented

    def __add__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_add", "_plus_scalar", ("_plus", "_plusscalar"))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_sub", "_minus_scalar", ("_minus", "_minusscalar"))

    def __rsub__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_sub", "_rminus_scalar", ("_minus", "_rminusscalar"))

    def __mul__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_mul", "_mul_scalar", ("_mul", "_mulscalar"))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_div", "_div_scalar", ("_div", "_divscalar"))

    def __rtruediv__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "elemwise_div", "_rdiv_scalar", ("_div", "_rdivscalar"))

    __div__, __rdiv__ = __truediv__, __rtruediv__

    def __mod__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "_mod", "_mod_scalar", ("_mod", "_modscalar"))

    def __rmod__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "_mod", "_rmod_scalar", ("_mod", "_rmodscalar"))

    def __pow__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "_power", "_power_scalar", ("_power", "_powerscalar"))

    def __rpow__(self, other: Any) -> Symbol:
        return self._arithmetic(other, "_power", "_rpower_scalar", ("_power", "_rpower_scalar"))

    def __neg__(self) -> Symbol:
        return self * -1.0

    # ---- comparisons: symbols of 0 and 1, in the operands' dtype

    __hash__ = object.__hash__

    def _comparison(self, other: Any, op: str) -> Symbol:
        result = self._arithmetic(other, op, f"{op}_scalar", (op, f"{op}_scalar"))
        if result is NotImplemented:  # not Python's default, which would be a truth value
            raise TypeError(f"a Symbol is compared with a Symbol or a number, not {type(other).__name__}")
        return result

    def __eq__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._comparison(other, "_equal")

    def __ne__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._comparison(other, "_not_equal")

    def __gt__(self, other: Any) -> Symbol:
        return self._comparison(other, "_greater")

    def __ge__(self, other: Any) -> Symbol:
        return self._comparison(other, "_greater_equal")

    def __lt__(self, other: Any) -> Symbol:
        return self._comparison(other, "_lesser")

    def __le__(self, other: Any) -> Symbol:
        return self._comparison(other, "_lesser_equal")
