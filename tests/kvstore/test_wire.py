"""Each message: a round trip, truncated, garbled; and the caps."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import numpy as np
import pytest

from dmod.base import ProtocolError
from dmod.kvstore import messages, wire
from dmod.kvstore.messages import (
    MAX_FRAMES,
    MAX_HEADER_NBYTES,
    MAX_PAYLOAD_NBYTES,
    MESSAGES,
    Cut,
    Member,
    PieceRef,
)
from dmod.kvstore.versions import ForeignJoin
from dmod.kvstore.wire import PROTOCOL_VERSION, decode, encode
from dmod.ndarray.flat import FlatLayout

LAYOUT = FlatLayout.plan([(0, "fc_weight", (3, 4)), (1, "fc_bias", (3,))], "float32")
MEMBER = Member("worker", 0, 17, "host", 4242, ("tcp://127.0.0.1:9000",))
PIECES = (PieceRef("w", 0, 1), PieceRef(7, 2, 5))

EXAMPLES = [
    messages.Join("job", "worker", None, 17, "host", 1, ("ipc://a",), "1.0", 2, 1, {"numpy": "2.4"}),
    messages.Join("job", "server", 3, 17, "host", 1, (), "1.0", 2, 4, {}),
    messages.Admit(("worker 1",)),
    messages.Refuse("no room"),
    messages.View(1, 0, (MEMBER, MEMBER._replace(role="server"))),
    messages.Heartbeat(17, 1),
    messages.HeartbeatReply(1),
    messages.PeerLost("worker", 1, "host", 4242, "silent", 10.5),
    messages.Barrier(3, "", 1),
    messages.Leave(4, "ValueError: no"),
    messages.Stop("all workers have left"),
    messages.Hello(1, "job", 0, 17),
    messages.Init(2, "w", 0, LAYOUT, (Cut(0, 16, 0), Cut(16, 32, 1)), "update", "abc"),
    messages.SetValues(2, "w", (0, 1)),
    messages.SetOptimizer(3, 1, {"name": "sgd", "params": {"lr": 0.1, "steps": [1, 2]}, "lr_mult": {0: 2.0}}),
    messages.Push(4, 0, "float32", PIECES, False),
    messages.Push(4, 0, "float32", PIECES, True),
    messages.PushPull(5, 1, "float16", PIECES, False),
    messages.Pull(6, 1, PIECES),
    messages.PullRows(6, 1, PIECES[:1]),
    messages.EndEpoch(7, 1, 100),
    messages.GetStates(8, "w", 0),
    messages.SetStates(9, "w", 0, 12, ("float32", "float32")),
    messages.Poll((1, 2, 3)),
    messages.Ack(1),
    messages.Values(1, 2),
    messages.Dropped(1, 0, 1),
    messages.EpochDone(1, 0, (10, 11)),
    messages.States(1, 12, ("float32",)),
    messages.Pending(1, ("worker 1",)),
    messages.Resend((1, 2)),
    messages.Error(1, "unknown_key", "push('w'): key 'w' is unknown"),
    messages.LinkEnded("server", 1, 17),
]
ACK = next(number for number, cls in MESSAGES.items() if cls is messages.Ack)
IDS = [f"{type(message).__name__}-{i}" for i, message in enumerate(EXAMPLES)]


def payloads_for(message: messages.Message) -> list[bytes]:
    return [bytes([i]) * (i + 1) for i in range(message.payload_count())]


def test_every_message_has_an_example() -> None:
    assert {type(message) for message in EXAMPLES} == set(MESSAGES.values())


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_round_trip(message: messages.Message) -> None:
    payloads = payloads_for(message)
    decoded, received = decode(encode(message, payloads))
    assert type(decoded) is type(message)
    assert decoded == message
    assert [bytes(payload) for payload in received] == payloads


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_every_truncation_is_refused(message: messages.Message) -> None:
    header, *payloads = encode(message, payloads_for(message))
    for length in range(len(header)):
        with pytest.raises(ProtocolError):
            decode([header[:length], *payloads])
    for count in range(len(payloads)):
        with pytest.raises(ProtocolError, match=f"{count} payloads, expected {len(payloads)}"):
            decode([header, *payloads[:count]])
    with pytest.raises(ProtocolError, match="payloads, expected"):
        decode([header, *payloads, b""])


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_garbled_headers_are_refused_or_are_another_valid_message(message: messages.Message) -> None:
    rng = random.Random(5)
    header, *payloads = encode(message, payloads_for(message))
    for _ in range(150):
        garbled = bytearray(header)
        for _ in range(rng.randint(1, 3)):
            garbled[rng.randrange(len(garbled))] = rng.randrange(256)
        try:
            decoded, _ = decode([bytes(garbled), *payloads])
        except ProtocolError:
            continue
        if isinstance(decoded, ForeignJoin):
            continue
        assert encode(decoded, payloads)  # what is let in can be sent on


@pytest.mark.parametrize("message", EXAMPLES, ids=IDS)
def test_a_field_of_any_wrong_type_is_refused(message: messages.Message) -> None:
    values = msgpack.unpackb(encode(message, payloads_for(message))[0], strict_map_key=False)
    strange: list[Any] = [{1: {2: 3}}, [[[1]]], -1, 1 << 63, b"bytes", 1.5, True, [None] * 7, "x" * 70000]
    for position in range(2, len(values)):
        refused = 0
        for value in strange:
            changed = [*values[:position], value, *values[position + 1 :]]
            try:
                decode([msgpack.packb(changed), *payloads_for(message)])
            except ProtocolError:
                refused += 1
        assert refused >= 5, f"field {position - 2} of {message}"


def test_garbage_is_refused() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        frames = [rng.randbytes(rng.randint(0, 40)) for _ in range(rng.randint(0, 3))]
        with pytest.raises(ProtocolError):
            decode(frames)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"\x91" * 5000, "not msgpack"),  # nested too deep
        (b"\xdd\xff\xff\xff\xff", "not msgpack"),  # a list of 4 billion
        (b"\x82\x90\x01\x90\x02", "not msgpack"),  # a mapping whose keys are lists
        (msgpack.packb({1: 2}), "not a list"),
        (msgpack.packb([PROTOCOL_VERSION + 1, 1]), f"version {PROTOCOL_VERSION + 1}, expected"),
        (msgpack.packb([PROTOCOL_VERSION, 250]), "no message has the number 250"),
        (msgpack.packb([PROTOCOL_VERSION, True]), "no message has the number True"),
        (msgpack.packb([PROTOCOL_VERSION, ACK, 1, 2]), "Ack: 2 fields, expected 1"),
        (msgpack.packb([PROTOCOL_VERSION, ACK, "x"]), "Ack.request: expected a whole number, got str"),
    ],
)
def test_the_reason_of_a_refusal_is_told(header: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        decode([header])


def test_the_caps_hold_at_both_ends() -> None:
    push = messages.Push(1, 0, "float32", (PieceRef("w", 0, 1),), False)
    large = bytes(MAX_PAYLOAD_NBYTES + 1)
    header = encode(push, [b""])[0]
    for use in (lambda: encode(push, [large]), lambda: decode([header, large])):
        with pytest.raises(ProtocolError, match=r"a payload of .* bytes, at most"):
            use()
    with pytest.raises(ProtocolError, match="frames, at most"):
        decode([header] + [b""] * MAX_FRAMES)
    with pytest.raises(ProtocolError, match=r"a header of .* bytes, at most"):
        decode([bytes(MAX_HEADER_NBYTES + 1)])
    with pytest.raises(ProtocolError, match=r"a message of .* bytes, at most"):
        decode([header] + [large[:-1]] * 5)
    many = messages.SetOptimizer(1, 1, {str(i): "x" * 1000 for i in range(1100)})
    with pytest.raises(ProtocolError, match=r"a header of .* bytes, at most"):
        encode(many)


def test_payloads_are_not_copied() -> None:
    array = np.arange(10, dtype=np.float32)
    push = messages.Push(1, 0, "float32", (PieceRef("w", 0, 1),), False)
    _, payloads = decode(encode(push, [array]))
    array[3] = 77
    assert np.frombuffer(payloads[0], np.float32)[3] == 77


def test_a_payload_in_pieces_is_refused() -> None:
    push = messages.Push(1, 0, "float32", (PieceRef("w", 0, 1),), False)
    with pytest.raises(ProtocolError, match="not one block of memory"):
        encode(push, [np.zeros((4, 4), np.float32)[:, 1]])


def test_empty_arrays_travel() -> None:
    push = messages.Push(1, 0, "float32", (PieceRef("w", 0, 1),), False)
    assert decode(encode(push, [np.zeros((0,), np.float16)]))[1][0].nbytes == 0


def test_nothing_that_could_be_executed_comes_through() -> None:
    for value in (msgpack.ExtType(1, b"x"), msgpack.Timestamp(1, 0), b"raw"):
        header = msgpack.packb([PROTOCOL_VERSION, wire._NUMBERS[messages.SetOptimizer], 1, 1, {"a": value}])
        with pytest.raises(ProtocolError, match="expected plain values"):
            decode([header])


def test_layouts_that_lie_are_refused() -> None:
    good = encode(EXAMPLES[IDS.index("Init-12")])[0]
    values = msgpack.unpackb(good)
    position = next(
        i for i, value in enumerate(values) if isinstance(value, list) and value[:1] == ["float32"]
    )
    for wrong in (
        ["object", 32, []],
        ["float32", 32, [[0, "w", 0, 13, [3, 4]]]],
        ["float32", 8, [[0, "w", 0, 12, [3, 4]]]],
        ["float32", 32, [[0, "w", 16, 28, [3, 4]], [1, "b", 0, 3, [3]]]],
        ["float32", 32, [[0, "w", 0, 12, [-3, -4]]]],
    ):
        changed = [*values[:position], wrong, *values[position + 1 :]]
        with pytest.raises(ProtocolError, match=r"Init\.layout"):
            decode([msgpack.packb(changed)])
