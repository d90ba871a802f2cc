"""What other versions of the protocol rely on, byte by byte: a change here breaks them."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from dmod.base import JoinRefusedError, ProtocolError
from dmod.kvstore.actions import Lost, Send
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import Join, Refuse
from dmod.kvstore.scheduler_state import SchedulerState
from dmod.kvstore.versions import ForeignJoin, ForeignRefuse
from dmod.kvstore.wire import PROTOCOL_VERSION, decode, encode

JOIN = Join("job", "worker", 2, 17, "a-host", 4242, (), "protocol", 3, 1, {})
FOREIGN = [77, 1, "job", "worker", 2, 17, "a-host", 4242, {"what": ["nobody", "knows"]}, None]


def test_what_all_versions_read_is_where_it_has_always_been() -> None:
    assert encode(Refuse("bad"))[0] == bytes([0x93, PROTOCOL_VERSION, 3]) + b"\xa3bad"
    assert encode(ForeignRefuse(77, "bad"))[0] == b"\x93\x4d\x03\xa3bad"
    header = msgpack.unpackb(encode(JOIN)[0])
    assert header[:8] == [PROTOCOL_VERSION, 1, "job", "worker", 2, 17, "a-host", 4242]


def test_a_join_of_another_version_is_read_and_nothing_else_of_it() -> None:
    assert decode([msgpack.packb(FOREIGN)]) == (ForeignJoin(77, "worker", "a-host", 4242), [])
    assert decode([msgpack.packb(FOREIGN[:8])])[0] == ForeignJoin(77, "worker", "a-host", 4242)
    strange: list[list[Any]] = [FOREIGN[:7], [77, 3, "bad"], ["77", *FOREIGN[1:]], [-1, *FOREIGN[1:]]]
    strange += [[*FOREIGN[:at], [1], *FOREIGN[at + 1 :]] for at in (3, 6, 7)]
    for header in strange:
        with pytest.raises(ProtocolError):
            decode([msgpack.packb(header)])


def test_a_process_of_another_version_is_told_what_to_do() -> None:
    scheduler = SchedulerState("job", "protocol 4", 1, 1)
    scheduler.start(0.0)
    message, _ = decode([msgpack.packb(FOREIGN)])
    [answer] = scheduler.on_message("peer", message, 0.0)
    assert isinstance(answer, Send) and answer.peer == "peer"
    scheduler.check_invariants()
    # The other end reads its own version, and knows nothing of this one.
    version, number, reason = msgpack.unpackb(encode(answer.message)[0])
    assert (version, number) == (77, 3)
    member = MemberState(JOIN, scheduler="tcp://x:1")
    member.start(0.0)
    [lost] = member.on_message(Refuse(reason), 0.1)
    assert isinstance(lost, Lost) and isinstance(lost.error, JoinRefusedError)
    text = "tcp://x:1: dmod protocol 77, and the scheduler has protocol 4; install the same version of dmod"
    assert text in str(lost.error)
    # It is not counted among those who are there, and another one may take its place.
    assert "worker 0" in scheduler.on_message("server", _server(), 0.1)[0].message.missing  # type: ignore[union-attr]


def _server() -> Join:
    return Join("job", "server", 0, 18, "a-host", 1, (), "protocol 4", 1, 1, {})
