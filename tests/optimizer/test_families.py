"""What trajectories don't show: sparse gradients, noise, where MXNet errs, descriptions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmod import optimizer as opt
from dmod.base import InvalidArgument
from dmod.device import random as device_random
from dmod.ndarray.ndarray import array
from dmod.ndarray.sparse import row_sparse_array

FLAT = [
    "sgd", "ccsgd", "nag", "signum", "ftml", "dcasgd", "adam", "adagrad", "adadelta", "rmsprop", "ftrl",
    "adamax", "nadam", "test",
]  # fmt: skip
ALL = [*FLAT, "lars", "lbsgd", "lamb", "sgld"]
OPTIONS = {"learning_rate": 0.1, "wd": 0.01, "clip_gradient": 0.4, "rescale_grad": 0.5}


@pytest.mark.parametrize("name", ALL)
def test_every_optimizer_is_described_and_made_again(name: str) -> None:
    first = opt.create(name, **OPTIONS)
    second = opt.from_config(first.to_config())
    assert type(first) is type(second) and first.to_config() == second.to_config()
    assert opt.supports_flat(first) is (name in FLAT)


@pytest.mark.parametrize("name", ALL)
def test_float16_weights_follow_their_float32_copy(name: str) -> None:
    rng = np.random.default_rng(0)
    low = opt.get_updater(opt.create(name, multi_precision=True, **OPTIONS))
    high = opt.get_updater(opt.create(name, **OPTIONS))
    start = rng.uniform(-1, 1, 7).astype(np.float16)
    narrow, wide = array(start, dtype="float16"), array(start, dtype="float32")
    for _ in range(5):
        grad = rng.uniform(-1, 1, 7).astype(np.float16)
        low(0, array(grad, dtype="float16"), narrow)
        high(0, array(grad, dtype="float32"), wide)
    assert narrow.asnumpy().tobytes() == wide.asnumpy().astype(np.float16).tobytes()


def sparse_and_dense() -> tuple[Any, np.ndarray]:
    rows = np.array([[1.0, -2.0], [0.5, 3.0]], np.float32)
    dense = np.zeros((5, 2), np.float32)
    dense[[1, 3]] = rows
    return row_sparse_array((rows, [1, 3]), shape=(5, 2)), dense


@pytest.mark.parametrize(
    ("name", "options"),
    [("sgd", {"momentum": 0.9}), ("sgd", {}), ("adam", {}), ("adagrad", {}), ("ftrl", {})],
)
def test_lazy_updates_touch_only_rows_with_a_gradient(name: str, options: dict[str, Any]) -> None:
    sparse, dense = sparse_and_dense()
    start = np.arange(1, 11, dtype=np.float32).reshape(5, 2)
    lazy, whole = array(start), array(start)
    one, other = (opt.get_updater(opt.create(name, **OPTIONS, **options)) for _ in range(2))
    for _ in range(3):
        one(0, sparse, lazy)
        other(0, array(dense), whole)
    left = lazy.asnumpy()
    assert left[[1, 3]].tobytes() == whole.asnumpy()[[1, 3]].tobytes()
    assert left[[0, 2, 4]].tobytes() == start[[0, 2, 4]].tobytes()


@pytest.mark.parametrize(
    ("name", "options"),
    [("sgd", {"lazy_update": False}), ("adam", {"lazy_update": False}), ("rmsprop", {}), ("lamb", {})],
)
def test_other_updates_take_a_sparse_gradient_for_a_dense_one(name: str, options: dict[str, Any]) -> None:
    sparse, dense = sparse_and_dense()
    left, right = array(np.ones((5, 2))), array(np.ones((5, 2)))
    opt.get_updater(opt.create(name, **OPTIONS, **options))(0, sparse, left)
    opt.get_updater(opt.create(name, **OPTIONS, **options))(0, array(dense), right)
    assert left.asnumpy().tobytes() == right.asnumpy().tobytes()
    assert left.asnumpy()[0, 0] != 1


def noise(index: Any, step: int = 1, seed: int = 3) -> np.ndarray:
    device_random.seed(seed)
    sgld, weight = opt.SGLD(learning_rate=0.25, begin_num_update=step - 1), array(np.zeros((200, 50)))
    sgld.update(index, weight, array(np.zeros((200, 50))), None)
    return weight.asnumpy()


def test_noise_follows_from_seed_index_and_step_alone() -> None:
    first = noise(0)
    assert first.tobytes() == noise(0).tobytes()
    others = [noise(1), noise(0, step=2), noise(0, seed=4), noise("fc_weight")]
    assert len({first.tobytes(), *(o.tobytes() for o in others)}) == 5
    assert abs(first.std() - 0.5) < 0.02 and abs(first.mean()) < 0.02


def test_weights_without_gradient_stay_finite_in_adamax() -> None:
    weight = array([1.0, 2.0])
    opt.get_updater(opt.Adamax())(0, array([0.0, 1.0]), weight)
    assert weight.asnumpy()[0] == 1 and weight.asnumpy()[1] < 2


@pytest.mark.parametrize("name", ["ftml", "ftrl"])
def test_a_rate_of_zero_changes_nothing(name: str) -> None:
    weight = array([1.0, 2.0])
    opt.get_updater(opt.create(name, learning_rate=0.0))(0, array([0.5, 1.0]), weight)
    assert weight.asnumpy().tolist() == [1.0, 2.0]


def test_nadams_arrays_do_not_depend_on_each_other() -> None:
    alone, together = (opt.get_updater(opt.Nadam(learning_rate=0.1)) for _ in range(2))
    left, right, second = array([1.0]), array([1.0]), array([1.0])
    for _ in range(4):
        alone(0, array([0.5]), left)
        together(0, array([0.5]), right)
        together(1, array([0.5]), second)
    assert left.asscalar() == right.asscalar() == second.asscalar()


def test_momentum_of_dcasgd_takes_whole_arrays() -> None:
    updater, weight = (
        opt.get_updater(opt.DCASGD(momentum=0.5, learning_rate=1.0, lamda=2.0)),
        array([0.0, 0.0]),
    )
    for _ in range(2):
        updater(0, array([1.0, 0.5]), weight)
    # First -g; then 0.5 * -g - (g + 2 * g * g * -g).
    expected = [-1 - 0.5 - 1 + 2, -0.5 - 0.25 - 0.5 + 0.25]
    np.testing.assert_allclose(weight.asnumpy(), expected, 1e-6)


def test_large_batches_are_gathered() -> None:
    updater = opt.get_updater(opt.LBSGD(batch_scale=2, warmup_epochs=0, learning_rate=0.5))
    weight, seen = array([0.0]), []
    for grad in (1.0, 3.0, 5.0, 7.0):
        updater(0, array([grad]), weight)
        seen.append(weight.asscalar())
    assert seen == [0.0, -2.0, -2.0, -8.0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {"beta1": "x"}),
        ("rmsprop", {"clip_weights": []}),
        ("lbsgd", {"batch_scale": 0}),
        ("ftrl", {"beta": None}),
        ("nadam", {"schedule_decay": {}}),
    ],
)
def test_arguments_that_are_no_numbers_are_named(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        opt.create(name, **options)
