"""Turns and lanes: a server that expects what repeats cannot be told from one that does not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from dmod.kvstore import lanes
from dmod.kvstore.actions import Send
from dmod.kvstore.messages import Again, Error, Leave, PieceRef, Poll, Pull, Push, PushPull, Same, Values
from tests.kvstore.test_server_state import SIZE, Bench, array, kinds

compiled_links = pytest.importorskip("dmod.kvstore.transports.compiled_links")

take = compiled_links.take.py_func
KEYS = ("v", "w", "x")
CALLS = {1: ("v",), 2: ("w",), 3: ("v", "x"), 4: KEYS}
"""Standing requests by number: some of them share pieces."""


class RepeatingBench(Bench):
    """A server that can be read where it lies, and workers that repeat what they ask for."""

    def __init__(self, with_lanes: bool, num_workers: int = 2, mode: str = "update"):
        super().__init__(num_workers, mode=mode)
        self.server._standing._shared = lambda values: True
        self.server.lanes.take = take if with_lanes else None
        self.init_key("v", 1, mode)
        self.init_key("x", 2, mode)
        self.memory = {(rank, key): array(0.0) for rank in self.ranks for key in KEYS}

    def announce(self, rank: int, number: int, round: int, value: float = 1.0) -> Any:
        arrays = self.filled(rank, number, value)
        refs = tuple(PieceRef(key, 0, round) for key in CALLS[number])
        return self.say(rank, PushPull(self.next(), 0, "float32", refs, False, False, number), *arrays)

    def again(self, rank: int, number: int, round: int, value: float = 1.0, epoch: int = 0) -> Any:
        self.filled(rank, number, value)
        return self.say(rank, Again(self.next(), number, epoch, round))

    def filled(self, rank: int, number: int, value: float) -> list[np.ndarray]:
        arrays = [self.memory[rank, key] for key in CALLS[number]]
        for i, memory in enumerate(arrays):
            memory[:] = value * (i + 1)
        return arrays

    def values_of(self, key: str) -> np.ndarray:
        return self.server._table.ready[key, 0].value

    def open_lane(self, number: int, rounds: int = 4) -> None:
        """Announce, and repeat until there is a lane; `rounds` have been applied then."""
        for rank in self.ranks:
            self.announce(rank, number, 1)
        for round in range(2, rounds + 1):
            for rank in self.ranks:
                self.again(rank, number, round)
        assert self.server.lanes.is_open


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes are opened as soon as there is something to expect."""
    monkeypatch.setattr(lanes, "QUIET_TURNS", 0)


def test_a_turn_that_comes_again_undisturbed_gets_a_lane() -> None:
    for with_lanes in (True, False):
        bench = RepeatingBench(with_lanes)
        for rank in bench.ranks:
            bench.announce(rank, 2, 1)
        for round in range(2, 10):
            assert bench.server.lanes.is_open == (with_lanes and round > 2 + lanes.QUIET_TURNS)
            assert bench.again(0, 2, round) == []
            assert [m.place > 0 for _, m in bench.again(1, 2, round)] == [True, True]


def test_a_lane_is_the_same_as_none(at_once: None) -> None:
    bench = RepeatingBench(True)
    bench.set_optimizer()
    bench.open_lane(2)
    assert bench.again(1, 2, 5, 3.0) == []
    assert kinds(bench.again(0, 2, 5, 4.0)) == [(0, "Same"), (1, "Same")]
    assert (bench.values_of("w") == -0.5 * (4 * 2 + 7)).all()
    late = Again(bench.next(), 2, 0, 6)
    bench.memory[0, "w"][:] = 1
    assert bench.say(0, late) == []
    bench.memory[0, "w"][:] = 2  # it is read when all have come
    assert [type(m).__name__ for _, m in bench.say(0, late)] == ["Pending"]
    assert not bench.server.lanes.is_open
    assert kinds(bench.again(1, 2, 6, 1.0)) == [(0, "Same"), (1, "Same")]
    assert (bench.values_of("w") == -0.5 * (4 * 2 + 7 + 3)).all()


def test_pieces_that_are_asked_for_in_two_ways_have_one_lane_at_most(at_once: None) -> None:
    """Worker 0 asks for v alone and worker 1 for v and x: v's round is complete all the same."""
    bench = RepeatingBench(True)
    bench.open_lane(1)
    assert bench.again(0, 1, 5) == []
    refs = (PieceRef("v", 0, 5), PieceRef("x", 0, 1))
    both = PushPull(bench.next(), 0, "float32", refs, False, False, 3)
    answers = bench.say(1, both, array(1.0), array(1.0))
    assert kinds(answers) == [(0, "Same")] and not bench.server.lanes.is_open
    assert [bench.server._table.ready[key, 0].applied for key in ("v", "x")] == [5, 0]


def test_what_has_come_in_a_lane_is_not_lost_when_its_worker_leaves(at_once: None) -> None:
    bench = RepeatingBench(True)
    bench.open_lane(2)
    bench.again(0, 2, 5)
    answers = bench.say(1, Leave(bench.next(), "a fault"))
    assert kinds(answers) == [(0, "Error"), (1, "Ack")] and "worker 1" in answers[0][1].text


def test_an_optimizer_that_raises_fails_the_key_of_its_lane(at_once: None) -> None:
    bench = RepeatingBench(True)
    bench.set_optimizer()
    bench.open_lane(4)
    bench.server._table.ready["w", 0].updater.rate = "nonsense"
    assert bench.again(0, 4, 5) == []
    answers = bench.again(1, 4, 5)
    assert (
        kinds(answers) == [(0, "Error"), (1, "Error")] and "key 'w': the update failed" in answers[0][1].text
    )
    assert [bench.server._table.ready[key, 0].applied for key in ("v", "x")] == [5, 5]
    assert ("w", 0) not in bench.server._table.ready


@pytest.mark.parametrize("has_lane", [False, True])
def test_without_memory_for_a_sum_all_are_told(at_once: None, has_lane: bool) -> None:
    bench = RepeatingBench(True, num_workers=3)
    if has_lane:
        bench.open_lane(2)
    else:
        for rank in bench.ranks:
            bench.announce(rank, 2, 1)
        bench.server.lanes.take = None
    round = 5 if has_lane else 2

    def nothing_left(size: int, dtype: Any) -> np.ndarray:
        raise MemoryError

    for tree in bench.server._table.ready["w", 0]._trees:
        tree._allocate = nothing_left
        tree._free.clear()
    said = [answer for rank in bench.ranks for answer in bench.again(rank, 2, round)]
    if not has_lane:  # the last one came when the key was lost already
        assert kinds(said[2:]) == [(2, "Resend")]
        said[2:] = bench.announce(2, 2, round)
    assert sorted(kinds(said)) == [(0, "Error"), (1, "Error"), (2, "Error")]
    assert all(isinstance(message, Error) and "out of memory" in message.text for _, message in said)


def test_sums_of_many_workers_are_not_put_off_where_they_are_large(
    at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "SUMMED_LATE", SIZE - 1)
    bench = RepeatingBench(True, num_workers=3)
    with pytest.raises(AssertionError):
        bench.open_lane(2)
    RepeatingBench(True, num_workers=2).open_lane(2)


def test_many_lanes_find_room(at_once: None) -> None:
    bench = RepeatingBench(True)
    for i in range(200):
        CALLS[100 + i] = (f"k{i}",)
        bench.init_key(f"k{i}", 3 + i)
        bench.memory |= {(rank, f"k{i}"): array(0.0) for rank in bench.ranks}
    try:
        for round in range(1, 5):
            for number in range(100, 300):
                for rank in bench.ranks:
                    (bench.announce if round == 1 else bench.again)(rank, number, round, float(number))
        assert len(bench.server.lanes.turns) == 200
        assert (bench.values_of("k150") == 500.0).all()
    finally:
        for i in range(200):
            del CALLS[100 + i]


class Twins:
    """Two servers that are told the same, one of them without lanes; they have to say the same.

    What a worker pushes follows from the key, the round and its rank: it may be written again at any time.
    """

    def __init__(self, seed: int, mode: str):
        self.choose = random.Random(seed)
        self.workers = 2 + seed % 2
        self.benches = [RepeatingBench(with_lanes, self.workers, mode) for with_lanes in (True, False)]
        for bench in self.benches if mode == "update" else ():
            bench.set_optimizer()
        self.rounds = dict.fromkeys(KEYS, 1)
        self.announced: set[tuple[int, int]] = set()
        self.last = {rank: Again(1, 9, 0, 1) for rank in range(self.workers)}
        self.lanes_ended = 0

    def ask(self, rank: int, number: int) -> None:
        """A worker asks for the next round of what a standing request is about."""
        rounds = {key: self.rounds[key] for key in CALLS[number]}
        for bench in self.benches:
            for key, round in rounds.items():
                bench.memory[rank, key][:] = 100 * round + 10 * rank + KEYS.index(key)
        request, same = self.request(), len(set(rounds.values())) == 1
        if same and (rank, number) in self.announced:
            self.last[rank] = Again(request, number, 0, rounds[CALLS[number][0]])
            self.say(rank, self.last[rank])
            return
        refs = tuple(PieceRef(key, 0, round) for key, round in rounds.items())
        self.announced.add((rank, number))
        self.say(rank, PushPull(request, 0, "float32", refs, False, False, number), *CALLS[number])

    def disturb(self) -> None:
        """Something else is said, whether it makes sense or not."""
        choose, rank, request = self.choose, self.choose.randrange(self.workers), self.request()
        key = choose.choice(KEYS)
        kind = choose.choice(["repeat", "again", "pull", "poll", "push"])
        if kind == "repeat":
            self.say(rank, self.last[rank])
        elif kind == "again":
            number = choose.choice([1, 2, 3, 4, 9])
            self.say(
                rank,
                Again(request, number, choose.choice([0, 0, 0, 1]), choose.randrange(self.rounds["w"] + 1)),
            )
        elif kind == "pull":
            self.say(rank, Pull(request, 0, (PieceRef(key, 0, self.rounds[key] - choose.randrange(2)),)))
        elif kind == "poll":
            self.say(rank, Poll((request - 1, request - 2)))
        else:
            for bench in self.benches:
                bench.memory[rank, key][:] = 100 * self.rounds[key] + 10 * rank + KEYS.index(key)
            self.say(rank, Push(request, 0, "float32", (PieceRef(key, 0, self.rounds[key]),), False), key)

    def request(self) -> int:
        numbers = {bench.next() for bench in self.benches}
        return numbers.pop()

    def say(self, rank: int, message: Any, *keys: str) -> None:
        """Tell both, and compare what they answer, and what they have come to."""
        said = []
        for bench in self.benches:
            waiting = (
                np.flatnonzero(bench.server.lanes.expected.counts).size if bench.server.lanes.is_open else 0
            )
            said.append(sorted(kinds(bench.say(rank, message, *[bench.memory[rank, key] for key in keys]))))
            self.lanes_ended += waiting > 0 and bench.server.lanes.is_open and (0, "Same") in said[-1]
        assert said[0] == said[1], message
        for key in KEYS:
            first, second = (bench.server._table.ready[key, 0] for bench in self.benches)
            assert (first.applied, first.version) == (second.applied, second.version)
            if first.value is not None:
                np.testing.assert_array_equal(first.value, second.value)
            self.rounds[key] = first.applied + 1


@pytest.mark.parametrize("mode", ["update", "sum"])
@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_said_the_answers_are_the_same(seed: int, mode: str, at_once: None) -> None:
    twins = Twins(seed, mode)
    for step in range(150):
        number = twins.choose.choice([2, 2, 2, 2, 3] if step % 50 < 35 else [1, 2, 3, 4])
        for rank in twins.choose.sample(range(twins.workers), twins.workers):
            if twins.choose.random() < 0.08:
                twins.disturb()
            twins.ask(rank, number)
    assert twins.lanes_ended > 20


def test_answers_of_a_lane_say_where_values_lie(at_once: None) -> None:
    bench = RepeatingBench(True, mode="sum")
    bench.open_lane(2)
    bench.again(1, 2, 5, 2.0)
    actions = bench.server.on_message("peer 0", Again(bench.next(), 2, 0, 5), (), 0.0)
    assert [type(a.message) for a in actions if isinstance(a, Send)] in ([Same, Same], [Values, Values])
    assert (bench.values_of("w") == 3).all()
