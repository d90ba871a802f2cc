"""Optimizers array by array: MXNet's numbers, multipliers, states, descriptions."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from dmod import lr_scheduler
from dmod import optimizer as opt
from dmod.base import FormatError, InvalidArgument
from dmod.context import Context
from dmod.ndarray.ndarray import NDArray, array

STEPS = json.loads((Path(__file__).parent.parent / "fixtures" / "optimizers.json").read_text())
NAMES = {0: "fc_weight", 1: "fc_bias", 2: "bn_gamma", 3: "bn_beta", 4: "emb", 5: "lstm_parameters"}


class FakeSymbol:
    """The attributes of a symbol's variables, which is all that an optimizer asks a symbol for."""

    def attr_dict(self) -> dict[str, dict[str, str]]:
        return {"fc_bias": {"__lr_mult__": "3", "__wd_mult__": "7"}, "fc": {"num_hidden": "3"}}

    def list_arguments(self) -> list[str]:
        return ["x", "fc_weight", "fc_bias"]


@pytest.mark.parametrize(("name", "options", "dtype", "start", "grads", "weights"), STEPS)
def test_steps_are_those_of_mxnet(
    name: str, options: dict[str, Any], dtype: str, start: Any, grads: Any, weights: Any
) -> None:
    updater = opt.get_updater(opt.create(name, multi_precision=True, **options))
    weight = array(start, dtype=dtype)
    tolerance = {"float32": 3e-7, "float16": 1e-3}[dtype]
    for grad, expected in zip(grads, weights, strict=True):
        updater(0, array(grad, dtype=dtype), weight)
        np.testing.assert_allclose(weight.asnumpy(), np.array(expected, dtype), tolerance, tolerance)


def test_only_weights_and_gammas_decay_when_names_are_known() -> None:
    sgd = opt.SGD(param_idx2name=NAMES, wd=0.5)
    assert [sgd._get_wd(i) for i in NAMES] == [0.5, 0.0, 0.5, 0.0, 0.0, 0.0]
    assert opt.SGD(wd=0.5)._get_wd(1) == 0.5


def test_multipliers_come_from_the_symbol_and_from_calls() -> None:
    sgd = opt.SGD(param_idx2name=NAMES, wd=0.5, learning_rate=0.25, sym=FakeSymbol())
    assert (sgd._get_lr(1), sgd._get_wd(1)) == (0.75, 3.5)
    sgd.set_lr_mult({"fc_weight": 5, 2: 9})
    sgd.set_wd_mult({"emb": 2, 1: 4})
    assert [sgd._get_lr(i) for i in range(4)] == [1.25, 0.75, 2.25, 0.25]
    assert [sgd._get_wd(i) for i in range(5)] == [0.5, 2.0, 0.5, 0.0, 1.0]


def test_a_schedule_counts_updates_from_begin_num_update() -> None:
    schedule = lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=1.0)
    sgd = opt.SGD(lr_scheduler=schedule, begin_num_update=2)
    weight, seen = array([0.0]), []
    for _ in range(3):
        before = weight.asnumpy()
        sgd.update(0, weight, array([-1.0]), None)
        seen.append(float((weight.asnumpy() - before)[0]))
    assert seen == [0.5, 0.5, 0.25]
    assert (sgd.num_update, sgd.learning_rate) == (5, 0.25)


def test_an_explicit_learning_rate_becomes_the_base_of_the_schedule(caplog: Any) -> None:
    schedule = lr_scheduler.FactorScheduler(step=10)
    sgd = opt.SGD(learning_rate=0.3, lr_scheduler=schedule)
    assert (schedule.base_lr, sgd.lr, sgd.learning_rate) == (0.3, 0.3, 0.3)
    assert "gives way" in caplog.text
    with pytest.raises(UserWarning, match="lr_scheduler"):
        sgd.set_learning_rate(1.0)


def test_set_learning_rate_holds_from_the_next_update() -> None:
    sgd, weight = opt.SGD(learning_rate=1.0), array([0.0])
    sgd.set_learning_rate(0.5)
    sgd.update(0, weight, array([1.0]), None)
    assert weight.asscalar() == -0.5


def test_an_array_that_is_not_contiguous_is_updated_in_place() -> None:
    base = np.ones((3, 4), np.float32)
    opt.SGD(learning_rate=1.0, momentum=0.5).update(
        0, NDArray(base.T), array(np.ones((4, 3))), array(np.zeros((4, 3)))
    )
    assert (base == 0).all()


def test_lists_of_parameters_are_updated_in_one_call() -> None:
    updater = opt.get_updater(opt.SGD(learning_rate=1.0, momentum=0.5))
    weights = [array([1.0]), array([2.0])]
    updater([0, 1], [array([1.0]), array([1.0])], weights)
    assert [w.asscalar() for w in weights] == [0.0, 1.0]
    assert sorted(updater.states) == [0, 1]


def test_float16_momentum_and_copy_come_in_mxnets_order() -> None:
    weight = array([1.0, 2.0], dtype="float16")
    momentum, master = opt.SGD(momentum=0.9, multi_precision=True).create_state_multi_precision(0, weight)
    assert momentum.dtype == master.dtype == np.float32
    assert master.asnumpy().tolist() == [1.0, 2.0] and momentum.asnumpy().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_updater_goes_on_to_the_same_bits_from_saved_states(dtype: str, momentum: float) -> None:
    def updater() -> opt.Updater:
        schedule = lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=1.0)
        return opt.get_updater(opt.SGD(momentum=momentum, lr_scheduler=schedule, multi_precision=True))

    rng = np.random.default_rng(0)
    first, weight = updater(), array(rng.normal(size=5), dtype=dtype)
    grads = [array(rng.normal(size=5), dtype=dtype) for _ in range(6)]
    for grad in grads[:3]:
        first(0, grad, weight)
    second, twin = updater(), weight.copy()
    second.set_states(first.get_states())
    for grad in grads[3:]:
        first(0, grad, weight)
        second(0, grad, twin)
    assert weight.asnumpy().tobytes() == twin.asnumpy().tobytes()
    assert second.optimizer.num_update == 6


def test_a_dumped_optimizer_is_taken_over() -> None:
    first = opt.get_updater(opt.SGD(momentum=0.9, learning_rate=0.7))
    first(0, array([1.0]), array([1.0]))
    second = opt.get_updater(opt.SGD())
    second.set_states(first.get_states(dump_optimizer=True))
    assert (second.optimizer.momentum, second.optimizer.lr) == (0.9, 0.7)


def test_states_of_another_shape_are_refused_at_their_first_use() -> None:
    first = opt.get_updater(opt.SGD(momentum=0.9))
    first(0, array([1.0]), array([1.0]))
    second = opt.get_updater(opt.SGD(momentum=0.9))
    second.set_states(first.get_states())
    with pytest.raises(InvalidArgument, match=r"shapes \[\(1,\)\]"):
        second(0, array([1.0, 2.0]), array([1.0, 2.0]))


def test_a_pickle_of_anything_but_arrays_is_refused_and_changes_nothing() -> None:
    updater = opt.get_updater(opt.SGD(momentum=0.9))
    updater(0, array([1.0]), array([1.0]))
    with pytest.raises(FormatError, match="pickle"):
        updater.set_states(pickle.dumps({0: print}))
    assert list(updater.states) == [0]


def test_states_move_to_another_device() -> None:
    there = Context("cpu", 1)
    moved = opt.get_updater(opt.SGD()).sync_state_context((array([1.0]), None), there)
    assert moved[0].context == there and moved[1] is None


# ---- names and descriptions


def test_an_unknown_name_is_refused_with_near_names() -> None:
    with pytest.raises(InvalidArgument, match="'sgd'"):
        opt.create("sgdd")


def test_an_optimizer_passes_through_create() -> None:
    sgd = opt.SGD()
    assert opt.create(sgd) is sgd
    assert type(opt.create("SGD", momentum=0.5)) is opt.SGD
    with pytest.raises(InvalidArgument):
        opt.create(sgd, momentum=0.5)


@pytest.mark.parametrize(
    "options", [{"learning_rate": "0.1"}, {"wd": None}, {"param_idx2name": ["x"]}, {"clip_gradient": []}]
)
def test_arguments_that_are_not_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        opt.SGD(**options)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no parameter 'momentun'; did you mean 'momentum'"):
        opt.create("sgd", momentun=0.9)


def test_a_description_survives_msgpack() -> None:
    first = opt.SGD(
        momentum=np.float32(0.5),
        learning_rate=0.3,
        wd=0.01,
        clip_gradient=2.0,
        rescale_grad=1 / 64,
        param_idx2name=NAMES,
        sym=FakeSymbol(),
        begin_num_update=4,
        lr_scheduler=lr_scheduler.PolyScheduler(100, base_lr=0.3),
    )
    first.set_lr_mult({2: 0.5})
    second = opt.from_config(msgpack.unpackb(msgpack.packb(first.to_config())))
    assert second.to_config() == first.to_config()
    assert (second._get_wd(1), second._get_lr(2), second.num_update) == (
        first._get_wd(1),
        first._get_lr(2),
        4,
    )
    assert (second.momentum, second.clip_gradient, second.rescale_grad) == (0.5, 2.0, 1 / 64)


def test_an_optimizer_of_ones_own_has_no_description_and_is_not_flat() -> None:
    class Mine(opt.SGD):
        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            raise AssertionError

    with pytest.raises(opt.NotSerializable):
        Mine().to_config()
    assert not opt.supports_flat(Mine()) and opt.supports_flat(opt.SGD())


def test_a_schedule_of_ones_own_has_no_description() -> None:
    class Mine(lr_scheduler.LRScheduler):
        def __call__(self, num_update: int) -> float:
            return 1.0

    with pytest.raises(opt.NotSerializable):
        opt.SGD(lr_scheduler=Mine()).to_config()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "os.system"},
        {"name": 3},
        {"name": "Optimizer"},
        {"params": {"sym": "x", "learning_rate": 0.1}},
        {"params": {"learning_rate": "x"}},
        {"params": {}},
        {"lr_scheduler": {"name": "nope"}},
        {"lr_mult": [[["x"], 1]]},
        {"wd_mult": 3},
        {"idx2name": {"a": "b"}},
    ],
)
def test_a_description_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        opt.from_config({**opt.SGD().to_config(), **change})


def test_a_registered_optimizer_is_found_by_name_and_run() -> None:
    @opt.register
    class Halving(opt.Optimizer):
        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            self._update_count(index)
            weight[:] = weight - self._get_lr(index) * grad / 2

    weight = array([4.0])
    updater = opt.get_updater(opt.create("halving", learning_rate=1.0))
    updater(0, array([2.0]), weight)
    assert weight.asscalar() == 3.0
    assert updater.to_states(dump_optimizer=True).config is None


def test_an_optimizer_is_copied_without_the_objects_of_param_dict() -> None:
    class Parameter:
        lr_mult, wd_mult = 2.0, 3.0

    first = opt.Adam(learning_rate=0.5, param_dict={0: Parameter()})
    second = copy.deepcopy(first)
    assert (first._get_lr(0), second._get_lr(0), second.lr, second.param_dict) == (1.0, 0.5, 0.5, {})
