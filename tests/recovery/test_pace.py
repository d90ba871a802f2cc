"""How often checkpoints are taken, and how often workers ask each other whether to take one."""

from __future__ import annotations

import time

import pytest

from dmod.recovery.pace import Pace


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_the_next_one_waits_for_its_share(clock: Clock) -> None:
    pace = Pace(0.02)
    assert pace.early_s(0.0) == 0, "the first one waits for nothing"
    clock.now_s += 0.5
    pace.taken(started_s=100.0)
    assert pace.early_s(writing_s=0.5) == pytest.approx(1.0 / 0.02)
    clock.now_s += 51
    assert pace.early_s(writing_s=0.5) == 0
    assert Pace(None).early_s(writing_s=9.0) == 0


def test_nobody_asks_while_it_is_too_early(clock: Clock) -> None:
    pace = Pace(0.1)
    pace.begin()
    for _ in range(10):
        clock.now_s += 2.0
        pace.chance()
    assert pace.chances_within(0.0) == 0
    assert pace.chances_within(2.0) == 0, "the next chance may be the right one"
    assert 5 <= pace.chances_within(20.0) < 10
    assert pace.chances_within(1e9) < 1e4, "however it seems, they ask from time to time"
