"""Learning rate schedules: MXNet's rates, and the same rate for the same update however it is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dmod import lr_scheduler
from dmod.base import InvalidArgument

RATES = json.loads((Path(__file__).parent / "fixtures" / "lr_schedules.json").read_text())


def make(name: str, options: dict[str, Any]) -> lr_scheduler.LRScheduler:
    return getattr(lr_scheduler, name)(**options)


@pytest.mark.parametrize(("name", "options", "rates"), RATES)
def test_rates_are_those_of_mxnet(name: str, options: dict[str, Any], rates: list[float]) -> None:
    schedule = make(name, options)
    assert [schedule(n) for n in range(len(rates))] == rates


@pytest.mark.parametrize(("name", "options", "rates"), RATES)
def test_a_rate_does_not_depend_on_what_was_asked_before(
    name: str, options: dict[str, Any], rates: list[float]
) -> None:
    schedule = make(name, options)
    order = [25, 3, 11, 12, 0, 24, 7, 25, 6, 5]
    assert [schedule(n) for n in order] == [rates[n] for n in order]


@pytest.mark.parametrize(("name", "options", "rates"), RATES)
def test_a_used_schedule_survives_its_description(
    name: str, options: dict[str, Any], rates: list[float]
) -> None:
    schedule = make(name, options)
    for n in range(14):
        schedule(n)
    copy = lr_scheduler.schedule_from_config(schedule.to_config())
    assert type(copy) is type(schedule)
    assert copy.base_lr == schedule.base_lr
    assert [copy(n) for n in range(len(rates))] == rates


def test_an_assigned_base_lr_decays_from_there_on() -> None:
    schedule = lr_scheduler.FactorScheduler(step=2, factor=0.5, base_lr=1.0)
    assert schedule(5) == 0.25
    schedule.base_lr = 8.0
    assert [schedule(n) for n in (6, 7, 9)] == [8.0, 4.0, 2.0]
    copy = lr_scheduler.schedule_from_config(schedule.to_config())
    assert [copy(n) for n in (6, 7, 9, 11)] == [8.0, 4.0, 2.0, 1.0]


def test_count_tells_the_last_decay_seen() -> None:
    factor = lr_scheduler.FactorScheduler(step=3, factor=0.5)
    factor(7)
    assert factor.count == 6
    multi = lr_scheduler.MultiFactorScheduler(step=[2, 5], factor=0.5)
    multi(3)
    assert (multi.count, multi.cur_step_ind) == (2, 1)


def test_a_long_schedule_is_cheap_to_ask() -> None:
    schedule = lr_scheduler.FactorScheduler(step=1, factor=0.999999, base_lr=1.0)
    assert schedule(10**5) < 1.0
    assert schedule._memo is not None and schedule._memo[0] == 10**5 - 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("FactorScheduler", {"step": 0}),
        ("FactorScheduler", {"step": 1, "factor": 2}),
        ("MultiFactorScheduler", {"step": [3, 2]}),
        ("MultiFactorScheduler", {"step": []}),
        ("MultiFactorScheduler", {"step": [2], "factor": 1.5}),
        ("PolyScheduler", {"max_update": 0}),
        ("CosineScheduler", {"max_update": 3.5}),
        ("LRScheduler", {"warmup_begin_lr": 1}),
        ("LRScheduler", {"warmup_mode": "x"}),
        ("LRScheduler", {"warmup_steps": -1}),
    ],
)
def test_what_mxnet_refuses_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        make(name, options)


def test_a_schedule_of_ones_own_has_no_description() -> None:
    class Mine(lr_scheduler.FactorScheduler):
        pass

    with pytest.raises(lr_scheduler.NotSerializable):
        Mine(step=1).to_config()


@pytest.mark.parametrize(
    "config",
    [
        None,
        {"name": "os.system"},
        {"name": "LRScheduler"},
        {"name": "FactorScheduler", "params": []},
        {"name": "FactorScheduler", "params": {"step": 1, "shell": "ls"}},
        {"name": "FactorScheduler", "params": {"step": 1}, "state": {"_seen": "x"}},
    ],
)
def test_a_description_that_makes_no_sense_is_refused(config: Any) -> None:
    with pytest.raises(InvalidArgument):
        lr_scheduler.schedule_from_config(config)
