"""One node's membership: join, signs of life, leave."""

from __future__ import annotations

from typing import Any

import pytest

from dmod.base import ClusterError, DeadlineError, JoinRefusedError, NotReadyError, PeerLostError
from dmod.kvstore.actions import SCHEDULER, Exit, Joined, Lost, Send
from dmod.kvstore.member_state import _TRANSITIONS, MemberState, Phase
from dmod.kvstore.messages import (
    Ack,
    Admit,
    Heartbeat,
    HeartbeatReply,
    Join,
    Leave,
    Member,
    PeerLost,
    Refuse,
    Stop,
    View,
)
from tests.kvstore.test_wire import EXAMPLES

JOIN = Join("job", "worker", None, 17, "host", 1, (), "1", 2, 1, {})
VIEW = View(1, 1, (Member("worker", 1, 17, "host", 1, ()), Member("worker", 0, 18, "host", 2, ())))
LOST = PeerLost("server", 0, "host", 9, "it has stopped answering", 10.0)


def member(phase: Phase = Phase.MEMBER) -> MemberState:
    state = MemberState(JOIN, timeout_s=10.0, heartbeat_s=1.0, join_timeout_s=60.0, scheduler="tcp://x:1")
    if phase is Phase.NEW:
        return state
    state.start(0.0)
    if phase is Phase.JOINING:
        return state
    state.on_message(VIEW, 0.0)
    if phase in (Phase.LEAVING, Phase.LEFT):
        state.leave("", 0.0)
    if phase is Phase.LEFT:
        state.on_message(Ack(0), 0.0)
    if phase is Phase.LOST:
        state.on_message(LOST, 0.0)
    assert state.phase is phase
    return state


def sent(actions: list[Any]) -> list[Any]:
    return [action.message for action in actions if isinstance(action, Send)]


def test_join_is_repeated_until_the_view_comes() -> None:
    state = member(Phase.NEW)
    assert state.start(0.0) == [Send(SCHEDULER, JOIN)]
    assert state.next_timer() == 1.0
    assert state.on_timer(1.0) == [Send(SCHEDULER, JOIN)]
    joined, beat = state.on_message(VIEW, 1.5)
    assert joined == Joined(VIEW) and beat.message == Heartbeat(17, 1)
    assert state.rank == 1
    assert state.on_message(VIEW, 1.6) == []


def test_heartbeats_go_out_in_time() -> None:
    state = member()
    now, beats = 0.0, 0
    while now < 9.5:
        now = state.next_timer() or 0.0
        beats += len(sent(state.on_timer(now)))
        state.on_message(HeartbeatReply(1), now)
    assert beats == 10


def test_rank_is_known_after_joining_only() -> None:
    with pytest.raises(NotReadyError, match="has not joined"):
        _ = member(Phase.JOINING).rank
    with pytest.raises(NotReadyError, match="started already"):
        member(Phase.JOINING).start(0.0)


def test_a_silent_scheduler_is_given_up() -> None:
    state = member()
    state.on_timer(9.0)
    [lost] = state.on_timer(10.0)
    assert isinstance(lost, Lost) and isinstance(lost.error, PeerLostError)
    assert "the scheduler at tcp://x:1 is lost: silent for 10.0 s" in str(lost.error)
    assert state.phase is Phase.LOST and state.next_timer() is None


def test_nobody_at_the_other_end_and_those_still_missing_are_told() -> None:
    state = member(Phase.JOINING)
    [lost] = state.on_timer(60.0)
    assert isinstance(lost.error, DeadlineError) and "nobody has answered at tcp://x:1" in str(lost.error)
    state = member(Phase.JOINING)
    state.on_message(Admit(("worker 1", "server 0")), 1.0)
    [lost] = state.on_timer(60.0)
    assert "after 60 s still waiting for worker 1, server 0" in str(lost.error)


def test_a_refusal_ends_the_attempt_with_its_reason() -> None:
    state = member(Phase.JOINING)
    [lost] = state.on_message(Refuse("job 'a', and this is the scheduler of 'b'"), 1.0)
    assert isinstance(lost.error, JoinRefusedError)
    assert "tcp://x:1: job 'a', and this is the scheduler of 'b'" in str(lost.error)


def test_a_view_without_this_process_is_a_violation() -> None:
    state = member(Phase.JOINING)
    assert state.on_message(View(1, 0, VIEW.members), 1.0) == []
    assert state.violations == 1 and state.phase is Phase.JOINING


def test_leave_is_repeated_and_ends_with_the_answer_or_the_deadline() -> None:
    state = member()
    assert state.leave("", 5.0) == [Send(SCHEDULER, Leave(0, ""))]
    assert state.leave("", 5.0) == []
    assert sent(state.on_timer(6.0)) == [Leave(0, "")]
    assert state.on_message(Ack(0), 6.5) == [Exit(None)]
    state = member()
    state.leave("ValueError: x", 5.0)
    [end] = state.on_timer(15.0)
    assert isinstance(end, Exit) and isinstance(end.error, ClusterError) and "ValueError" in str(end.error)


def test_leaving_a_lost_job_ends_at_once_with_why_it_is_lost() -> None:
    state = member(Phase.LOST)
    farewell, end = state.leave("PeerLostError", 5.0)
    assert isinstance(farewell, Send) and end.error is state.error
    assert "server 0 (pid 9 on host, silent for 10.0 s) is lost: it has stopped answering" in str(end.error)
    assert member(Phase.NEW).leave("", 0.0) == [Exit(None)]


def test_stop_makes_a_node_leave() -> None:
    assert member().on_message(Stop("done"), 1.0) == [Send(SCHEDULER, Leave(0, ""))]


@pytest.mark.parametrize("phase", list(Phase))
def test_every_message_that_has_no_place_in_a_phase_changes_nothing(phase: Phase) -> None:
    illegal = [message for message in EXAMPLES if type(message) not in _TRANSITIONS[phase]]
    assert len(illegal) > 10
    for message in illegal:
        state = member(phase)
        before = (state.phase, state.view, state.error, state.next_timer())
        assert state.on_message(message, 0.5) == []
        state.check_invariants()
        assert (state.phase, state.view, state.error, state.next_timer()) == before
        assert state.violations == 1
