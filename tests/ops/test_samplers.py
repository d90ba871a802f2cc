"""Random operators: moments, and that draws follow from seed, slot, node and step alone."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.device.random import SlotStream
from dmod.device.standin import stand_in_gpus
from dmod.executor.executor import Executor, Handle
from tests.gradients import worst_gradient_error

N = 40000
a, b = mx.sym.Variable("a"), mx.sym.Variable("b")

# Parameters, and the mean and variance that they give: MXNet's own samples agree within their errors.
MOMENTS = [
    ("uniform", {"low": -1.0, "high": 3.0}, 1.0, 16 / 12),
    ("normal", {"loc": 2.0, "scale": 3.0}, 2.0, 9.0),
    ("gamma", {"alpha": 3.0, "beta": 0.5}, 1.5, 0.75),
    ("exponential", {"lam": 4.0}, 0.25, 1 / 16),
    ("poisson", {"lam": 3.0}, 3.0, 3.0),
    ("negative_binomial", {"k": 3, "p": 0.4}, 4.5, 11.25),
    ("generalized_negative_binomial", {"mu": 3.0, "alpha": 0.4}, 3.0, 6.6),
    ("generalized_negative_binomial", {"mu": 3.0, "alpha": 0.0}, 3.0, 3.0),
]


def draw(net, **args):
    mx.random.seed(7)
    exe = net.bind(mx.cpu(), {k: mx.nd.array(v) for k, v in args.items()})
    return exe.forward()[0].asnumpy()


def check_moments(x, mean, variance):
    error = 6 * np.sqrt(variance / x.size)
    assert abs(x.mean() - mean) < error
    assert abs(x.var() - variance) < 0.1 * variance


@pytest.mark.parametrize(("name", "attrs", "mean", "variance"), MOMENTS)
def test_moments(name, attrs, mean, variance):
    x = draw(getattr(mx.sym, f"random_{name}")(shape=(N // 4, 4), **attrs))
    assert x.shape == (N // 4, 4)
    assert x.dtype == np.float32
    check_moments(x, mean, variance)


@pytest.mark.parametrize(("name", "attrs", "mean", "variance"), MOMENTS)
def test_moments_in_the_shape_of_an_input(name, attrs, mean, variance):
    x = draw(getattr(mx.sym, f"_random_{name}_like")(a, **attrs), a=np.zeros((N // 4, 4)))
    assert x.shape == (N // 4, 4)
    check_moments(x, mean, variance)


@pytest.mark.parametrize(("name", "attrs", "mean", "variance"), MOMENTS)
def test_moments_of_one_distribution_per_element(name, attrs, mean, variance):
    op = getattr(mx.sym, f"sample_{name}")
    params = [mx.sym.Variable(f"p{i}") for i in range(len(attrs))]
    values = {f"p{i}": [[v], [v]] for i, v in enumerate(attrs.values())}
    x = draw(op(*params, shape=(N // 2,)), **values)
    assert x.shape == (2, 1, N // 2)
    check_moments(x, mean, variance)


def test_rows_have_their_own_parameters():
    x = draw(mx.sym.sample_normal(a, b, shape=(N,)), a=[0, 10], b=[1, 0])
    check_moments(x[0], 0, 1)
    assert (x[1] == 10).all()


def test_an_impossible_parameter_in_an_array_gives_not_a_number():
    x = draw(mx.sym.sample_gamma(a, b, shape=(3,)), a=[1, -1], b=[1, 1])
    assert np.isfinite(x[0]).all()
    assert np.isnan(x[1]).all()


def test_randint():
    x = draw(mx.sym.random_randint(low=-2, high=3, shape=(N,)))
    assert x.dtype == np.int32
    counts = np.bincount(x + 2)
    assert len(counts) == 5
    assert abs(counts / N - 0.2).max() < 0.02


@pytest.mark.parametrize("name", ["random_uniform", "uniform", "normal", "random_normal"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtype_and_aliases(name, dtype):
    net = getattr(mx.sym, name)(shape=(2, 3), dtype=dtype)
    assert draw(net).dtype == dtype


def test_a_missing_shape_follows_from_what_it_is_added_to():
    assert (mx.sym.random_uniform() + a).infer_shape(a=(2, 3))[1] == [(2, 3)]
    assert (mx.sym.random_uniform(shape=(0, 3)) + a).infer_shape(a=(2, 3))[1] == [(2, 3)]


def bound(net, slot=0):
    return Executor(Handle({}, stream=SlotStream(slot)), net, mx.cpu(), {})


def test_draws_follow_from_seed_slot_node_and_step():
    net = mx.sym.Group([mx.sym.random_normal(shape=(50,)), mx.sym.random_normal(shape=(50,))])
    mx.random.seed(3)
    exe = bound(net)
    first = [[o.asnumpy() for o in exe.forward(is_train=True)] for _ in range(2)]
    mx.random.seed(3)
    exe = bound(net)
    again = [[o.asnumpy() for o in exe.forward(is_train=True)] for _ in range(2)]
    assert np.array_equal(first, again)
    draws = [first[0][0], first[0][1], first[1][0], bound(net, 1).forward(is_train=True)[0].asnumpy()]
    mx.random.seed(4)
    draws.append(bound(net).forward(is_train=True)[0].asnumpy())
    for i, x in enumerate(draws):
        assert all(not np.array_equal(x, y) for y in draws[:i])


def test_a_gpu_draws_what_the_cpu_draws():
    net = mx.sym.sample_normal(a, b, shape=(5,))
    values = {"a": mx.nd.array([1, 2]), "b": mx.nd.array([1, 2])}
    mx.random.seed(3)
    wanted = net.bind(mx.cpu(), values).forward()[0].asnumpy()
    with stand_in_gpus(1):
        mx.random.seed(3)
        values = {k: v.as_in_context(mx.gpu(0)) for k, v in values.items()}
        found = net.bind(mx.gpu(0), values).forward()[0].asnumpy()
    np.testing.assert_array_equal(found, wanted)


def test_multinomial_draws_classes_by_their_probabilities():
    p = np.array([[0.1, 0.9, 0], [0.3, 0.3, 0.4]])
    x = draw(mx.sym.sample_multinomial(a, shape=(N,)), a=p)
    assert x.dtype == np.int32
    for row, expected in zip(x, p, strict=True):
        assert abs(np.bincount(row, minlength=3) / N - expected).max() < 0.02
    assert draw(mx.sym.sample_multinomial(a), a=p).shape == (2,)
    assert draw(mx.sym.sample_multinomial(a), a=p[0]).shape == (1,)
    assert draw(mx.sym.sample_multinomial(a, shape=(2, 3), dtype="uint8"), a=p[0]).shape == (2, 3)


def test_multinomial_gives_log_probabilities_and_their_gradient():
    p = np.array([[0.1, 0.9], [0.5, 0.5]])
    net = mx.sym.sample_multinomial(a, shape=(4,), get_prob=True)
    exe = net.simple_bind(mx.cpu(), type_dict={"a": "float64"}, a=(2, 2))
    exe.forward(is_train=True, a=p)
    head = np.arange(8.0).reshape(2, 4)
    exe.backward([mx.nd.zeros((2, 4)), mx.nd.array(head, dtype="float64")])
    drawn, log_p = (o.asnumpy() for o in exe.outputs)
    np.testing.assert_allclose(log_p, np.log(np.take_along_axis(p, drawn, 1)))
    expected = [[head[r][drawn[r] == c].sum() / p[r, c] for c in range(2)] for r in range(2)]
    np.testing.assert_allclose(exe.grad_dict["a"].asnumpy(), expected)


PDFS = {
    "uniform": {"low": 0.5, "high": 3.0},
    "normal": {"mu": 1.0, "sigma": 2.0},
    "gamma": {"alpha": 1.5, "beta": 0.7},
    "exponential": {"lam": 1.3},
}
COUNTS = {
    "poisson": {"lam": 1.3},
    "negative_binomial": {"k": 1.5, "p": 0.7},
    "generalized_negative_binomial": {"mu": 1.5, "alpha": 0.7},
}


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize(("name", "params"), [*PDFS.items(), *COUNTS.items()])
def test_gradients_of_densities(name, params, is_log):
    inputs = [mx.sym.Variable(n) for n in params]
    net = getattr(mx.sym, f"random_pdf_{name}")(a, *inputs, is_log=is_log)
    shapes = {"a": (2, 3), **dict.fromkeys(params, (2,))}
    values, skip = dict(params), ()
    if name in COUNTS:  # only whole numbers have a probability
        values["a"], skip = [[0, 1, 2], [3, 4, 5]], ("a",)
    assert worst_gradient_error(net, shapes, values=values, skip=skip) < 1e-6


@pytest.mark.parametrize("is_log", [False, True])
def test_gradients_of_the_dirichlet_density(is_log):
    net = mx.sym.random_pdf_dirichlet(a, b, is_log=is_log)
    assert worst_gradient_error(net, {"a": (2, 4, 3), "b": (2, 3)}) < 1e-6


def test_errors_name_node_argument_and_shapes():
    with pytest.raises(InvalidArgument, match=r"_sample_normal 'y'.*\(2,\).*\(3,\)"):
        mx.sym.sample_normal(a, b, name="y").infer_shape(a=(2,), b=(3,))
    with pytest.raises(InvalidArgument, match=r"'y'.*sample.*\(3,\).*\(2,\)"):
        mx.sym.random_pdf_exponential(a, b, name="y").infer_shape(a=(2,), b=(3,))
    with pytest.raises(InvalidArgument, match=r"scale=-1.*>= 0"):
        draw(mx.sym.random_normal(scale=-1, shape=(2,)))
    with pytest.raises(InvalidArgument, match=r"low=3, high=3"):
        draw(mx.sym.random_randint(low=3, high=3, shape=(2,)))
