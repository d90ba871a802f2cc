"""`FlatUpdater`: the bits of updating array by array, however the buffer is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dmod import lr_scheduler
from dmod import optimizer as opt
from dmod.base import InvalidArgument
from dmod.ndarray.flat import FlatLayout
from dmod.ndarray.ndarray import NDArray
from dmod.optimizer.flat import CHUNK
from dmod.optimizer.states import join_flat, split_flat

ENTRIES = [
    (0, "fc1_weight", (300, 401)),
    (1, "fc1_bias", (300,)),
    (2, "fc2_weight", (10, 300)),
    (3, "fc2_bias", (10,)),
    (4, "bn_gamma", (10,)),
]
NAMES = {index: name for index, name, _ in ENTRIES}
STEPS = 4
PLAIN = {"wd": 0.01, "clip_gradient": 0.5, "rescale_grad": 1 / 3}
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("adam", {}),
    ("adam", PLAIN),
    ("adamax", PLAIN),
    ("nadam", PLAIN),
    ("ftml", PLAIN),
    ("adagrad", PLAIN),
    ("adadelta", PLAIN),
    ("rmsprop", {**PLAIN, "clip_weights": 0.7}),
    ("rmsprop", {**PLAIN, "centered": True}),
    ("ftrl", PLAIN),
    ("signum", PLAIN),
    ("signum", {**PLAIN, "momentum": 0.0}),
    ("dcasgd", PLAIN),
    ("dcasgd", {**PLAIN, "momentum": 0.9}),
    ("test", {}),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"wd": 0.01},
    {"momentum": 0.9, "wd": 0.01},
    {"momentum": 0.9, "wd": 0.01, "clip_gradient": 0.5, "rescale_grad": 1 / 3},
]
CASES = [(name, options) for name in ("sgd", "nag") for options in OPTIONS] + OTHERS


def make(name: str, **options: Any) -> opt.Optimizer:
    made = opt.create(
        name,
        param_idx2name=NAMES,
        lr_scheduler=lr_scheduler.FactorScheduler(step=2, factor=0.7, base_lr=0.3),
        multi_precision=True,
        **options,
    )
    made.set_lr_mult({"fc2_weight": 0.5})
    return made


def data(layout: FlatLayout) -> tuple[np.ndarray, list[np.ndarray]]:
    """A buffer of weights and one of gradients per step; the padding is zero."""
    rng = np.random.default_rng(3)
    buffers = [layout.allocate() for _ in range(STEPS + 1)]
    for buffer in buffers:
        for view in layout.views(buffer).values():
            view[...] = rng.normal(size=view.shape)
    return buffers[0], buffers[1:]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_bits_are_those_of_single_arrays(name: str, options: dict[str, Any], dtype: str) -> None:
    layout = FlatLayout.plan(ENTRIES, dtype)
    weight, grads = data(layout)
    single = {n: v.copy() for n, v in layout.views(weight).items()}
    flat = opt.FlatUpdater(make(name, **options), layout.segments, layout.size, dtype)
    updater = opt.get_updater(make(name, **options))
    for grad in grads:
        flat.update(weight, grad)
        for index, n, _ in ENTRIES:
            updater(index, NDArray(layout.views(grad)[n]), NDArray(single[n]))
    for n, view in layout.views(weight).items():
        assert view.tobytes() == single[n].tobytes(), n
    assert flat.count == updater.optimizer.num_update == flat.optimizer.num_update == STEPS


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("cuts", [[16], [64, 128, CHUNK + 7], [5, CHUNK, 120_299, 120_301, 120_601]])
@pytest.mark.parametrize(("name", "options"), [("sgd", OPTIONS[-1]), *OTHERS])
def test_the_bits_do_not_depend_on_how_the_buffer_is_cut(
    name: str, options: dict[str, Any], cuts: list[int], dtype: str
) -> None:
    layout = FlatLayout.plan(ENTRIES, dtype)
    weight, grads = data(layout)
    pieces = weight.copy()
    whole = opt.FlatUpdater(make(name, **options), layout.segments, layout.size, dtype)
    edges = [0, *cuts, layout.size]
    ranges = list(pairwise(edges))
    shared = make(name, **options)
    cut = [opt.FlatUpdater(shared, layout.cut(a, b), b - a, dtype) for a, b in ranges]
    for grad in grads:
        whole.update(weight, grad)
    for (a, b), updater in zip(reversed(ranges), reversed(cut), strict=True):  # one piece after the other
        for grad in grads:
            updater.update(pieces[a:b], grad[a:b])
    assert weight.tobytes() == pieces.tobytes()
    for i, state in enumerate(whole.get_states()):
        assert state.tobytes() == np.concatenate([u.get_states()[i] for u in cut]).tobytes()


@pytest.mark.parametrize(("name", "options"), [("sgd", OPTIONS[-1]), *OTHERS])
def test_padding_stays_zero(name: str, options: dict[str, Any]) -> None:
    layout = FlatLayout.plan(ENTRIES, "float32")
    weight, grads = data(layout)
    updater = opt.FlatUpdater(make(name, **options), layout.segments, layout.size, "float32")
    for grad in grads:
        updater.update(weight, grad)
    for view in layout.views(weight).values():
        view[...] = 0
    assert not weight.any()


def test_neighbours_with_equal_multipliers_are_one_run() -> None:
    layout = FlatLayout.plan([(i, f"w{i}_weight", (5,)) for i in range(6)], "float32")
    sgd = opt.SGD(param_idx2name={i: f"w{i}_weight" for i in range(6)}, wd=0.1)
    updater = opt.FlatUpdater(sgd, layout.segments, layout.size, "float32")
    assert len(updater._runs()) == 1
    sgd.set_wd_mult({2: 3.0})
    assert len(updater._runs()) == 3


def test_an_array_that_is_not_listed_is_left_alone() -> None:
    layout = FlatLayout.plan([(0, "a", (16,)), (1, "fixed", (1,)), (2, "b", (3,))], "float32")
    weight, grad = layout.allocate(), layout.allocate()
    grad[:] = 1
    segments = [s for s in layout.segments if s.name != "fixed"]
    opt.FlatUpdater(opt.SGD(learning_rate=1.0), segments, layout.size, "float32").update(weight, grad)
    assert weight[16] == 0 and weight[:16].all() and weight[32:35].all()


def test_a_change_of_rates_holds_from_the_next_update() -> None:
    layout = FlatLayout.plan([(0, "a_weight", (3,)), (1, "b_weight", (3,))], "float32")
    sgd = opt.SGD(learning_rate=1.0, param_idx2name={0: "a_weight", 1: "b_weight"})
    updater = opt.FlatUpdater(sgd, layout.segments, layout.size, "float32")
    weight, grad = layout.allocate(), np.ones(layout.size, np.float32)
    changes = [
        lambda: None,
        lambda: sgd.set_learning_rate(2.0),
        lambda: sgd.lr_mult.update(b_weight=0.0),
        lambda: setattr(sgd, "rescale_grad", 0.5),
        lambda: setattr(sgd, "wd", 1.0),
    ]
    seen = []
    for change in changes:
        change()
        updater.update(weight, grad)
        seen.append((float(weight[0]), float(weight[16])))
    assert seen == [(-1, -1), (-3, -3), (-5, -3), (-6, -3), (5, -3)]


def test_each_updater_asks_the_schedule_for_its_own_count() -> None:
    schedule = lr_scheduler.FactorScheduler(step=1, factor=0.5, base_lr=1.0)
    sgd = opt.SGD(lr_scheduler=schedule, begin_num_update=1)
    layout = FlatLayout.plan([(0, "w", (1,))], "float32")
    fast, slow = (opt.FlatUpdater(sgd, layout.segments, layout.size, "float32") for _ in range(2))
    grad = np.ones(layout.size, np.float32)
    there, here = layout.allocate(), layout.allocate()
    for _ in range(3):
        fast.update(there, grad)
    for _ in range(3):
        slow.update(here, grad)
    assert here[0] == there[0] == -(0.5 + 0.25 + 0.125)
    assert (fast.count, slow.count) == (4, 4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize(("name", "options"), [("sgd", OPTIONS[-1]), *OTHERS])
def test_saved_states_go_on_to_the_same_bits(
    name: str, options: dict[str, Any], steps: int, dtype: str
) -> None:
    layout = FlatLayout.plan(ENTRIES, dtype)
    weight, grads = data(layout)
    first = opt.FlatUpdater(make(name, **options), layout.segments, layout.size, dtype)
    for grad in grads[:steps]:
        first.update(weight, grad)
    entries = split_flat(layout.segments, first.get_states(), first.count)
    copy = weight.copy()
    second = opt.FlatUpdater(make(name, **options), layout.segments, layout.size, dtype)
    second.set_states(*join_flat(layout.segments, layout.size, second.state_dtypes, entries))
    for grad in grads[steps:]:
        first.update(weight, grad)
        second.update(copy, grad)
    assert weight.tobytes() == copy.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("name", "options"), [("sgd", {"momentum": 0.9}), *OTHERS])
def test_states_pass_between_flat_and_single_updaters(name: str, options: dict[str, Any], dtype: str) -> None:
    layout = FlatLayout.plan(ENTRIES, dtype)
    weight, grads = data(layout)
    flat = opt.FlatUpdater(make(name, **options), layout.segments, layout.size, dtype)
    flat.update(weight, grads[0])
    single = opt.get_updater(make(name, **options))
    single.from_states(opt.OptimizerStates(None, split_flat(layout.segments, flat.get_states(), flat.count)))
    arrays = {n: v.copy() for n, v in layout.views(weight).items()}
    for index, n, _ in ENTRIES:
        single(index, NDArray(layout.views(grads[1])[n]), NDArray(arrays[n]))
    flat.update(weight, grads[1])
    assert all(view.tobytes() == arrays[n].tobytes() for n, view in layout.views(weight).items())
    back = join_flat(layout.segments, layout.size, flat.state_dtypes, single.to_states().entries)
    assert back[1] == 2
    assert [a.tobytes() for a in back[0]] == [a.tobytes() for a in flat.get_states()]


def test_states_that_do_not_fit_are_refused_and_change_nothing() -> None:
    layout = FlatLayout.plan([(0, "w", (4,))], "float32")
    updater = opt.FlatUpdater(opt.SGD(momentum=0.9), layout.segments, layout.size, "float32")
    for arrays in (
        [],
        [np.ones(3, np.float32)],
        [np.ones(layout.size)],
        [np.ones(layout.size, np.float32)] * 2,
    ):
        with pytest.raises(InvalidArgument, match="has states float32"):
            updater.set_states(arrays, 5)
    assert updater.count == 0 and not updater.get_states()[0].any()
    with pytest.raises(InvalidArgument, match="none for parameter 'w'"):
        join_flat(layout.segments, layout.size, ["float32"], {})
    with pytest.raises(InvalidArgument, match="of shape \\(4,\\)"):
        join_flat(layout.segments, layout.size, ["float32"], {0: opt.StateEntry("w", 1, ())})


def test_buffers_of_another_size_or_dtype_are_refused() -> None:
    updater = opt.FlatUpdater(opt.SGD(), (), 4, "float32")
    for weight, grad in [
        (np.ones(3, "f4"), np.ones(4, "f4")),
        (np.ones(4, "f4"), np.ones(5, "f4")),
        (np.ones(4), np.ones(4)),
    ]:
        with pytest.raises(InvalidArgument, match="flat update"):
            updater.update(weight, grad)
    assert updater.count == 0


def test_an_optimizer_that_is_not_flat_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="Updater"):
        opt.FlatUpdater(opt.Optimizer(), (), 4, "float32")


def test_overflow_and_nan_pass_through_without_warnings() -> None:
    updater = opt.FlatUpdater(opt.SGD(momentum=0.9, learning_rate=1e30), (), 3, "float32")
    layout = FlatLayout.plan([(0, "w", (3,))], "float32")
    updater = opt.FlatUpdater(
        opt.SGD(momentum=0.9, learning_rate=1e30), layout.segments, layout.size, "float32"
    )
    weight, grad = layout.allocate(), layout.allocate()
    grad[:3] = np.inf, np.nan, 1e30
    updater.update(weight, grad)
    assert np.isinf(weight[0]) and np.isnan(weight[1]) and np.isinf(weight[2])
