"""Random samplers: of one distribution, in the shape of an input, or of one distribution per element.

Draws follow from (seed, global slot, node, step) alone. They come from the host's generators; a GPU gets
copies, and so the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from dmod.base import InvalidArgument
from dmod.ops.elementwise import merge_shapes, same_shape
from dmod.ops.params import Param, boolean, choice, integer, number, optional, shape, text
from dmod.ops.registry import Attrs, Call, Dtypes, Shapes, Step, register, zero_gradient

Draw = Callable[..., Any]
"""``draw(generator, parameters..., size) -> array``."""
_FLOATS = ("float16", "float32", "float64")


class _Distribution(NamedTuple):
    """A distribution: what its parameters are called, for one of them and for arrays of them."""

    name: str
    draw: Draw
    params: list[Param]
    inputs: list[str]
    allowed: Callable[..., Any]  # of all parameters; what they must satisfy
    needs: str


def _poisson_mixture(rng: np.random.Generator, mu: Any, alpha: Any, size: Any) -> Any:
    """The negative binomial distribution of mean mu and variance ``mu + alpha * mu**2``."""
    spread = np.asarray(alpha) > 0
    safe = np.where(spread, alpha, 1.0)
    mean = np.where(spread, rng.gamma(1 / safe, safe * mu, size), mu)
    return rng.poisson(mean, size)


_DISTRIBUTIONS = [
    _Distribution(
        "uniform",
        lambda rng, low, high, size: low + (high - low) * rng.random(size),
        [Param("low", number, 0.0, "The lower bound."), Param("high", number, 1.0, "The upper bound.")],
        ["low", "high"],
        lambda low, high: low <= high,
        "low <= high",
    ),
    _Distribution(
        "normal",
        lambda rng, loc, scale, size: loc + scale * rng.standard_normal(size),
        [
            Param("loc", number, 0.0, "The mean."),
            Param("scale", number, 1.0, "The standard deviation."),
        ],
        ["mu", "sigma"],
        lambda loc, scale: scale >= 0,
        "a standard deviation >= 0",
    ),
    _Distribution(
        "gamma",
        lambda rng, alpha, beta, size: rng.gamma(alpha, beta, size),
        [
            Param("alpha", number, 1.0, "The shape of the distribution."),
            Param("beta", number, 1.0, "The scale of the distribution."),
        ],
        ["alpha", "beta"],
        lambda alpha, beta: (alpha > 0) & (beta > 0),
        "alpha > 0 and beta > 0",
    ),
    _Distribution(
        "exponential",
        lambda rng, lam, size: rng.standard_exponential(size) / lam,
        [Param("lam", number, 1.0, "The rate.")],
        ["lam"],
        lambda lam: lam > 0,
        "lam > 0",
    ),
    _Distribution(
        "poisson",
        lambda rng, lam, size: rng.poisson(lam, size),
        [Param("lam", number, 1.0, "The rate, which is the mean.")],
        ["lam"],
        lambda lam: lam >= 0,
        "lam >= 0",
    ),
    _Distribution(
        "negative_binomial",
        lambda rng, k, p, size: rng.poisson(rng.gamma(k, (1 - p) / p, size)),
        [
            Param("k", integer, 1, "The number of failures that ends an experiment."),
            Param("p", number, 1.0, "The probability of a failure."),
        ],
        ["k", "p"],
        lambda k, p: (k > 0) & (p > 0) & (p <= 1),
        "k > 0 and 0 < p <= 1",
    ),
    _Distribution(
        "generalized_negative_binomial",
        _poisson_mixture,
        [
            Param("mu", number, 1.0, "The mean."),
            Param("alpha", number, 1.0, "The dispersion; 0 is a Poisson distribution."),
        ],
        ["mu", "alpha"],
        lambda mu, alpha: (mu >= 0) & (alpha >= 0),
        "mu >= 0 and alpha >= 0",
    ),
]

_SHAPE = Param("shape", optional(shape), None, "The shape of the output.")
_CTX = Param("ctx", text, "", "The device of the output, where none follows from inputs.")


def _dtype_param(words: Sequence[str], default: str) -> Param:
    return Param("dtype", optional(choice(words)), None, f"The dtype of the output; default: {default}.")


def _infer_alone(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    given = tuple(-1 if n == 0 else n for n in attrs.shape) if attrs.shape else None
    return [], [merge_shapes(given, outputs[0], "shape")], []


def _dtype_or(default: str) -> Any:
    def infer(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
        return list(inputs), [np.dtype(attrs.dtype or default)], []

    return infer


def _checked(attrs: Attrs, kind: _Distribution) -> list[Any]:
    values = [getattr(attrs, p.name) for p in kind.params]
    if not kind.allowed(*values):
        named = ", ".join(f"{p.name}={v}" for p, v in zip(kind.params, values, strict=True))
        raise InvalidArgument(f"{named}: expected {kind.needs}")
    return values


def _sampler(kind: _Distribution) -> Callable[[Call], Step]:
    def forward(call: Call) -> Step:
        out, stream, node = call.outputs[0], call.stream, call.node
        values = _checked(call.attrs, kind)

        def run() -> None:
            np.copyto(out, kind.draw(stream.generator(node), *values, out.shape), casting="unsafe")

        return run

    return forward


def _row_sampler(kind: _Distribution) -> Callable[[Call], Step]:
    def forward(call: Call) -> Step:
        out, stream, node = call.outputs[0], call.stream, call.node
        inner = [1] * (out.ndim - call.inputs[0].ndim)

        def run() -> None:
            values = [np.asarray(x, np.float64).reshape((*x.shape, *inner)) for x in call.inputs]
            with np.errstate(all="ignore"):
                bad = ~np.asarray(kind.allowed(*values), bool)
                safe = [np.where(bad, 0.5, v) for v in values] if bad.any() else values
                drawn = kind.draw(stream.generator(node), *safe, out.shape)
            np.copyto(out, drawn, casting="unsafe")
            if bad.any():
                np.copyto(out, out.dtype.type(np.nan), where=bad)

        return run

    return forward


def _infer_rows(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    params = None
    for i, dims in enumerate(inputs):
        params = merge_shapes(params, dims, f"input {i}, shaped like input 0")
    out = None if params is None else (*params, *attrs.shape)
    return [params] * len(inputs), [out], []


def _rows_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    known = next((t for t in inputs if t is not None), None)
    return [t if t is not None else known for t in inputs], [np.dtype(attrs.dtype or "float32")], []


def _register(kind: _Distribution) -> None:
    """Register the three samplers of a distribution."""
    title = kind.name.replace("_", " ")
    plain = {"uniform": ["uniform"], "normal": ["normal"]}.get(kind.name, [])
    register(
        f"_random_{kind.name}",
        aliases=[f"random_{kind.name}", *plain],
        params=[*kind.params, _SHAPE, _CTX, _dtype_param(_FLOATS, "float32")],
        arguments=[],
        infer_shape=_infer_alone,
        infer_type=_dtype_or("float32"),
        forward=_sampler(kind),
        backward=zero_gradient,
        host=True,
        doc=f"Draws from a {title} distribution.",
    )
    register(
        f"_random_{kind.name}_like",
        params=kind.params,
        infer_shape=same_shape,
        forward=_sampler(kind),
        backward=zero_gradient,
        host=True,
        doc=f"Draws from a {title} distribution, in the shape and dtype of data.",
    )
    register(
        f"_sample_{kind.name}",
        aliases=[f"sample_{kind.name}"],
        params=[
            Param("shape", shape, (), "The shape to draw for each element of the parameters."),
            _dtype_param(_FLOATS, "float32"),
        ],
        arguments=kind.inputs,
        infer_shape=_infer_rows,
        infer_type=_rows_type,
        forward=_row_sampler(kind),
        backward=zero_gradient,
        host=True,
        doc=f"Draws from {title} distributions, one for each element of the inputs, of shape s + shape.",
    )


for _kind in _DISTRIBUTIONS:
    _register(_kind)


def _randint(call: Call) -> Step:
    attrs, out, stream, node = call.attrs, call.outputs[0], call.stream, call.node
    if attrs.low >= attrs.high:
        raise InvalidArgument(f"low={attrs.low}, high={attrs.high}: expected low < high")

    def run() -> None:
        drawn = stream.generator(node).integers(attrs.low, attrs.high, out.shape, np.int64)
        np.copyto(out, drawn, casting="unsafe")

    return run


register(
    "_random_randint",
    aliases=["random_randint"],
    params=[
        Param("low", integer, doc="The lowest number."),
        Param("high", integer, doc="One more than the highest number."),
        _SHAPE,
        _CTX,
        _dtype_param(("int32", "int64"), "int32"),
    ],
    arguments=[],
    infer_shape=_infer_alone,
    infer_type=_dtype_or("int32"),
    forward=_randint,
    backward=zero_gradient,
    host=True,
    doc="Whole numbers from low to high - 1, all equally likely.",
)


def _infer_multinomial(attrs: Attrs, inputs: Shapes, outputs: Shapes) -> tuple[Shapes, Shapes, Shapes]:
    data = inputs[0]
    if data is not None and len(data) not in (1, 2):
        raise InvalidArgument(f"data has shape {data}, expected (K,) or (N, K)")
    out = None if data is None else ((*data[:-1], *attrs.shape) or (1,))
    return [data], [out, out][: len(outputs)], []


def _multinomial_type(attrs: Attrs, inputs: Dtypes) -> tuple[Dtypes, Dtypes, Dtypes]:
    return [inputs[0]], [np.dtype(attrs.dtype), inputs[0]][: 1 + attrs.get_prob], []


def _multinomial(call: Call) -> Step:
    data, out, stream, node = call.inputs[0], call.outputs[0], call.stream, call.node
    rows, classes = data.reshape(-1, data.shape[-1]), data.shape[-1]
    drawn = out.reshape(rows.shape[0], -1)
    log_p = call.outputs[1].reshape(drawn.shape) if call.attrs.get_prob else None

    def run() -> None:
        u = stream.generator(node).random(drawn.shape)
        edges = np.cumsum(rows, axis=1, dtype=np.float64)
        for row, (edge, points) in enumerate(zip(edges, u, strict=True)):
            # The last class with a probability takes what rounding leaves of the sum.
            index = np.searchsorted(edge[:-1] / edge[-1], points, side="right")
            drawn[row] = np.minimum(index, classes - 1)
            if log_p is not None:
                log_p[row] = np.log(rows[row, index])

    return run


def _multinomial_grad(call: Call) -> Step:
    """The gradient of the log-probabilities of what was drawn."""
    dx = call.in_grads[0]
    if not call.attrs.get_prob:
        return zero_gradient(call)
    data, drawn = call.inputs[0].reshape(-1, dx.shape[-1]), call.outputs[0].reshape(-1)
    dy, grad = call.out_grads[1].reshape(-1), dx.reshape(-1, dx.shape[-1])
    row = np.repeat(np.arange(len(data)), drawn.size // max(1, len(data)))

    def run() -> None:
        index = drawn.astype(np.int64)
        grad.fill(0)
        np.add.at(grad, (row, index), dy / data[row, index])

    return run


register(
    "_sample_multinomial",
    aliases=["sample_multinomial"],
    params=[
        Param("shape", shape, (), "The shape to draw for each distribution."),
        Param("get_prob", boolean, False, "Whether to give the log-probabilities too."),
        Param(
            "dtype",
            choice(("float16", "float32", "float64", "int32", "uint8")),
            "int32",
            "The dtype of the classes.",
        ),
    ],
    outputs=lambda attrs: ["output0", "output1"] if attrs.get_prob else ["output"],
    num_visible=lambda attrs: 1 + attrs.get_prob,
    infer_shape=_infer_multinomial,
    infer_type=_multinomial_type,
    forward=_multinomial,
    backward=_multinomial_grad,
    backward_reads=lambda attrs: ((0,), (0,)) if attrs.get_prob else ((), ()),
    host=True,
    doc="""Classes drawn by their probabilities: data (K,) or (N, K) gives ``shape`` or (N, *shape).

With get_prob the second output has the logarithms of the probabilities of what was drawn, and their
gradient leads to data.""",
)
