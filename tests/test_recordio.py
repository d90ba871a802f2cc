"""Record files: the same bytes as MXNet's, and a named error for every file that is broken."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import FormatError, InvalidArgument, MXNetError, NotReadyError

FIXTURES = Path(__file__).parent / "fixtures"
MAGIC = bytes.fromhex("0a23d7ce")
PLAIN = [b"", b"a", b"abcd", bytes(range(256)) * 5]
CUT = [MAGIC, b"abcd" + MAGIC, MAGIC + b"x", MAGIC * 3, b"abcd" + MAGIC + b"efgh" + MAGIC + MAGIC + b"i"]
UNCUT = [b"a" + MAGIC, b"ab" + MAGIC + b"cd", MAGIC[:3]]
PAYLOADS = PLAIN + CUT + UNCUT
LABELS: list[tuple[int, Any]] = [(1001, 3.5), (1002, [1.0, -2.0, 0.25])]


def labelled(key: int, label: Any) -> bytes:
    return mx.recordio.pack(mx.recordio.IRHeader(0, label, key, 2**63 + key), b"picture" + MAGIC)


def write(folder: Path) -> tuple[str, str]:
    index, records = str(folder / "a.idx"), str(folder / "a.rec")
    record = mx.recordio.MXIndexedRecordIO(index, records, "w")
    for key, payload in enumerate(PAYLOADS):
        record.write_idx(10 * key, payload)
    for key, label in LABELS:
        record.write_idx(key, labelled(key, label))
    record.close()
    return index, records


def read_all(path: Path | str) -> list[bytes]:
    record = mx.recordio.MXRecordIO(str(path), "r")
    found = []
    while (payload := record.read()) is not None:
        found.append(payload)
    record.close()
    return found


def test_files_are_those_that_mxnet_writes_byte_for_byte(tmp_path: Path) -> None:
    index, records = write(tmp_path)
    assert Path(records).read_bytes() == (FIXTURES / "records.rec").read_bytes()
    assert Path(index).read_text() == (FIXTURES / "records.idx").read_text()


def test_mxnets_files_are_read_in_order_and_by_key() -> None:
    assert read_all(FIXTURES / "records.rec") == PAYLOADS + [labelled(*item) for item in LABELS]
    record = mx.recordio.MXIndexedRecordIO(
        str(FIXTURES / "records.idx"), str(FIXTURES / "records.rec"), "r", key_type=int
    )
    for key in reversed(range(len(PAYLOADS))):
        assert record.read_idx(10 * key) == PAYLOADS[key]
    record.seek(10)
    assert [record.read(), record.read()] == PAYLOADS[1:3]
    header, payload = mx.recordio.unpack(record.read_idx(1002))
    assert payload == b"picture" + MAGIC and (header.flag, header.id, header.id2) == (3, 1002, 2**63 + 1002)
    assert header.label.dtype == np.float32 and header.label.tolist() == [1.0, -2.0, 0.25]
    assert mx.recordio.unpack(record.read_idx(1001))[0] == (0, 3.5, 1001, 2**63 + 1001)
    record.close()


def test_keys_may_be_text_and_a_key_written_twice_gives_the_last(tmp_path: Path) -> None:
    paths = str(tmp_path / "a.idx"), str(tmp_path / "a.rec")
    record = mx.recordio.MXIndexedRecordIO(*paths, "w", key_type=str)
    assert record.tell() == 0
    for key, payload in (("a b", b"1"), ("c", b"2"), ("a b", b"3")):
        record.write_idx(key, payload)
    assert record.tell() == 36
    record.close()
    record = mx.recordio.MXIndexedRecordIO(*paths, "r", key_type=str)
    assert record.keys == ["a b", "c", "a b"] and record.read_idx("a b") == b"3"
    with pytest.raises(KeyError, match="no key 'd' among its 2"):
        record.read_idx("d")
    record.close()


def test_reset_begins_again_and_empties_what_is_written(tmp_path: Path) -> None:
    path = str(tmp_path / "a.rec")
    record = mx.recordio.MXRecordIO(path, "w")
    record.write(b"first")
    record.reset()
    record.write(b"second")
    record.close()
    record = mx.recordio.MXRecordIO(path, "r")
    assert [record.read(), record.read(), record.read()] == [b"second", None, None]
    record.reset()
    assert record.read() == b"second"
    record.close()


def test_a_pickled_reader_begins_at_the_first_record(tmp_path: Path) -> None:
    index, records = write(tmp_path)
    record = mx.recordio.MXIndexedRecordIO(index, records, "r")
    record.read_idx(20)
    copy = pickle.loads(pickle.dumps(record))
    assert [copy.read(), copy.read()] == PAYLOADS[:2] and copy.read_idx(30) == PAYLOADS[3]
    record.close()
    copy.close()
    writer = mx.recordio.MXRecordIO(str(tmp_path / "b.rec"), "w")
    with pytest.raises(NotReadyError, match=r"close\(\) it"):
        pickle.dumps(writer)
    writer.close()


def _in_child(record: Any, answers: Any) -> None:
    try:
        record.read()
        answers.put("read")
    except NotReadyError as error:
        answers.put(str(error))
    answers.put(record.read_idx(20))
    record.reset()
    answers.put(record.read())


def test_a_forked_process_reads_by_key_or_after_reset(tmp_path: Path) -> None:
    record = mx.recordio.MXIndexedRecordIO(*write(tmp_path), "r")
    assert record.read() == PAYLOADS[0]
    context = multiprocessing.get_context("fork")
    answers: Any = context.Queue()
    child = context.Process(target=_in_child, args=(record, answers))
    child.start()
    try:
        assert "forked" in answers.get(timeout=30)
        assert [answers.get(timeout=30), answers.get(timeout=30)] == [PAYLOADS[2], PAYLOADS[0]]
    finally:
        child.join(30)
        child.kill()
    assert record.read() == PAYLOADS[1]
    record.close()


def test_uses_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "a.rec")
    with pytest.raises(InvalidArgument, match="Invalid flag a"):
        mx.recordio.MXRecordIO(path, "a")
    with pytest.raises(MXNetError, match=r"a\.rec: No such file"):
        mx.recordio.MXRecordIO(path, "r")
    record = mx.recordio.MXRecordIO(path, "w")
    with pytest.raises(NotReadyError, match="open it with 'r'"):
        record.read()
    with pytest.raises(TypeError, match="needs bytes, got str"):
        record.write("text")  # type: ignore[arg-type]
    record.close()
    with pytest.raises(NotReadyError, match=r"after close\(\)"):
        record.write(b"")
    with pytest.raises(MXNetError, match=r"none\.idx: No such file"):
        mx.recordio.MXIndexedRecordIO(str(tmp_path / "none.idx"), path, "r")
    with pytest.raises(InvalidArgument, match=r"whole numbers from 0 to"):
        mx.recordio.pack(mx.recordio.IRHeader(0, 0.0, -1, 0), b"")


@pytest.mark.parametrize("kept", [3, 8, 11, 30])
def test_a_truncated_file_is_named_with_the_offset(tmp_path: Path, kept: int) -> None:
    _, records = write(tmp_path)
    whole = Path(records).read_bytes()
    start = whole.index(bytes(range(256))) - 8
    Path(records).write_bytes(whole[: start + kept])
    with pytest.raises(FormatError, match=rf"a\.rec, offset {start}: .* truncated"):
        read_all(records)


def test_bytes_that_are_no_record_are_named_with_the_offset(tmp_path: Path) -> None:
    _, records = write(tmp_path)
    with open(records, "r+b") as file:
        file.seek(8)
        file.write(b"garbage!")
    with pytest.raises(FormatError, match=r"a\.rec, offset 8: expected the head of a record.*67617262"):
        read_all(records)
    (tmp_path / "b.rec").write_bytes(MAGIC + (3 << 29).to_bytes(4, "little"))
    with pytest.raises(FormatError, match=r"offset 0: part 3 of a record out of its order"):
        read_all(tmp_path / "b.rec")
    (tmp_path / "empty.rec").touch()
    assert read_all(tmp_path / "empty.rec") == []


@pytest.mark.parametrize("line", ["1", "1\tx", "x\t1", "1\t-4", "1 2"])
def test_a_bad_line_of_an_index_is_named(tmp_path: Path, line: str) -> None:
    index, records = write(tmp_path)
    Path(index).write_text(f"0\t0\n{line}\n")
    with pytest.raises(FormatError, match=r"a\.idx, line 2: expected a key, a tab and an offset"):
        mx.recordio.MXIndexedRecordIO(index, records, "r")


def test_an_index_that_does_not_fit_its_file_is_named(tmp_path: Path) -> None:
    index, records = write(tmp_path)
    Path(index).write_text("0\t4\n1\t100000\n")
    record = mx.recordio.MXIndexedRecordIO(index, records, "r")
    with pytest.raises(FormatError, match=r"a\.rec, offset 4: expected the head of a record"):
        record.read_idx(0)
    with pytest.raises(FormatError, match=r"a\.idx has the record 1; the index does not fit"):
        record.read_idx(1)
    record.close()


@pytest.mark.parametrize("payload", [b"", b"x" * 23, (5).to_bytes(4, "little") + bytes(30)])
def test_a_payload_too_short_for_its_header_is_refused(payload: bytes) -> None:
    with pytest.raises(FormatError, match=rf"record of {len(payload)} bytes: an IRHeader"):
        mx.recordio.unpack(payload)


def test_pictures_come_back() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (5, 7, 3), np.uint8)
    header = mx.recordio.IRHeader(0, 2.0, 9, 0)
    back, same = mx.recordio.unpack_img(mx.recordio.pack_img(header, pixels, quality=3, img_fmt=".png"))
    assert back == header and np.array_equal(same, pixels)
    grey = mx.recordio.unpack_img(mx.recordio.pack_img(header, pixels), iscolor=0)[1]
    assert grey.shape == (5, 7)
    with pytest.raises(FormatError, match="id 9: its 7 bytes are no picture"):
        mx.recordio.unpack_img(mx.recordio.pack(header, b"rubbish"))
    with pytest.raises(InvalidArgument, match=r"'\.nonsense'"):
        mx.recordio.pack_img(header, pixels, img_fmt=".nonsense")


def test_a_missing_opencv_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MXNetError, match=r"pip install dmod\[image\]"):
        mx.recordio.unpack_img(bytes(25))
