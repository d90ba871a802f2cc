"""Compiled steps: numpy's bits, one call for a whole buffer, and only for whose step they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmod import optimizer as opt
from dmod.device import compiled_optimizers
from dmod.kvstore.tree import LastSum
from dmod.ndarray.flat import FlatLayout, aligned_empty
from dmod.ndarray.ndarray import array

ENTRIES = [(0, "a_weight", (300, 233)), (1, "a_bias", (300,)), (2, "b_gamma", (50,)), (3, "c_weight", (77,))]
NAMES = {index: name for index, name, _ in ENTRIES}
STEPS = 3
CASES: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("nag", {}),
    ("nag", {"momentum": 0.9}),
    ("adam", {}),
    ("adagrad", {}),
    ("rmsprop", {}),
    ("rmsprop", {"clip_weights": 0.9}),
]


def make(name: str, options: dict[str, Any], **more: Any) -> opt.Optimizer:
    made = opt.create(name, learning_rate=0.1, rescale_grad=1 / 3, param_idx2name=NAMES, **options, **more)
    made.set_lr_mult({"b_gamma": 0.25})
    made.set_wd_mult({"c_weight": 2.0})
    return made


def updated(optimizer: opt.Optimizer, in_two: bool = False) -> list[np.ndarray]:
    """Weights and states after some updates, with infinite and undefined gradients among them.

    With `in_two` they are sums that the updater takes itself.
    """
    layout = FlatLayout.plan(ENTRIES, "float32")
    updater = opt.FlatUpdater(optimizer, layout.segments, layout.size, "float32")
    rng = np.random.default_rng(1)
    weight = layout.allocate()
    for view in layout.views(weight).values():
        view[...] = rng.normal(size=view.shape)
    for _ in range(STEPS):
        grad = rng.normal(size=layout.size).astype(np.float32)
        grad[:4] = np.nan, np.inf, -np.inf, 0
        other = rng.normal(size=layout.size).astype(np.float32)
        updater.update(weight, LastSum(grad, other, grad.dtype, aligned_empty) if in_two else grad + other)
    return [weight, *updater.get_states()]


@pytest.mark.parametrize("wd", [0.0, 0.01])
@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_bits_are_numpys(
    name: str, options: dict[str, Any], clip: float | None, wd: float, request: pytest.FixtureRequest
) -> None:
    compiled = updated(make(name, options, clip_gradient=clip, wd=wd))
    request.getfixturevalue("without_numba")
    for left, right in zip(compiled, updated(make(name, options, clip_gradient=clip, wd=wd)), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("clip", [None, 0.4])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_sum_that_is_taken_on_the_way_has_the_same_bits(
    name: str, options: dict[str, Any], clip: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimizer = make(name, options, clip_gradient=clip, wd=0.01)
    before = updated(make(name, options, clip_gradient=clip, wd=0.01))
    monkeypatch.delattr(LastSum, "__getitem__")  # what compiled steps do not need
    for left, right in zip(updated(optimizer, in_two=True), before, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_multipliers_do_not_split_the_buffer(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = "sgd" if not options.get("momentum") and name in ("sgd", "nag") else name
    kernel = "sgd_momentum" if name == "sgd" and options else kernel
    ranges = []
    run = getattr(compiled_optimizers, kernel)

    def counted(*arrays: np.ndarray) -> None:
        ranges.append(len(arrays[-3]))
        run(*arrays)

    monkeypatch.setattr(compiled_optimizers, kernel, counted)
    updated(make(name, options, wd=0.01))
    assert ranges == [4] * STEPS


class Backwards(opt.SGD):
    """A step of its own, which the compiled one of its base does not compute."""

    flat = True

    def step(self, weight: Any, grad: Any, states: Any, lr: float, wd: float, scratch: Any, t: int) -> None:
        weight += np.float32(lr) * grad


def test_a_step_that_is_overridden_is_not_compiled() -> None:
    weight = array([1.0, 2.0])
    optimizer = Backwards(learning_rate=0.5)
    optimizer.update(0, weight, array([1.0, 1.0]), None)
    assert weight.asnumpy().tolist() == [1.5, 2.5]
    updater = opt.FlatUpdater(optimizer, FlatLayout.plan([(0, "w", (2,))], "float32").segments, 2, "float32")
    updater.update(weight._data, np.ones(2, np.float32))
    assert weight.asnumpy().tolist() == [2.0, 3.0]
