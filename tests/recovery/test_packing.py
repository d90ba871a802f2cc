"""States as bytes, and back."""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import msgpack
import numpy as np
import pytest

from dmod.base import FormatError, InvalidArgument
from dmod.recovery.packing import pack, unpack


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


@pytest.mark.parametrize(
    "state",
    [
        None,
        {"a": [1, 2.5, True, None, "x", b"y"], 3: {}},
        (1, (2, [3])),
        [1 << 127, -(1 << 100), (1 << 64) - 1, -(1 << 63)],
        [np.arange(6, dtype="int64").reshape(2, 3)[:, ::2], np.zeros((0, 3)), np.array(3, "uint8")],
        [np.array([True]), np.array([1 + 2j]), np.array([1.5], "float16")],
        random.Random(1).getstate(),
        np.random.default_rng(1).bit_generator.state,
        np.random.Philox(key=3).state,
    ],
)
def test_round_trip(state: Any) -> None:
    assert same(state, unpack(pack(state)))


def test_numpy_numbers_become_plain() -> None:
    assert same(unpack(pack([np.float32(0.5), np.int64(3), np.bool_(True)])), [0.5, 3, True])


@pytest.mark.parametrize("state", [object(), {1, 2}, [lambda: 0], np.array([object()])])
def test_other_things_are_refused(state: Any) -> None:
    with pytest.raises(InvalidArgument, match="a state has"):
        pack(state)


def test_depth_is_bounded() -> None:
    state: Any = ()
    for _ in range(80):
        state = (state,)
    with pytest.raises(InvalidArgument, match="deep"):
        pack(state)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "offset 0"),
        (b"MXNETSTATE and more than that", "offset 0"),
        (pack([1, 2, 3])[:-1], "truncated"),
        (pack([1, 2, 3]) + b"x", "expected"),
        (pack([1, 2, 3])[:-1] + b"\x09", "checksum"),
    ],
)
def test_damage_is_named(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        unpack(data, "run/worker-0.state")


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        msgpack.packb(msgpack.ExtType(9, b"")),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(["|O", [1]]) + b"12345678")),
        msgpack.packb(msgpack.ExtType(1, msgpack.packb(["<f4", [1 << 40]]) + b"1234")),
        msgpack.packb(msgpack.ExtType(1, b"\x00")),
    ],
)
def test_nonsense_is_named(body: bytes) -> None:
    data = struct.pack("<8sQI", b"DMODSTA\n", len(body), zlib.crc32(body)) + body
    with pytest.raises(FormatError, match="makes no sense"):
        unpack(data)
