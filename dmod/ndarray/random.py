"""``mx.nd.random``: random numbers in arrays, from the generator that ``mx.random.seed`` restarts.

Dropout and other random operators of networks have streams of their own, which `seed` restarts too.
NumPy's generator, by which `NDArrayIter` shuffles, is seeded by ``numpy.random.seed``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context
from dmod.device import random as streams
from dmod.ndarray.invoke import make_namespace
from dmod.ndarray.ndarray import NDArray, array

__all__ = [
    "exponential",
    "gamma",
    "generalized_negative_binomial",
    "multinomial",
    "negative_binomial",
    "normal",
    "poisson",
    "randint",
    "randn",
    "shuffle",
    "uniform",
]

_Shape = int | Sequence[int] | None
_FLOATS = ("float16", "float32", "float64")


def uniform(
    low: Any = 0,
    high: Any = 1,
    shape: _Shape = None,
    dtype: Any = None,
    ctx: Context | None = None,
    out: NDArray | None = None,
    **kwargs: Any,
) -> NDArray:
    """Uniform numbers in ``[low, high)``.

    Parameters
    ----------
    low, high : float or NDArray
        Of arrays, each pair of elements gives numbers of `shape`.
    shape : int or tuple of int, optional
        Default: one number.
    dtype : {'float16', 'float32', 'float64'}, optional
        Default: float32.
    ctx : Context, optional
    out : NDArray, optional
        Filled and returned.
    """

    def draw(g: np.random.Generator, size: Any, low: Any, high: Any) -> np.ndarray:
        if np.any(np.less(high, low)):
            raise InvalidArgument(f"uniform: low={low} is above high={high}")
        return g.uniform(low, high, size)

    return _sample(draw, (low, high), shape, dtype, ctx, out)


def normal(
    loc: Any = 0,
    scale: Any = 1,
    shape: _Shape = None,
    dtype: Any = None,
    ctx: Context | None = None,
    out: NDArray | None = None,
    **kwargs: Any,
) -> NDArray:
    """Normal numbers of mean `loc` and standard deviation `scale`; see `uniform`."""

    def draw(g: np.random.Generator, size: Any, loc: Any, scale: Any) -> np.ndarray:
        return g.normal(loc, _positive("normal", "scale", scale, zero=True), size)

    return _sample(draw, (loc, scale), shape, dtype, ctx, out)


def randn(*shape: int, **kwargs: Any) -> NDArray:
    """Normal numbers: ``randn(2, 3, loc=0, scale=1, dtype=None, ctx=None, out=None)``."""
    loc, scale = kwargs.pop("loc", 0), kwargs.pop("scale", 1)
    return normal(loc, scale, shape or None, **kwargs)


def randint(
    low: int,
    high: int,
    shape: _Shape = None,
    dtype: Any = None,
    ctx: Context | None = None,
    out: NDArray | None = None,
    **kwargs: Any,
) -> NDArray:
    """Whole numbers in ``[low, high)``, int32 or int64; see `uniform`."""
    if high <= low:
        raise InvalidArgument(f"randint: low={low} is not below high={high}")

    def draw(g: np.random.Generator, size: Any, low: Any, high: Any) -> np.ndarray:
        return g.integers(low, high, size)

    return _sample(draw, (low, high), shape, dtype or "int32", ctx, out, ("int32", "int64"))


def exponential(
    scale: Any = 1,
    shape: _Shape = None,
    dtype: Any = None,
    ctx: Context | None = None,
    out: NDArray | None = None,
    **kwargs: Any,
) -> NDArray:
    """Exponential numbers of mean `scale`; see `uniform`."""

    def draw(g: np.random.Generator, size: Any, scale: Any) -> np.ndarray:
        return g.exponential(_positive("exponential", "scale", scale), size)

    return _sample(draw, (scale,), shape, dtype, ctx, out)


def gamma(
    alpha: Any = 1,
    beta: Any = 1,
    shape: _Shape = None,
    dtype: Any = None,
    ctx: Context | None = None,
    out: NDArray | None = None,
    **kwargs: Any,
) -> NDArray:
    """Numbers of the gamma distribution of shape `alpha` and scale `beta`; see `uniform`."""

    def draw(g: np.random.Generator, size: Any, alpha: Any, beta: Any) -> np.ndarray:
        return g.gamma(_positive("gamma", "alpha", alpha), _positive("gamma", "beta", beta), size)

    return _sample(draw, (alpha, beta), shape, dtype, ctx, out)


def poisson(
    lam: Any = 1,
    shape: _Shape = None,
    dtype: Any = None,
    ctx: Context | None = None,
    out: NDArray | None = None,
    **kwargs: Any,
) -> NDArray:
    """Numbers of the Poisson distribution of mean `lam`; see `uniform`."""

    def draw(g: np.random.Generator, size: Any, lam: Any) -> np.ndarray:
        return g.poisson(_positive("poisson", "lam", lam, zero=True), size)

    return _sample(draw, (lam,), shape, dtype, ctx, out)


def negative_binomial(
    k: Any = 1,
    p: Any = 1,
    shape: _Shape = None,
    dtype: Any = None,
    ctx: Context | None = None,
    out: NDArray | None = None,
    **kwargs: Any,
) -> NDArray:
    """How many failures come before `k` successes of probability `p`; see `uniform`."""

    def draw(g: np.random.Generator, size: Any, k: Any, p: Any) -> np.ndarray:
        return g.negative_binomial(_positive("negative_binomial", "k", k), p, size)

    return _sample(draw, (k, p), shape, dtype, ctx, out)


def generalized_negative_binomial(
    mu: Any = 1,
    alpha: Any = 1,
    shape: _Shape = None,
    dtype: Any = None,
    ctx: Context | None = None,
    out: NDArray | None = None,
    **kwargs: Any,
) -> NDArray:
    """Numbers of mean `mu` and variance ``mu + alpha * mu**2``; see `uniform`."""

    def draw(g: np.random.Generator, size: Any, mu: Any, alpha: Any) -> np.ndarray:
        spread = np.maximum(alpha, 1e-30)  # alpha = 0 is the limit, a Poisson distribution
        rates = np.where(np.equal(alpha, 0), mu, g.gamma(1 / spread, spread * mu, size))
        return g.poisson(rates, size)

    return _sample(draw, (mu, alpha), shape, dtype, ctx, out)


def multinomial(
    data: NDArray,
    shape: _Shape = None,
    get_prob: bool = False,
    out: NDArray | None = None,
    dtype: Any = "int32",
    **kwargs: Any,
) -> Any:
    """Draw class numbers by their probabilities.

    Parameters
    ----------
    data : NDArray, shape (classes,) or (rows, classes)
        Probabilities; each row sums to 1.
    shape : int or tuple of int, optional
        How many numbers per row; default: one.
    get_prob : bool
        Return the logarithms of the drawn classes' probabilities too.
    out : NDArray, optional
    dtype : optional

    Returns
    -------
    NDArray, or a list of two
    """
    chances = data._data.astype(np.float64)
    rows = chances.reshape(-1, chances.shape[-1])
    size = _size(shape) or ()
    count = int(np.prod(size))
    draws = streams.host_generator().random((len(rows), count))
    # The number of a class is how many cumulated probabilities lie at or below the draw.
    edges = np.cumsum(rows, axis=1)
    classes = (draws[:, :, None] >= edges[:, None, :-1]).sum(2)
    final = data.shape[:-1] + size or (1,)
    found = _deliver(classes.reshape(final), dtype, data.context, out)
    if not get_prob:
        return found
    with np.errstate(divide="ignore"):
        logs = np.log(np.take_along_axis(rows, classes, axis=1))
    return [found, array(logs.reshape(final), data.context, data.dtype)]


def shuffle(data: NDArray, **kwargs: Any) -> NDArray:
    """A copy of `data` with its rows in random order."""
    return NDArray(streams.host_generator().permutation(data._data), data.context)


# ---- what they share


def _size(shape: _Shape) -> tuple[int, ...] | None:
    if shape is None:
        return None
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)


def _positive(function: str, name: str, value: Any, zero: bool = False) -> Any:
    if np.any(np.less(value, 0)) or (not zero and np.any(np.equal(value, 0))):
        raise InvalidArgument(
            f"{function}: {name}={value}, expected {'no' if zero else 'a'} "
            f"{'negative' if zero else 'positive'} number"
        )
    return value


def _sample(
    draw: Callable[..., np.ndarray],
    parameters: tuple[Any, ...],
    shape: _Shape,
    dtype: Any,
    ctx: Context | None,
    out: NDArray | None,
    dtypes: tuple[str, ...] = _FLOATS,
) -> NDArray:
    """Draw with numbers for parameters, or for each element of arrays of parameters."""
    wanted = np.dtype(dtype or (out.dtype if out is not None else np.float32))
    if wanted.name not in dtypes:
        raise InvalidArgument(f"random numbers: dtype {wanted.name!r}, expected one of {', '.join(dtypes)}")
    size = _size(shape)
    given = [isinstance(p, NDArray) for p in parameters]
    if any(given):
        if not all(given):
            raise InvalidArgument("random numbers: parameters must be all numbers or all NDArrays")
        inner = size or ()
        arrays = [p._data.reshape(p.shape + (1,) * len(inner)) for p in parameters]
        size, ctx = parameters[0].shape + inner, ctx or parameters[0].context
        values = draw(streams.host_generator(), size, *arrays)
    else:
        size = size or (out.shape if out is not None else (1,))
        values = draw(streams.host_generator(), size, *parameters)
    return _deliver(values, wanted, ctx, out)


def _deliver(values: np.ndarray, dtype: Any, ctx: Context | None, out: NDArray | None) -> NDArray:
    if out is None:
        return array(values, ctx, dtype)
    out[:] = values.reshape(out.shape)
    return out


_GENERATED = {name: f for name, f in make_namespace("random").items() if name not in __all__}
globals().update(_GENERATED)
__all__ += sorted(_GENERATED)
