"""Pulling some rows: only they travel, wherever keys are cut."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from dmod.kvstore.messages import Error, PieceRef, PullRows, Values
from dmod.kvstore.rows import gathered, parsed_spans, spans_of_rows
from dmod.ndarray.flat import FlatLayout
from tests.kvstore.simulator import CHAOS, Simulator, Worker
from tests.kvstore.test_server_state import Bench, only_error


@pytest.mark.parametrize("seed", range(40))
def test_spans_are_what_lies_in_each_piece(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, width = int(rng.integers(1, 20)), int(rng.integers(1, 9))
    whole = rng.standard_normal(count * width).astype("f4")
    rows = np.flatnonzero(rng.random(count) < rng.random()).astype(np.int64)
    out = np.full(len(rows) * width, np.nan, "f4")
    edges = [0, *sorted(rng.choice(whole.size + 1, 3)), whole.size]
    for start, stop in pairwise(edges):
        piece = whole[start:stop]
        for spans, part in spans_of_rows(rows, width, start, stop, most=1 + seed % 4):
            assert 1 <= len(spans) <= 1 + seed % 4
            out[part] = gathered(piece, parsed_spans(spans.tobytes(), piece.size))
    np.testing.assert_array_equal(out, whole.reshape(count, width)[rows].reshape(-1))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([1], "no spans"),
        ([-1, 2], "ascend"),
        ([3, 2], "ascend"),
        ([0, 17], "ascend"),
        ([4, 6, 5, 7], "ascend"),
        ([0, 6148914691236517205, -6148914691236517206, 16], "ascend"),  # differences overflow
    ],
)
def test_nonsense_is_refused(numbers: list[int], text: str) -> None:
    bench = Bench(2)
    message = PullRows(bench.next(), 0, (PieceRef("w", 0, 0),))
    error = only_error(bench.say(0, message, np.array(numbers, np.int64)))
    assert error.code == "invalid" and text in error.text and "row_sparse_pull('w')" in error.text
    error = only_error(bench.say(0, PullRows(bench.next(), 0, (PieceRef("w", 0, 0),)), b"123"))
    assert isinstance(error, Error) and error.code == "invalid"


def test_rows_are_those_after_the_rounds_of_who_asks() -> None:
    bench = Bench(2)
    bench.push(0, 1, np.arange(16.0))
    message = PullRows(bench.next(), 0, (PieceRef("w", 0, 1),))
    assert bench.say(0, message, np.array([[1, 3], [15, 16]])) == []
    answers = bench.push(1, 1, 100.0)
    assert (0, Values(message.request, 1)) in answers
    chosen = next(
        p[0] for p, (_, m) in zip(bench.sent, answers, strict=True) if m == Values(message.request, 1)
    )
    assert (chosen == [101, 102, 115]).all()


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_a_cut_key_arrive_whatever_the_network_does(seed: int) -> None:
    layout = FlatLayout.plan([(0, "table", (60, 7))], "float32")
    table = np.random.default_rng(seed).standard_normal(layout.size).astype("f4")

    def program(worker: Worker) -> Any:
        client, rank = worker.client, worker.client.member.rank
        choose = random.Random(seed * 10 + rank)
        yield client.init("t", layout, table if rank == 0 else None, worker.now())
        for _ in range(4):
            rows = np.array(sorted(choose.sample(range(60), choose.randrange(12))), np.int64)
            out = np.zeros(len(rows) * 7, "f4")
            yield client.pull_rows("t", rows, 7, out, worker.now())
            np.testing.assert_array_equal(out, table[:420].reshape(60, 7)[rows].reshape(-1))
        yield client.barrier(worker.now())

    simulator = Simulator(seed, 2, 1 + seed % 3, program, unit_bytes=256, **CHAOS)
    simulator.run_without_errors()
