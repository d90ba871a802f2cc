"""`CSVIter`, `LibSVMIter`, `MNISTIter`: MXNet's batches, every line once, resuming, and bad files."""

from __future__ import annotations

import gc
import gzip
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import io
from dmod.base import FormatError, InvalidArgument, MXNetError
from dmod.io import text_parts

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("file_cases", HERE / "file_cases.py")
assert _spec is not None and _spec.loader is not None
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
EXPECTED = json.loads((HERE.parent / "fixtures" / "file_iterators.json").read_text())


@pytest.fixture(autouse=True)
def in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: with all files of the cases."""
    monkeypatch.chdir(tmp_path)
    cases.write_files(tmp_path)
    return tmp_path


def made(name: str, options: dict[str, Any]) -> Any:
    return getattr(io, name)(**options)


def svm(text: str, **options: Any) -> Any:
    Path("x.svm").write_text(text)
    return io.LibSVMIter(**{"data_libsvm": "x.svm", "data_shape": (3,), "batch_size": 1, **options})


def csv(text: str, **options: Any) -> Any:
    Path("x.csv").write_text(text)
    return io.CSVIter(**{"data_csv": "x.csv", "data_shape": (3,), "batch_size": 1, **options})


def contents(iterator: Any) -> list[Any]:
    return [[cases.numbers(a) for a in [*b.data, *b.label]] + [b.pad, list(b.index)] for b in iterator]


def values(found: list[Any]) -> np.ndarray:
    return np.array([json.loads(batch[0][0][3]) for epoch in found[2:] for batch in epoch])


def texts(found: list[Any]) -> list[Any]:
    return [(batch[0][0][:3], batch[1:]) for epoch in found[2:] for batch in epoch]


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_epochs_are_those_of_mxnet(number: int) -> None:
    name, options = cases.CASES[number]
    iterator = made(name, options)
    assert isinstance(iterator, io.MXDataIter)
    found = cases.epochs(iterator, name != "MNISTIter")
    if EXPECTED[number] is None:
        assert found[2:] == [[], [], []]
    elif "numbers.csv" not in options.values():
        assert json.loads(json.dumps(found)) == EXPECTED[number]
    else:  # MXNet's own reading of numbers is wrong in the last bit at times
        assert texts(found) == texts(EXPECTED[number])
        np.testing.assert_allclose(values(found), values(EXPECTED[number]), 3e-7)


@pytest.mark.parametrize("chunk", [1, 7, 16, 100])
@pytest.mark.parametrize("number", [0, 1, 2, 4, 9, 11, 12, 17, 18, 20, 21])
def test_chunks_change_nothing(number: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_parts, "CHUNK_BYTES", chunk)
    test_epochs_are_those_of_mxnet(number)


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n\n"])
def test_every_line_is_in_exactly_one_part(parts: int, newline: str) -> None:
    lines = [f"{i} {i % 3}:{'1' * (i % 11 + 1)}" for i in range(57)]
    Path("one").write_bytes(newline.join(lines[:30]).encode())
    Path("two").write_bytes(newline.join(["", *lines[30:], ""]).encode())
    labels = []
    for part in range(parts):
        iterator = io.LibSVMIter(
            data_libsvm="one;two", data_shape=(3,), batch_size=1, num_parts=parts, part_index=part
        )
        labels += [int(batch.label[0].asscalar()) for batch in iterator]
    assert labels == list(range(57))


@pytest.mark.parametrize("chunk", [16, 1 << 22])
@pytest.mark.parametrize("number", [1, 2, 4, 9, 17, 18, 30, 32])
@pytest.mark.parametrize(("epochs", "batches"), [(0, 0), (0, 1), (1, 1), (2, 99)])
def test_a_resumed_iterator_goes_on_as_the_undisturbed_one(
    number: int, chunk: int, epochs: int, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_parts, "CHUNK_BYTES", chunk)
    iterator, other = made(*cases.CASES[number]), made(*cases.CASES[number])
    for _ in range(epochs):
        contents(iterator)
        iterator.reset()
    for _ in range(batches):
        if next(iterator, None) is None:
            break
    state = iterator.state_dict()
    next(other)
    other.load_state_dict(state)
    for _ in range(3):
        assert contents(other) == contents(iterator)
        iterator.reset()
        other.reset()


def test_states_of_others_are_refused() -> None:
    state = csv(cases.CSV * 10).state_dict()
    with pytest.raises(InvalidArgument, match="is of another iterator"):
        csv(cases.CSV).load_state_dict({"at": 3})
    state["rows"][0]["position"] = 10**6
    with pytest.raises(InvalidArgument, match=r"byte 1000000 of x.csv, expected one from 0 to 24"):
        csv(cases.CSV).load_state_dict(state)
    with pytest.raises(InvalidArgument, match="state is of 11 images with seed 5, here are 11 with seed 0"):
        one = io.MNISTIter(image="images", label="classes", seed=5, silent=True)
        io.MNISTIter(image="images", label="classes", silent=True).load_state_dict(one.state_dict())


def test_numbers_are_read_to_the_last_bit() -> None:
    rng = np.random.RandomState(1)
    values = rng.randint(0, 2**32, 5000, np.uint32).view(np.float32)
    values = values[np.isfinite(values)][:4500]
    text = "\n".join(f"{x!r}" if i % 2 else f"{x:.17e}" for i, x in enumerate(values.tolist()))
    iterator = csv(text, data_shape=(1,), batch_size=4500)
    assert (iterator.next().data[0].asnumpy()[:, 0] == values).all()
    extremes = "1e400,-1e400,1e-400\n0e999,12345678901234567890123,0.00000000000000000000000000012345\n"
    found = [b.data[0].asnumpy()[0].tolist() for b in csv(extremes)]
    assert found[0] == [np.inf, -np.inf, 0]
    assert found[1] == [0, np.float32(12345678901234567890123), np.float32(1.2345e-28)]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("1,2,3\n2,x,4\n", 2, "'x' is no number"),
        ("1,2,3\n\n2,,4\n", 3, "'' is no number"),
        ("1,2,3\r\n1,2\r\n", 2, r"expected 3 numbers for shape \(3,\), got '1,2'"),
        ("1,2,3,4\n", 1, "got '1,2,3,4'"),
        ("1,2,3,,\n", 1, "is no number"),
        ("1,2,\n", 1, "expected 3 numbers"),
        (",,\n", 1, "'' is no number"),
        ("a,b,c\n1,2,3\n", 1, "'a' is no number"),
        ("1,2,3\n\0\n", 2, "is no number"),
        ("1 2,2,3\n", 1, "'1 2' is no number"),
        ("0x10,2,3\n", 1, "'0x10' is no number"),
        ("1,2,3e\n", 1, "'3e' is no number"),
        ("1,2,-\n", 1, "'-' is no number"),
    ],
)
def test_a_bad_line_of_csv_is_named(text: str, line: int, message: str) -> None:
    with pytest.raises(FormatError, match=rf"x\.csv, line {line}: .*{message}"):
        list(csv(text))


def test_whole_numbers_have_limits() -> None:
    for value in ("2147483648", "99999999999999999999"):
        with pytest.raises(FormatError, match=rf"line 1: '{value}' is "):
            csv(f"{value},2,3\n", dtype="int32").next()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("1 0:1\n1 5:2\n", 2, "'5:2': the index is not below 3.*begin at 1"),
        ("1 -1:2\n", 1, "'-1:2': the index is not below"),
        ("1 1:x\n", 1, "'x', expected a label and index:value pairs"),
        ("a 1:2\n", 1, "'a', expected"),
        ("1 1 2\n", 1, "'1', expected"),
        ("1 1:2:3\n", 1, "':3', expected"),
        ("1 1.5:2\n", 1, "'1.5:2', expected"),
        ("1 2:1 2:2\n", 1, "'2:2': the line has this index already"),
        ("1 qid:x 2:2\n", 1, "'x', expected"),
        ("1: 2:2\n", 1, "expected a label"),
    ],
)
def test_a_bad_line_of_libsvm_is_named(text: str, line: int, message: str) -> None:
    with pytest.raises(FormatError, match=rf"x\.svm, line {line}: .*{message}"):
        list(svm(text))


def test_pairs_are_put_in_order() -> None:
    data = svm("1 2:20 0:1 1:10\n").next().data[0]
    assert data.indices.asnumpy().tolist() == [0, 1, 2] and data.data.asnumpy().tolist() == [1, 10, 20]


def test_the_error_is_there_again_and_a_reset_begins_anew() -> None:
    iterator = csv(cases.CSV + "x\n", batch_size=2)
    for _ in range(2):
        with pytest.raises(FormatError, match="line 5"):
            list(iterator)
        with pytest.raises(FormatError, match="line 5"):
            next(iterator)
        iterator.reset()


def test_lines_beyond_a_chunk_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_parts, "CHUNK_BYTES", 10)
    with pytest.raises(FormatError, match="line 7: 'x' is no number"):
        list(csv(cases.CSV + "\r\n4,5,6\r\n5,x,5\n"))


def iterator_of(name: str, path: str) -> Any:
    options: dict[str, Any] = {"CSVIter": {"data_csv": path}, "LibSVMIter": {"data_libsvm": path}}[name]
    return made(name, {**options, "data_shape": (3,), "batch_size": 1})


@pytest.mark.parametrize("name", ["CSVIter", "LibSVMIter"])
def test_files_that_are_not_there_or_go_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MXNetError, match=f"{name}: cannot read nowhere: No such file"):
        iterator_of(name, "nowhere")
    Path("empty").write_text("")
    with pytest.raises(FormatError, match=f"{name}: empty is empty"):
        iterator_of(name, "empty")
    Path("nothing").mkdir()
    with pytest.raises(MXNetError, match="there are no files in 'nothing'"):
        iterator_of(name, "nothing")
    monkeypatch.setattr(text_parts, "CHUNK_BYTES", 10)
    text = cases.CSV if name == "CSVIter" else cases.SVM
    for spoil, message in (
        (lambda p: p.unlink(), "cannot read soon: No such file"),
        (lambda p: os.truncate(p, 8), "soon ends at byte 8, it was longer"),
    ):
        Path("soon").write_text(text)
        iterator = iterator_of(name, "soon")
        iterator.next()
        spoil(Path("soon"))
        with pytest.raises(MXNetError, match=message):
            for _ in range(3):
                list(iterator)
                iterator.reset()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: csv("1,2,3", batch_size=0), "CSVIter: batch_size=0"),
        (lambda: csv("1,2,3", batch_size=3).next(), "batch_size=3 with 1 rows"),
        (lambda: csv("1,2,3", data_shape=()), r"data_shape=\(\), expected a tuple"),
        (lambda: csv("1,2,3", data_shape="x"), "data_shape='x', expected a tuple"),
        (lambda: csv("1,2,3", dtype="float64"), "dtype='float64', expected one of float32, int32, int64"),
        (lambda: csv("1,2,3", num_parts=2, part_index=2), "part_index=2 of num_parts=2"),
        (lambda: csv("1,2,3", num_parts=2, label_csv="labels.csv"), "num_parts with label_csv"),
        (lambda: svm("1 2:3", round_batch=False), "round_batch=False is not supported, as in MXNet"),
        (lambda: svm("1 2:3", data_shape=(3, 1)), "expected one axis"),
        (lambda: svm("1 2:3", label_shape=(3,)), "without label_libsvm"),
        (lambda: svm("1 2:3", num_parts=2, label_libsvm="labels.svm"), "num_parts with label_libsvm"),
        (
            lambda: io.MNISTIter(image="images", label="classes300"),
            "has 11 images, classes300 has 300 labels",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((InvalidArgument, FormatError), match=message):
        call()


def test_fewer_labels_than_lines_are_named() -> None:
    iterator = csv(cases.CSV * 2, label_csv="labels.csv", batch_size=3)
    with pytest.raises(FormatError, match="the label file has 4 rows, the data file has more"):
        list(iterator)


def test_unknown_options_are_named_and_ignored(caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(csv("1,2,3", foo=1))) == 1
    assert "CSVIter: no such option, ignored as in MXNet: foo" in caplog.text


def test_threads_end_with_their_iterator() -> None:
    before = set(threading.enumerate())
    iterator = csv(cases.CSV)
    iterator.next()
    threads = set(threading.enumerate()) - before
    assert threads
    del iterator
    gc.collect()
    assert not any(thread.is_alive() for thread in threads)


def test_without_numba_the_same_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import dmod as mx\n"
        "it = mx.io.CSVIter(data_csv='odd.csv', data_shape=(3,), batch_size=2)\n"
        "print([b.data[0].asnumpy().tolist() for b in it])\n"
        "it = mx.io.LibSVMIter(data_libsvm='odd.svm', data_shape=(3,), batch_size=2)\n"
        "print([(b.data[0].asnumpy().tolist(), b.label[0].asnumpy().tolist()) for b in it])\n"
    )
    environ = {"DMOD_NUMBA": "0", "PYTHONPATH": str(HERE.parent.parent)}
    without = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    exec(code, {})
    assert without.stdout == capsys.readouterr().out and without.stdout.count("\n") == 2


# ---- IDX files


def mnist(**options: Any) -> Any:
    return io.MNISTIter(**{"image": "images", "label": "classes", "batch_size": 1, "silent": True, **options})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: b[:10], "images: 10 bytes, an IDX file of 3 axes begins with 16"),
        (
            lambda b: b[:-5],
            r"images: truncated: shape \(11, 2, 3\) needs 66 bytes from byte 16, there are 61",
        ),
        (lambda b: b"", "images: 0 bytes"),
        (lambda b: b"\0\0\7\3" + b[4:], "images: magic number 1795 at byte 0, expected 2051"),
        (lambda b: b[:4] + b"\xff" * 12 + b[16:], "images: truncated"),
        (lambda b: gzip.compress(b)[:-9], "images: not a whole gzip file"),
        (lambda b: gzip.compress(b)[:15] + b"xxxxx", "images: not a whole gzip file"),
    ],
)
def test_bad_idx_files_are_named(spoil: Callable[[bytes], bytes], message: str) -> None:
    path = Path("images")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(FormatError, match=message):
        mnist()


def test_idx_files_may_be_compressed() -> None:
    plain = contents(mnist())
    for name in ("images", "classes"):
        Path(name).write_bytes(gzip.compress(Path(name).read_bytes()))
    assert contents(mnist()) == plain
    with pytest.raises(MXNetError, match="MNISTIter: cannot read nowhere"):
        mnist(image="nowhere")
    with pytest.raises(FormatError, match="mixed up"):
        mnist(image="classes300", label="images300")


def test_images_are_announced_unless_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dmod")
    mnist(silent=False)
    assert "MNISTIter: 11 images of shape (1, 2, 3), shuffle=True" in caplog.text
