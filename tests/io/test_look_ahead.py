"""`LookAhead`: an iterator whose next batch was looked at stands where it would stand without."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.io.look_ahead import LookAhead, look_ahead
from tests.io.record_iterators import FIXTURES

ROWS = np.arange(22, dtype="float32")


def arrays(handle: str) -> Any:
    return mx.io.NDArrayIter(ROWS, batch_size=4, shuffle=True, last_batch_handle=handle)


def text() -> Any:
    Path("x.csv").write_text("".join(f"{i}\n" for i in range(22)))
    return mx.io.CSVIter(data_csv="x.csv", data_shape=(1,), batch_size=4)


def sentences() -> Any:
    return mx.rnn.BucketSentenceIter([[i, i + 1] for i in range(1, 23)], 4, buckets=[2], invalid_label=0)


def pictures() -> Any:
    return mx.io.ImageRecordIter(
        path_imgrec=str(FIXTURES / "pictures.rec"),
        data_shape=(3, 16, 16),
        batch_size=4,
        shuffle=True,
        rand_crop=True,
        verbose=False,
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "pad": lambda: arrays("pad"),
    "roll_over": lambda: arrays("roll_over"),
    "resized": lambda: mx.io.ResizeIter(pictures(), 5),
    "prefetched": lambda: mx.io.PrefetchingIter(arrays("pad")),
    "text": text,
    "sentences": sentences,
    "pictures": pictures,
}


def seen(make: Callable[[], Any], looks: bool) -> list[Any]:
    """What epochs of at most 2, 6, 5 and 99 batches give, while others draw from the generators too."""
    np.random.seed(1)
    random.seed(1)
    found: list[Any] = []
    iterator = make()
    if looks:
        iterator = look_ahead(iterator)
        assert type(iterator) is LookAhead
    for length in (2, 6, 5, 99):
        for number in range(length):
            batch = next(iterator, None)
            found.append(None if batch is None else [batch.data[0].asnumpy().tolist(), batch.pad])
            if batch is None:
                break
            if looks and number % 4 != 2:
                iterator.peek()
            found.append((np.random.rand(), random.random()))
        state = iterator.state_dict()
        found.append([state.get(key) for key in ("cursor", "position", "cur", "number", "pass")])
        iterator.reset()
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_nobody_notices_that_a_batch_was_looked_at(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert seen(MAKERS[name], True) == seen(MAKERS[name], False)


def test_iterators_that_do_not_say_so_are_not_looked_at():
    class Own(mx.io.NDArrayIter):
        def next(self) -> Any:
            return super().next()

    assert type(look_ahead(Own(ROWS, batch_size=4))) is Own
    shuffles_in_next = mx.io.ResizeIter(arrays("pad"), 7)
    assert look_ahead(shuffles_in_next) is shuffles_in_next
