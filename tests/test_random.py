"""``mx.random``: the seed, distributions, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dmod import random
from dmod.base import InvalidArgument
from dmod.context import Context, cpu
from dmod.ndarray.ndarray import NDArray, arange, array, zeros

COUNT = 40_000


@pytest.mark.parametrize(
    ("draw", "mean", "variance"),
    [
        (lambda s: random.uniform(2, 4, s), 3, 1 / 3),
        (lambda s: random.normal(1, 2, s), 1, 4),
        (lambda s: random.randn(*s, scale=3), 0, 9),
        (lambda s: random.randint(0, 10, s), 4.5, 8.25),
        (lambda s: random.exponential(2, s), 2, 4),
        (lambda s: random.gamma(3, 2, s), 6, 12),
        (lambda s: random.poisson(3, s), 3, 3),
        (lambda s: random.negative_binomial(3, 0.5, s), 3, 6),
        (lambda s: random.generalized_negative_binomial(2, 0.5, s), 2, 4),
        (lambda s: random.generalized_negative_binomial(2, 0, s), 2, 2),
    ],
)
def test_draws_have_the_mean_and_variance(
    draw: Callable[[Any], NDArray], mean: float, variance: float
) -> None:
    random.seed(11)
    values = draw((COUNT,)).asnumpy()
    error = 5 * np.sqrt(variance / COUNT)
    assert abs(values.mean() - mean) < error
    assert values.var() == pytest.approx(variance, rel=0.1)
    random.seed(11)
    assert (draw((COUNT,)).asnumpy() == values).all()
    assert (draw((COUNT,)).asnumpy() != values).any()


def test_shapes_dtypes_and_devices() -> None:
    assert random.uniform().shape == (1,) and random.uniform(shape=3).shape == (3,)
    assert random.randn(2, 3).shape == (2, 3)
    assert random.normal(shape=2, dtype="float64", ctx=cpu(1)).dtype == np.float64
    assert random.normal(shape=2, ctx=Context("cpu", 1)).context == cpu(1)
    assert random.randint(0, 5, 2).dtype == np.int32 and random.randint(0, 5, 2, "int64").dtype == np.int64


def test_arrays_of_parameters_give_numbers_for_each_element() -> None:
    values = random.uniform(array([0, 10]), array([1, 11]), shape=5).asnumpy()
    assert values.shape == (2, 5) and (values[0] < 1).all() and (values[1] >= 10).all()
    assert random.normal(array([0, 100]), array([1, 1])).shape == (2,)


def test_out_is_filled_and_returned() -> None:
    out = zeros((2, 3))
    assert random.uniform(1, 2, out=out) is out
    assert (out.asnumpy() >= 1).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: random.uniform(2, 1),
        lambda: random.uniform(array([0]), 1),
        lambda: random.uniform(dtype="int32"),
        lambda: random.normal(0, -1),
        lambda: random.randint(5, 5),
        lambda: random.randint(0, 5, dtype="float32"),
        lambda: random.exponential(0),
        lambda: random.poisson(-1),
        lambda: random.seed("x"),  # type: ignore[arg-type]
        lambda: random.seed(1.5),  # type: ignore[arg-type]
    ],
)
def test_what_makes_no_distribution_is_refused(draw: Callable[[], Any]) -> None:
    with pytest.raises(InvalidArgument):
        draw()


def test_classes_are_drawn_by_their_probabilities() -> None:
    random.seed(2)
    drawn = random.multinomial(array([0.2, 0.0, 0.8]), shape=COUNT).asnumpy()
    assert drawn.dtype == np.int32
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / COUNT, [0.2, 0, 0.8], atol=0.01)
    classes, logs = random.multinomial(array([[0, 1, 0], [1, 0, 0]]), shape=2, get_prob=True)
    assert classes.asnumpy().tolist() == [[1, 1], [0, 0]] and (logs.asnumpy() == 0).all()
    assert random.multinomial(array([[0, 1.0], [1, 0]])).asnumpy().tolist() == [1, 0]


def test_shuffling_permutes_rows_and_leaves_the_original() -> None:
    rows = arange(20).reshape((10, 2))
    shuffled = random.shuffle(rows).asnumpy()
    assert sorted(shuffled[:, 0]) == list(range(0, 20, 2)) and (shuffled[:, 1] == shuffled[:, 0] + 1).all()
    assert (rows.asnumpy().reshape(-1) == np.arange(20)).all()
