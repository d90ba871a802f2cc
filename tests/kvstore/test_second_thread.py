"""A server's second thread: the same bits, errors that come back, and a life of its own after a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dmod import optimizer as opt
from dmod.base import MXNetError
from dmod.kvstore import second_thread
from dmod.kvstore.second_thread import SecondThread
from dmod.kvstore.tree import TreeSum, tree_sum
from dmod.ndarray.flat import FlatLayout, Segment
from dmod.optimizer import flat

DEADLINE_S = 20.0
ENTRIES = [(0, "a_weight", (300, 233)), (1, "a_bias", (301,)), (2, "b_gamma", (50,)), (3, "c_weight", (77,))]
NAMES = {index: name for index, name, _ in ENTRIES}


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[SecondThread]:
    """One that small arrays are shared with as well, on whatever host."""
    monkeypatch.setattr(second_thread, "_processors", lambda: 2)
    monkeypatch.setattr(second_thread, "SHARED_NBYTES", 0)
    monkeypatch.setattr(flat, "SHARED_NBYTES", 0)
    made = SecondThread(DEADLINE_S)
    yield made
    made.close()


def together(work: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """`work` for both threads: neither begins before the other is there."""
    both = threading.Barrier(2)

    def begin() -> None:
        both.wait(DEADLINE_S)
        work()

    return begin


def gradients(num_workers: int, size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(num_workers)
    made = [rng.normal(size=size).astype(np.float32) for _ in range(num_workers)]
    made[0][:3], made[1][:3] = (np.nan, np.inf, 3e38), (1, -np.inf, 3e38)
    return made


def updated(
    name: str, options: dict[str, Any], num_workers: int, share: flat.Share | None
) -> list[np.ndarray]:
    """Weights and states after some updates from sums over workers."""
    optimizer = opt.create(name, learning_rate=0.1, wd=0.01, param_idx2name=NAMES, **options)
    optimizer.set_lr_mult({"b_gamma": 0.25})
    optimizer.set_wd_mult({"c_weight": 2.0})
    layout = FlatLayout.plan(ENTRIES, "float32")
    updater = opt.FlatUpdater(optimizer, layout.segments, layout.size, "float32", share=share)
    weight = np.linspace(-1, 1, layout.size, dtype=np.float32)
    tree = TreeSum(num_workers, layout.size, "float32")
    for _ in range(2):
        for slot, grad in enumerate(gradients(num_workers, layout.size)):
            tree.add(slot, grad)
        updater.update(weight, tree.last_sum(np.empty))
        tree.clear()
    return [weight, *updater.get_states()]


@pytest.mark.parametrize("num_workers", [2, 3])
@pytest.mark.parametrize(
    ("name", "options"),
    [("sgd", {}), ("sgd", {"momentum": 0.9}), ("nag", {"momentum": 0.9}), ("adam", {}), ("adagrad", {}),
     ("rmsprop", {}), ("ftrl", {})],
)  # fmt: skip
def test_updates_have_the_bits_of_one_thread_and_of_numpy(
    name: str,
    options: dict[str, Any],
    num_workers: int,
    second: SecondThread,
    request: pytest.FixtureRequest,
) -> None:
    def share(work: Callable[[], None]) -> None:
        second(together(work))

    shared = updated(name, options, num_workers, share)
    alone = updated(name, options, num_workers, None)
    request.getfixturevalue("without_numba")
    for arrays in zip(shared, alone, updated(name, options, num_workers, None), strict=True):
        np.testing.assert_array_equal(arrays[0], arrays[1])
        np.testing.assert_array_equal(arrays[0], arrays[2])


@pytest.mark.parametrize("size", [1, 131072, 300001])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_sums_have_the_bits_of_one_thread(size: int, dtype: str, second: SecondThread) -> None:
    arrays = [(100 * grad).astype(dtype) for grad in np.random.default_rng(0).normal(size=(3, size))]
    tree = TreeSum(3, size, dtype)
    for slot, array in enumerate(arrays):
        tree.add(slot, array)
    out = np.empty(size, np.float32 if dtype == "float16" else dtype)
    assert tree.exchange(out, stays=True, add=second.add) is out
    np.testing.assert_array_equal(out.astype(dtype), tree_sum(arrays))


def test_work_is_done_at_the_same_time_in_two_threads(second: SecondThread) -> None:
    seen: list[str] = []
    for _ in range(3):
        second(together(lambda: seen.append(threading.current_thread().name)))
    assert sorted(seen) == ["MainThread"] * 3 + ["dmod second thread"] * 3


@pytest.mark.parametrize("where", ["MainThread", "dmod second thread"])
def test_an_error_in_either_thread_comes_back_and_is_forgotten(where: str, second: SecondThread) -> None:
    def fail() -> None:
        if threading.current_thread().name == where:
            raise ZeroDivisionError(where)

    with pytest.raises(ZeroDivisionError, match=where):
        second(together(fail))
    second(together())


def test_a_thread_that_does_not_finish_is_named_and_not_asked_again(second: SecondThread) -> None:
    go_on, impatient = threading.Event(), SecondThread(0.01)

    def stick() -> None:
        if threading.current_thread().name != "MainThread":
            go_on.wait(DEADLINE_S)

    try:
        with pytest.raises(MXNetError, match="second thread of this server"):
            impatient(together(stick))
    finally:
        go_on.set()
    second(together())


def test_it_is_started_again_in_a_process_that_is_forked_off(second: SecondThread) -> None:
    second(together())
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            second(together())
            second.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    second(together())


def test_with_one_processor_there_is_no_second_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_thread, "_processors", lambda: 1)
    seen: list[str] = []
    SecondThread()(lambda: seen.append(threading.current_thread().name))
    assert seen == ["MainThread"]


def test_it_ends_when_it_is_closed(second: SecondThread) -> None:
    before = set(threading.enumerate())
    second(together())
    assert not set(threading.enumerate()) <= before
    second.close()
    assert set(threading.enumerate()) <= before


def test_what_lies_between_ranges_is_left_alone(second: SecondThread) -> None:
    size = 50000
    segments = (Segment(0, "a", 100, 20000, (19900,)), Segment(1, "b", 40000, 40001, (1,)))
    updater = opt.FlatUpdater(opt.SGD(learning_rate=1.0), segments, size, "float32", share=second)
    weight, tree = np.zeros(size, np.float32), TreeSum(2, size, "float32")
    for slot in range(2):
        tree.add(slot, np.ones(size, np.float32))
    updater.update(weight, tree.last_sum(np.empty))
    expected = np.zeros(size, np.float32)
    expected[100:20000] = expected[40000] = -2
    np.testing.assert_array_equal(weight, expected)
