"""`ImageRecordIter` and its kin: MXNet's pixels where nothing is random, else what the seed says."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import FormatError, InvalidArgument, NotReadyError
from dmod.io import image_record_pixels
from dmod.io.buffers import Buffers
from dmod.io.record_order import RecordOrder
from tests.io.record_iterators import FIXTURES, RECORDS, all_pixels, labels, pictures
from tests.oracle.picture_cases import ORDERS, PICTURES, ROUNDED, SHAPE

EXPECTED = np.load(FIXTURES / "pictures.npz")


# ---- MXNet's pixels


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_mxnets_to_the_bit(name: str) -> None:
    found = pictures(**PICTURES[name]).next().data[0]
    assert found.dtype == np.float32
    assert np.array_equal(found.asnumpy(), EXPECTED[f"picture/{name}"])


@pytest.mark.parametrize("name", ROUNDED)
def test_pixels_of_affine_maps_and_cubics_are_mxnets_within_rounding(name: str) -> None:
    found, expected = pictures(**ROUNDED[name]).next().data[0].asnumpy(), EXPECTED[f"picture/{name}"]
    assert found.shape == expected.shape
    difference = np.abs(found - expected)
    assert difference.max() <= 3 and difference.mean() < 0.2


@pytest.mark.parametrize("name", ["normalized", "mean_grey", "center"])
def test_without_numba_the_pixels_are_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch, without_numba: None
) -> None:
    monkeypatch.setattr(image_record_pixels, "_compiled", lambda: None)
    assert np.array_equal(pictures(**PICTURES[name]).next().data[0].asnumpy(), EXPECTED[f"picture/{name}"])


def test_bytes_are_the_pixels_and_int8_ends_at_127() -> None:
    plain = EXPECTED["picture/center"]
    for kind in (mx.io.ImageRecordUInt8Iter, mx.io.ImageRecordUInt8Iter_v1):
        found = pictures(kind, mean_r=100).next().data[0]
        assert found.dtype == np.uint8 and np.array_equal(found.asnumpy(), plain)
    found = pictures(mx.io.ImageRecordInt8Iter).next().data[0]
    assert found.dtype == np.int8 and np.array_equal(found.asnumpy(), EXPECTED["picture/int8"])
    assert pictures(dtype="uint8", mean_r=100).next().data[0].dtype == np.uint8
    assert np.array_equal(pictures(mx.io.ImageRecordIter_v1).next().data[0].asnumpy(), plain)


def test_a_mean_picture_is_made_kept_and_subtracted(tmp_path: Path) -> None:
    path = str(tmp_path / "mean.bin")
    whole = all_pixels(pictures(batch_size=8))[0]
    mean = whole.mean(axis=0)
    first = pictures(batch_size=8, mean_img=path, mirror=True, scale=0.5, std_r=2).next().data[0].asnumpy()
    np.testing.assert_allclose(mx.nd.load(path)["mean_img"].asnumpy(), mean, rtol=1e-6)
    expected = (whole - mean)[:, :, :, ::-1] * 0.5 / np.array([2, 1, 1])[:, None, None]
    np.testing.assert_allclose(first, expected, atol=1e-4)
    with pytest.raises(
        FormatError, match=r"mean\.bin has one of shape \(3, 24, 32\); expected .*\(3, 8, 8\)"
    ):
        pictures(mean_img=path, data_shape=(3, 8, 8))


# ---- which record when


@pytest.mark.parametrize("name", ORDERS)
def test_records_come_in_mxnets_order_and_parts(name: str) -> None:
    keywords = dict(ORDERS[name])
    keywords["path_imgrec"] = ";".join([RECORDS] * keywords.pop("path_imgrec", 1))
    if keywords.pop("path_imgidx", False):
        keywords["path_imgidx"] = str(FIXTURES / "pictures.idx")
    iterator = pictures(**keywords)
    found = []
    for epoch in range(3):
        found += [[epoch, batch.pad, *batch.label[0].asnumpy()] for batch in iterator]
        iterator.reset()
    assert np.array_equal(np.array(found), EXPECTED[f"order/{name}"])


@pytest.mark.parametrize("index", ["", str(FIXTURES / "pictures.idx")])
def test_two_parts_give_each_record_once_an_epoch(index: str) -> None:
    """Without `round_batch` no epoch owes instances to the next; those that only fill a batch don't count."""
    parts = [
        pictures(
            num_parts=2,
            part_index=i,
            path_imgidx=index,
            shuffle=True,
            seed=7,
            round_batch=False,
            batch_size=3,
        )
        for i in range(2)
    ]
    for _ in range(3):
        seen: list[int] = []
        for part in parts:
            for batch in part:
                seen += batch.index[: len(batch.index) - batch.pad].tolist()
            part.reset()
        assert sorted(seen) == list(range(100, 108))


def test_what_fills_a_last_batch_is_the_beginning_of_the_next_pass() -> None:
    iterator = pictures(batch_size=3, shuffle=True)
    seen: list[int] = []
    for _ in range(8):
        for batch in iterator:
            seen += batch.index.tolist()
        iterator.reset()
    passes = [seen[i : i + 8] for i in range(0, len(seen) - 7, 8)]
    assert len(passes) == 8 and all(sorted(order) == list(range(100, 108)) for order in passes)
    assert len({tuple(order) for order in passes}) == len(passes)


def test_chunks_are_shuffled_and_what_is_in_them() -> None:
    sizes = np.full(64, 1 << 18)  # four to a chunk of 1 MB
    order = RecordOrder(sizes, True, 3, 1 << 20, 5)
    first, second = order.of(0), order.of(1)
    assert sorted(first) == list(range(64)) and not np.array_equal(first, second)
    chunks = first.reshape(16, 4) // 4
    assert (chunks == chunks[:, :1]).all() and not np.array_equal(chunks[:, 0], np.arange(16))
    assert np.array_equal(RecordOrder(sizes, True, 3, 1 << 20, 5).of(1), second)
    assert not np.array_equal(RecordOrder(sizes, True, 3, 1 << 20, 6).of(1) // 4, second // 4)


def test_labels_may_come_from_a_list(tmp_path: Path) -> None:
    path = tmp_path / "a.lst"
    path.write_text("".join(f"{100 + i}\t{i}.5\t{-i}\tx/{i}.jpg\n" for i in range(8)))
    first = pictures(path_imglist=str(path), label_width=2, batch_size=2)
    assert first.provide_label[0].shape == (2, 2)
    assert first.next().label[0].asnumpy().tolist() == [[0.5, 0], [1.5, -1]]
    path.write_text("100\t1\ta\n")
    with pytest.raises(
        InvalidArgument, match=r"a\.lst has no line for the picture 101 \(.*pictures\.rec, offset"
    ):
        pictures(path_imglist=str(path)).next()
    path.write_text("100\t1\ta\n5\n")
    with pytest.raises(FormatError, match=r"a\.lst, line 2: expected a number"):
        pictures(path_imglist=str(path))


# ---- random choices

RANDOM: dict[str, Any] = {
    "shuffle": True,
    "rand_crop": True,
    "rand_mirror": True,
    "max_rotate_angle": 20,
    "max_shear_ratio": 0.2,
    "max_aspect_ratio": 0.2,
    "min_random_scale": 0.8,
    "max_random_scale": 1.2,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "random_h": 20,
    "random_s": 20,
    "random_l": 20,
    "pca_noise": 0.1,
    "max_random_contrast": 0.2,
    "max_random_illumination": 10.0,
    "inter_method": 10,
    "seed": 5,
}


def test_a_seed_gives_the_same_pictures_whatever_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dmod.io.image_record_base.usable_cpus", lambda: 8)
    first = all_pixels(pictures(preprocess_threads=1, **RANDOM), 2)
    second = all_pixels(pictures(preprocess_threads=5, prefetch_buffer=0, **RANDOM), 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0], first[3])
    other = all_pixels(pictures(**{**RANDOM, "seed_aug": 6}))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("taken", [0, 1, 3, 4])
def test_a_resumed_iterator_gives_what_the_other_one_would_have(taken: int) -> None:
    iterator = pictures(**RANDOM)
    for _ in range(taken):
        try:
            iterator.next()
        except StopIteration:
            iterator.reset()
    state = iterator.state_dict()
    rest = [all_pixels(iterator, 2) for _ in range(2)]
    other = pictures(**RANDOM)
    other.load_state_dict(state)
    for mine, theirs in zip(rest, [all_pixels(other, 2) for _ in range(2)], strict=True):
        assert len(mine) == len(theirs)
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_state_of_something_else_is_refused() -> None:
    state = pictures(**RANDOM).state_dict()
    for change, what in (
        ({"seed": 6}, "seeds"),
        ({"batch_size": 2}, "batch_size"),
        ({"num_parts": 2}, "records"),
    ):
        with pytest.raises(InvalidArgument, match=f"the state has {what}"):
            pictures(**{**RANDOM, **change}).load_state_dict(state)
    with pytest.raises(InvalidArgument, match="the state is of a ImageRecordIter"):
        pictures(mx.io.ImageRecordUInt8Iter).load_state_dict(state)


@pytest.mark.parametrize(
    "keywords",
    [{name: value} for name, value in RANDOM.items() if name not in ("shuffle", "seed", "inter_method")]
    + [{"random_resized_crop": True, "min_random_area": 0.3}, {"min_crop_size": 12, "max_crop_size": 30}],
    ids=lambda keywords: next(iter(keywords)),
)
def test_every_random_change_varies_between_epochs(keywords: dict[str, Any]) -> None:
    first, second = (np.concatenate(all_pixels(it)) for it in [pictures(batch_size=8, **keywords)] * 2)
    assert first.shape == (8, *SHAPE) and not np.array_equal(first, second)
    assert np.isfinite(first).all() and abs(first.mean() - second.mean()) < 40


def test_half_of_the_pictures_are_mirrored_and_pad_fills() -> None:
    iterator = pictures(rand_mirror=True, batch_size=8)
    plain = all_pixels(pictures(batch_size=8))[0]
    turned = [(batch != plain).any(axis=(1, 2, 3)) for batch in all_pixels(iterator, 12)]
    assert 30 < np.sum(turned) < 66
    assert np.array_equal(all_pixels(iterator)[0][np.nonzero(turned[0])[0]].shape[1:], SHAPE)


# ---- buffers and the protocol


def test_batches_that_are_kept_are_not_written_again() -> None:
    iterator = pictures(batch_size=1, prefetch_buffer=1)
    kept = [batch for _ in range(3) for batch in [*iterator, iterator.reset()] if batch is not None]
    first = [batch.data[0].asnumpy() for batch in kept]
    views = [batch.data[0][0] for batch in kept]
    ids = [batch.index.tolist() for batch in kept]
    del kept
    all_pixels(iterator, 2)
    assert ids == [[100 + i] for i in range(8)] * 3
    assert all(np.array_equal(view.asnumpy(), pixels[0]) for view, pixels in zip(views, first, strict=True))
    assert all(np.array_equal(first[i], first[i + 8]) for i in range(8))


def test_buffers_are_used_again_once_nobody_holds_them() -> None:
    buffers = Buffers((4,), np.dtype(np.float32), 2)
    first = buffers.take()
    view = first[1:]
    number = id(first)
    del first
    assert id(buffers.take()) != number
    del view
    assert id(buffers.take()) == number


def test_the_iterators_protocol() -> None:
    iterator = pictures(batch_size=4, data_name="image", label_name="class")
    assert iterator.provide_data[0] == ("image", (4, *SHAPE)) and iterator.provide_data[0].dtype == np.float32
    assert iterator.provide_label[0] == ("class", (4,))
    with pytest.raises(NotReadyError, match=r"no current batch"):
        iterator.getdata()
    assert (
        iterator.iter_next()
        and iterator.getpad() == 0
        and iterator.getindex().tolist() == [100, 101, 102, 103]
    )
    assert iterator.getlabel()[0].asnumpy().tolist() == [0, 1, 2, 3] and iterator.getdata()[0].shape == (
        4,
        *SHAPE,
    )
    iterator.reset()
    assert labels(iterator) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert labels(iterator) == []
    iterator.reset()
    iterator.debug_skip_load()
    assert [iterator.next().label[0].asnumpy()[0] for _ in range(5)] == [0] * 5


def test_an_iterator_that_is_dropped_takes_its_threads_with_it() -> None:
    before = set(threading.enumerate())
    iterator = pictures(batch_size=1)
    iterator.next()
    threads = set(threading.enumerate()) - before
    assert threads
    del iterator
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_a_forked_process_goes_on_with_threads_of_its_own() -> None:
    iterator = pictures(batch_size=1)
    iterator.next()
    context = multiprocessing.get_context("fork")
    answers: Any = context.Queue()
    child = context.Process(target=lambda: answers.put(labels(iterator)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads at a fork
        child.start()
    try:
        assert answers.get(timeout=60) == [[i] for i in range(1, 8)]
    finally:
        child.join(30)
        child.kill()
    assert labels(iterator) == [[i] for i in range(1, 8)]


def test_a_last_batch_that_is_not_filled_says_so() -> None:
    iterator = pictures(batch_size=5, round_batch=False)
    last = list(iterator)[-1]
    assert last.pad == 2 and not last.data[0].asnumpy()[3:].any() and last.data[0].asnumpy()[:3].any()


def test_values_may_be_text_and_unknown_keywords_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dmod"):
        for _ in range(2):
            batch = pictures(data_shape="(3, 8, 8)", batch_size="2", shuffle="False", rand_miror=True).next()
    assert batch.data[0].shape == (2, 3, 8, 8)
    (message,) = [r.getMessage() for r in caplog.records]
    assert "unknown keyword 'rand_miror'" in message and "did you mean 'rand_mirror'" in message
