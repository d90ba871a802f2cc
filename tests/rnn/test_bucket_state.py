"""`BucketSentenceIter` says where it stands, and another one goes on from there."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dmod.base import InvalidArgument
from dmod.io.resume import has_state
from dmod.rnn import BucketSentenceIter


@pytest.fixture(autouse=True)
def _same_generators() -> Iterator[None]:
    """Other tests draw what they would have drawn."""
    states = np.random.get_state(), random.getstate()
    yield
    np.random.set_state(states[0])
    random.setstate(states[1])


def make(seed: int, count: int = 60) -> BucketSentenceIter:
    sentences = [[i + 1] * (2 + i % 7) for i in range(count)]
    np.random.seed(seed)
    random.seed(seed)
    return BucketSentenceIter(sentences, 4, buckets=[4, 8])


def epochs(it: BucketSentenceIter, count: int) -> list[Any]:
    """The rest of this epoch, and further ones."""
    found: list[Any] = []
    for _ in range(count):
        found += [(b.bucket_key, b.data[0].asnumpy().tolist(), b.label[0].asnumpy().tolist()) for b in it]
        it.reset()
    return found


@pytest.mark.parametrize("drawn", [0, 3])
@pytest.mark.parametrize("earlier", [0, 2])
def test_another_one_goes_on(drawn: int, earlier: int) -> None:
    it = make(1)
    epochs(it, earlier)
    for _ in range(drawn):
        it.next()
    state = it.state_dict()
    expected = epochs(it, 2)
    other = make(99)
    epochs(other, 1)
    other.load_state_dict(state)
    assert epochs(other, 2) == expected


def test_it_is_not_replayed() -> None:
    assert has_state(make(1))


def test_other_sentences_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="sentences, the iterator has"):
        make(1).load_state_dict(make(1, 50).state_dict())
