"""ImageIter: order, parts, states, threads, labels, and what is wrong with files."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import FormatError, InvalidArgument, MXNetError
from dmod.io.resume import has_state
from tests.oracle.image_cases import FOLDER, write_records

SHAPE = (3, 24, 28)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_records(mx, tmp_path_factory.mktemp("records"))


def make(records: tuple[str, str], index: bool = True, batch_size: int = 4, **kwargs: Any) -> Any:
    path = {"path_imgrec": records[0], "path_imgidx": records[1] if index else None}
    return mx.image.ImageIter(batch_size, SHAPE, **path, **kwargs)


def batches(it: Any) -> list[tuple[bytes, list[float], int]]:
    return [(b.data[0].asnumpy().tobytes(), b.label[0].asnumpy().tolist(), b.pad) for b in it]


def labels(it: Any) -> list[float]:
    return [x for batch in it for x in batch.label[0].asnumpy().tolist()[: 4 - (batch.pad or 0)]]


AUGMENTED = {"rand_crop": True, "rand_mirror": True, "brightness": 0.2, "pca_noise": 0.1}


def test_each_part_has_its_own_records_and_together_they_have_all(records: tuple[str, str]) -> None:
    for num_parts in (1, 2, 3, 4):
        parts = [labels(make(records, num_parts=num_parts, part_index=i)) for i in range(num_parts)]
        assert sorted(label for part in parts for label in part) == list(range(10))


def test_shuffled_epochs_have_all_records_in_other_orders(records: tuple[str, str]) -> None:
    it = make(records, shuffle=True, seed=1)
    first = labels(it)
    it.reset()
    second = labels(it)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_seed_repeats_pictures_whatever_the_number_of_threads(records: tuple[str, str]) -> None:
    one, four = (make(records, shuffle=True, seed=7, preprocess_threads=n, **AUGMENTED) for n in (1, 4))
    for _ in range(2):
        assert batches(one) == batches(four)
        one.reset()
        four.reset()
    assert batches(make(records, shuffle=True, seed=8, **AUGMENTED)) != batches(one)


def test_pythons_seed_decides_if_none_is_given(records: tuple[str, str]) -> None:
    found = []
    for _ in range(2):
        random.seed(11)
        found.append(batches(make(records, shuffle=True, **AUGMENTED)))
    assert found[0] == found[1]


@pytest.mark.parametrize("last", ["pad", "discard", "roll_over"])
@pytest.mark.parametrize("index", [True, False])
def test_a_state_goes_on_with_the_same_batches(last: str, index: bool, records: tuple[str, str]) -> None:
    def fresh(seed: int) -> Any:
        return make(records, index, shuffle=index, seed=seed, last_batch_handle=last, **AUGMENTED)

    def steps(it: Any) -> Iterator[Any]:
        while True:
            for batch in it:
                yield batch.data[0].asnumpy().tobytes(), batch.label[0].asnumpy().tolist()
            it.reset()
            yield "reset"

    for count in range(8):
        it = fresh(3)
        assert has_state(it)
        going = steps(it)
        for _ in range(count):
            next(going)
        other = fresh(99)
        other.load_state_dict(it.state_dict())
        assert [step for step, _ in zip(steps(other), range(6), strict=False)] == [
            step for step, _ in zip(going, range(6), strict=False)
        ]


def test_a_state_after_the_last_batch_is_of_an_ended_epoch(records: tuple[str, str]) -> None:
    it = make(records, last_batch_handle="roll_over")
    batches(it)
    other = make(records, last_batch_handle="roll_over")
    other.load_state_dict(it.state_dict())
    with pytest.raises(StopIteration):
        other.next()
    other.reset()
    assert other.next().label[0].asnumpy().tolist() == [8, 9, 0, 1]


def test_states_of_other_data_are_refused(records: tuple[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="state is of 5 images"):
        make(records).load_state_dict(make(records, num_parts=2).state_dict())


def test_images_that_roll_over_come_first_in_the_next_epoch_even_of_few(records: tuple[str, str]) -> None:
    it = make(records, batch_size=16, last_batch_handle="roll_over")
    assert batches(it) == []
    it.reset()
    assert it.next().label[0].asnumpy().tolist() == [*range(10), *range(6)]
    with pytest.raises(StopIteration):
        it.next()
    it.hard_reset()
    assert batches(it) == []


def test_reset_within_an_epoch_begins_the_next(records: tuple[str, str]) -> None:
    it = make(records, last_batch_handle="roll_over")
    it.next()
    it.reset()
    assert it.next().label[0].asnumpy().tolist() == [0, 1, 2, 3]


def test_lists_give_labels_of_several_numbers_and_types(tmp_path: Path) -> None:
    path = tmp_path / "images.lst"
    path.write_text("5\t1\t2.5\twide.jpg\n\n9\t3\t4\ttall.jpg\n")
    it = mx.image.ImageIter(2, SHAPE, 2, path_imglist=str(path), path_root=str(FOLDER))
    assert it.seq == [5, 9]
    assert it.provide_label == [("softmax_label", (2, 2))]
    assert it.next().label[0].asnumpy().tolist() == [[1, 2.5], [3, 4]]
    for dtype in ("int32", "int64", "float64"):
        it = mx.image.ImageIter(1, SHAPE, imglist=[[7, "wide.jpg"]], path_root=str(FOLDER), dtype=dtype)
        batch = it.next()
        assert np.dtype(batch.label[0].dtype) == np.dtype(it.provide_label[0].dtype) == dtype
        assert batch.data[0].dtype is np.float32


def test_a_list_beside_records_gives_their_labels_and_selects_them(
    records: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "images.lst"
    path.write_text("8\t80\tx\n3\t30\tx\n")
    assert labels(make(records, path_imglist=str(path), batch_size=2)) == [80, 30]
    path.write_text("77\t80\tx\n")
    with pytest.raises(InvalidArgument, match=r"image 77 of the list is not in .*images\.idx"):
        make(records, path_imglist=str(path))


def listed(*items: Any, **kwargs: Any) -> Any:
    return mx.image.ImageIter(2, SHAPE, imglist=list(items), path_root=str(FOLDER), **kwargs)


def test_one_label_fills_several_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="one label repeated"):
        assert listed([4, "wide.jpg"], label_width=2).next().label[0].asnumpy().tolist() == [[4, 4], [4, 4]]
    with pytest.raises(InvalidArgument, match=r"wide\.jpg has 2 labels, expected label_width=3"):
        listed([4, 5, "wide.jpg"], label_width=3).next()


@pytest.mark.parametrize("data", [b"", b"hello world", (FOLDER / "wide.jpg").read_bytes()[:40]])
@pytest.mark.parametrize("threads", [1, 2])
def test_broken_images_are_named(data: bytes, threads: int, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(data)
    it = listed([1, "wide.jpg"], [2, str(tmp_path / "broken.jpg")], preprocess_threads=threads)
    with pytest.raises(FormatError, match=r"broken image .*broken\.jpg"):
        it.next()


def test_broken_images_in_records_are_named(tmp_path: Path) -> None:
    rec, idx = write_records(mx, tmp_path, 1)
    writer = mx.recordio.MXIndexedRecordIO(idx, rec, "w")
    writer.write_idx(31, mx.recordio.pack(mx.recordio.IRHeader(0, 1.0, 31, 0), b"no image"))
    writer.close()
    with pytest.raises(FormatError, match=r"images\.rec, record 31: .*8 bytes"):
        make((rec, idx)).next()
    with pytest.raises(FormatError, match=r"images\.rec, record number 0: "):
        make((rec, idx), index=False).next()


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes((FOLDER / "wide.jpg").read_bytes())
    it = mx.image.ImageIter(1, SHAPE, imglist=[[1, "a.jpg"]], path_root=str(tmp_path))
    it.next()
    it.reset()
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.jpg"):
        it.next()
    rec, idx = write_records(mx, tmp_path, 4)
    it = make((rec, idx))
    it.next()
    Path(rec).unlink()
    with pytest.raises(MXNetError, match=r"images\.rec: No such file"):
        it.reset()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "one of path_imgrec, path_imglist and imglist is needed"),
        ({"imglist": []}, "no images"),
        ({"imglist": [[1]]}, "item 1 is"),
        ({"imglist": [["cat", "a.jpg"]]}, "item 1 is"),
        ({"imglist": [[1, "a"]], "dtype": "uint8"}, "dtype='uint8'"),
        ({"imglist": [[1, "a"]], "last_batch_handle": "keep"}, "last_batch_handle='keep'"),
        ({"imglist": [[1, "a"]], "label_width": 0}, "label_width=0"),
        ({"imglist": [[1, "a"]], "data_shape": (1, 4, 4)}, "3 channels"),
        ({"imglist": [[1, "a"]], "data_shape": (4, 4)}, "channels, height, width"),
        ({"imglist": [[1, "a"]], "batch_size": 0}, "batch_size=0"),
        ({"imglist": [[1, "a"]], "num_parts": 2, "part_index": 2}, "part_index=2"),
        ({"imglist": [[1, "a"]], "num_parts": 2}, "1 images cannot be cut"),
    ],
)
def test_unusable_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        mx.image.ImageIter(**{"batch_size": 2, "data_shape": SHAPE, **kwargs})


def test_records_without_an_index_have_no_order_and_no_parts(records: tuple[str, str]) -> None:
    for kwargs in ({"shuffle": True}, {"num_parts": 2}):
        with pytest.raises(InvalidArgument, match="pass path_imgidx"):
            make(records, index=False, **kwargs)


def test_empty_record_files_and_bad_lists_are_refused(tmp_path: Path) -> None:
    rec, idx = write_records(mx, tmp_path, 0)
    with pytest.raises(InvalidArgument, match=r"no images in .*images\.rec"):
        make((rec, idx))
    with pytest.raises(InvalidArgument, match=r"no images in .*images\.rec"):
        make((rec, idx), index=False).next()
    path = tmp_path / "bad.lst"
    path.write_text("0\t1\ta.jpg\nzero\t1\ta.jpg\n")
    with pytest.raises(FormatError, match=r"bad\.lst, line 2"):
        mx.image.ImageIter(1, SHAPE, path_imglist=str(path))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.lst"):
        mx.image.ImageIter(1, SHAPE, path_imglist=str(tmp_path / "nowhere.lst"))


def test_augmenters_that_leave_another_size_are_named(records: tuple[str, str]) -> None:
    with pytest.raises(InvalidArgument, match=r"record 0 is \(48, 64, 3\) after the augmenters"):
        make(records, aug_list=[mx.image.CastAug()]).next()


def test_a_subclass_changes_decoding_checks_and_pictures(records: tuple[str, str]) -> None:
    class Odd(mx.image.ImageIter):
        """Skips pictures of even labels, inverts the others."""

        def next_sample(self) -> Any:
            self.label, data = super().next_sample()
            return self.label, data

        def imdecode(self, s: bytes) -> Any:
            return super().imdecode(s)[:24, :28]

        def check_valid_image(self, data: Any) -> None:
            super().check_valid_image(data)
            if next(numbers) % 2 == 0:
                raise RuntimeError("even")

        def augmentation_transform(self, data: Any) -> Any:
            return 255 - data.astype("float32")

    numbers = iter(range(100))
    it = Odd(2, SHAPE, path_imgrec=records[0], last_batch_handle="discard")
    found = batches(it)
    assert [label for _, label, _ in found] == [[1, 3], [5, 7]]
    picture = mx.image.imread(str(FOLDER / "wide.jpg")).asnumpy()[:24, :28].astype("float32")
    assert found[0][0] == (255 - np.stack([picture] * 2)).transpose(0, 3, 1, 2).tobytes()


def test_a_prefetching_iterator_goes_over_it(records: tuple[str, str]) -> None:
    it = mx.io.PrefetchingIter(make(records))
    assert [batch.label[0].asnumpy().tolist() for batch in it] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]


def test_fit_reads_ahead_unless_augmenters_are_the_users(records: tuple[str, str]) -> None:
    class Mine(mx.image.CastAug):
        pass

    def fitted(**kwargs: Any) -> tuple[np.ndarray, str]:
        it = make(records, shuffle=True, seed=3, **kwargs)
        names = []
        decode, it.imdecode = (
            it.imdecode,
            lambda s: (names.append(threading.current_thread().name), decode(s))[1],
        )
        net = mx.sym.FullyConnected(mx.sym.Flatten(mx.sym.var("data")), num_hidden=10, name="fc")
        mod = mx.mod.Module(mx.sym.SoftmaxOutput(net, name="softmax"))
        mod.fit(it, num_epoch=2, initializer=mx.init.Zero(), optimizer_params={"learning_rate": 1e-6})
        assert len(names) == 2 * 12
        return mod.get_params()[0]["fc_weight"].asnumpy(), names[0]

    crop = mx.image.RandomCropAug(SHAPE[:0:-1])
    ahead, thread = fitted(aug_list=[crop, mx.image.SequentialAug([mx.image.CastAug()])])
    plain, own_thread = fitted(aug_list=[crop, mx.image.SequentialAug([Mine()])])
    assert (thread, own_thread) == ("dmod-prefetch", threading.current_thread().name)
    np.testing.assert_array_equal(ahead, plain)
