"""Iterators around iterators: their lengths, resets, names, and threads that end."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from dmod.base import InvalidArgument, NotReadyError
from dmod.io import DataBatch, DataDesc, DataIter, MXDataIter, NDArrayIter, PrefetchingIter, ResizeIter
from dmod.ndarray import array

DATA = np.arange(20, dtype=np.float32).reshape(10, 2)
LABEL = np.arange(10)


def base(**options: Any) -> NDArrayIter:
    return NDArrayIter(DATA, LABEL, batch_size=4, **options)


def seen(iterator: DataIter) -> list[tuple[list[float], int]]:
    return [(batch.label[0].asnumpy().tolist(), batch.pad) for batch in iterator]


FIRST, SECOND, LAST = ([0.0, 1, 2, 3], 0), ([4.0, 5, 6, 7], 0), ([8.0, 9, 0, 1], 2)


class Failing(DataIter):
    """Gives one batch, then an error."""

    provide_data = provide_label = [DataDesc("data", (1, 1))]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(1)
        self.batches = 0

    def reset(self) -> None:
        self.batches = 0

    def next(self) -> DataBatch:
        self.batches += 1
        if self.batches == 2:
            raise OSError("the disk is gone")
        return DataBatch([array([[1]])], [], 0)


class Empty(Failing):
    """Gives nothing."""

    def next(self) -> DataBatch:
        raise StopIteration


def test_a_resized_epoch_begins_anew_where_the_inner_one_ends() -> None:
    iterator = ResizeIter(base(), 5)
    assert iterator.batch_size == 4 and iterator.provide_data == base().provide_data
    for _ in range(2):
        assert seen(iterator) == [FIRST, SECOND, LAST, FIRST, SECOND]
        iterator.reset()


def test_without_reset_of_the_inner_one_an_epoch_goes_on() -> None:
    iterator = ResizeIter(base(), 2, reset_internal=False)
    assert seen(iterator) == [FIRST, SECOND]
    iterator.reset()
    assert seen(iterator) == [LAST, FIRST]


def test_an_empty_iterator_cannot_be_resized() -> None:
    with pytest.raises(InvalidArgument, match="no batch, even after a reset"):
        next(ResizeIter(Empty(), 2))


@pytest.mark.parametrize("wrap", [lambda it: ResizeIter(it, 3), PrefetchingIter, MXDataIter])
def test_parts_of_the_current_batch_can_be_asked_for(wrap: Any) -> None:
    iterator = wrap(base())
    with pytest.raises(NotReadyError, match="no current batch"):
        iterator.getdata()
    assert iterator.iter_next() and iterator.getpad() == 0 and iterator.getindex() is None
    assert iterator.getdata()[0].asnumpy().tolist() == DATA[:4].tolist()
    assert iterator.getlabel()[0].asnumpy().tolist() == [0, 1, 2, 3]


def test_prefetching_gives_the_same_batches_in_every_epoch() -> None:
    iterator = PrefetchingIter(base())
    assert iterator.batch_size == 4 and iterator.provide_label == base().provide_label
    for _ in range(3):
        assert seen(iterator) == [FIRST, SECOND, LAST]
        assert list(iterator) == []  # over until a reset
        iterator.reset()
    next(iterator)
    iterator.reset()  # in the middle
    assert seen(iterator) == [FIRST, SECOND, LAST]


def test_prefetching_shuffles_as_the_iterator_alone_does() -> None:
    def epochs(wrap: Any) -> list[Any]:
        np.random.seed(5)
        iterator, found = wrap(base(shuffle=True)), []
        for _ in range(3):
            found += seen(iterator)
            np.random.rand()
            iterator.reset()
        return found

    assert epochs(PrefetchingIter) == epochs(lambda it: it)


def test_several_iterators_are_joined_under_new_names() -> None:
    iterator = PrefetchingIter(
        [base(), base()],
        rename_data=[{"data": "left"}, {"data": "right"}],
        rename_label=[{"softmax_label": "a"}, {"softmax_label": "b"}],
    )
    assert [d.name for d in iterator.provide_data] == ["left", "right"]
    assert [d.name for d in iterator.provide_label] == ["a", "b"]
    batch = iterator.next()
    assert len(batch.data) == len(batch.label) == 2 and batch.provide_data == iterator.provide_data
    with pytest.raises(InvalidArgument, match="1 maps, 2 iterators"):
        PrefetchingIter([base(), base()], rename_data=[{}])
    with pytest.raises(InvalidArgument, match="at least one iterator"):
        PrefetchingIter([])


def test_iterators_of_different_lengths_are_refused() -> None:
    iterator = PrefetchingIter([base(), base(last_batch_handle="discard")])
    with pytest.raises(InvalidArgument, match="different numbers of batches"):
        list(iterator)


def test_an_error_in_the_thread_reaches_the_caller_and_a_reset_forgets_it() -> None:
    iterator = PrefetchingIter(Failing())
    for _ in range(2):
        next(iterator)
        for _ in range(2):
            with pytest.raises(OSError, match="the disk is gone"):
                next(iterator)
        iterator.reset()


def test_threads_end_with_their_iterator() -> None:
    iterator = PrefetchingIter([base(), base()])
    threads = [t for t in threading.enumerate() if t.name == "dmod-prefetch"]
    assert len(threads) >= 2
    gone = weakref.ref(iterator)
    fetchers = [fetcher.thread for fetcher in iterator._fetchers]
    del iterator
    gc.collect()
    assert gone() is None and not any(thread.is_alive() for thread in fetchers)


def test_a_readers_single_inputs_are_renamed_and_skipped_loading_repeats() -> None:
    iterator = MXDataIter(base(), data_name="image", label_name="class", ignored=1)
    assert [d.name for d in iterator.provide_data + iterator.provide_label] == ["image", "class"]
    assert seen(iterator) == [FIRST, SECOND, LAST]
    iterator.reset()
    iterator.debug_skip_load()
    assert [next(iterator).label[0].asnumpy()[0] for _ in range(5)] == [0.0] * 5
    with pytest.raises(InvalidArgument, match="expected a DataIter, got int"):
        MXDataIter(7)
