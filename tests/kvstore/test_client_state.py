"""A worker's operations: which requests leave when, how operations end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dmod.base import (
    DeadlineError,
    EpochEnded,
    InvalidArgument,
    JoinRefusedError,
    MXNetError,
    NotReadyError,
    PeerLostError,
    ProtocolError,
    RemoteError,
    UnknownKeyError,
)
from dmod.kvstore.actions import SCHEDULER, Connect, Done, Exit, Failed, Joined, Lost, Send, server_peer
from dmod.kvstore.client_state import ClientState, PieceStates
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import (
    Ack,
    Barrier,
    Dropped,
    EndEpoch,
    EpochDone,
    Error,
    GetStates,
    Hello,
    Init,
    Join,
    Leave,
    LinkEnded,
    Member,
    Message,
    PeerLost,
    Pending,
    PieceRef,
    Poll,
    Pull,
    Push,
    PushPull,
    Resend,
    SetOptimizer,
    SetStates,
    SetValues,
    States,
    Values,
    View,
)
from dmod.ndarray.flat import FlatLayout

LAYOUT = FlatLayout.plan([(0, "weight", (64,))], "float32")  # 256 bytes


class Bench:
    """A worker, and all that it sends; invariants are checked after every event."""

    def __init__(self, num_servers: int = 1, rank: int = 0, *, ready: bool = True, **settings: Any):
        join = Join("job", "worker", None, 17, "host", 1, (), "1", 2, num_servers, {})
        member = MemberState(join, timeout_s=9.0, heartbeat_s=1.0)
        self.client = ClientState(member, unit_bytes=256, **{"timeout_s": 9.0, **settings})
        self.now = 0.0
        members = [Member("server", r, 90 + r, "host", 50 + r, (f"tcp://{r}",)) for r in range(num_servers)]
        members += [Member("worker", rank, 17, "host", 1, ()), Member("worker", 1 - rank, 18, "host", 2, ())]
        self.view = View(1, rank, tuple(members))
        self.sent: list[Send] = []
        self.ends: dict[int, Done | Failed] = {}
        self.do(self.client.start(0.0))
        if ready:
            self.hear(SCHEDULER, self.view)
            for server in range(num_servers):
                self.answer(Hello, Ack, server=server)
            assert self.ends[0] == Done(0, rank) and self.client.ready
            self.take()

    def do(self, actions: list[Any]) -> list[Any]:
        self.client.check_invariants()
        self.sent += [action for action in actions if isinstance(action, Send)]
        for action in actions:
            if isinstance(action, Done | Failed):
                assert action.operation not in self.ends
                self.ends[action.operation] = action
        return actions

    def call(self, method: str, *args: Any, **settings: Any) -> int:
        number, actions = getattr(self.client, method)(*args, self.now, **settings)
        self.do(actions)
        return number

    def hear(self, peer: Any, message: Message, *payloads: Any) -> list[Any]:
        return self.do(self.client.on_message(peer, message, payloads, self.now))

    def timer(self, now: float) -> list[Any]:
        """Time passes, in which the scheduler says something now and then."""
        self.now = now
        self.client.member.heard(now)
        return self.do(self.client.on_timer(now))

    def take(self) -> list[Message]:
        """The messages sent since the last time, short of signs of life."""
        sent, self.sent = self.sent, []
        return [
            send.message
            for send in sent
            if hasattr(send.message, "request") or isinstance(send.message, Poll)
        ]

    def answer(self, kind: type, make: Any, *payloads: Any, server: int = 0) -> list[Any]:
        """Answer the last request of `kind` with ``make(its number)``."""
        peer = server_peer(server) if kind is not Barrier else SCHEDULER
        sends = [s for s in self.sent if type(s.message) is kind and s.peer == peer]
        return self.hear(peer, make(sends[-1].message.request), *payloads)

    def init(self, *keys: Any, layout: FlatLayout = LAYOUT, **settings: Any) -> None:
        for key in keys:
            values = np.zeros(layout.size, layout.dtype) if self.client.member.rank == 0 else None
            number = self.call_init(key, layout, values, **settings)
            for send in list(self.sent):
                if isinstance(send.message, Init | SetValues):
                    self.hear(send.peer, Ack(send.message.request))
            assert self.ends[number] == Done(number)
        self.take()

    def call_init(self, key: Any, layout: FlatLayout, values: Any, **settings: Any) -> int:
        number, actions = self.client.init(key, layout, values, self.now, **settings)
        self.do(actions)
        return number

    def pushpull(self, key: Any, array: Any = None, *, out: Any = None, **settings: Any) -> int:
        array = grad() if array is None else array
        return self.call("pushpull", [(key, array, [out if out is not None else grad()])], **settings)

    def error(self, number: int) -> MXNetError:
        end = self.ends[number]
        assert isinstance(end, Failed)
        return end.error


def grad(value: float = 1.0, size: int = 64) -> np.ndarray:
    return np.full(size, value, np.float32)


def values_of(*arrays: np.ndarray) -> Any:
    return lambda request: Values(request, len(arrays))


# -- joining


def test_joining_connects_and_greets_every_server() -> None:
    bench = Bench(2, rank=1, ready=False)
    with pytest.raises(NotReadyError, match="barrier"):
        bench.call("barrier")
    actions = bench.hear(SCHEDULER, bench.view)
    assert isinstance(actions[0], Joined)
    assert [a.peer for a in actions if isinstance(a, Connect)] == ["server 0", "server 1"]
    hellos = [(a.peer, a.message) for a in actions if isinstance(a, Send) and isinstance(a.message, Hello)]
    assert hellos == [("server 0", Hello(1, "job", 1, 17)), ("server 1", Hello(2, "job", 1, 17))]
    bench.hear("server 1", Ack(2))
    assert not bench.client.ready
    bench.hear("server 0", Ack(1))
    assert bench.client.ready and bench.ends[0] == Done(0, 1)


def test_a_fenced_worker_is_told() -> None:
    bench = Bench(ready=False)
    bench.hear(SCHEDULER, bench.view)
    bench.hear("server 0", Error(1, "fenced", "worker 0 is another process now"))
    assert isinstance(bench.error(0), JoinRefusedError)


def test_a_lost_job_fails_all_that_goes_on_and_all_that_comes() -> None:
    bench = Bench()
    bench.init("w")
    first, second = bench.pushpull("w"), bench.call("barrier")
    lost = PeerLost("worker", 1, "host", 2, "it has stopped answering", 10.0)
    actions = bench.hear(SCHEDULER, lost)
    assert isinstance(actions[-1], Lost)
    for number in (first, second):
        assert isinstance(bench.error(number), PeerLostError)
        assert "worker 1 (pid 2 on host, silent for 10.0 s) is lost" in str(bench.error(number))
    assert "pushpull('w') was waiting in round 1 of epoch 0" in str(bench.error(first))
    assert bench.client.member.lost == lost
    with pytest.raises(PeerLostError, match="worker 1"):
        bench.pushpull("w")
    number = bench.call("leave", "PeerLostError")
    assert bench.ends[number] == Done(number)


# -- keys


def test_init_tells_every_server_and_rank_0_sends_the_values_in_units() -> None:
    bench = Bench(2)
    layout = FlatLayout.plan([(0, "w", (300,))], "float32")
    values = np.arange(layout.size, dtype=np.float32)
    number = bench.call_init("w", layout, values)
    sent = [(s.peer, s.message) for s in bench.sent]
    inits = [(peer, m) for peer, m in sent if isinstance(m, Init)]
    assert [peer for peer, _ in inits] == ["server 0", "server 1"]
    assert [cut.server for cut in inits[0][1].cuts] == [0, 1, 0, 1, 0]
    received = np.zeros(layout.size, np.float32)
    for send in bench.sent:
        if isinstance(send.message, SetValues):
            for piece, payload in zip(send.message.pieces, send.payloads, strict=True):
                cut = inits[0][1].cuts[piece]
                assert send.peer == server_peer(cut.server)
                received[cut.start : cut.stop] = payload
    np.testing.assert_array_equal(received, values)
    for send in list(bench.sent):
        assert number not in bench.ends
        bench.hear(send.peer, Ack(send.message.request))
    assert bench.ends[number] == Done(number)


def test_other_ranks_and_summing_keys_send_no_values() -> None:
    bench = Bench(rank=1)
    bench.call_init("w", LAYOUT, None)
    assert [type(m) for m in bench.take()] == [Init]
    bench = Bench(rank=0)
    bench.call_init("s", LAYOUT, None, mode="sum")
    assert [type(m) for m in bench.take()] == [Init]


def test_a_second_init_is_done_at_once_unless_it_differs() -> None:
    bench = Bench()
    bench.init("w")
    number = bench.call_init("w", LAYOUT, None)
    assert bench.ends[number] == Done(number) and bench.take() == []
    with pytest.raises(InvalidArgument, match="initialised already"):
        bench.call_init("w", LAYOUT, None, mode="sum")


def test_a_push_waits_for_the_init_of_its_key() -> None:
    bench = Bench()
    bench.call_init("w", LAYOUT, grad())
    bench.pushpull("w")
    assert [type(m) for m in bench.take()] == [Init, SetValues]
    bench.hear("server 0", Ack(2))
    assert [type(m) for m in bench.take()] == [PushPull]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda c: c.pushpull([("x", grad(), [grad()])], 0.0), "pushpull('x'): key 'x' is unknown; init"),
        (
            lambda c: c.push([("w", grad(size=3))], 0.0),
            "push('w'): float32 (3,) for 'w', initialised as float32",
        ),
        (lambda c: c.push([("w", grad().astype("f8"))], 0.0), "float64 (64,) for 'w'"),
        (lambda c: c.push([("w", grad(size=128)[::2])], 0.0), "not contiguous"),
        (lambda c: c.push([("w", grad()), ("w", grad())], 0.0), "given twice"),
        (lambda c: c.pull([("w", [])], 0.0), "no array to write 'w' to"),
        (lambda c: c.pull([("w", [np.frombuffer(bytes(256), "f4")])], 0.0), "cannot be written to"),
        (lambda c: c.init("v", LAYOUT, None, 0.0), "rank 0 has to give values"),
        (lambda c: c.get_states(["x"], 0.0), "get_states('x'): key 'x' is unknown"),
        (lambda c: c.set_states([PieceStates("w", 3, 0, 9, 0, [])], 0.0), "has no piece [0, 9)"),
        (lambda c: c.set_optimizer({"a": object()}, 0.0), "expected plain values, got object"),
    ],
)
def test_misuse_raises_at_once_and_changes_nothing(call: Any, text: str) -> None:
    bench = Bench()
    bench.init("w")
    with pytest.raises(MXNetError) as caught:
        call(bench.client)
    assert text in str(caught.value)
    assert bench.take() == []
    bench.pushpull("w")
    assert bench.take()[0].pieces == (PieceRef("w", 0, 1),)


# -- pushing and pulling


def test_pushpull_writes_the_values_into_every_out() -> None:
    bench = Bench()
    bench.init("w")
    array, other = grad(3.0), grad(0.0)
    number = bench.call("pushpull", [("w", array, [array, other])])
    assert bench.sent[-1].payloads[0].base is array or bench.sent[-1].payloads[0] is array  # not copied
    bench.answer(PushPull, values_of(array), grad(7.0))
    assert bench.ends[number] == Done(number)
    assert (array == 7).all() and (other == 7).all()


def test_small_keys_share_a_message_and_large_ones_are_cut() -> None:
    bench = Bench()
    small = FlatLayout.plan([(0, "s", (16,))], "float32")
    bench.init(*range(6), layout=small)
    bench.call("push", [(key, grad(size=16)) for key in range(6)])
    pushes = [m for m in bench.take() if isinstance(m, Push)]
    assert [[ref.key for ref in m.pieces] for m in pushes] == [[0, 1, 2, 3], [4, 5]]


def test_rounds_are_counted_and_a_piece_has_one_request_at_a_time() -> None:
    bench = Bench()
    bench.init("w")
    first, second = bench.pushpull("w"), bench.pushpull("w")
    assert [m.pieces[0].round for m in bench.take()] == [1]
    pull = bench.call("pull", [("w", [grad()])])
    bench.hear("server 0", Values(4, 1), grad())
    assert first in bench.ends and second not in bench.ends
    [message] = bench.take()
    assert message == PushPull(5, 0, "float32", (PieceRef("w", 0, 2),), False)
    bench.hear("server 0", Values(5, 1), grad())
    assert bench.take() == [Pull(6, 0, (PieceRef("w", 0, 2),))]
    bench.hear("server 0", Values(6, 1), grad())
    assert pull in bench.ends


def test_higher_priority_leaves_first_and_equal_ones_in_order() -> None:
    bench = Bench()
    bench.init("gate", "a", "b", "c", "d")
    pieces = [(key, grad()) for key in ("a", "b", "c", "d")]
    number = bench.call("push", pieces)  # occupies all four
    bench.take()
    for key, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        bench.call("push", [(key, grad(2.0))], priority=priority)
    busy = sorted(bench.client._outstanding.unanswered)
    actions = [a for n in busy for a in bench.hear("server 0", Ack(n))]
    assert number in bench.ends and len(actions) >= 5
    bench = Bench()
    bench.init("a", "b", "c", "d")
    bench.call("barrier")  # holds everything up, so that all four become ready at once
    for key, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 5)):
        bench.call("push", [(key, grad())], priority=priority)
    sends = bench.answer(Barrier, Ack)
    order = [send.message.pieces[0].key for send in sends if isinstance(send, Send)]
    assert order == ["b", "d", "a", "c"]


def test_the_record_travels_once_with_the_push() -> None:
    bench = Bench(2)
    layout = FlatLayout.plan([(0, "w", (256,))], "float32")
    bench.init("w", layout=layout)
    array = grad(size=256)
    bench.call("pushpull", [("w", array, [array])], record=b"record")
    records = [send.payloads[-1] for send in bench.sent if send.message.has_record]
    assert records == [b"record"] and len(bench.sent) == 4


def test_a_float16_key_takes_float32_contributions() -> None:
    bench = Bench()
    layout = FlatLayout.plan([(0, "h", (64,))], "float16")
    bench.init("h", layout=layout)
    out = np.zeros(64, np.float16)
    bench.call("pushpull", [("h", grad(), [out])])
    assert bench.sent[-1].message.dtype == "float32"
    bench.answer(PushPull, values_of(out), np.full(64, 2, np.float16))
    assert (out == 2).all()


def test_values_of_another_size_fail_the_operation() -> None:
    bench = Bench()
    bench.init("w")
    number = bench.pushpull("w")
    bench.answer(PushPull, values_of(grad()), grad(size=5))
    assert isinstance(bench.error(number), ProtocolError)
    number = bench.pushpull("w")
    bench.answer(PushPull, lambda request: Values(request, 2), grad(), grad())
    assert isinstance(bench.error(number), ProtocolError)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("unknown_key", UnknownKeyError),
        ("invalid", InvalidArgument),
        ("mismatch", InvalidArgument),
        ("not_ready", NotReadyError),
        ("peer_lost", PeerLostError),
        ("fenced", JoinRefusedError),
        ("protocol", ProtocolError),
        ("failed", RemoteError),
    ],
)
def test_errors_of_the_server_are_raised_by_their_kind(code: str, kind: type[MXNetError]) -> None:
    bench = Bench()
    bench.init("w")
    number = bench.pushpull("w")
    bench.answer(PushPull, lambda request: Error(request, code, "the text"))
    waited = "; pushpull('w') was waiting in round 1 of epoch 0" if code == "peer_lost" else ""
    assert type(bench.error(number)) is kind and str(bench.error(number)) == "the text" + waited


def test_long_waits_can_be_told_of() -> None:
    bench = Bench(wait_s=600.0)
    bench.init("w")
    bench.pushpull("w")
    bench.answer(PushPull, lambda request: Pending(request, ("worker 1",)))
    assert bench.client.waits(29.0, 30.0) == []
    [text] = bench.client.waits(31.0, 30.0)
    assert "pushpull('w'): after 31.0 s server 0" in text and "waits for worker 1 in round 1" in text


def test_a_failed_operation_ends_at_once_and_late_answers_do_not_touch_its_arrays() -> None:
    bench = Bench(2)
    layout = FlatLayout.plan([(0, "w", (128,))], "float32")
    bench.init("w", layout=layout)
    out = grad(0.0, 128)
    number = bench.call("pushpull", [("w", grad(size=128), [out])])
    bench.answer(PushPull, lambda request: Error(request, "failed", "x"), server=0)
    assert isinstance(bench.error(number), RemoteError)
    bench.answer(PushPull, values_of(grad()), grad(9.0), server=1)
    assert (out == 0).all()


def test_answers_nobody_asked_for_are_ignored() -> None:
    bench = Bench(2)
    bench.init("w")
    number = bench.pushpull("w")
    request = bench.sent[-1].message.request
    for peer, message in (
        ("server 1", Values(request, 0)),
        ("server 0", Values(999, 0)),
        ("server 0", Ack(request)),
        ("server 0", EpochDone(request, 0, ())),
        ("server 0", Resend((999,))),
        (SCHEDULER, Ack(request)),
    ):
        assert [a for a in bench.hear(peer, message) if not isinstance(a, Send)] == []
    assert number not in bench.ends


# -- epochs


def test_a_dropped_round_fails_with_epoch_ended_when_all_of_it_is_answered() -> None:
    bench = Bench(2)
    layout = FlatLayout.plan([(0, "w", (128,))], "float32")
    bench.init("w", layout=layout)
    number = bench.call("pushpull", [("w", grad(size=128), [grad(size=128)])])
    bench.answer(PushPull, lambda request: Dropped(request, 0, 1), server=0)
    assert number not in bench.ends
    bench.answer(PushPull, lambda request: Dropped(request, 0, 1), server=1)
    assert isinstance(bench.error(number), EpochEnded)
    assert "worker 1 has ended epoch 0" in str(bench.error(number))
    bench.take()
    again = bench.call("push", [("w", grad(size=128))])
    assert isinstance(bench.error(again), EpochEnded) and bench.take() == []


def test_end_epoch_follows_all_answers_and_rounds_begin_again() -> None:
    bench = Bench()
    bench.init("w")
    bench.pushpull("w")
    ending = bench.call("end_epoch")
    after = bench.pushpull("w")
    assert [type(m) for m in bench.take()] == [PushPull]
    bench.hear("server 0", Values(4, 1), grad())
    assert bench.take() == [EndEpoch(5, 0, 1)]
    bench.hear("server 0", EpochDone(5, 0, (1, 2)))
    assert bench.ends[ending] == Done(ending, (1, 2)) and bench.client.epoch == 1
    assert bench.take() == [PushPull(6, 1, "float32", (PieceRef("w", 0, 1),), False)]
    assert after not in bench.ends


def test_after_a_drop_the_next_epoch_is_open_again() -> None:
    bench = Bench()
    bench.init("w")
    bench.pushpull("w")
    bench.answer(PushPull, lambda request: Dropped(request, 0, 1))
    bench.call("end_epoch")
    bench.answer(EndEpoch, lambda request: EpochDone(request, 0, (1, 0)))
    bench.take()
    bench.pushpull("w")
    assert [(m.epoch, m.pieces[0].round) for m in bench.take()] == [(1, 1)]


# -- barriers, the optimizer, states


def test_barriers_are_numbered_by_name_and_follow_earlier_operations() -> None:
    bench = Bench()
    bench.init("w")
    bench.call("push", [("w", grad())])
    number = bench.call("barrier")
    assert [type(m) for m in bench.take()] == [Push]
    bench.hear("server 0", Ack(4))
    assert bench.take() == [Barrier(5, "", 1)]
    bench.hear(SCHEDULER, Ack(5))
    assert bench.ends[number] == Done(number)
    bench.call("barrier", name="x")
    assert bench.take() == [Barrier(6, "x", 1)]
    bench.hear(SCHEDULER, Error(6, "peer_lost", "worker 1 has left"))
    assert isinstance(bench.error(3 + 1), PeerLostError)


def test_set_optimizer_asks_all_servers() -> None:
    bench = Bench(2)
    number = bench.call("set_optimizer", {"name": "sgd"})
    assert bench.take() == [SetOptimizer(3, 1, {"name": "sgd"}), SetOptimizer(4, 1, {"name": "sgd"})]
    bench.hear("server 0", Ack(3))
    bench.hear("server 1", Ack(4))
    assert bench.ends[number] == Done(number)


def test_states_of_all_pieces_are_gathered_and_set() -> None:
    bench = Bench(2)
    layout = FlatLayout.plan([(0, "w", (128,))], "float32")
    bench.init("w", layout=layout)
    number = bench.call("get_states", ["w"])
    for server in (1, 0):
        bench.answer(GetStates, lambda r: States(r, 7, ("float32",)), grad(float(server)), server=server)
    end = bench.ends[number]
    assert isinstance(end, Done)
    assert [(s.key, s.piece, s.start, s.stop, s.count) for s in end.result] == [
        ("w", 0, 0, 64, 7),
        ("w", 1, 64, 128, 7),
    ]
    assert [float(s.arrays[0][0]) for s in end.result] == [0.0, 1.0]
    bench.take()
    bench.call("set_states", end.result)
    assert [(m.piece, m.count, m.dtypes) for m in bench.take() if isinstance(m, SetStates)] == [
        (0, 7, ("float32",)),
        (1, 7, ("float32",)),
    ]


# -- time


def test_an_unanswered_request_is_polled_and_sent_again_only_when_asked_for() -> None:
    bench = Bench()
    bench.init("w")
    bench.pushpull("w")
    [message] = bench.take()
    bench.timer(0.8)
    assert bench.take() == []
    bench.timer(0.9)
    assert bench.take() == [Poll((message.request,))]
    bench.hear("server 0", Resend((message.request,)))
    assert bench.sent[-1].payloads and bench.take() == [message]
    bench.hear("server 0", Pending(message.request, ("worker 1",)))
    bench.timer(6.0)
    assert bench.take() == [Poll((message.request,))]


def test_small_requests_are_repeated_themselves() -> None:
    bench = Bench()
    bench.init("w")
    bench.call("pull", [("w", [grad()])])
    [message] = bench.take()
    bench.timer(3.0)
    assert bench.take() == [message]
    number = bench.call("barrier")
    bench.hear("server 0", Values(message.request, 1), grad())
    [barrier] = bench.take()
    bench.timer(6.0)
    assert bench.take() == [barrier] and number not in bench.ends


def test_a_server_that_does_not_answer_is_named() -> None:
    bench = Bench()
    bench.init("w")
    number = bench.pushpull("w")
    for now in (1.0, 6.0, 12.0, 18.9):
        bench.timer(now)
        assert number not in bench.ends
    bench.timer(19.0)
    assert isinstance(bench.error(number), DeadlineError)
    assert "pushpull('w'): server 0 (pid 50 on host) has not answered for 18.0 s" in str(bench.error(number))


def test_a_wait_behind_a_slow_worker_has_a_deadline_that_names_it() -> None:
    bench = Bench(wait_s=30.0)
    bench.init("w")
    number = bench.pushpull("w")
    [message] = bench.take()
    for now in range(3, 30, 3):
        bench.timer(float(now))
        bench.hear("server 0", Pending(message.request, ("worker 1",)))
        assert number not in bench.ends
    bench.timer(30.0)
    text = "pushpull('w'): after 30.0 s server 0 (pid 50 on host) still waits for worker 1 in round 1"
    assert isinstance(bench.error(number), DeadlineError) and text in str(bench.error(number))


# -- leaving


def test_leave_follows_all_answers_and_tells_servers_before_the_scheduler() -> None:
    bench = Bench(2)
    bench.init("w")
    bench.pushpull("w")
    number = bench.call("leave", "")
    with pytest.raises(NotReadyError, match="has left"):
        bench.pushpull("w")
    assert [type(m) for m in bench.take()] == [PushPull]
    bench.hear("server 0", Values(6, 1), grad())
    assert bench.take() == [Leave(7, ""), Leave(8, "")]
    bench.hear("server 0", Ack(7))
    assert bench.take() == []
    bench.hear("server 1", Ack(8))
    assert bench.take() == [Leave(0, "")]
    actions = bench.hear(SCHEDULER, Ack(0))
    assert actions == [Done(number), Exit(None)]


def test_leave_with_an_error_is_said_at_once() -> None:
    bench = Bench()
    bench.init("w")
    waiting = bench.pushpull("w")
    bench.take()
    bench.call("leave", "ValueError: no data")
    assert bench.take() == [Leave(5, "ValueError: no data")]
    assert "ValueError: no data" in str(bench.error(waiting))


def test_leave_ends_though_nobody_answers() -> None:
    bench = Bench()
    number = bench.call("leave", "")
    for now in range(1, 30):
        if number in bench.ends:
            break
        bench.timer(float(now))
    assert bench.ends[number] == Done(number) and bench.now <= 19.0


def test_leave_before_joining() -> None:
    bench = Bench(ready=False)
    number = bench.call("leave", "interrupted")
    assert isinstance(bench.ends[0], Failed)
    bench.hear(SCHEDULER, Ack(0))
    assert bench.ends[number] == Done(number)


def test_the_end_of_a_link_is_told_to_the_scheduler_and_ends_nothing_by_itself() -> None:
    bench = Bench(num_servers=2)
    told = Send(SCHEDULER, LinkEnded("server", 1, 91))
    assert bench.do(bench.client.on_disconnect("server 1", 1.0)) == [told]
    assert bench.client.error is None and bench.client.ready
    bench.call("leave", "")
    for server in range(2):
        bench.answer(Leave, Ack, server=server)
    assert bench.do(bench.client.on_disconnect("server 0", 2.0)) == []  # it may leave too, now
