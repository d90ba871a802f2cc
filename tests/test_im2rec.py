"""`dmod-im2rec`: lists and record files from directories of pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import dmod as mx
from dmod.base import FormatError, InvalidArgument
from dmod.im2rec import (
    Picture,
    Recipe,
    find_pictures,
    main,
    read_list,
    split_lists,
    write_list,
    write_records,
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two directories of pictures, and one picture beside them."""
    rng = np.random.RandomState(0)
    top = tmp_path / "photos"
    for name in ("b/1.jpg", "a/1.png", "a/2.jpg", "top.JPG", "a/notes.txt"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no picture")
        else:
            path.write_bytes(
                cv2.imencode(path.suffix, rng.randint(0, 256, (20, 30, 3), np.uint8))[1].tobytes()
            )
    return top


def records(path: Path) -> list[tuple[Any, np.ndarray]]:
    record = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")
    found = [mx.recordio.unpack_img(record.read_idx(key)) for key in record.keys]
    record.close()
    return found


def test_each_directory_is_a_class_and_the_order_is_that_of_paths(photos: Path) -> None:
    pictures, classes = find_pictures(photos, recursive=True)
    assert [(p.number, p.labels, p.path) for p in pictures] == [
        (0, (0.0,), "a/1.png"),
        (1, (0.0,), "a/2.jpg"),
        (2, (1.0,), "b/1.jpg"),
        (3, (2.0,), "top.JPG"),
    ]
    assert classes == {"a": 0, "b": 1, ".": 2}
    assert [p.path for p in find_pictures(photos)[0]] == ["top.JPG"]


def test_lists_are_split_into_chunks_and_shares() -> None:
    pictures = [Picture(i, (0.0,), str(i)) for i in range(10)]
    sizes = {name: len(chosen) for name, chosen in split_lists(pictures, 2, 0.5, 0.2).items()}
    assert sizes == {"_0_test": 1, "_0_train": 2, "_0_val": 2, "_1_test": 1, "_1_train": 2, "_1_val": 2}
    assert split_lists(pictures) == {"": pictures}
    assert list(split_lists(pictures, 1, 0.8)) == ["_train", "_val"]
    with pytest.raises(InvalidArgument, match="no more than 1"):
        split_lists(pictures, 1, 0.8, 0.4)


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    pictures = [Picture(3, (1.0, -2.5), "a b/ü.jpg"), Picture(4, (0.0,), "c.jpg")]
    write_list(tmp_path / "x.lst", pictures)
    assert read_list(tmp_path / "x.lst") == pictures
    assert (tmp_path / "x.lst").read_text().splitlines()[1] == "4\t0.000000\tc.jpg"
    (tmp_path / "x.lst").write_text("1\t0\ta.jpg\nx\t0\tb.jpg\n")
    with pytest.raises(FormatError, match=r"x\.lst, line 2: expected a number, labels and a path"):
        read_list(tmp_path / "x.lst")


@pytest.mark.parametrize("threads", [1, 3])
def test_the_command_makes_records_that_the_iterator_reads(
    photos: Path, tmp_path: Path, threads: int
) -> None:
    prefix = str(tmp_path / "set")
    assert main(["--list", "--recursive", "--train-ratio", "0.75", prefix, str(photos)]) == 0
    assert main(["--resize", "16", "--num-thread", str(threads), prefix, str(photos)]) == 0
    assert sorted(p.name for p in tmp_path.glob("set*")) == [
        f"set_{part}.{kind}" for part in ("train", "val") for kind in ("idx", "lst", "rec")
    ]
    listed = read_list(tmp_path / "set_train.lst")
    stored = records(tmp_path / "set_train.rec")
    assert [(h.id, h.label) for h, _ in stored] == [(p.number, p.labels[0]) for p in listed]
    assert all(pixels.shape == (16, 24, 3) for _, pixels in stored)
    batch = mx.io.ImageRecordIter(
        path_imgrec=f"{prefix}_train.rec",
        path_imgidx=f"{prefix}_train.idx",
        data_shape=(3, 16, 16),
        batch_size=3,
        verbose=False,
    ).next()
    assert batch.label[0].asnumpy().tolist() == [p.labels[0] for p in listed]


def test_pictures_are_stored_as_asked_for(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.lst"
    write_list(path, [Picture(7, (1.0, 2.0), "a/1.png")])
    original = cv2.imread(str(photos / "a/1.png"))
    write_records(path, photos, Recipe(pass_through=True))
    record = mx.recordio.MXRecordIO(str(tmp_path / "x.rec"), "r")
    header, encoded = mx.recordio.unpack(record.read() or b"")
    record.close()
    assert encoded == (photos / "a/1.png").read_bytes() and (header.label, header.id) == (1.0, 7)
    write_records(path, photos, Recipe(encoding=".png", quality=3, pack_label=True, center_crop=True))
    ((header, pixels),) = records(tmp_path / "x.rec")
    assert header.label.tolist() == [1, 2] and np.array_equal(pixels, original[:, 5:25])
    write_records(path, photos, Recipe(color=0))
    assert records(tmp_path / "x.rec")[0][1].shape == (20, 30)


def test_what_cannot_be_read_is_skipped_and_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.lst"
    write_list(
        path, [Picture(i, (0.0,), name) for i, name in enumerate(["a/notes.txt", "a/2.jpg", "gone.jpg"])]
    )
    assert main([str(tmp_path / "x"), str(photos)]) == 0
    out, err = capsys.readouterr()
    assert "x.rec: 1 records, 2 skipped" in out
    assert "notes.txt: 10 bytes that are no picture" in err and "gone.jpg: No such file" in err
    assert [header.id for header, _ in records(tmp_path / "x.rec")] == [1]


def test_a_failure_leaves_the_old_file(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.lst"
    write_list(path, [Picture(0, (0.0,), "a/2.jpg")])
    write_records(path, photos, Recipe())
    before = (tmp_path / "x.rec").read_bytes()
    with pytest.raises(InvalidArgument):
        write_records(path, photos, Recipe(encoding=".nonsense"))
    assert (tmp_path / "x.rec").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "x.idx", "x.lst", "x.rec"]


def test_a_list_is_mixed_the_same_way_each_time_or_not_at_all(photos: Path, tmp_path: Path) -> None:
    def paths(*options: str) -> list[str]:
        assert main(["--list", "--recursive", *options, str(tmp_path / "x"), str(photos)]) == 0
        return [p.path for p in read_list(tmp_path / "x.lst")]

    assert paths("--no-shuffle") == sorted(paths()) and paths("--shuffle") == paths()


def test_the_command_says_what_is_missing(photos: Path, tmp_path: Path) -> None:
    def stderr_of(*arguments: str) -> str:
        command = [sys.executable, "-m", "dmod.im2rec", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        return done.stderr

    assert "no list" in stderr_of(str(tmp_path / "none"), str(photos))
    (tmp_path / "empty").mkdir()
    assert main(["--list", str(tmp_path / "x"), str(tmp_path / "empty")]) == 1
