"""ImageDetIter: labels, shapes, drawing, states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument, MXNetError
from tests.oracle.image_cases import FOLDER, write_records

SHAPE = (3, 24, 28)
AUGMENTED = {"rand_crop": 0.7, "rand_pad": 0.5, "rand_mirror": True, "hue": 0.1, "area_range": (0.3, 2.0)}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_records(mx, tmp_path_factory.mktemp("boxes"), 6, boxes=True)


def make(records: tuple[str, str], batch_size: int = 4, **kwargs: Any) -> Any:
    paths = {"path_imgrec": records[0], "path_imgidx": records[1]}
    return mx.image.ImageDetIter(batch_size, SHAPE, **paths, **kwargs)


def listed(label: list[float], name: str = "wide.jpg", **kwargs: Any) -> Any:
    return mx.image.ImageDetIter(1, SHAPE, imglist=[[label, name]], path_root=str(FOLDER), **kwargs)


def first_label(it: Any) -> list[Any]:
    return it.next().label[0].asnumpy().astype(float).round(4).tolist()


def test_headers_and_further_numbers_of_objects_are_kept_apart() -> None:
    assert first_label(listed([4, 5, 0, 0, 0, 0.1, 0.1, 0.2, 0.2])) == [[[0, 0.1, 0.1, 0.2, 0.2]]]
    assert first_label(listed([2, 6, 0, 0.1, 0.1, 0.2, 0.2, 9])) == [[[0, 0.1, 0.1, 0.2, 0.2, 9]]]


def test_objects_turned_inside_out_are_left_out() -> None:
    it = listed([2, 5, 0, 0.1, 0.1, 0.2, 0.2, 1, 0.5, 0.5, 0.4, 0.9])
    assert it.label_shape == (1, 5)
    assert first_label(it) == [[[0, 0.1, 0.1, 0.2, 0.2]]]


def test_images_without_a_class_are_skipped() -> None:
    assert list(listed([2, 5, -1, 0.1, 0.1, 0.2, 0.2])) == []


@pytest.mark.parametrize(
    "label",
    [
        [2, 5],
        [2, 5, 0, 0.1, 0.1],
        [2, 4, 0, 0.1, 0.1, 0.2, 0.3],
        [1, 5, 0, 0.1, 0.1, 0.2, 0.2],
        [2, 5, 0, 0.5, 0.5, 0.2, 0.2],
        [7, 5, 0, 0.1, 0.1, 0.2, 0.2],
    ],
)
def test_malformed_labels_are_named_at_the_beginning(label: list[float]) -> None:
    with pytest.raises(MXNetError, match=r"the label of wide\.jpg has"):
        listed(label)


def test_objects_of_different_widths_are_refused() -> None:
    items = [[[2, 5, 0, 0.1, 0.1, 0.2, 0.2], "wide.jpg"], [[2, 6, 0, 0.1, 0.1, 0.2, 0.2, 5], "tall.jpg"]]
    with pytest.raises(MXNetError, match=r"the objects of tall\.jpg have 6 numbers"):
        mx.image.ImageDetIter(1, SHAPE, imglist=items, path_root=str(FOLDER))


def test_reshape_changes_pictures_and_labels(records: tuple[str, str]) -> None:
    it = make(records)
    it.reshape((3, 30, 20), (5, 5))
    batch = it.next()
    assert batch.data[0].shape == it.provide_data[0].shape == (4, 3, 30, 20)
    assert batch.label[0].shape == it.provide_label[0].shape == (4, 5, 5)
    assert (batch.label[0].asnumpy()[:, 3:] == -1).all()
    for wrong in ((2, 5), (6, 4), (6,)):
        with pytest.raises(InvalidArgument, match="label_shape="):
            it.reshape(label_shape=wrong)
    with pytest.raises(InvalidArgument, match="3 channels"):
        it.reshape(data_shape=(1, 30, 20))


def test_two_iterators_get_labels_of_one_shape(records: tuple[str, str]) -> None:
    train, val = make(records), listed([2, 5, 0, 0.1, 0.1, 0.2, 0.2])
    assert train.sync_label_shape(val) is val
    assert train.label_shape == val.label_shape == (3, 5)
    assert val.provide_label[0].shape == (1, 3, 5)
    with pytest.raises(TypeError, match="got int"):
        train.sync_label_shape(3)
    with pytest.raises(InvalidArgument, match="of 5 and of 6"):
        train.sync_label_shape(listed([2, 6, 0, 0.1, 0.1, 0.2, 0.2, 9]))


def test_labels_are_cut_along_the_batch(records: tuple[str, str]) -> None:
    description = make(records).provide_label[0]
    assert mx.io.DataDesc.get_batch_axis(description.layout) == 0


def test_augmented_pictures_repeat_and_resume(records: tuple[str, str]) -> None:
    def batch(it: Any) -> tuple[bytes, bytes]:
        found = it.next()
        return found.data[0].asnumpy().tobytes(), found.label[0].asnumpy().tobytes()

    one = make(records, 2, shuffle=True, seed=3, **AUGMENTED)
    two = make(records, 2, shuffle=True, seed=3, preprocess_threads=3, **AUGMENTED)
    assert batch(one) == batch(two)
    two.load_state_dict(one.state_dict())
    assert [batch(one) for _ in range(2)] == [batch(two) for _ in range(2)]
    other = make(records, 2, shuffle=True, seed=4, **AUGMENTED)
    one.reset()
    assert batch(other) != batch(one)


def test_drawn_boxes_are_in_the_pictures(records: tuple[str, str]) -> None:
    pictures = list(make(records, mean=True, std=True).draw_next(color=(255, 0, 0), mean=True, std=True))
    assert len(pictures) == 6
    for drawn in pictures:
        assert drawn.shape == (24, 28, 3)
        assert drawn.dtype == np.uint8
        assert (drawn[2, 3:16] == (0, 0, 255)).all()  # the upper edge of the box at 0.1; blue first
    named = next(make(records).draw_next(id2labels={0: "cat"}))
    assert named.shape == (24, 28, 3)


def test_unusable_arguments_are_refused(records: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="DetBorrowAug makes one"):
        make(records, aug_list=[mx.image.CastAug()])
    with pytest.raises(TypeError, match="dtype"):
        make(records, dtype="int32")
    rec, idx = write_records(mx, tmp_path, 0, boxes=True)
    with pytest.raises(InvalidArgument, match="no images"):
        make((rec, idx))
    with pytest.raises(InvalidArgument, match="no images"):
        mx.image.ImageDetIter(1, SHAPE, path_imgrec=rec)
