"""The file of optimizer states: round trips, and files that are truncated, corrupt or foreign."""

from __future__ import annotations

import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from dmod.base import FormatError, InvalidArgument
from dmod.optimizer import SGD, OptimizerStates, StateEntry


def example() -> OptimizerStates:
    config = SGD(momentum=0.9, param_idx2name={0: "fc_weight"}).to_config()
    return OptimizerStates(
        config,
        {
            0: StateEntry(
                "fc_weight", 7, (np.arange(6, dtype=np.float32).reshape(2, 3), np.float64(3) * np.ones(1))
            ),
            1: StateEntry("fc_bias", 7, ()),
            "emb": StateEntry("", 2, (np.ones((0, 3), np.float16), np.array(5, np.int64))),
        },
    )


def file_of(header: Any, data: bytes = b"", **change: Any) -> bytes:
    """A file whose checksums are right, whatever it holds."""
    packed = header if isinstance(header, bytes) else msgpack.packb(header)
    version = change.get("version", 1)
    start = struct.pack("<8sIIQ", b"DMODOPT\n", version, change.get("header_nbytes", len(packed)), len(data))
    crcs = struct.pack("<II", zlib.crc32(packed, zlib.crc32(start)), zlib.crc32(data))
    return start + crcs + packed + bytes(-(32 + len(packed)) % 64) + data


def assert_equal(left: OptimizerStates, right: OptimizerStates) -> None:
    assert left.config == right.config
    assert list(left.entries) == list(right.entries)
    for index, entry in left.entries.items():
        other = right.entries[index]
        assert entry[:2] == other[:2] and len(entry.arrays) == len(other.arrays)
        for a, b in zip(entry.arrays, other.arrays, strict=True):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def test_a_file_survives_the_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.states"
    example().save(path)
    assert_equal(OptimizerStates.load(path), example())
    assert path.read_bytes() == example().to_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["model.states"]


def test_no_states_at_all_make_a_file() -> None:
    assert_equal(OptimizerStates.from_bytes(OptimizerStates().to_bytes()), OptimizerStates())


def test_arrays_that_are_strided_or_big_endian_are_saved_by_value() -> None:
    strided = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    states = OptimizerStates(None, {0: StateEntry("w", 1, (strided,))})
    loaded = OptimizerStates.from_bytes(states.to_bytes()).entries[0].arrays[0]
    assert loaded.dtype == np.float32 and (loaded == strided).all() and loaded.flags.writeable


def test_every_truncation_is_noticed() -> None:
    whole = example().to_bytes()
    for size in range(len(whole)):
        with pytest.raises(FormatError, match="offset"):
            OptimizerStates.from_bytes(whole[:size])


def test_every_flipped_byte_is_noticed_or_is_padding() -> None:
    whole = example().to_bytes()
    header_end = 32 + struct.unpack_from("<I", whole, 12)[0]
    for i in range(len(whole)):
        broken = bytearray(whole)
        broken[i] ^= 0x55
        if header_end <= i < -(-header_end // 64) * 64:
            assert_equal(OptimizerStates.from_bytes(bytes(broken)), example())
        else:
            with pytest.raises(FormatError, match="offset"):
                OptimizerStates.from_bytes(bytes(broken))


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.states"
    path.write_bytes(example().to_bytes() + b"x")
    with pytest.raises(FormatError, match=r"long.states: offset \d+: 1 bytes too many"):
        OptimizerStates.load(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "offset 0: not a file of optimizer states"),
        (pickle.dumps({0: np.ones(3)}), "a Python pickle that is not read"),
        (b"\x12\x01\x00\x00\x00\x00\x00\x00" * 9, "offset 0: not a file"),
        (file_of({"config": None, "entries": []}, version=2), "offset 8: version 2"),
        (file_of(b"", header_nbytes=1 << 30), "offset 12: a header of 1073741824 bytes"),
    ],
)
def test_a_foreign_file_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.states"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"foreign.states: {message}"):
        OptimizerStates.load(path)


@pytest.mark.parametrize(
    "header",
    [
        b"\xc1",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        {"config": None},
        {"config": 3, "entries": []},
        {1: 2},
        {"config": None, "entries": 3},
        {"config": None, "entries": [[0, "w", 1]]},
        {"config": None, "entries": [[0, "w", "1", []]]},
        {"config": None, "entries": [[[0], "w", 1, []]]},
        {"config": None, "entries": [[0, "w", 1, [["object", [1], 0]]]]},
        {"config": None, "entries": [[0, "w", 1, [["float32", [-1], 0]]]]},
        {"config": None, "entries": [[0, "w", 1, [["float32", [17], 0]]]]},
        {"config": None, "entries": [[0, "w", 1, [["float32", [1 << 40, 1 << 40], 0]]]]},
        {"config": None, "entries": [[0, "w", 1, [["float32", [1], -4]]]]},
        {"config": None, "entries": [[0, "w", 1, [["float32", [16], 0], ["float32", [16], 0]]]]},
        {"config": None, "entries": [[0, "w", 1, [["float32", [1], 0, 0]]]]},
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header: Any) -> None:
    with pytest.raises(FormatError, match="offset 32"):
        OptimizerStates.from_bytes(file_of(header, bytes(64)))


def test_a_dtype_that_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "bad.states"
    states = OptimizerStates(None, {0: StateEntry("w", 1, (np.ones(2, complex),))})
    with pytest.raises(InvalidArgument, match="complex128"):
        states.save(path)
    assert not list(tmp_path.iterdir())
