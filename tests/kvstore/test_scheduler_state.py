"""The scheduler: ranks, refusals, liveness, barriers, the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dmod.base import ClusterError, DeadlineError, PeerLostError
from dmod.kvstore.actions import Exit, Lost, Send
from dmod.kvstore.messages import (
    MESSAGES,
    Ack,
    Admit,
    Barrier,
    Error,
    Heartbeat,
    HeartbeatReply,
    Join,
    Leave,
    LinkEnded,
    Message,
    PeerLost,
    Pending,
    Refuse,
    Stop,
    View,
)
from dmod.kvstore.scheduler_state import _HANDLERS, SchedulerPhase, SchedulerState
from tests.kvstore.test_wire import EXAMPLES


class Bench:
    """A scheduler and the connections to it; invariants are checked after every event."""

    def __init__(self, num_workers: int = 2, num_servers: int = 1, **settings: Any):
        self.sizes = (num_workers, num_servers)
        self.scheduler = SchedulerState("job", "1.0", num_workers, num_servers, **settings)
        self.now = 0.0
        self.scheduler.start(0.0)

    def join_message(self, name: str, rank: int | None = None, **change: Any) -> Join:
        role, number = name.split()
        pid = int(number) + (100 if role == "worker" else 200)
        join = Join("job", role, rank, pid, "host", pid, (name,), "1.0", *self.sizes, {"numpy": "2"})
        return replace(join, **change)

    def say(self, peer: str, message: Message) -> list[Any]:
        return self.checked(self.scheduler.on_message(peer, message, self.now))

    def join(self, name: str, rank: int | None = None, **change: Any) -> list[Any]:
        return self.say(name, self.join_message(name, rank, **change))

    def timer(self, now: float) -> list[Any]:
        self.now = now
        return self.checked(self.scheduler.on_timer(now))

    def checked(self, actions: list[Any]) -> list[Any]:
        self.scheduler.check_invariants()
        return [(a.peer, a.message) if isinstance(a, Send) else a for a in actions]

    def run(self) -> Bench:
        """All are there."""
        self.join("server 0")
        for number in range(self.sizes[0]):
            self.join(f"worker {number}")
        assert self.scheduler.phase is SchedulerPhase.RUNNING
        return self


def kinds(actions: list[Any]) -> list[Any]:
    return [(a[0], type(a[1]).__name__) if isinstance(a, tuple) else type(a).__name__ for a in actions]


# -- joining


def test_ranks_follow_the_order_of_arrival_around_the_fixed_ones() -> None:
    bench = Bench(3)
    assert bench.join("worker 7") == [("worker 7", Admit(("2 workers", "server 0")))]
    bench.join("server 0")
    bench.join("worker 8", rank=0)
    actions = bench.join("worker 9")
    assert kinds(actions) == [(p, "View") for p in ("server 0", "worker 8", "worker 7", "worker 9")]
    assert {peer: message.rank for peer, message in actions if peer != "server 0"} == {
        "worker 8": 0,
        "worker 7": 1,
        "worker 9": 2,
    }
    members = actions[0][1].members
    assert [(m.role, m.rank, m.pid) for m in members] == [
        *[("server", 0, 200), ("worker", 0, 108), ("worker", 1, 107), ("worker", 2, 109)]
    ]


def test_a_repeated_join_is_answered_again() -> None:
    bench = Bench()
    for _ in range(2):
        assert bench.join("worker 0", 0) == [("worker 0", Admit(("worker 1", "server 0")))]
    bench.run()
    assert kinds(bench.join("worker 0", 0)) == [("worker 0", "View")]


def test_a_join_over_a_new_connection_replaces_the_old_one() -> None:
    bench = Bench().run()
    assert kinds(bench.say("new", bench.join_message("worker 0"))) == [("new", "View")]
    assert kinds(bench.say("new", Heartbeat(100, 1))) == [("new", "HeartbeatReply")]
    assert bench.say("worker 0", Heartbeat(100, 1)) == []
    assert bench.scheduler.violations == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"job": "other"}, "job 'other', and this is the scheduler of 'job'; DMOD_JOB"),
        ({"version": "2.0"}, "dmod 2.0, and the scheduler has 1.0"),
        ({"num_workers": 3}, "DMLC_NUM_WORKER=3, and the scheduler has 2"),
        ({"num_servers": 9}, "DMLC_NUM_SERVER=9, and the scheduler has 1"),
        ({"rank": 5}, "worker 5: ranks are 0 to 1"),
        ({"rank": 0}, "there is a worker 0 (pid 100 on host) already"),
        ({"fingerprint": {"numpy": "1"}}, "numpy is '1' here, but '2' in the worker with pid 100 on host"),
        ({"fingerprint": {"numpy": "2", "blas": "x"}}, "blas is 'x' here, but 'nothing'"),
    ],
)
def test_a_process_that_does_not_fit_is_refused_with_both_values(change: dict[str, Any], text: str) -> None:
    bench = Bench()
    bench.join("worker 0", rank=0)
    [(peer, refusal)] = bench.join("worker 1", **change)
    assert peer == "worker 1" and isinstance(refusal, Refuse) and text in refusal.reason
    assert kinds(bench.join("worker 1")) == [("worker 1", "Admit")]


def test_mixed_fingerprints_are_admitted_if_allowed_and_servers_may_differ() -> None:
    bench = Bench(allow_mixed=True)
    bench.join("worker 0")
    assert kinds(bench.join("worker 1", fingerprint={"numpy": "1"})) == [("worker 1", "Admit")]
    bench = Bench()
    bench.join("worker 0")
    assert kinds(bench.join("server 0", fingerprint={})) == [("server 0", "Admit")]


def test_one_too_many_is_refused() -> None:
    bench = Bench(num_workers=1)
    bench.join("worker 0")
    assert "has its 1 worker already" in bench.join("worker 1")[0][1].reason
    bench.join("server 0")
    assert kinds(bench.join("worker 1")) == [("worker 1", "Refuse")]


def test_a_node_that_falls_silent_while_joining_makes_room() -> None:
    bench = Bench(timeout_s=10.0)
    bench.join("worker 0", rank=0)
    assert bench.scheduler.next_timer() == 10.0
    assert bench.timer(10.0) == []
    assert kinds(bench.join("worker 5", rank=0)) == [("worker 5", "Admit")]


def test_the_join_deadline_names_who_is_missing() -> None:
    bench = Bench(join_timeout_s=60.0, timeout_s=100.0)
    bench.join("worker 0", rank=0)
    assert bench.timer(59.9) == []
    refusal, lost, end = bench.timer(60.0)
    text = "after 60 s still waiting for worker 1, server 0"
    assert refusal == ("worker 0", Refuse(text)) and isinstance(lost, Lost)
    assert isinstance(end.error, DeadlineError) and text in str(end.error)
    assert "job has ended" in bench.join("worker 1")[0][1].reason


# -- liveness


def test_a_silent_node_loses_the_job_and_everyone_else_is_told() -> None:
    bench = Bench(timeout_s=10.0).run()
    bench.now = 5.0
    assert bench.say("worker 0", Heartbeat(100, 1)) == [("worker 0", HeartbeatReply(1))]
    bench.say("server 0", Heartbeat(200, 1))
    assert bench.timer(9.9) == []
    told = bench.timer(10.0)
    lost = PeerLost("worker", 1, "host", 101, "it has stopped answering", 10.0)
    assert told[:2] == [("server 0", lost), ("worker 0", lost)]
    assert isinstance(told[2], Lost) and isinstance(told[2].error, PeerLostError)
    # Whoever has missed it gets it with the next sign of life; newcomers are refused.
    assert bench.say("worker 0", Heartbeat(100, 1)) == [("worker 0", lost)]
    assert bench.say("worker 0", Barrier(4, "", 1)) == [("worker 0", lost)]
    assert (
        "the job is lost: worker 1 (pid 101 on host, silent for 10.0 s)"
        in bench.join("worker 9")[0][1].reason
    )
    assert bench.say("worker 0", Leave(0, "lost")) == [("worker 0", Ack(0))]
    ended = bench.say("server 0", Leave(0, "lost"))
    assert ended[0] == ("server 0", Ack(0)) and isinstance(ended[1], Exit)
    assert "worker 1" in str(ended[1].error)


def test_a_lost_job_ends_even_if_nobody_says_goodbye() -> None:
    bench = Bench(timeout_s=10.0).run()
    bench.checked(bench.scheduler.on_death("worker", 1, "it was killed", 3.0))
    [end] = bench.timer(13.0)
    assert isinstance(end, Exit) and "it was killed" in str(end.error)
    assert bench.scheduler.next_timer() is None


# -- links that end


def link_ended(name: str) -> LinkEnded:
    role, number = name.split()
    return LinkEnded(role, int(number), int(number) + (100 if role == "worker" else 200))


def test_a_node_that_others_have_lost_and_that_cannot_be_reached_is_dead() -> None:
    bench = Bench(timeout_s=10.0).run()
    assert bench.checked(bench.scheduler.on_unreachable("server 0", 0.5)) == []  # it may connect again
    bench.now = 1.0
    assert bench.say("worker 0", link_ended("server 0")) == [("server 0", HeartbeatReply(1))]
    told = bench.checked(bench.scheduler.on_unreachable("server 0", 1.001))
    lost = PeerLost(
        "server", 0, "host", 200, "all its connections have ended: it has died, or was killed", 1.001
    )
    assert told[:2] == [("worker 0", lost), ("worker 1", lost)]
    assert isinstance(told[2], Lost) and "server 0 (pid 200 on host, silent for 1.0 s) is lost" in str(
        told[2].error
    )
    # What others say of it later changes nothing.
    assert bench.say("worker 1", link_ended("server 0")) == [("worker 1", lost)]


def test_a_node_that_can_be_reached_is_looked_after_for_a_while_and_not_lost() -> None:
    bench = Bench(timeout_s=10.0).run()
    bench.say("server 0", link_ended("worker 1"))
    knocks = 0
    while (now := bench.scheduler.next_timer()) is not None and now < 9.0:
        knocks += bench.timer(now) == [("worker 1", HeartbeatReply(1))]
    assert 50 < knocks <= 100 and bench.scheduler.phase is SchedulerPhase.RUNNING
    assert bench.checked(bench.scheduler.on_unreachable("worker 1", 9.0)) == []  # that is another matter
    assert bench.scheduler.next_timer() == 10.0


def test_the_end_of_a_link_is_no_news_of_one_who_has_left_or_whom_somebody_watches() -> None:
    bench = Bench().run()
    bench.say("worker 1", Leave(0, ""))
    assert bench.say("server 0", link_ended("worker 1")) == []
    assert bench.say("server 0", LinkEnded("worker", 0, 4711)) == []  # another process, of earlier
    watched = Bench(told_of_deaths=True).run()
    assert watched.say("worker 0", link_ended("server 0")) == []
    assert watched.checked(watched.scheduler.on_unreachable("server 0", 0.1)) == []


def test_a_node_that_leaves_with_an_error_loses_the_job() -> None:
    bench = Bench().run()
    actions = bench.say("worker 1", Leave(0, "ValueError: no data"))
    assert kinds(actions) == [("worker 1", "Ack"), ("server 0", "PeerLost"), ("worker 0", "PeerLost"), "Lost"]
    assert actions[1][1].why == "it has ended with an error: ValueError: no data"


def test_a_server_that_leaves_early_loses_the_job() -> None:
    bench = Bench().run()
    actions = bench.say("server 0", Leave(0, ""))
    assert kinds(actions) == [("server 0", "Ack"), ("worker 0", "PeerLost"), ("worker 1", "PeerLost"), "Lost"]


def test_a_view_that_was_missed_comes_with_the_next_heartbeat() -> None:
    bench = Bench().run()
    actions = bench.say("worker 0", Heartbeat(100, 0))
    assert kinds(actions) == [("worker 0", "HeartbeatReply"), ("worker 0", "View")]


def test_stop_from_here_tells_everyone() -> None:
    bench = Bench().run()
    actions = bench.checked(bench.scheduler.stop("interrupted", 1.0))
    assert kinds(actions) == [(p, "PeerLost") for p in ("server 0", "worker 0", "worker 1")] + ["Lost"]
    assert isinstance(bench.scheduler.error, ClusterError) and actions[0][1].why == "interrupted"


# -- barriers


def test_a_barrier_is_passed_when_all_workers_are_there() -> None:
    bench = Bench(3).run()
    waiting = ("worker 1 (pid 101 on host)", "worker 2 (pid 102 on host)")
    assert bench.say("worker 0", Barrier(5, "", 1)) == [("worker 0", Pending(5, waiting))]
    assert bench.say("worker 0", Barrier(5, "", 1)) == [("worker 0", Pending(5, waiting))]
    bench.say("worker 2", Barrier(9, "", 1))
    passed = bench.say("worker 1", Barrier(2, "", 1))
    assert sorted(passed) == [("worker 0", Ack(5)), ("worker 1", Ack(2)), ("worker 2", Ack(9))]
    assert bench.say("worker 1", Barrier(2, "", 1)) == [("worker 1", Ack(2))]  # a repeat
    assert kinds(bench.say("worker 1", Barrier(3, "", 2))) == [("worker 1", "Pending")]
    assert kinds(bench.say("worker 0", Barrier(6, "other", 1))) == [("worker 0", "Pending")]


def test_a_barrier_fails_for_a_worker_that_has_left_by_name() -> None:
    for before in (True, False):
        bench = Bench(2).run()
        if before:
            bench.say("worker 1", Leave(0, ""))
            [answer] = bench.say("worker 0", Barrier(5, "", 1))
        else:
            bench.say("worker 0", Barrier(5, "", 1))
            _, answer = bench.say("worker 1", Leave(0, ""))
        assert answer[0] == "worker 0" and isinstance(answer[1], Error)
        assert "worker 1 (pid 101 on host), which has left the job" in answer[1].text


def test_only_workers_use_barriers_and_in_order() -> None:
    bench = Bench(2).run()
    assert kinds(bench.say("server 0", Barrier(1, "", 1))) == [("server 0", "Error")]
    assert kinds(bench.say("worker 0", Barrier(1, "", 5))) == [("worker 0", "Error")]


# -- the end


def test_when_all_workers_have_left_servers_are_stopped_and_then_the_job_ends() -> None:
    bench = Bench(2, 2)
    for name in ("server 0", "server 1", "worker 0", "worker 1"):
        bench.join(name)
    assert bench.say("worker 1", Leave(0, "")) == [("worker 1", Ack(0))]
    assert bench.say("worker 1", Leave(0, "")) == [("worker 1", Ack(0))]
    stops = bench.say("worker 0", Leave(0, ""))
    assert kinds(stops) == [("worker 0", "Ack"), ("server 0", "Stop"), ("server 1", "Stop")]
    repeated = bench.say("server 0", Heartbeat(200, 1))
    assert repeated[-1] == ("server 0", Stop("all workers have left"))
    bench.say("server 0", Leave(0, ""))
    actions = bench.say("server 1", Leave(0, ""))
    assert actions == [("server 1", Ack(0)), Exit(None)]
    assert bench.say("server 1", Leave(0, "")) == [("server 1", Ack(0))]


def test_a_server_that_never_says_goodbye_does_not_hold_up_the_end() -> None:
    bench = Bench(1, timeout_s=10.0).run()
    bench.say("worker 0", Leave(0, ""))
    [end] = bench.timer(10.0)
    assert isinstance(end, Exit) and end.error is None


def test_a_worker_that_left_is_not_missed() -> None:
    bench = Bench(2, timeout_s=10.0).run()
    bench.say("worker 1", Leave(0, ""))
    bench.now = 9.0
    bench.say("worker 0", Heartbeat(100, 1))
    bench.say("server 0", Heartbeat(200, 1))
    assert bench.timer(11.0) == []


# -- every illegal pair


def in_phase(phase: SchedulerPhase) -> Bench:
    bench = Bench(2)
    if phase is SchedulerPhase.JOINING:
        bench.join("worker 0")
        return bench
    bench.run()
    if phase is SchedulerPhase.STOPPING:
        bench.say("worker 0", Leave(0, ""))
        bench.say("worker 1", Leave(0, ""))
    if phase is SchedulerPhase.LOST:
        bench.checked(bench.scheduler.on_death("worker", 1, "it was killed", 0.0))
    if phase is SchedulerPhase.ENDED:
        bench.checked(bench.scheduler.stop("x", 0.0))
        bench.timer(100.0)
    assert bench.scheduler.phase is phase
    return bench


@pytest.mark.parametrize("phase", list(SchedulerPhase))
def test_every_message_that_has_no_place_in_a_phase_changes_nothing(phase: SchedulerPhase) -> None:
    legal = {Join, *_HANDLERS[phase]} | ({Leave} if phase is SchedulerPhase.ENDED else set())
    for message in EXAMPLES:
        if type(message) in legal:
            continue
        bench = in_phase(phase)
        before = (bench.scheduler.phase, list(bench.scheduler._nodes), bench.scheduler.next_timer())
        answers = bench.say("worker 0", message)
        assert all(isinstance(answer, Error) for _, answer in answers)
        assert (bench.scheduler.phase, list(bench.scheduler._nodes), bench.scheduler.next_timer()) == before
        assert bench.scheduler.violations == 1
    assert len(legal) < len(MESSAGES)


def test_a_stranger_is_heard_only_if_it_joins() -> None:
    bench = Bench().run()
    for message in EXAMPLES:
        if not isinstance(message, Join):
            assert all(isinstance(answer, Error) for _, answer in bench.say("stranger", message))
    assert isinstance(bench.join("worker 0")[0][1], View)
    assert bench.scheduler.name_of("worker 0") == "worker 0 (pid 100 on host)"
    assert bench.scheduler.name_of("stranger") == "one who has not joined"


# -- deaths that the launcher sees


def test_a_death_that_is_told_loses_the_job_at_once() -> None:
    bench = Bench().run()
    bench.now = 3.0
    actions = bench.checked(bench.scheduler.on_death("worker", 1, "it was killed by signal 9", bench.now))
    assert kinds(actions) == [("server 0", "PeerLost"), ("worker 0", "PeerLost"), "Lost"]
    lost = actions[0][1]
    assert (lost.role, lost.rank, lost.pid, lost.silent_s) == ("worker", 1, 101, 3.0)
    assert bench.checked(bench.scheduler.on_death("worker", 1, "again", bench.now)) == []


def test_the_end_of_a_process_that_has_left_is_no_death() -> None:
    bench = Bench().run()
    bench.say("worker 0", Leave(0, ""))
    assert bench.checked(bench.scheduler.on_death("worker", 0, "it has ended", 0.0)) == []
    assert bench.scheduler.phase is SchedulerPhase.RUNNING


def test_a_death_before_all_have_joined_is_told_to_those_who_come_later() -> None:
    bench = Bench()
    bench.join("worker 0", 0)
    actions = bench.checked(bench.scheduler.on_death("worker", 1, "it has ended", 0.0))
    assert kinds(actions) == [("worker 0", "PeerLost"), "Lost"]
    assert bench.say("worker 0", Leave(0, "lost")) == [("worker 0", Ack(0))]
    [refused, end] = bench.join("server 0", 0)  # the last of whom something is to be expected
    assert "worker 1 is lost: it has ended, before all had joined" in refused[1].reason
    assert isinstance(end, Exit) and bench.scheduler.phase is SchedulerPhase.ENDED
