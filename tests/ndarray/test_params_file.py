"""Files of arrays: round trips, damage, and never more memory than the file has bytes."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest

import dmod as mx
from dmod.base import FormatError, InvalidArgument, MXNetError
from dmod.ndarray.params_file import Stored, dump_arrays

ROW_SPARSE = b"".join(
    dump_arrays([Stored("row_sparse", (5, 2), np.ones((2, 2), np.float32), [np.array([0, 3])])], [])
)
ARRAYS = {
    "arg:w": mx.nd.array(np.arange(6).reshape(2, 3)),
    "aux:m": mx.nd.array([1.5], dtype="float16"),
    "n": mx.nd.array([[-1], [2**40]], dtype="int64"),
    "empty": mx.nd.zeros((0, 3)),
    "rows": mx.nd.sparse.row_sparse_array(([[1, 2], [3, 4]], [0, 3]), shape=(5, 2)),
    "csr": mx.nd.sparse.csr_matrix(([1, 2, 3], [0, 2, 1], [0, 2, 2, 3]), shape=(3, 4)),
}


def saved(tmp_path, data):
    path = str(tmp_path / "x.params")
    mx.nd.save(path, data)
    return path


def test_round_trip(tmp_path):
    loaded = mx.nd.load(saved(tmp_path, ARRAYS))
    assert list(loaded) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert loaded[name].dtype is array.dtype and np.array_equal(loaded[name].asnumpy(), array.asnumpy())
    with open(saved(tmp_path, list(ARRAYS.values())), "rb") as file:
        listed = mx.nd.load_frombuffer(file.read())
    assert [x.shape for x in listed] == [(2, 3), (1,), (2, 1), (0, 3), (5, 2), (3, 4)]
    assert [x.stype for x in listed[-2:]] == ["row_sparse", "csr"]


def test_a_view_is_saved_as_what_it_shows(tmp_path):
    x = mx.nd.array(np.arange(6).reshape(2, 3))
    loaded = mx.nd.load(saved(tmp_path, [x[:, 1:]]))
    assert loaded[0].asnumpy().tolist() == [[1, 2], [4, 5]]


def test_every_truncation_is_named_with_its_offset(tmp_path):
    path = saved(tmp_path, ARRAYS)
    with open(path, "rb") as file:
        data = file.read()
    for end in range(len(data)):
        with pytest.raises(FormatError) as caught:
            mx.nd.load_frombuffer(data[:end])
        assert end == 0 or "byte" in str(caught.value) or "starts with" in str(caught.value)
    with pytest.raises(FormatError, match="bytes follow the end"):
        mx.nd.load_frombuffer(data + b"x")


def test_every_flipped_byte_is_read_or_refused(tmp_path):
    with open(saved(tmp_path, ARRAYS), "rb") as file:
        data = bytearray(file.read())
    for i in range(len(data)):
        data[i] ^= 0xFF
        try:
            mx.nd.load_frombuffer(bytes(data))
        except FormatError:
            pass
        data[i] ^= 0xFF


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x80\x04" + b"x" * 30, "not a file of arrays"),
        (struct.pack("<QQQ", 0x112, 0, 2**60), "more than the file can hold (at byte 16"),
        (struct.pack("<QQQIii", 0x112, 0, 1, 0xF993FAC9, 0, 40), "40 dimensions"),
        (struct.pack("<QQQIiiqqiii", 0x112, 0, 1, 0xF993FAC9, 0, 2, 2**40, 2**20, 1, 0, 0), "truncated"),
        (struct.pack("<QQQIiiqiii", 0x112, 0, 1, 0xF993FAC9, 0, 1, -1, 1, 0, 0), "negative"),
        (struct.pack("<QQQIiiqiii", 0x112, 0, 1, 0xF993FAC9, 0, 1, 0, 1, 0, 99), "unknown dtype flag 99"),
        (struct.pack("<QQQIi", 0x112, 0, 1, 0xF993FAC9, 7), "unknown storage type 7"),
        (struct.pack("<QQQIi", 0x112, 0, 1, 0xF993FAC9, 1), "truncated"),
        (ROW_SPARSE[:-16] + struct.pack("<q", 9) + ROW_SPARSE[-8:], "row indices are not below 5"),
        (struct.pack("<QQQI", 0x112, 0, 1, 0xDEADBEEF), "not an array: header 0xdeadbeef"),
    ],
)
def test_damage_is_named(data, words, tmp_path):
    path = tmp_path / "bad.params"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        mx.nd.load(str(path))
    assert words in str(caught.value) and "bad.params" in str(caught.value)


def test_old_forms_of_an_array_are_read():
    body = np.float32([1, 2, 3]).tobytes()
    v1 = struct.pack("<IIqiii", 0xF993FAC8, 1, 3, 1, 0, 0) + body
    v0 = struct.pack("<IIiii", 1, 3, 1, 0, 0) + body
    for old in (v1, v0):
        (array,) = mx.nd.load_frombuffer(struct.pack("<QQQ", 0x112, 0, 1) + old + struct.pack("<Q", 0))
        assert array.asnumpy().tolist() == [1, 2, 3]


def test_what_cannot_be_saved_is_named(tmp_path):
    path = str(tmp_path / "x.params")
    odd = mx.nd.from_numpy(np.ones((1,), complex))
    for data, words in ((3, "int"), ([1], "int"), ({1: mx.nd.ones((1,))}, "strings"), (odd, "complex")):
        with pytest.raises(InvalidArgument, match=words):
            mx.nd.save(path, data)
    assert os.listdir(tmp_path) == []


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = saved(tmp_path, ARRAYS)
    with pytest.raises(InvalidArgument):
        mx.nd.save(path, [mx.nd.ones((1,)), mx.nd.from_numpy(np.ones((1,), complex))])
    assert list(mx.nd.load(path)) == list(ARRAYS) and os.listdir(tmp_path) == ["x.params"]
    with pytest.raises(MXNetError, match="cannot read"):
        mx.nd.load(str(tmp_path / "gone.params"))
