"""The error function and the gamma function, their inverse and derivative: formulas in float64.

NumPy has none of them, so they are computed here: erf by W. J. Cody's rational approximations (Math. Comp.
23, 1969), its inverse by Winitzki's start and Halley's steps, gamma by Lanczos' sum (g = 7, n = 9), and
digamma by its asymptotic series. Relative errors are below 1e-12. They allocate; few networks use them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmod.ops.registry import Call, Step
from dmod.ops.unary import register_unary

# Cody's coefficients, by falling powers: of x*x below 0.5, of x up to 4, of 1/x*x beyond.
_SMALL = [
    [
        *(1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2),
        3.20937758913846947e3,
    ],
    [1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3],
]
_MIDDLE = [
    [
        *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1),
        *(2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3),
        1.23033935479799725e3,
    ],
    [
        *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
        *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
    ],
]
_LARGE = [
    [
        *(1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1),
        *(1.60837851487422766e-2, 6.58749161529837803e-4),
    ],
    [
        *(1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1, 6.05183413124413191e-2),
        2.33520497626869185e-3,
    ],
]
_LANCZOS = [
    *(0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313),
    *(-176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6),
    1.5056327351493116e-7,
]
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)  # B(2n) / 2n


def _ratio(x: Any, coefficients: Sequence[Sequence[float]]) -> Any:
    """The quotient of two polynomials, by Horner's rule."""
    values = []
    for polynomial in coefficients:
        value = x * 0 + polynomial[0]
        for c in polynomial[1:]:
            value = value * x + c
        values.append(value)
    return values[0] / values[1]


def _erf_and_complement(xp: Any, x: Any) -> tuple[Any, Any]:
    """erf(x) and 1 - erf(x) for x >= 0, each without cancellation."""
    low = xp.minimum(x, 0.5)
    small = low * _ratio(low * low, _SMALL)
    high = xp.clip(x, 0.4, 30.0)
    inverse = 1 / xp.square(xp.maximum(high, 4.0))
    large = (1 / math.sqrt(math.pi) - inverse * _ratio(inverse, _LARGE)) / high
    rest = xp.exp(-high * high) * xp.where(high <= 4, _ratio(xp.minimum(high, 4.0), _MIDDLE), large)
    return xp.where(x <= 0.5, small, 1 - rest), xp.where(x <= 0.5, 1 - small, rest)


def erf(xp: Any, x: Any) -> Any:
    """The error function."""
    value = xp.copysign(_erf_and_complement(xp, xp.absolute(x))[0], x)
    return xp.where(xp.isnan(x), x, value)


def erf_slope(xp: Any, x: Any, y: Any) -> Any:
    """Its derivative."""
    return 2 / math.sqrt(math.pi) * xp.exp(-x * x)


def erfinv(xp: Any, x: Any) -> Any:
    """The inverse of the error function; infinite at -1 and 1."""
    size = xp.absolute(x)
    near = xp.minimum(size, 1 - 2.0**-53)
    log = xp.log1p(-near) + xp.log1p(near)
    half = 2 / (math.pi * 0.147) + log / 2
    y = xp.sqrt(xp.sqrt(half * half - log / 0.147) - half)
    for _ in range(3):
        value, rest = _erf_and_complement(xp, y)
        error = xp.where(near < 0.5, value - near, (1 - near) - rest)
        step = error / (2 / math.sqrt(math.pi) * xp.exp(-y * y))
        y = y - step / (1 + y * step)
    y = xp.where(size < 1, y, xp.where(size == 1, math.inf, math.nan))
    return xp.copysign(y, x)


def erfinv_slope(xp: Any, x: Any, y: Any) -> Any:
    """Its derivative, from its value."""
    return math.sqrt(math.pi) / 2 * xp.exp(y * y)


def _lanczos(xp: Any, x: Any) -> tuple[Any, Any]:
    """For x >= 0.5 the sum A and t in ``gamma(x) = A * t**(x - 0.5) * exp(-t)``."""
    total = x * 0 + _LANCZOS[0]
    for i, c in enumerate(_LANCZOS[1:]):
        total = total + c / (x + i)
    return total * math.sqrt(2 * math.pi), x + 6.5


def _sin_pi(xp: Any, x: Any) -> Any:
    """sin(pi * x), exact at whole numbers."""
    whole = xp.floor(x)
    value = xp.sin(math.pi * (x - whole))
    return xp.where(whole % 2 == 0, value, -value)


def gamma(xp: Any, x: Any) -> Any:
    """The gamma function; NaN at negative whole numbers, infinite at 0."""
    mirrored = x < 0.5
    z = xp.minimum(xp.where(mirrored, 1 - x, x), 200.0)
    total, t = _lanczos(xp, z)
    root = xp.power(t, (z - 0.5) / 2)  # in two factors: the power alone overflows before its product
    value = root * xp.exp(-t) * total * root
    value = xp.where(mirrored, math.pi / (_sin_pi(xp, x) * value), value)
    whole = x == xp.floor(x)
    value = xp.where(whole, xp.rint(value), value)
    value = xp.where(whole & (x < 0), math.nan, value)
    return xp.where(x == 0, 1 / x, xp.where(xp.isnan(x), x, value))


def gammaln(xp: Any, x: Any) -> Any:
    """The logarithm of the gamma function's absolute value; infinite at its poles."""
    mirrored = x < 0.5
    z = xp.where(mirrored, 1 - x, x)
    total, t = _lanczos(xp, z)
    value = (z - 0.5) * xp.log(t) - t + xp.log(total)
    value = xp.where((z == 1) | (z == 2), 0.0, value)
    value = xp.where(mirrored, math.log(math.pi) - xp.log(xp.absolute(_sin_pi(xp, x))) - value, value)
    pole = ((x <= 0) & (x == xp.floor(x))) | xp.isinf(x)
    return xp.where(pole, math.inf, value)


def digamma(xp: Any, x: Any) -> Any:
    """The derivative of `gammaln`; infinite at its poles, as in MXNet."""
    mirrored = x <= 0
    z = xp.where(mirrored, 1 - x, x)
    value = z * 0
    for i in range(10):
        value = value - 1 / (z + i)
    z = z + 10
    square = 1 / (z * z)
    tail = square * 0
    for c in reversed(_DIGAMMA):
        tail = (tail + c) * square
    value = value + xp.log(z) - 0.5 / z - tail
    cotangent = math.pi * _sin_pi(xp, x + 0.5) / _sin_pi(xp, x)
    value = xp.where(mirrored, value - cotangent, value)
    pole = ((x <= 0) & (x == xp.floor(x))) | xp.isinf(x)
    return xp.where(pole, math.inf, value)


def _special(
    name: str,
    function: Callable[[Any, Any], Any],
    slope: Callable[[Any, Any, Any], Any],
    reads: str,
    doc: str,
) -> None:
    def build(call: Call) -> Step:
        xp, (x,), (y,) = call.xp, call.inputs, call.outputs
        return lambda: xp.copyto(y, function(xp, x.astype(np.float64)), casting="same_kind")

    def build_gradient(call: Call) -> Step:
        xp, (x,), (y,), (dy,), (dx,) = call.xp, call.inputs, call.outputs, call.out_grads, call.in_grads

        def run() -> None:
            wide = slope(
                xp,
                x.astype(np.float64) if "x" in reads else None,
                y.astype(np.float64) if "y" in reads else None,
            )
            xp.multiply(dy, wide, out=dx, casting="same_kind")

        return run

    register_unary(name, build, build_gradient, reads, doc)


_special("erf", erf, erf_slope, "x", "The error function.")
_special("erfinv", erfinv, erfinv_slope, "y", "The inverse of the error function.")
_special("gamma", gamma, lambda xp, x, y: y * digamma(xp, x), "xy", "The gamma function.")
_special(
    "gammaln",
    gammaln,
    lambda xp, x, y: digamma(xp, x),
    "x",
    "The logarithm of the absolute value of the gamma function.",
)
