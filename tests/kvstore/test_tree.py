"""The fixed tree: the same bits in whatever order the contributions come."""

from __future__ import annotations

import random

import numpy as np
import pytest

from dmod.kvstore.tree import TreeSum, split, sum_dtype, tree_sum


def reference(arrays: list[np.ndarray]) -> np.ndarray:
    """The definition, word for word."""
    if len(arrays) == 1:
        return arrays[0].astype(sum_dtype(arrays[0].dtype))
    middle = split(len(arrays))
    return reference(arrays[:middle]) + reference(arrays[middle:])


def arrays_for(n: int, dtype: str = "float32", size: int = 33) -> list[np.ndarray]:
    rng = np.random.default_rng(n)
    # Magnitudes far apart: nearly every other order of addition gives other bits.
    return [(rng.standard_normal(size) * 10.0 ** rng.integers(-3, 4, size)).astype(dtype) for _ in range(n)]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 31])
def test_every_order_of_arrival_gives_the_bits_of_the_definition(n: int) -> None:
    arrays = arrays_for(n)
    expected = reference(arrays)
    tree = TreeSum(n, 33, "float32")
    rng = random.Random(n)
    for _ in range(20):
        order = list(range(n))
        rng.shuffle(order)
        for slot in order:
            tree.add(slot, arrays[slot])
        np.testing.assert_array_equal(tree.total(), expected)
        tree.clear()


def test_another_order_would_give_other_bits() -> None:
    arrays = arrays_for(7)
    assert not np.array_equal(sum(arrays), reference(arrays))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_a_worker_may_add_up_its_own_devices_first(workers: int, devices: int) -> None:
    arrays = arrays_for(workers * devices)
    merged = [tree_sum(arrays[w * devices : (w + 1) * devices]) for w in range(workers)]
    np.testing.assert_array_equal(tree_sum(merged), tree_sum(arrays))


def test_the_arrays_are_left_alone_and_buffers_used_again() -> None:
    arrays = arrays_for(7)
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    free: list[np.ndarray] = []
    tree = TreeSum(7, 33, "float32", free)
    buffers = set()
    for _ in range(5):
        for slot in range(7):
            tree.add(slot, arrays[slot])
        buffers.add(tree.total().ctypes.data)
        tree.clear()
    assert len(free) <= 3 and buffers <= {buffer.ctypes.data for buffer in free}
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_float16_is_summed_in_float32_and_rounded_once() -> None:
    halves = [np.float16([2048]), np.float16([1]), np.float16([1]), np.float16([1])]
    out = np.empty(1, np.float16)
    assert tree_sum(halves, out)[0] == 2052  # in float16 throughout: 2048 + 1 + ... = 2048 or 2050
    mixed = [halves[0], halves[1].astype(np.float32)]
    tree = TreeSum(2, 1, "float16")
    tree.add(0, mixed[0])
    tree.add(1, mixed[1])
    assert tree.total().dtype == np.float32 and tree.total()[0] == 2049


@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "uint8"])
def test_other_dtypes_are_added_in_themselves(dtype: str) -> None:
    arrays = [np.full(4, i + 1, dtype) for i in range(5)]
    assert tree_sum(arrays).dtype == dtype
    assert tree_sum(arrays).tolist() == [15] * 4


def test_out_may_be_one_of_the_arrays() -> None:
    arrays = arrays_for(3)
    expected = reference(arrays)
    assert tree_sum(arrays, out=arrays[1]) is arrays[1]
    np.testing.assert_array_equal(arrays[1], expected)


def test_overflow_is_not_a_warning() -> None:
    assert tree_sum([np.float32([3e38]), np.float32([3e38])])[0] == np.inf
    assert np.isnan(tree_sum([np.float32([np.inf]), np.float32([-np.inf])])[0])


def test_exchange_gives_the_sum_away_without_a_copy() -> None:
    arrays, mine = arrays_for(2), np.zeros(33, np.float32)
    free: list[np.ndarray] = []
    tree = TreeSum(2, 33, "float32", free)
    for slot in (1, 0):
        tree.add(slot, arrays[slot])
    total = tree.exchange(mine)
    tree.clear()
    assert total is not mine and free[0] is mine
    np.testing.assert_array_equal(total, reference(arrays))


def test_exchange_copies_where_the_sum_is_not_ours_to_give() -> None:
    array, mine = arrays_for(1)[0], np.zeros(33, np.float32)
    tree = TreeSum(1, 33, "float32")
    tree.add(0, array)
    assert tree.exchange(mine) is mine
    np.testing.assert_array_equal(mine, array)


def test_misuse_is_refused() -> None:
    tree = TreeSum(2, 3, "float32")
    tree.add(0, np.zeros(3, np.float32))
    for slot, array in (
        (0, np.zeros(3, "f4")),
        (2, np.zeros(3, "f4")),
        (1, np.zeros(4, "f4")),
        (1, np.zeros(3)),
    ):
        with pytest.raises(ValueError, match="slot"):
            tree.add(slot, array)
    with pytest.raises(ValueError, match="1 of 2 slots"):
        tree.total()
    with pytest.raises(ValueError, match="fewer than two"):
        split(1)
