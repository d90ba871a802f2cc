"""Probability densities of samples, with gradients: random_pdf_normal and its kin.

Each distribution is a pair of functions: the logarithm of its density, and that one's derivatives by the
sample and by each parameter. Samples of shape s + t have parameters of shape s.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes
from dmod.ops.params import Param, boolean
from dmod.ops.registry import Attrs, Call, Shapes, Step, register
from dmod.ops.special import digamma, gammaln


class _Density(NamedTuple):
    """``log(xp, x, *params)`` and ``slopes(xp, x, *params)`` by x (0 for whole numbers) and params."""

    name: str
    inputs: list[str]
    log: Callable[..., Any]
    slopes: Callable[..., tuple[Any, ...]]


def _normal_log(xp: Any, x: Any, mu: Any, sigma: Any) -> Any:
    z = (x - mu) / sigma
    return -0.5 * z * z - xp.log(sigma) - 0.5 * math.log(2 * math.pi)


def _normal_slopes(xp: Any, x: Any, mu: Any, sigma: Any) -> tuple[Any, ...]:
    z = (x - mu) / sigma
    return -z / sigma, z / sigma, (z * z - 1) / sigma


def _gamma_log(xp: Any, x: Any, alpha: Any, beta: Any) -> Any:
    return alpha * xp.log(beta) + (alpha - 1) * xp.log(x) - beta * x - gammaln(xp, alpha)


def _gamma_slopes(xp: Any, x: Any, alpha: Any, beta: Any) -> tuple[Any, ...]:
    by_alpha = xp.log(beta) + xp.log(x) - digamma(xp, alpha)
    return (alpha - 1) / x - beta, by_alpha, alpha / beta - x


def _poisson_log(xp: Any, x: Any, lam: Any) -> Any:
    return x * xp.log(lam) - lam - gammaln(xp, x + 1)


def _binomial_log(xp: Any, x: Any, k: Any, p: Any) -> Any:
    counts = gammaln(xp, x + k) - gammaln(xp, x + 1) - gammaln(xp, k)
    return counts + k * xp.log(p) + x * xp.log(1 - p)


def _binomial_slopes(xp: Any, x: Any, k: Any, p: Any) -> tuple[Any, ...]:
    by_k = digamma(xp, x + k) - digamma(xp, k) + xp.log(p)
    return 0 * x, by_k, k / p - x / (1 - p)


def _generalized_log(xp: Any, x: Any, mu: Any, alpha: Any) -> Any:
    return _binomial_log(xp, x, 1 / alpha, 1 / (mu * alpha + 1))


def _generalized_slopes(xp: Any, x: Any, mu: Any, alpha: Any) -> tuple[Any, ...]:
    k, p = 1 / alpha, 1 / (mu * alpha + 1)
    by_x, by_k, by_p = _binomial_slopes(xp, x, k, p)
    return by_x, -by_p * alpha * p * p, -by_k * k * k - by_p * mu * p * p


_DENSITIES = [
    _Density(
        "uniform",
        ["low", "high"],
        lambda xp, x, low, high: 0 * x - xp.log(high - low),
        lambda xp, x, low, high: (0 * x, 0 * x + 1 / (high - low), 0 * x - 1 / (high - low)),
    ),
    _Density("normal", ["mu", "sigma"], _normal_log, _normal_slopes),
    _Density("gamma", ["alpha", "beta"], _gamma_log, _gamma_slopes),
    _Density(
        "exponential",
        ["lam"],
        lambda xp, x, lam: xp.log(lam) - lam * x,
        lambda xp, x, lam: (0 * x - lam, 1 / lam - x),
    ),
    _Density("poisson", ["lam"], _poisson_log, lambda xp, x, lam: (0 * x, x / lam - 1)),
    _Density("negative_binomial", ["k", "p"], _binomial_log, _binomial_slopes),
    _Density("generalized_negative_binomial", ["mu", "alpha"], _generalized_log, _generalized_slopes),
]


def _infer(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    sample, params = merge_shapes(inputs[0], outputs[0], "sample"), None
    for i, dims in enumerate(inputs[1:]):
        params = merge_shapes(params, dims, f"parameter {i}, shaped like the first")
    if sample is not None and params is not None:
        merge_shapes(params, sample[: len(params)], "sample: its first axes, like those of the parameters,")
    return [sample, *[params] * (len(inputs) - 1)], [sample], []


def _widened(call: Call, arrays: list[Any]) -> list[Any]:
    """The sample, and the parameters with axes of length 1 for those that the sample has beyond theirs."""
    sample, *params = arrays
    return [sample, *(p.reshape((*p.shape, *[1] * (sample.ndim - p.ndim))) for p in params)]


def _forward(kind: _Density) -> Callable[[Call], Step]:
    def build(call: Call) -> Step:
        xp, out, arrays = call.xp, call.outputs[0], _widened(call, call.inputs)

        def run() -> None:
            log = kind.log(xp, *arrays)
            xp.copyto(out, log if call.attrs.is_log else xp.exp(log))

        return run

    return build


def _backward(kind: _Density) -> Callable[[Call], Step]:
    def build(call: Call) -> Step:
        xp, out, dy, arrays = call.xp, call.outputs[0], call.out_grads[0], _widened(call, call.inputs)

        def run() -> None:
            scale = dy if call.attrs.is_log else dy * out
            for grad, slope in zip(call.in_grads, kind.slopes(xp, *arrays), strict=True):
                if grad is not None:
                    inner = tuple(range(grad.ndim, scale.ndim))
                    xp.copyto(grad, (scale * slope).sum(axis=inner) if inner else scale * slope)

        return run

    return build


_IS_LOG = Param("is_log", boolean, False, "Whether to give the logarithm of the density.")


def _register(kind: _Density, infer: Any, forward: Any, backward: Any, doc: str) -> None:
    register(
        f"_random_pdf_{kind.name}",
        aliases=[f"random_pdf_{kind.name}"],
        params=[_IS_LOG],
        arguments=["sample", *kind.inputs],
        infer_shape=infer,
        forward=forward,
        backward=backward,
        backward_reads=(tuple(range(1 + len(kind.inputs))), (0,)),
        doc=doc,
    )


for _kind in _DENSITIES:
    _register(
        _kind,
        _infer,
        _forward(_kind),
        _backward(_kind),
        f"The densities of samples of {_kind.name.replace('_', ' ')} distributions.\n\n"
        "Samples of shape s + t have parameters of shape s.",
    )


def _infer_dirichlet(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    sample, alpha = inputs
    if sample is not None and alpha is not None:
        fits = len(alpha) <= len(sample) and sample[: len(alpha) - 1] == alpha[:-1]
        if not alpha or not fits or sample[-1] != alpha[-1]:
            raise InvalidArgument(f"alpha: shape {alpha} does not fit samples of shape {sample}")
    return [sample, alpha], [None if sample is None else sample[:-1] or (1,)], []


def _dirichlet_arrays(call: Call, alpha: Any) -> Any:
    sample = call.inputs[0]
    return alpha.reshape((*alpha.shape[:-1], *[1] * (sample.ndim - alpha.ndim), alpha.shape[-1]))


def _dirichlet(call: Call) -> Step:
    xp, x, out = call.xp, call.inputs[0], call.outputs[0]
    alpha = _dirichlet_arrays(call, call.inputs[1])

    def run() -> None:
        log = ((alpha - 1) * xp.log(x)).sum(axis=-1)
        log = log + gammaln(xp, alpha.sum(axis=-1)) - gammaln(xp, alpha).sum(axis=-1)
        xp.copyto(out, (log if call.attrs.is_log else xp.exp(log)).reshape(out.shape))

    return run


def _dirichlet_grads(call: Call) -> Step:
    xp, x, out, dy, (dx, dalpha) = call.xp, call.inputs[0], call.outputs[0], call.out_grads[0], call.in_grads
    alpha = _dirichlet_arrays(call, call.inputs[1])

    def run() -> None:
        scale = (dy if call.attrs.is_log else dy * out).reshape((*x.shape[:-1], 1))
        if dx is not None:
            xp.copyto(dx, scale * (alpha - 1) / x)
        if dalpha is not None:
            total = digamma(xp, alpha.sum(axis=-1, keepdims=True))
            grad = scale * (xp.log(x) + total - digamma(xp, alpha))
            between = tuple(range(dalpha.ndim - 1, x.ndim - 1))
            xp.copyto(dalpha, grad.sum(axis=between) if between else grad)

    return run


_register(
    _Density("dirichlet", ["alpha"], _normal_log, _normal_slopes),
    _infer_dirichlet,
    _dirichlet,
    _dirichlet_grads,
    "The densities of samples (s, t, K) of Dirichlet distributions with parameters alpha (s, K): (s, t).",
)
