"""``mx.sym.random``: samplers; numbers for parameters give `shape` draws, symbols as many per element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dmod.base import InvalidArgument
from dmod.ops import get_operator
from dmod.symbol.functions import make_namespace
from dmod.symbol.symbol import Symbol, create

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


def _sample(name: str, parameters: dict[str, Any], kwargs: dict[str, Any], **options: Any) -> Symbol:
    """A node of ``_random_<name>`` for numbers, of ``_sample_<name>`` for symbols."""
    symbols = [isinstance(p, Symbol) for p in parameters.values()]
    if any(symbols) and not all(symbols):
        raise InvalidArgument(f"{name}: parameters must be all numbers or all Symbols")
    node_name, attr = kwargs.pop("name", None), kwargs.pop("attr", None)
    options |= kwargs
    if any(symbols):
        return _create(f"_sample_{name}", list(parameters.values()), options, node_name, attr)
    return _create(f"_random_{name}", [], {**parameters, **options}, node_name, attr)


def _create(op: str, inputs: list[Any], params: dict[str, Any], name: Any = None, attr: Any = None) -> Symbol:
    given = {key: value for key, value in params.items() if value is not None}
    return create(get_operator(op), inputs, given, name, attr, hint=op)


def uniform(low: Any = 0, high: Any = 1, shape: _Shape = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Uniform numbers in ``[low, high)``.

    Parameters
    ----------
    low, high : float or Symbol
    shape : int or tuple of int, optional
        Default: one number.
    dtype : {'float16', 'float32', 'float64'}, optional
        Default: float32.
    """
    return _sample("uniform", {"low": low, "high": high}, kwargs, shape=shape, dtype=dtype)


def normal(loc: Any = 0, scale: Any = 1, shape: _Shape = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Normal numbers of mean `loc` and standard deviation `scale`; see `uniform`."""
    names = ("mu", "sigma") if isinstance(loc, Symbol) else ("loc", "scale")
    return _sample("normal", dict(zip(names, (loc, scale), strict=True)), kwargs, shape=shape, dtype=dtype)


def randn(*shape: int, **kwargs: Any) -> Symbol:
    """Normal numbers: ``randn(2, 3, loc=0, scale=1, dtype=None)``."""
    loc, scale = kwargs.pop("loc", 0), kwargs.pop("scale", 1)
    return normal(loc, scale, shape or None, kwargs.pop("dtype", None), **kwargs)


def poisson(lam: Any = 1, shape: _Shape = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Numbers of the Poisson distribution of mean `lam`; see `uniform`."""
    return _sample("poisson", {"lam": lam}, kwargs, shape=shape, dtype=dtype)


def exponential(scale: Any = 1, shape: _Shape = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Exponential numbers of mean `scale`; see `uniform`."""
    return _sample("exponential", {"lam": 1.0 / scale}, kwargs, shape=shape, dtype=dtype)


def gamma(alpha: Any = 1, beta: Any = 1, shape: _Shape = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Numbers of the gamma distribution of shape `alpha` and scale `beta`; see `uniform`."""
    return _sample("gamma", {"alpha": alpha, "beta": beta}, kwargs, shape=shape, dtype=dtype)


def negative_binomial(
    k: Any = 1, p: Any = 1, shape: _Shape = None, dtype: Any = None, **kwargs: Any
) -> Symbol:
    """How many failures come before `k` successes of probability `p`; see `uniform`."""
    return _sample("negative_binomial", {"k": k, "p": p}, kwargs, shape=shape, dtype=dtype)


def generalized_negative_binomial(
    mu: Any = 1, alpha: Any = 1, shape: _Shape = None, dtype: Any = None, **kwargs: Any
) -> Symbol:
    """Numbers of mean `mu` and variance ``mu + alpha * mu**2``; see `uniform`."""
    parameters = {"mu": mu, "alpha": alpha}
    return _sample("generalized_negative_binomial", parameters, kwargs, shape=shape, dtype=dtype)


def multinomial(
    data: Symbol, shape: _Shape = None, get_prob: bool = True, dtype: Any = "int32", **kwargs: Any
) -> Symbol:
    """Draw class numbers by their probabilities, the last axis of `data`.

    Parameters
    ----------
    data : Symbol
        Probabilities.
    shape : int or tuple of int, optional
        How many numbers per row.
    get_prob : bool
        Also output the logarithms of the drawn classes' probabilities.
    dtype : optional
    """
    options = {"shape": shape, "get_prob": get_prob, "dtype": dtype}
    return _create("_sample_multinomial", [data], options, kwargs.pop("name", None), kwargs.pop("attr", None))


def shuffle(data: Symbol, **kwargs: Any) -> Symbol:
    """The rows of `data` in random order."""
    return _create("_shuffle", [data], {}, kwargs.pop("name", None), kwargs.pop("attr", None))


def randint(low: int, high: int, shape: _Shape = None, dtype: Any = None, **kwargs: Any) -> Symbol:
    """Whole numbers in ``[low, high)``; see `uniform`."""
    return _sample("randint", {"low": low, "high": high}, kwargs, shape=shape, dtype=dtype)


_GENERATED = {name: f for name, f in make_namespace("random").items() if name not in __all__}
globals().update(_GENERATED)
__all__ += sorted(_GENERATED)
