"""Pieces and where they go."""

from __future__ import annotations

import itertools
import random

import pytest

from dmod.base import InvalidArgument
from dmod.kvstore.sharding import MAX_PIECE_NBYTES, Sharder, cut
from dmod.ndarray.flat import FlatLayout


def layout_of(*sizes: int, dtype: str = "float32") -> FlatLayout:
    return FlatLayout.plan([(i, f"w{i}", (size,)) for i, size in enumerate(sizes)], dtype)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "uint8"])
def test_pieces_cover_the_buffer_at_aligned_boundaries(seed: int, dtype: str) -> None:
    rng = random.Random(seed)
    layout = layout_of(*[rng.randint(1, 5000) for _ in range(rng.randint(1, 9))], dtype=dtype)
    pieces = cut(layout, rng.choice([64, 1024, 4096, 1 << 20]))
    assert pieces[0][0] == 0 and pieces[-1][1] == layout.size
    assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
    itemsize = layout.nbytes // layout.size
    assert all(start * itemsize % 64 == 0 for start, _ in pieces)


def test_pieces_of_a_key_are_about_equal() -> None:
    sizes = [stop - start for start, stop in cut(layout_of(1126400), 4 << 20)]  # 4.3 MB: not 4 + 0.3
    assert len(sizes) == 2 and max(sizes) - min(sizes) <= 16


def test_no_piece_is_above_the_limit_in_the_dtype_that_it_is_summed_in() -> None:
    for dtype, itemsize in (("float16", 4), ("float32", 4), ("float64", 8)):
        layout = layout_of(20_000_000, dtype=dtype)
        assert all((stop - start) * itemsize <= MAX_PIECE_NBYTES for start, stop in cut(layout, 1 << 30))


def test_uncut_keeps_arrays_whole_and_joins_small_ones() -> None:
    layout = layout_of(10, 10, 500, 10, 10)
    pieces = cut(layout, 1024, uncut=True)
    assert pieces == [(0, 32), (32, 544), (544, 576)]
    assert cut(layout, 1 << 20, uncut=True) == [(0, layout.size)]


def test_uncut_refuses_an_array_that_no_message_can_carry() -> None:
    with pytest.raises(InvalidArgument, match="'w1': 5000000 elements cannot be kept in one piece"):
        cut(layout_of(10, 5_000_000), 1 << 20, uncut=True)


def test_an_empty_key_has_no_pieces() -> None:
    assert cut(FlatLayout("float32", (), 0), 1024) == []


def test_bytes_are_spread_evenly_and_alike_on_all_ranks() -> None:
    rng = random.Random(1)
    sizes = [rng.randint(1, 100_000) for _ in range(161)]
    sharders = [Sharder(3, 65536) for _ in range(2)]
    placed = [[sharder.place(layout_of(size)) for size in sizes] for sharder in sharders]
    assert placed[0] == placed[1]
    assert [order for order, _ in placed[0]] == list(range(161))
    assert max(sharders[0].nbytes) - min(sharders[0].nbytes) <= 65536


def test_a_key_that_cannot_be_placed_changes_nothing() -> None:
    sharder = Sharder(2, 1024)
    with pytest.raises(InvalidArgument):
        sharder.place(layout_of(5_000_000), uncut=True)
    assert sharder.order == 0 and sharder.nbytes == [0, 0]
