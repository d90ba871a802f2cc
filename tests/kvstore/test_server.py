"""The loop around the states of a server or a scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dmod.kvstore.actions import SCHEDULER, Action, Peer, Send
from dmod.kvstore.messages import Heartbeat, Leave, Message
from dmod.kvstore.server import run_node
from dmod.kvstore.transports.inproc import InprocTransport
from dmod.kvstore.wire import decode, encode


class Idle:
    """A state that waits for nothing."""

    def on_timer(self, now: float) -> list[Action]:
        return []

    def next_timer(self) -> float | None:
        return None

    def name_of(self, peer: Peer) -> str:
        return "somebody"


def test_a_mistake_of_ours_is_told_before_the_process_ends() -> None:
    transport = InprocTransport()
    scheduler, server = transport.endpoint(), transport.endpoint()
    server.connect(SCHEDULER, scheduler.bind("inproc://scheduler"))
    server.send(SCHEDULER, encode(Heartbeat(1, 1)))
    peer, _ = scheduler.receive(10.0) or (None, [])
    scheduler.send(peer, encode(Heartbeat(1, 1)))

    def on_message(peer: Peer, message: Message, payloads: Sequence[Any], now: float) -> list[Action]:
        raise ZeroDivisionError("a mistake of ours")

    def leave(reason: str, now: float) -> list[Action]:
        return [Send(SCHEDULER, Leave(0, reason))]

    with pytest.raises(ZeroDivisionError):
        run_node(server, Idle(), on_message, leave, [])
    _, frames = scheduler.receive(10.0) or (None, [])
    assert decode(frames) == (Leave(0, "ZeroDivisionError: a mistake of ours"), [])
