"""Initializers: rules for names, what each draws, descriptions, and the seed."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import initializer as init
from dmod import random
from dmod.base import InvalidArgument
from dmod.ndarray import NDArray, array, full, save


def run(initializer: Any, name: str, shape: tuple[int, ...] = (3, 4), attrs: Any = None) -> np.ndarray:
    arr = full(shape, 99.0)
    initializer(init.InitDesc(name, attrs), arr)
    return arr.asnumpy()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fc_weight", 7),
        ("weight", 7),
        ("fc_bias", 0),
        ("bn_gamma", 1),
        ("bn_beta", 0),
        ("bn_moving_mean", 0),
        ("bn_running_mean", 0),
        ("bn_moving_var", 1),
        ("bn_running_var", 1),
        ("bn_moving_inv_var", 0),
        ("bn_moving_avg", 0),
        ("x_min", 0),
        ("x_max", 1),
    ],
)
def test_endings_of_names_choose_the_values(name: str, value: float) -> None:
    assert (run(init.Constant(7), name) == value).all()
    plain = full((2,), 99.0)
    init.Constant(7)(name, plain)
    assert (plain.asnumpy() == value).all()


def test_a_name_without_a_rule_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"'foo'.*init=mx.init.Zero"):
        run(init.Uniform(), "foo")
    with pytest.raises(TypeError, match="name"):
        init.Uniform()(3, full((1,), 0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "name", "expected"),
    [
        (init.Constant(5.0).dumps(), "x_bias", [5, 5, 5, 5]),
        (init.LSTMBias(2.0).dumps(), "x_bias", [0, 2, 0, 0]),
        ("zeros", "x_weight", [0, 0, 0, 0]),
        ('["one", {}]', "anything", [1, 1, 1, 1]),
        (init.Constant(array([1, 2, 3, 4])).dumps(), "x", [1, 2, 3, 4]),
    ],
)
def test_a_variables_own_initializer_goes_before_the_rules(
    own: str, name: str, expected: list[float]
) -> None:
    assert run(init.Uniform(), name, (4,), {"__init__": own}).tolist() == expected


@pytest.mark.parametrize("own", ['["nope", {}]', "nope", '["zero"', '["zero"]', '["uniform", {"x": 1}]'])
def test_a_variables_initializer_that_makes_no_sense_is_refused(own: str) -> None:
    with pytest.raises(InvalidArgument):
        run(init.Uniform(), "x", (4,), {"__init__": own})


BIG = (200, 300)


@pytest.mark.parametrize(
    ("initializer", "shape", "bound", "deviation"),
    [
        (init.Uniform(), BIG, 0.07, 0.07 / math.sqrt(3)),
        (init.Uniform(2.0), BIG, 2.0, 2 / math.sqrt(3)),
        (init.Normal(0.5), BIG, None, 0.5),
        (init.Xavier(), BIG, math.sqrt(3 / 250), math.sqrt(1 / 250)),
        (init.Xavier(factor_type="in"), BIG, math.sqrt(3 / 300), math.sqrt(1 / 300)),
        (init.Xavier(factor_type="out", magnitude=6), BIG, math.sqrt(6 / 200), math.sqrt(2 / 200)),
        (init.Xavier(rnd_type="gaussian"), BIG, None, math.sqrt(3 / 250)),
        (init.Xavier(), (20, 30, 5, 5), math.sqrt(3 / 625), math.sqrt(1 / 625)),
        (init.MSRAPrelu(), BIG, None, math.sqrt(2 / 1.0625 / 250)),
        (init.MSRAPrelu("in", 0.0), BIG, None, math.sqrt(2 / 300)),
    ],
)
def test_draws_have_the_documented_spread(
    initializer: init.Initializer, shape: Any, bound: float | None, deviation: float
) -> None:
    random.seed(3)
    values = run(initializer, "a_weight", shape)
    assert values.std() == pytest.approx(deviation, rel=0.03)
    assert abs(values.mean()) < 0.03 * deviation
    if bound is not None:
        assert 0.98 * bound < np.abs(values).max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (8, 2, 3)])
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_orthogonal_rows_or_columns_are_orthogonal(shape: tuple[int, ...], kind: str) -> None:
    matrix = run(init.Orthogonal(2.0, kind), "a_weight", shape).reshape(shape[0], -1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_bilinear_weights_are_those_of_mxnet() -> None:
    row = np.array([1, 3, 3, 1]) / 4
    assert (run(init.Bilinear(), "a_weight", (2, 1, 4, 4)) == np.outer(row, row)).all()


def test_the_seed_restarts_the_draws() -> None:
    random.seed(5)
    first = [run(init.Uniform(), "a_weight"), run(init.Normal(), "a_weight"), run(init.Xavier(), "a_weight")]
    random.seed(5)
    second = [run(init.Uniform(), "a_weight"), run(init.Normal(), "a_weight"), run(init.Xavier(), "a_weight")]
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (first[0] != run(init.Uniform(), "a_weight")).any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_parameters_keep_their_dtype(dtype: str) -> None:
    arr = full((5, 5), 9, dtype=dtype)
    init.Xavier()("a_weight", arr)
    assert arr.dtype == np.dtype(dtype) and (arr.asnumpy() != 9).all()


def test_a_vector_has_no_xavier_scale() -> None:
    with pytest.raises(InvalidArgument, match=r"'a_weight' of shape \(3,\)"):
        run(init.Xavier(), "a_weight", (3,))


@pytest.mark.parametrize(
    ("initializer", "text"),
    [
        (init.Zero(), '["zero", {}]'),
        (init.One(), '["one", {}]'),
        (init.Constant(3.0), '["constant", {"value": 3.0}]'),
        (init.Constant(array([1, 2])), '["constant", {"value": [1.0, 2.0]}]'),
        (init.Uniform(), '["uniform", {"scale": 0.07}]'),
        (init.Normal(0.5), '["normal", {"sigma": 0.5}]'),
        (init.Xavier(), '["xavier", {"rnd_type": "uniform", "factor_type": "avg", "magnitude": 3}]'),
        (init.MSRAPrelu(), '["msraprelu", {"factor_type": "avg", "slope": 0.25}]'),
        (init.Orthogonal(), '["orthogonal", {"scale": 1.414, "rand_type": "uniform"}]'),
        (init.Bilinear(), '["bilinear", {}]'),
        (init.LSTMBias(), '["lstmbias", {"forget_bias": 1.0}]'),
    ],
)
def test_descriptions_are_those_of_mxnet(initializer: init.Initializer, text: str) -> None:
    assert initializer.dumps() == text
    assert init.create(text) == initializer and init.create(text).dumps() == text


def test_initializers_are_equal_by_value() -> None:
    assert init.Xavier() == init.Xavier() != init.Xavier(magnitude=2)
    assert init.Zero() != init.One()


def test_names_make_initializers() -> None:
    assert init.create("Xavier", magnitude=2) == init.Xavier(magnitude=2)
    assert init.create("zeros") == init.Zero() and init.create("ones") == init.One()
    with pytest.raises(InvalidArgument, match="'xavier'"):
        init.create("xavierr")
    with pytest.raises(InvalidArgument, match="expected a name"):
        init.create(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: run(init.Xavier(rnd_type="x"), "a_weight"),
        lambda: run(init.Xavier(factor_type="x"), "a_weight"),
        lambda: init.Orthogonal(rand_type="x"),
    ],
)
def test_unknown_kinds_are_refused(make: Any) -> None:
    with pytest.raises(InvalidArgument, match="expected"):
        make()


def test_patterns_choose_among_initializers() -> None:
    mixed = init.Mixed(["bias", ".*bias", ".*"], [init.One(), "zeros", init.Constant(7)])
    assert run(mixed, "a_bias", (1,)).tolist() == [0]
    assert run(mixed, "a_weight", (1,)).tolist() == [7]
    with pytest.raises(InvalidArgument, match="no pattern"):
        run(init.Mixed(["x"], [init.Zero()]), "a_weight")
    with pytest.raises(InvalidArgument, match="1 patterns, 0 initializers"):
        init.Mixed(["x"], [])


def test_values_are_loaded_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "some.params")
    save(path, {"arg:a_weight": array([5]), "aux:b": array([4])})
    loader = init.Load(path, default_init=init.One())
    assert [run(loader, n, (1,)).tolist() for n in ("a_weight", "b", "c_weight")] == [[5], [4], [1]]
    with pytest.raises(InvalidArgument, match=r"shape \(2,\), loaded \(1,\)"):
        run(loader, "a_weight", (2,))
    with pytest.raises(InvalidArgument, match="not loaded"):
        run(init.Load({"b": np.ones(1)}), "a_weight", (1,))


def test_an_initializer_of_ones_own_defines_its_weights() -> None:
    @init.register
    class Answer(init.Initializer):
        def __init__(self, value: int = 42):
            super().__init__(value=value)
            self.value = value

        def _init_weight(self, name: str, arr: NDArray) -> None:
            arr[:] = self.value

    assert [run(Answer(), n, (1,)).tolist() for n in ("a_weight", "a_bias", "a_gamma")] == [[42], [0], [1]]
    assert run(init.Zero(), "x", (1,), {"__init__": Answer(3).dumps()}).tolist() == [3]


def test_verbosity_logs_what_is_initialized(caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "dmod"):
        run(init.One().set_verbosity(True), "a_weight")
        run(init.One().set_verbosity(True, lambda arr: "custom"), "a_bias")
    assert caplog.messages == ["Initialized a_weight as weight: 1.0", "Initialized a_bias as bias: custom"]
