"""Stores within one process: names, keys and values, sums in the tree, the optimizer and its states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import optimizer as opt
from dmod.base import InvalidArgument, KVStoreError, NotReadyError, UnknownKeyError
from dmod.kvstore import KVStoreType, create
from dmod.kvstore.reduce import DeviceSum
from dmod.kvstore.tree import tree_sum
from dmod.ndarray.flat import FlatLayout
from dmod.ndarray.ndarray import NDArray, array, ones, zeros


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nccl", "there is none that can be used here"),
        ("p3store", "unknown kind of store"),
        ("dist_snyc", "did you mean 'dist_sync'"),
        ("localhost", "did you mean 'local'"),
        ("zzz", "known: 'local'"),
        (3, "expected a name"),
    ],
)
def test_a_kind_of_store_that_is_not_there_is_refused_by_name(name: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        create(name)


def test_names_are_parsed_whole_and_regardless_of_case() -> None:
    assert create("Local_Allreduce_CPU").type == "local_allreduce_cpu"
    assert KVStoreType.parse("dist_device_sync") == KVStoreType("dist_device_sync", True, True)
    assert KVStoreType.parse("dist_async_device") == KVStoreType("dist_async_device", True, True, True)
    assert not KVStoreType.parse("dist").asynchronous
    assert KVStoreType.parse("local_allreduce_device").on_device


def test_a_push_stores_the_sum_over_devices_and_replaces_what_was_there() -> None:
    kv, out = create("local"), [zeros((2, 2)), zeros((2, 2))]
    kv.init(3, ones((2, 2)))
    kv.push(3, [ones((2, 2)) * 2, ones((2, 2)) * 3])
    kv.pull(3, out=out)
    assert [o.asnumpy().tolist() for o in out] == [[[5, 5], [5, 5]]] * 2
    kv.push([3, 3], [ones((2, 2)), ones((2, 2)) * 5])  # as in MXNet: one key twice is one sum
    kv.pull(3, out=out[0])
    assert out[0].asnumpy()[0, 0] == 6


def test_pushpull_without_out_writes_into_the_values() -> None:
    kv = create("device")
    kv.broadcast(["a", "b"], [ones((2,)), ones((3,))], out=[zeros((2,)), zeros((3,))])
    values = [[ones((2,)), ones((2,))], [ones((3,))]]
    kv.pushpull(["a", "b"], values)
    assert values[0][1].asnumpy().tolist() == [2, 2]


def test_an_updater_gets_key_sum_and_stored_value() -> None:
    kv, calls, out = create("local"), [], zeros((2,))
    kv.init("w", ones((2,)))

    def updater(key: Any, grad: NDArray, weight: NDArray) -> None:
        calls.append((key, grad.asnumpy().tolist()))
        weight += grad * 10

    kv._set_updater(updater)
    kv.pushpull("w", [ones((2,)), ones((2,))], out=out)
    assert calls == [("w", [2, 2])] and out.asnumpy().tolist() == [21, 21]


def test_misuse_names_key_and_remedy() -> None:
    kv = create("local")
    kv.init("fc1_weight", zeros((4, 3)))
    with pytest.raises(
        InvalidArgument, match=r"push\('fc1_weight'\): shape \(3, 4\), initialised as \(4, 3\)"
    ):
        kv.push("fc1_weight", zeros((3, 4)))
    with pytest.raises(InvalidArgument, match="dtype float64, initialised as float32"):
        kv.push("fc1_weight", zeros((4, 3), dtype="float64"))
    with pytest.raises(UnknownKeyError, match=r"push\('b'\): unknown key: init\('b', value\) comes first"):
        kv.push("b", zeros((1,)))
    with pytest.raises(InvalidArgument, match="initialised already"):
        kv.init("fc1_weight", zeros((4, 3)))
    with pytest.raises(InvalidArgument, match="mixed key types"):
        kv.push(3, zeros((1,)))
    with pytest.raises(InvalidArgument, match="expected out="):
        kv.pull("fc1_weight")
    with pytest.raises(InvalidArgument, match="2 keys, but 1 values"):
        kv.push(["a", "b"], [zeros((1,))])
    with pytest.raises(InvalidArgument, match="expected NDArray"):
        kv.push("fc1_weight", np.zeros((4, 3)))
    with pytest.raises(NotReadyError, match="set_optimizer"):
        kv.save_optimizer_states("unused.states")
    with pytest.raises(InvalidArgument, match="expected an Optimizer"):
        kv.set_optimizer("sgd")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="'local' store moves nothing that could be compressed"):
        kv.set_gradient_compression({"type": "2bit"})


def test_optimizer_states_of_modules_that_share_a_store_are_told_apart() -> None:
    kv = create("local")
    kv.set_optimizer(opt.create("sgd", learning_rate=1.0, momentum=0.5))
    layout = FlatLayout.plan([(0, "weight", (2,))], "float32")
    for name, grad in (("one", 1.0), ("other", 2.0)):
        weights = layout.allocate()
        kv.init_flat(name, layout, [weights])
        kv.pushpull_flat(name, [np.full(layout.size, grad, np.float32)], [weights])
    one, other = kv.get_optimizer_states(names=["one"]), kv.get_optimizer_states(names=["other"])
    assert one.entries[0].arrays[0].tolist() == [-1, -1] and other.entries[0].arrays[0].tolist() == [-2, -2]
    with pytest.raises(KVStoreError, match="save the states through each module"):
        kv.get_optimizer_states()
    kv.set_optimizer_states(one, names=["other"])
    assert kv.get_optimizer_states(names=["other"]).entries[0].arrays[0].tolist() == [-1, -1]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_sum_over_devices_is_the_tree_s_bit_for_bit(n: int, dtype: str) -> None:
    size = 200_000  # more than one chunk
    arrays = [np.random.default_rng(i).normal(size=size).astype(dtype) for i in range(n)]
    before = [a.copy() for a in arrays]
    total = DeviceSum(n, size, dtype)(arrays)
    np.testing.assert_array_equal(total.astype(dtype), tree_sum(arrays))
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)


LAYOUT = FlatLayout.plan([(0, "weight", (5, 3)), (1, "bias", (5,))], "float32")


def run_flat(kv: Any, steps: int, weights: list[np.ndarray]) -> None:
    for step in range(steps):
        grads = [LAYOUT.allocate(), LAYOUT.allocate()]
        for device, grad in enumerate(grads):
            for view in LAYOUT.views(grad).values():  # what lies between stays zero
                view[...] = 1 + step + device
        kv.pushpull_flat("flat", grads, weights)


def make_flat(rate: float = 0.1) -> tuple[Any, list[np.ndarray]]:
    kv, weights = create("local"), [LAYOUT.allocate(), LAYOUT.allocate()]
    LAYOUT.views(weights[0])["weight"][...] = 1
    kv.init_flat("flat", LAYOUT, weights)
    kv.set_optimizer(
        opt.create("sgd", learning_rate=rate, momentum=0.9, param_idx2name={0: "weight", 1: "bias"})
    )
    return kv, weights


def test_flat_weights_follow_the_optimizer_on_every_device() -> None:
    kv, weights = make_flat()
    np.testing.assert_array_equal(weights[0], weights[1])
    run_flat(kv, 3, weights)
    np.testing.assert_array_equal(weights[0], weights[1])
    single = create("local")
    values = {
        name: array(np.ones(s) if name == "weight" else np.zeros(s))
        for name, s in (("weight", (5, 3)), ("bias", (5,)))
    }
    single.init([0, 1], list(values.values()))
    single.set_optimizer(
        opt.create("sgd", learning_rate=0.1, momentum=0.9, param_idx2name={0: "weight", 1: "bias"})
    )
    for step in range(3):
        for key, value in enumerate(values.values()):
            grads = [ones(value.shape) * (1 + step + d) for d in range(2)]
            single.pushpull(key, grads, out=value)
    views = LAYOUT.views(weights[0])
    for name, value in values.items():
        np.testing.assert_array_equal(views[name], value.asnumpy())


def test_saved_states_continue_to_the_same_bits(tmp_path: Path) -> None:
    kv, weights = make_flat()
    run_flat(kv, 2, weights)
    kv.save_optimizer_states(str(tmp_path / "x.states"), dump_optimizer=True)
    other, others = make_flat(rate=7.0)  # the file has the optimizer too
    for a, b in zip(others, weights, strict=True):
        a[...] = b
    other.load_optimizer_states(str(tmp_path / "x.states"))
    run_flat(kv, 2, weights)
    run_flat(other, 2, others)
    np.testing.assert_array_equal(weights[0], others[0])


def test_mode_sum_leaves_the_sum_in_every_out() -> None:
    kv = create("local")
    grads = [np.ones(LAYOUT.size, np.float32), np.ones(LAYOUT.size, np.float32)]
    kv.init_flat("sums", LAYOUT, grads, mode="sum")
    kv.set_optimizer(opt.create("sgd"))
    kv.pushpull_flat("sums", grads, grads)
    assert grads[0][0] == grads[1][0] == 2
    assert kv.end_epoch() == () and kv.num_slots(2) == 2 and kv.first_slot(2) == 0
