"""Resuming: an iterator that is put where another stood gives the batches that that one would have given."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest

from dmod.base import InvalidArgument
from dmod.io import DataBatch, DataDesc, DataIter, MXDataIter, NDArrayIter, PrefetchingIter, ResizeIter
from dmod.io.resume import Replayed, has_state, resumable
from dmod.ndarray import array
from dmod.rnn import BucketSentenceIter

X, Y = np.arange(46, dtype=np.float32).reshape(23, 2), np.arange(23)


def arrays(**options: Any) -> NDArrayIter:
    return NDArrayIter(X, Y, 4, **options)


class Noisy(DataIter):
    """An iterator of a user: shuffled by the global generator, with noise in every batch."""

    def __init__(self, uses_global: bool = True) -> None:
        super().__init__(4)
        self.uses_global = uses_global
        self.provide_data = [DataDesc("data", (4,))]
        self.provide_label: list[DataDesc] = []
        self.own = np.random.RandomState(3)
        self.order = list(range(20))
        self.reset()

    def reset(self) -> None:
        random.shuffle(self.order)
        self.at = 0

    def next(self) -> DataBatch:
        if self.at == 20:
            raise StopIteration
        rows = np.array(self.order[self.at : self.at + 4], np.float32)
        self.at += 4
        noise = self.own.rand() + (np.random.rand() if self.uses_global else 0)
        return DataBatch([array(rows + noise)], [], 0)


class Doubled(NDArrayIter):
    """Adds to `NDArrayIter` what its state doesn't know."""

    times = 1

    def reset(self) -> None:
        self.times += 1
        super().reset()

    def getdata(self) -> Any:
        return [a * self.times for a in super().getdata()]


def sentences() -> BucketSentenceIter:
    lengths = np.random.RandomState(5).randint(1, 9, 40)
    return BucketSentenceIter([[int(n)] * n for n in lengths], 4, buckets=[4, 8])


MAKERS: dict[str, Callable[[], Any]] = {
    **{
        f"{handle}{' shuffled' * shuffle}": lambda h=handle, s=shuffle: arrays(last_batch_handle=h, shuffle=s)
        for handle in ("pad", "discard", "roll_over")
        for shuffle in (False, True)
    },
    "resized": lambda: ResizeIter(arrays(shuffle=True), 4),
    "resized, going on": lambda: ResizeIter(arrays(shuffle=True), 4, reset_internal=False),
    "of a reader": lambda: MXDataIter(arrays(shuffle=True)),
    "prefetched": lambda: PrefetchingIter(arrays(shuffle=True)),
    "two prefetched": lambda: PrefetchingIter([arrays(), arrays()]),
    "prefetched of resized": lambda: PrefetchingIter(ResizeIter(arrays(shuffle=True), 4)),
    "resized of prefetched": lambda: ResizeIter(PrefetchingIter(arrays(shuffle=True)), 4),
    "of a user": Noisy,
    "of a user, resized": lambda: ResizeIter(Noisy(), 7),
    # A thread's draws from a global generator come among the caller's, in no fixed order.
    "of a user, prefetched": lambda: PrefetchingIter(Noisy(uses_global=False)),
    "derived": lambda: Doubled(X, Y, 4, shuffle=True),
    "sentences": sentences,
}


def made(name: str) -> Any:
    np.random.seed(7)
    random.seed(7)
    return resumable(MAKERS[name]())


def values(batch: DataBatch) -> list[Any]:
    return [a.asnumpy().tolist() for a in [*(batch.data or ()), *(batch.label or ())]] + [batch.pad]


def rest(iterator: Any) -> list[Any]:
    """What is left of this epoch, and two more; the global generators are used in between."""
    found = [values(batch) for batch in iterator]
    for _ in range(2):
        iterator.reset()
        np.random.rand()
        found += [values(batch) for batch in iterator]
    return found


def packed(state: Any) -> Any:
    """A state after a trip through a file."""

    def pack(value: Any) -> Any:
        assert isinstance(value, np.ndarray), type(value)
        return {"array": value.tobytes(), "dtype": value.dtype.str}

    def unpack(value: dict[Any, Any]) -> Any:
        return np.frombuffer(value["array"], value["dtype"]) if "array" in value else value

    return msgpack.unpackb(msgpack.packb(state, default=pack), object_hook=unpack)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("epochs", "batches"), [(0, 0), (0, 2), (2, 3), (1, 99)])
def test_a_resumed_iterator_goes_on_as_the_undisturbed_one(name: str, epochs: int, batches: int) -> None:
    iterator = made(name)
    for _ in range(epochs):
        for _ in iterator:
            pass
        np.random.rand()
        iterator.reset()
    for _ in range(batches):
        if next(iterator, None) is None:
            break
    np.random.rand()  # what the training draws
    state = iterator.state_dict()
    kept = packed(state)
    expected = rest(iterator)
    other = made(name)
    np.random.seed(99)
    other.load_state_dict(packed(state))  # still what it was when it was taken
    assert rest(other) == expected
    again = made(name)
    if has_state(MAKERS[name]()) and "user" not in name:
        for _ in range(3):  # an iterator that was used can go back, too
            again.next()
    again.load_state_dict(kept)
    assert rest(again) == expected


def test_an_iterator_that_overrides_how_batches_come_about_is_replayed() -> None:
    class Renamed(NDArrayIter):
        """Adds nothing that moves."""

    class Own(Doubled):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "times": self.times}

    assert has_state(Renamed(X)) and has_state(Own(X))
    assert not has_state(Doubled(X)) and not has_state(Noisy()) and not has_state(iter([]))
    iterator = Own(X)
    assert resumable(iterator) is iterator
    with pytest.raises(NotImplementedError, match="Noisy has no state_dict"):
        Noisy().state_dict()
    with pytest.raises(NotImplementedError, match="Noisy has no load_state_dict"):
        Noisy().load_state_dict({})


def test_states_of_others_are_refused() -> None:
    state = arrays().state_dict()
    with pytest.raises(InvalidArgument, match="state is of 23 instances; the iterator has 22"):
        NDArrayIter(X[:22]).load_state_dict(state)
    with pytest.raises(InvalidArgument, match="23 instances; the iterator has 23, shuffled"):
        arrays(shuffle=True).load_state_dict(state)
    for other in (ResizeIter(arrays(), 3), PrefetchingIter(arrays())):
        with pytest.raises(InvalidArgument, match="is it of another iterator"):
            other.load_state_dict(state)
    with pytest.raises(InvalidArgument, match="state is of 2 iterators, here are 1"):
        PrefetchingIter(arrays()).load_state_dict(PrefetchingIter([arrays(), arrays()]).state_dict())


def test_only_a_new_iterator_of_the_same_length_can_be_replayed() -> None:
    state = {**Replayed(Noisy()).state_dict(), "batches": [6]}
    with pytest.raises(InvalidArgument, match="epoch 0 of Noisy has 5 batches, the state was taken after 6"):
        Replayed(Noisy()).load_state_dict(state)
    used = Replayed(Noisy())
    next(used)
    with pytest.raises(InvalidArgument, match="1 batches were drawn"):
        used.load_state_dict(state)


def test_a_replayed_iterator_passes_everything_else_on() -> None:
    iterator = Replayed(sentences())
    assert iterator.default_bucket_key == 8 and iterator.batch_size == 4
    with pytest.raises(AttributeError):
        _ = iterator.nothing_of_the_kind
    parts = Replayed(ResizeIter(arrays(), 2))
    assert parts.iter_next() and parts.getpad() == 0 and parts.getindex() is None
    assert parts.getlabel()[0].asnumpy().tolist() == [0, 1, 2, 3] and len(parts.getdata()) == 1
