"""What the record iterators say of values that cannot be and of files that are broken."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import dmod as mx
from dmod.base import DeadlineError, FormatError, InvalidArgument, MXNetError
from dmod.io import image_record_pipeline
from tests.io.record_iterators import FIXTURES, RECORDS, boxes, pictures


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"data_shape": (3, 24)}, r"data_shape=\(3, 24\), expected \(channels, height, width\)"),
        ({"batch_size": 0}, "batch_size=0, expected at least 1"),
        ({"resize": "x"}, "resize='x', expected a whole number"),
        ({"shuffle": "maybe"}, "shuffle='maybe', expected True or False"),
        ({"inter_method": 7}, "inter_method=7, expected 0 to 4, 9 or 10"),
        ({"num_parts": 2, "part_index": 2}, "part_index=2 of num_parts=2"),
        ({"num_parts": 99, "part_index": 98}, "no records in part 98 of 99"),
        ({"dtype": "float64"}, "dtype='float64', expected 'float32', 'uint8' or 'int8'"),
        ({"aug_seq": "mine"}, "there is only 'aug_default'"),
        ({"random_resized_crop": True, "rand_crop": True}, "random_resized_crop excludes"),
        ({"min_random_scale": 2.0}, "min_random_scale=2.0 above max_random_scale=1.0"),
        ({"prefetch_buffer": -1}, "prefetch_buffer=-1"),
        ({"path_imgrec": ""}, "path_imgrec is missing"),
    ],
)
def test_values_that_cannot_be_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"ImageRecordIter: .*{message}"):
        pictures(**keywords)


def test_missing_keywords_are_named() -> None:
    with pytest.raises(InvalidArgument, match="data_shape is missing"):
        mx.io.ImageRecordIter(path_imgrec=RECORDS, batch_size=1)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"label_width": 3}, r"pictures\.rec, offset 0: label_width=3, but the picture 100 has 1 labels"),
        ({"max_crop_size": 99}, "max_crop_size=99, but a picture is 60 x 40"),
    ],
)
def test_what_a_picture_cannot_be_is_said_by_the_first_batch(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        pictures(**keywords).next()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"label_pad_width": 5}, "label_pad_width=5, but a picture has 17 numbers"),
        ({"label_width": 7}, "label_width=7, but the picture 101 has 12 labels"),
        ({"dtype": "uint8"}, "expected 'float32'"),
        ({"rand_crop_prob": 1, "num_crop_sampler": 3, "min_crop_scales": (0, 1)}, "3 crop samplers"),
        ({"rand_crop_prob": 1, "min_crop_scales": 0.9, "max_crop_scales": 0.5}, "min_crop_scales=0.9 above"),
        ({"resize_mode": "wide"}, "resize_mode='wide', expected force|fit|shrink"),
    ],
)
def test_what_boxes_cannot_be_is_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        boxes(**keywords)


def test_labels_without_boxes_are_named() -> None:
    with pytest.raises(FormatError, match=r"pictures\.rec, offset 0: label of 1 numbers, expected a header"):
        pictures(mx.io.ImageDetRecordIter)


def broken(folder: Path, change: Any) -> dict[str, Any]:
    """A copy of the pictures whose bytes went through `change`."""
    data = bytearray((FIXTURES / "pictures.rec").read_bytes())
    path = folder / "broken.rec"
    path.write_bytes(change(data))
    return {"path_imgrec": str(path)}


OFFSETS = [int(line.split()[1]) for line in (FIXTURES / "pictures.idx").read_text().splitlines()]


def test_a_broken_picture_is_named_and_stays_the_next_batch(tmp_path: Path) -> None:
    start = OFFSETS[4] + 32

    def scribble(data: bytearray) -> bytearray:
        data[start : start + 40] = b"\x55" * 40
        return data

    iterator = pictures(**broken(tmp_path, scribble), batch_size=2)
    assert [iterator.next().label[0].asnumpy()[0] for _ in range(2)] == [0, 2]
    for _ in range(2):
        with pytest.raises(FormatError, match=rf"broken\.rec, offset {OFFSETS[4]}: .* no picture"):
            iterator.next()
    iterator.reset()
    assert iterator.next().label[0].asnumpy()[0] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[: OFFSETS[7] + 100], rf"offset {OFFSETS[7]}: the record ends at .*truncated"),
        (lambda d: d[: OFFSETS[7] + 3], rf"offset {OFFSETS[7]}: the file ends within a record"),
        (lambda d: d[: OFFSETS[3]] + b"xxxx" + d[OFFSETS[3] + 4 :], rf"{OFFSETS[3]}: expected the head"),
        (lambda d: b"", r"broken\.rec is empty"),
        (lambda d: d[:0] + b"text, not records", r"offset 0: expected the head of a record"),
    ],
)
def test_a_broken_file_is_named_with_the_offset(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        pictures(**broken(tmp_path, change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.idx is empty"),
        ("0\t0\n1\t999999\n", "the index does not fit the file"),
        ("0\tx\n", r"a\.idx, line 1"),
    ],
)
def test_an_index_that_does_not_fit_is_named(tmp_path: Path, text: str, message: str) -> None:
    index = tmp_path / "a.idx"
    index.write_text(text)
    with pytest.raises(FormatError, match=message):
        pictures(path_imgidx=str(index))


def test_an_index_of_another_file_is_named_when_its_record_is_read(tmp_path: Path) -> None:
    index = tmp_path / "a.idx"
    index.write_text("0\t0\n1\t100\n")
    with pytest.raises(FormatError, match=r"offset 100: expected the head .* does the index .*a\.idx belong"):
        pictures(path_imgidx=str(index), batch_size=2).next()


def test_files_that_are_missing_or_vanish_are_named(tmp_path: Path) -> None:
    for keywords in ({"path_imgrec": str(tmp_path / "no.rec")}, {"path_imgidx": str(tmp_path / "no.idx")}):
        with pytest.raises(MXNetError, match=r"no\.(rec|idx): No such file"):
            pictures(**keywords)
    with pytest.raises(InvalidArgument, match=r"no \.rec file in the directory"):
        pictures(path_imgrec=str(tmp_path))
    keywords = broken(tmp_path, lambda data: data)
    iterator = pictures(**keywords, batch_size=1, prefetch_buffer=0)
    iterator.next()
    with open(keywords["path_imgrec"], "r+b") as file:
        file.truncate(OFFSETS[6])
    with pytest.raises(FormatError, match=rf"broken\.rec, offset {OFFSETS[6]}"):
        list(iterator)


def test_threads_that_are_silent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wakes = threading.Event()
    monkeypatch.setattr(image_record_pipeline, "_DEADLINE_S", 0.05)
    iterator = pictures()
    monkeypatch.setattr(iterator, "_decoded", lambda *_: wakes.wait(60))
    try:
        with pytest.raises(DeadlineError, match="ImageRecordIter: no batch after 0 s"):
            iterator.next()
    finally:
        wakes.set()


def test_a_missing_opencv_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MXNetError, match=r"pip install dmod\[image\]"):
        pictures()
