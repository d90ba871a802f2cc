"""A server's rounds: events in, exact actions out."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from dmod.kvstore.actions import SCHEDULER, Exit, Joined, Lost, Send
from dmod.kvstore.compression import Compression, Compressor
from dmod.kvstore.member_state import MemberState
from dmod.kvstore.messages import (
    Ack,
    Cut,
    EndEpoch,
    Error,
    GetStates,
    Heartbeat,
    Hello,
    Init,
    Join,
    Leave,
    LinkEnded,
    Member,
    Message,
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
from dmod.kvstore.messages import PeerLost as PeerLostMessage
from dmod.kvstore.server_state import ServerState
from dmod.kvstore.tree import tree_sum
from dmod.ndarray.flat import FlatLayout
from tests.kvstore.simulator import Momentum

SIZE = 16
LAYOUT = FlatLayout.plan([(0, "weight", (2, 8))], "float32")
CUTS = (Cut(0, SIZE, 0),)
CONFIG = {"rate": 0.5, "momentum": 0.0}


class Bench:
    """A server that has joined, and workers who talk to it; invariants are checked after every event."""

    def __init__(
        self, num_workers: int = 2, *, init: bool = True, mode: str = "update", dtype: str = "float32"
    ):
        join = Join("job", "server", 0, 99, "host", 1, (), "1", num_workers, 1, {})
        self.server = ServerState(MemberState(join), Momentum)
        self.server.start(0.0)
        self.ranks = range(num_workers)
        self.request = 0
        self.layout = FlatLayout(dtype, LAYOUT.segments, LAYOUT.size)
        members = [Member("worker", r, 100 + r, "host", 10 + r, ()) for r in self.ranks]
        members.append(Member("server", 0, 99, "host", 1, ()))
        self.view = View(1, 0, tuple(members))
        if init:
            self.server.on_message(SCHEDULER, self.view, (), 0.0)
            for rank in self.ranks:
                assert self.say(rank, Hello(self.next(), "job", rank, 100 + rank)) == [
                    (rank, Ack(self.request))
                ]
            self.init_key("w", 0, mode)

    def next(self) -> int:
        """A new request number."""
        self.request += 1
        return self.request

    def say(self, rank: int, message: Message, *payloads: Any) -> list[tuple[int, Message]]:
        """Worker `rank` sends a message; what the server says to whom."""
        actions = self.server.on_message(f"peer {rank}", message, payloads, 0.0)
        self.server.check_invariants()
        self.sent = [a.payloads for a in actions if isinstance(a, Send)]
        return [(int(str(a.peer)[5:]), a.message) for a in actions if isinstance(a, Send)]

    def init_key(self, key: Any, order: int, mode: str = "update", value: float = 0.0) -> None:
        for rank in self.ranks:
            self.say(rank, Init(self.next(), key, order, self.layout, CUTS, mode, ""))
        if mode == "update":
            values = np.full(SIZE, value, self.layout.dtype)
            answers = self.say(0, SetValues(self.next(), key, (0,)), values)
            assert [type(m) for _, m in answers] == [Ack] * (1 + len(self.ranks))

    def set_optimizer(self) -> None:
        answers = [a for rank in self.ranks for a in self.say(rank, SetOptimizer(self.next(), 1, CONFIG))]
        assert [type(m) for _, m in answers] == [Ack] * len(self.ranks)

    def push(
        self, rank: int, round: int, value: Any, *, epoch: int = 0, key: Any = "w", kind: type = PushPull
    ) -> Any:
        dtype = self.layout.dtype
        message = kind(self.next(), epoch, dtype, (PieceRef(key, 0, round),), False)
        return self.say(rank, message, array(value, dtype))

    def pull(self, rank: int, round: int, *, epoch: int = 0) -> Any:
        return self.say(rank, Pull(self.next(), epoch, (PieceRef("w", 0, round),)))

    def end(self, rank: int, epoch: int = 0, rounds: int = 0) -> Any:
        return self.say(rank, EndEpoch(self.next(), epoch, rounds))

    def values(self) -> np.ndarray:
        """The values in the newest answer."""
        return np.asarray(self.sent[-1][0])


def array(value: Any, dtype: str = "float32") -> np.ndarray:
    return np.full(SIZE, value, dtype) if np.isscalar(value) else np.asarray(value, dtype)


def kinds(answers: list[tuple[int, Message]]) -> list[tuple[int, str]]:
    return [(rank, type(message).__name__) for rank, message in answers]


def only_error(answers: list[tuple[int, Message]]) -> Error:
    [(_, error)] = answers
    assert isinstance(error, Error), error
    return error


# -- rounds


def test_a_round_is_applied_when_every_rank_has_contributed() -> None:
    bench = Bench(3)
    assert bench.push(0, 1, 1.0) == []
    assert bench.push(2, 1, 4.0) == []
    assert kinds(bench.push(1, 1, 2.0)) == [(0, "Values"), (2, "Values"), (1, "Values")]
    assert (bench.values() == 7).all()


def test_second_push_of_a_rank_does_not_complete_the_round() -> None:
    bench = Bench(2)
    assert bench.push(0, 1, 1.0) == []
    assert bench.push(0, 1, 1.0) == []  # another request, the same contribution
    assert kinds(bench.push(1, 1, 2.0)) == [(0, "Values"), (0, "Values"), (1, "Values")]
    assert (bench.values() == 3).all()


def test_a_repeated_message_is_answered_pending_and_then_from_the_result() -> None:
    bench = Bench(2)
    message = PushPull(bench.next(), 0, "float32", (PieceRef("w", 0, 1),), False)
    assert bench.say(0, message, array(1)) == []
    assert bench.say(0, message, array(1)) == [(0, Pending(message.request, ("worker 1",)))]
    bench.push(1, 1, 2.0)
    assert bench.say(0, message, array(1)) == [(0, Values(message.request, 1))]
    assert (bench.values() == 3).all()


def test_the_sum_has_the_bits_of_the_tree_in_every_order() -> None:
    rng = np.random.default_rng(3)
    grads = [(rng.standard_normal(SIZE) * 10.0 ** rng.integers(-4, 5, SIZE)).astype("f4") for _ in range(5)]
    expected = tree_sum(grads)
    for seed in range(10):
        order = list(range(5))
        random.Random(seed).shuffle(order)
        bench = Bench(5)
        for rank in order:
            bench.push(rank, 1, grads[rank])
        np.testing.assert_array_equal(bench.values(), expected)


def test_the_optimizer_is_applied_once_per_round() -> None:
    bench = Bench(2)
    bench.set_optimizer()
    for round in (1, 2):
        bench.push(0, round, 1.0)
        bench.push(1, round, 2.0)
        bench.push(1, round, 2.0)
        assert (bench.values() == -1.5 * round).all()


def test_without_optimizer_and_with_mode_sum_the_sum_becomes_the_value() -> None:
    for mode in ("update", "sum"):
        bench = Bench(2, mode=mode)
        if mode == "sum":
            bench.set_optimizer()  # which is none of its business
        for round in (1, 2, 3):
            bench.push(0, round, round)
            bench.push(1, round, 10.0)
            assert (bench.values() == 10 + round).all()


def test_values_sent_earlier_are_not_touched_before_all_have_the_next_round() -> None:
    bench = Bench(2, mode="sum")
    bench.push(0, 1, 1.0)
    bench.push(1, 1, 1.0)
    first = bench.values()
    bench.init_key("other", 1, "sum")
    bench.push(0, 2, 5.0)  # worker 1 may still be reading
    bench.push(0, 1, 7.0, key="other")
    bench.push(1, 1, 7.0, key="other")
    assert (first == 2).all()


def test_float16_is_summed_in_float32_which_may_be_sent_too() -> None:
    bench = Bench(2, dtype="float16")
    bench.push(0, 1, 2048.0)
    wide = PushPull(bench.next(), 0, "float32", (PieceRef("w", 0, 1),), False)
    bench.say(1, wide, array(3.0))
    assert bench.values().dtype == np.float16 and (bench.values() == 2052).all()


def test_a_push_is_acknowledged_at_once_and_at_most_one_round_ahead() -> None:
    bench = Bench(2)
    assert kinds(bench.push(0, 1, 1.0, kind=Push)) == [(0, "Ack")]
    assert bench.push(0, 2, 10.0, kind=Push) == []  # held back
    assert only_error(bench.push(0, 3, 1.0, kind=Push)).code == "protocol"
    assert kinds(bench.push(1, 1, 2.0, kind=Push)) == [(1, "Ack"), (0, "Ack")]
    assert bench.pull(0, 2) == []
    assert kinds(bench.push(1, 2, 20.0)) == [(0, "Values"), (1, "Values")]
    assert (bench.values() == 30).all()


def test_a_pull_waits_for_the_round_that_it_names() -> None:
    bench = Bench(2)
    assert kinds(bench.pull(1, 0)) == [(1, "Values")]
    bench.push(0, 1, 1.0, kind=Push)
    assert bench.pull(0, 1) == []
    assert kinds(bench.push(1, 1, 1.0, kind=Push)) == [(1, "Ack"), (0, "Values")]


def test_a_request_with_several_keys_is_answered_when_all_are_applied() -> None:
    bench = Bench(2)
    bench.init_key("v", 1, value=5.0)
    pieces = (PieceRef("w", 0, 1), PieceRef("v", 0, 1))
    assert bench.say(0, PushPull(bench.next(), 0, "float32", pieces, False), array(1), array(2)) == []
    assert kinds(bench.push(1, 1, 10.0)) == [(1, "Values")]
    assert kinds(bench.push(1, 1, 20.0, key="v")) == [(0, "Values"), (1, "Values")]
    assert [float(v[0]) for v in bench.sent[0]] == [11.0, 22.0]


def test_the_newest_recovery_record_is_kept() -> None:
    bench = Bench(2)
    newest = Push(bench.next(), 0, "float32", (PieceRef("w", 0, 1),), True)
    bench.say(0, newest, array(1), b"first")
    later = Push(bench.next(), 0, "float32", (PieceRef("w", 0, 2),), True)
    bench.say(0, later, array(1), b"second")
    bench.push(1, 1, 1.0)
    bench.say(0, newest, array(1), b"first")
    assert bench.server.records == {0: b"second"}


def test_a_failing_update_fails_the_key_for_everyone() -> None:
    bench = Bench(2)
    bench.set_optimizer()
    [piece] = bench.server._table.pieces()
    piece.updater.rate = "nonsense"
    bench.push(0, 1, 1.0)
    answers = bench.push(1, 1, 1.0)
    assert kinds(answers) == [(0, "Error"), (1, "Error")]
    assert "key 'w': the update failed" in answers[0][1].text
    assert only_error(bench.pull(0, 0)).code == "failed"


# -- what is refused, and changes nothing


def test_illegal_requests_change_nothing() -> None:
    bench = Bench(2)
    bench.push(0, 1, 1.0)
    ref = (PieceRef("w", 0, 1),)
    good = array(5)
    for message, payloads, code, text in [
        (PushPull(1001, 0, "float32", (PieceRef("x", 0, 1),), False), [good], "unknown_key", "init"),
        (PushPull(1002, 0, "float32", (PieceRef("w", 1, 1),), False), [good], "protocol", "piece 1"),
        (PushPull(1003, 0, "float32", (PieceRef("w", 0, 0),), False), [good], "protocol", "round 0"),
        (PushPull(1004, 0, "float32", (PieceRef("w", 0, 2),), False), [good], "protocol", "before round 1"),
        (PushPull(1005, 0, "float32", (PieceRef("w", 0, 9),), False), [good], "protocol", "round 9"),
        (PushPull(1006, 0, "float64", ref, False), [good], "invalid", "initialised as float32"),
        (PushPull(1007, 0, "float32", ref, False), [good[:3]], "invalid", "12 bytes"),
        (PushPull(1008, 5, "float32", ref, False), [good], "protocol", "epoch 5"),
        (PushPull(1009, 0, "float32", ref * 2, False), [good] * 2, "protocol", "twice"),
        (PushPull(1010, 0, "float32", (), False), [], "protocol", "no pieces"),
        (PushPull(1011, 0, "float32", ref, True), [good, bytes(5 << 20)], "invalid", "record"),
        (Pull(1012, 0, (PieceRef("w", 0, 7),)), [], "protocol", "round 7"),
        (GetStates(1013, "w", 0), [], "not_ready", "set_optimizer"),
        (EndEpoch(1014, 3, 0), [], "protocol", "epoch 3"),
        (SetOptimizer(1015, 5, CONFIG), [], "protocol", "number 5"),
        (SetValues(1016, "w", (0,)), [good], "protocol", "rank 0"),
        (Heartbeat(5, 1), [], "protocol", "not for a server"),
    ]:
        error = only_error(bench.say(1, message, *payloads))
        assert (error.code, text in error.text) == (code, True), error
    bench.push(1, 1, 2.0)
    assert (bench.values() == 3).all()
    assert bench.server.violations == 1


def test_strangers_are_refused() -> None:
    bench = Bench(2)
    for message in (Push(1, 0, "float32", (PieceRef("w", 0, 1),), False), Poll((1,)), Leave(1, "")):
        payloads = [array(1)] * message.payload_count()
        assert only_error(bench.say(7, message, *payloads)).code == "protocol"
    assert only_error(bench.say(7, Hello(1, "other", 0, 100))).code == "fenced"
    assert only_error(bench.say(7, Hello(1, "job", 5, 100))).code == "fenced"


def test_the_end_of_a_link_is_told_to_the_scheduler_unless_its_worker_has_left() -> None:
    bench = Bench(3)
    assert bench.server.name_of("peer 1") == "worker 1 (pid 11 on host)"
    assert bench.server.on_disconnect("peer 1", 1.0) == [Send(SCHEDULER, LinkEnded("worker", 1, 101))]
    assert bench.server.on_disconnect("peer 1", 1.0) == []
    bench.say(2, Leave(bench.next(), ""))
    assert bench.server.on_disconnect("peer 2", 2.0) == []
    assert bench.server.on_disconnect("peer 7", 3.0) == []  # nobody
    assert bench.server.name_of("peer 7") == "one who has not said who it is"


def test_an_older_incarnation_is_fenced() -> None:
    bench = Bench(2)
    error = only_error(bench.say(7, Hello(1, "job", 0, 55)))
    assert error.code == "fenced" and "another process now (pid 10 on host)" in error.text


def test_a_hello_before_the_view_is_answered_with_it() -> None:
    bench = Bench(2, init=False)
    assert bench.say(0, Hello(1, "job", 0, 100)) == []
    actions = bench.server.on_message(SCHEDULER, bench.view, (), 0.0)
    assert isinstance(actions[0], Joined)
    assert actions[-1] == Send("peer 0", Ack(1))


# -- polls


def test_a_poll_tells_what_is_known_and_asks_for_the_rest() -> None:
    bench = Bench(3)
    bench.push(0, 1, 1.0)
    waiting = bench.request
    answers = bench.say(0, Poll((waiting, 777)))
    assert answers == [(0, Pending(waiting, ("worker 1", "worker 2"))), (0, Resend((777,)))]


# -- epochs


def test_a_round_without_the_rank_that_ended_is_dropped_on_all() -> None:
    bench = Bench(3)
    for rank in range(3):
        bench.push(rank, 1, 1.0)
    bench.push(0, 2, 50.0)
    bench.push(2, 2, 50.0)
    answers = bench.end(1, rounds=1)
    assert kinds(answers) == [(0, "Dropped"), (2, "Dropped")]
    assert all(message.ended_by == 1 and message.epoch == 0 for _, message in answers)
    assert kinds(bench.pull(0, 1)) == [(0, "Values")]
    assert (bench.values() == 3).all()


def test_pushes_and_pulls_of_a_round_that_cannot_complete_are_dropped() -> None:
    bench = Bench(2)
    bench.end(1)
    assert kinds(bench.push(0, 1, 1.0)) == [(0, "Dropped")]
    assert kinds(bench.push(0, 1, 1.0, kind=Push)) == [(0, "Dropped")]
    assert kinds(bench.pull(0, 1)) == [(0, "Dropped")]
    assert kinds(bench.pull(0, 0)) == [(0, "Values")]


def test_a_pull_that_waits_for_a_dropped_round_is_dropped() -> None:
    bench = Bench(2)
    bench.push(0, 1, 1.0, kind=Push)
    bench.push(0, 2, 1.0, kind=Push)
    assert kinds(bench.end(1)) == [(0, "Dropped")]
    bench = Bench(2)
    bench.push(0, 1, 1.0, kind=Push)
    bench.pull(0, 1)
    assert kinds(bench.end(1)) == [(0, "Dropped")]


def test_a_round_to_which_the_ended_rank_had_contributed_is_completed() -> None:
    bench = Bench(2)
    bench.push(1, 1, 5.0, kind=Push)
    assert bench.end(1, rounds=1) == []
    assert kinds(bench.push(0, 1, 1.0)) == [(0, "Values")]
    assert (bench.values() == 6).all()
    assert kinds(bench.push(0, 2, 1.0)) == [(0, "Dropped")]


def test_when_all_have_ended_the_next_epoch_begins_and_counts_from_one() -> None:
    bench = Bench(2)
    bench.push(0, 1, 1.0)
    bench.push(1, 1, 1.0)
    bench.push(0, 2, 9.0)
    bench.end(1, rounds=1)
    answers = bench.end(0, rounds=2)
    assert kinds(answers) == [(1, "EpochDone"), (0, "EpochDone")]
    assert answers[0][1].rounds == (2, 1) and bench.server.epoch == 1
    assert kinds(bench.end(1, epoch=0)) == [(1, "EpochDone")]  # a repeat
    bench.push(0, 1, 3.0, epoch=1)
    assert kinds(bench.push(1, 1, 4.0, epoch=1)) == [(0, "Values"), (1, "Values")]
    assert (bench.values() == 7).all()


def test_late_frames_of_an_old_epoch_are_answered_dropped() -> None:
    bench = Bench(2)
    bench.end(0)
    bench.end(1)
    assert kinds(bench.push(0, 1, 1.0)) == [(0, "Dropped")]
    assert kinds(bench.pull(0, 0)) == [(0, "Dropped")]
    assert bench.push(1, 1, 1.0, epoch=1) == []


# -- leaving, losing


def test_whoever_waits_for_a_worker_that_leaves_is_told_its_name() -> None:
    bench = Bench(3)
    bench.push(0, 1, 1.0)
    bench.end(2)
    answers = bench.say(1, Leave(bench.next(), "ValueError: no data"))
    assert kinds(answers) == [(2, "Error"), (1, "Ack")]  # worker 0 was dropped already
    assert "worker 1 (pid 11 on host), which has left the job: ValueError: no data" in answers[0][1].text
    bench = Bench(3)
    bench.push(0, 1, 1.0)
    answers = bench.say(1, Leave(bench.next(), ""))
    assert kinds(answers) == [(0, "Error"), (1, "Ack")] and answers[0][1].code == "peer_lost"
    assert only_error(bench.push(2, 1, 1.0)).code == "peer_lost"
    assert only_error(bench.end(2)).code == "peer_lost"
    message = Init(bench.next(), "v", 1, LAYOUT, CUTS, "update", "")
    assert only_error(bench.say(0, message)).code == "peer_lost"
    assert only_error(bench.say(0, SetOptimizer(bench.next(), 1, CONFIG))).code == "peer_lost"
    assert kinds(bench.say(1, Leave(bench.next(), ""))) == [(1, "Ack")]


def test_a_worker_may_leave_when_its_part_is_done() -> None:
    bench = Bench(2)
    bench.push(1, 1, 5.0, kind=Push)
    assert kinds(bench.say(1, Leave(bench.next(), ""))) == [(1, "Ack")]
    assert kinds(bench.push(0, 1, 1.0)) == [(0, "Values")]


def test_a_lost_peer_fails_all_requests_and_ends_the_server() -> None:
    bench = Bench(2)
    bench.push(0, 1, 1.0)
    lost = PeerLostMessage("worker", 1, "host", 11, "it has stopped answering", 10.2)
    actions = bench.server.on_message(SCHEDULER, lost, (), 5.0)
    bench.server.check_invariants()
    assert isinstance(actions[0], Lost) and isinstance(actions[-1], Exit)
    errors = [a.message for a in actions if isinstance(a, Send) and isinstance(a.message, Error)]
    assert [e.code for e in errors] == ["peer_lost"]
    assert "worker 1 (pid 11 on host, silent for 10.2 s) is lost" in errors[0].text
    assert only_error(bench.pull(1, 0)).code == "peer_lost"


# -- keys and the optimizer


def test_init_is_done_when_every_worker_and_the_values_are_there() -> None:
    bench = Bench(2)
    first = Init(bench.next(), "v", 1, LAYOUT, CUTS, "update", "")
    assert bench.say(0, first) == []
    assert bench.say(0, first) == [(0, Pending(first.request, ("worker 1",)))]
    values = SetValues(bench.next(), "v", (0,))
    assert kinds(bench.say(0, values, array(3))) == [(0, "Ack")]
    second = Init(bench.next(), "v", 1, LAYOUT, CUTS, "update", "")
    assert bench.say(1, second) == [(0, Ack(first.request)), (1, Ack(second.request))]
    assert kinds(bench.say(0, values, array(9))) == [(0, "Ack")]  # a repeat
    assert bench.say(1, second) == [(1, Ack(second.request))]
    bench.say(1, Pull(bench.next(), 0, (PieceRef("v", 0, 0),)))
    assert (bench.values() == 3).all()


def test_a_repeated_init_does_not_reset_the_optimizer() -> None:
    bench = Bench(1)
    bench.set_optimizer()
    bench.push(0, 1, 1.0)
    bench.say(0, Init(bench.next(), "w", 0, LAYOUT, CUTS, "update", ""))
    bench.say(0, GetStates(bench.next(), "w", 0))
    assert (bench.values() == 1).all()


def test_a_key_initialised_after_the_optimizer_gets_one_too() -> None:
    bench = Bench(1)
    bench.set_optimizer()
    bench.init_key("late", 1, value=1.0)
    bench.push(0, 1, 1.0, key="late")
    assert (bench.values() == 0.5).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"layout": FlatLayout.plan([(0, "weight", (8, 2))], "float32")},
            "'weight': shape (8, 2), but (2, 8)",
        ),
        ({"layout": FlatLayout.plan([(0, "bias", (2, 8))], "float32")}, "array 0 is 'bias', but 'weight'"),
        ({"layout": FlatLayout.plan([(0, "weight", (2, 8))], "int32")}, "dtype int32, but float32"),
        ({"digest": "abc"}, "symbol digest abc, but "),
        ({"mode": "sum"}, "mode sum, but update"),
        ({"order": 2}, "initialised as number 2, but 1"),
        ({"cuts": (Cut(0, 8, 0), Cut(8, 16, 0))}, "2 pieces"),
    ],
)
def test_workers_that_differ_are_told_in_what(change: dict[str, Any], text: str) -> None:
    bench = Bench(2)
    fields = {"key": "v", "order": 1, "layout": LAYOUT, "cuts": CUTS, "mode": "update", "digest": ""}
    bench.say(0, Init(request=bench.next(), **fields))
    answers = bench.say(1, Init(request=bench.next(), **{**fields, **change}))
    assert kinds(answers) == [(0, "Error"), (1, "Error")]
    for _, error in answers:
        assert error.code == "mismatch" and text in error.text
        assert "init('v'): on worker 1" in error.text and "worker 0" in error.text
    assert only_error(bench.push(0, 1, 1.0, key="v")).code == "mismatch"
    assert bench.push(0, 1, 1.0) == []  # other keys are not affected


def test_keys_in_another_order_are_refused() -> None:
    bench = Bench(2)
    bench.say(0, Init(bench.next(), "a", 1, LAYOUT, CUTS, "update", ""))
    answers = bench.say(1, Init(bench.next(), "b", 1, LAYOUT, CUTS, "update", ""))
    assert kinds(answers) == [(0, "Error"), (1, "Error")]
    assert "number 1 on worker 1, where worker 0 has 'a'" in answers[0][1].text
    again = bench.say(0, Init(bench.next(), "b", 2, LAYOUT, CUTS, "update", ""))
    assert only_error(again).code == "mismatch"


def test_a_late_init_that_differs_does_not_hurt_the_others() -> None:
    bench = Bench(2)
    error = only_error(bench.say(1, Init(bench.next(), "w", 0, LAYOUT, CUTS, "update", "other")))
    assert error.code == "mismatch"
    assert bench.push(0, 1, 1.0) == []


@pytest.mark.parametrize(
    "cuts",
    [(), (Cut(0, 8, 0),), (Cut(8, 16, 0), Cut(0, 8, 0)), (Cut(0, 16, 4),), (Cut(0, 0, 0), Cut(0, 16, 0))],
)
def test_pieces_that_do_not_cover_the_key_are_refused(cuts: tuple[Cut, ...]) -> None:
    bench = Bench(2)
    assert only_error(bench.say(0, Init(bench.next(), "v", 1, LAYOUT, cuts, "update", ""))).code == "protocol"
    assert bench.say(1, Init(bench.next(), "v", 1, LAYOUT, CUTS, "update", "")) == []


def test_different_optimizers_are_told_to_all() -> None:
    bench = Bench(2)
    bench.say(0, SetOptimizer(bench.next(), 1, {"name": "sgd", "params": {"lr": 0.1}}))
    answers = bench.say(1, SetOptimizer(bench.next(), 1, {"name": "sgd", "params": {"lr": 0.2}}))
    assert kinds(answers) == [(0, "Error"), (1, "Error")]
    assert "params.lr is 0.2 on worker 1, but 0.1 on worker 0" in answers[0][1].text
    repeat = bench.say(0, SetOptimizer(bench.next(), 1, {"name": "sgd", "params": {"lr": 0.1}}))
    assert only_error(repeat).code == "mismatch"
    for rank in (0, 1):
        answers = bench.say(rank, SetOptimizer(bench.next(), 2, CONFIG))
    assert kinds(answers) == [(0, "Ack"), (1, "Ack")]


def test_an_optimizer_that_cannot_be_made_changes_nothing() -> None:
    bench = Bench(2)
    bench.say(0, SetOptimizer(bench.next(), 1, {"momentum": 1.0}))
    answers = bench.say(1, SetOptimizer(bench.next(), 1, {"momentum": 1.0}))
    assert kinds(answers) == [(0, "Error"), (1, "Error")]
    assert answers[0][1].code == "invalid" and "KeyError: 'rate'" in answers[0][1].text
    bench.push(0, 1, 1.0)
    bench.push(1, 1, 1.0)
    assert (bench.values() == 2).all()


def test_states_are_read_and_replaced_and_a_late_repeat_does_not_undo_updates() -> None:
    bench = Bench(1)
    bench.set_optimizer()
    bench.push(0, 1, 2.0)
    answers = bench.say(0, GetStates(bench.next(), "w", 0))
    assert answers == [(0, States(bench.request, 1, ("float32",)))]
    setting = SetStates(bench.next(), "w", 0, 40, ("float32",))
    assert kinds(bench.say(0, setting, array(0.0))) == [(0, "Ack")]
    bench.push(0, 2, 2.0)
    assert kinds(bench.say(0, setting, array(0.0))) == [(0, "Ack")]
    answers = bench.say(0, GetStates(bench.next(), "w", 0))
    assert answers[0][1].count == 41 and (bench.values() == 2).all()


def test_a_pull_of_a_summing_key_before_any_round_says_so() -> None:
    bench = Bench(2, mode="sum")
    assert only_error(bench.pull(0, 0)).code == "not_ready"


# -- without rounds, and compressed


def test_mode_async_applies_each_push_as_it_comes_and_repeats_once() -> None:
    bench = Bench(2, mode="async", init=False)
    bench.server.on_message(SCHEDULER, bench.view, (), 0.0)
    for rank in bench.ranks:
        bench.say(rank, Hello(bench.next(), "job", rank, 100 + rank))
        bench.say(rank, Init(bench.next(), "w", 0, bench.layout, CUTS, "async", ""))
    bench.say(0, SetValues(bench.next(), "w", (0,)), array(0))
    assert only_error(bench.push(0, 1, 1.0)).code == "not_ready"  # there is no sum that could be the value
    bench.set_optimizer()
    for turn in (1, 2):
        assert kinds(bench.push(1, turn, 2.0)) == [(1, "Values")]
    assert (bench.values() == -2).all()
    bench.push(1, 2, 2.0)  # again: answered, not applied
    assert (bench.values() == -2).all()
    assert kinds(bench.push(0, 1, 4.0, kind=Push)) == [(0, "Ack")]
    bench.pull(1, 2)
    assert (bench.values() == -4).all()
    assert only_error(bench.push(0, 3, 1.0)).code == "protocol"


def test_compressed_contributions_are_added_as_what_they_stand_for() -> None:
    bench = Bench(2)
    for rank, kind in enumerate(("2bit", "bf16")):
        compressor = Compressor(Compression(kind))
        payload = compressor.encode("w", array(0.75))
        message = PushPull(bench.next(), 0, compressor.encoding, (PieceRef("w", 0, 1),), False)
        assert only_error(bench.say(rank, message, payload[:-1])).code == "invalid"
        bench.say(rank, message, payload)
    assert (bench.values() == 0.5 + 0.75).all()
    other = Bench(1, dtype="float16")
    message = PushPull(other.next(), 0, "2bit", (PieceRef("w", 0, 1),), False)
    assert "2bit for 'w', initialised as float16" in only_error(other.say(0, message, payload)).text


# -- no memory


def test_a_server_without_memory_fails_the_key_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(2)
    bench.init_key("other", 1)

    def fail(*arguments: Any) -> None:
        raise MemoryError

    bench.push(0, 1, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr("dmod.kvstore.rounds.Piece.contribute", fail)
        answers = bench.push(1, 1, 1.0)
    assert [rank for rank, _ in answers] == [0, 1]
    for _, message in answers:
        assert isinstance(message, Error)
        assert message.text.startswith("pushpull('w'): server 0 (pid 1 on host) is out of memory")
    assert "out of memory" in only_error(bench.push(0, 2, 1.0)).text
    bench.push(0, 1, 1.0, key="other")
    assert kinds(bench.push(1, 1, 2.0, key="other")) == [(0, "Values"), (1, "Values")]
    assert (bench.values() == 3).all()
