"""A failed job is started again, as often as is allowed; chaos fails it on purpose."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from dmod_launch.chaos import Saboteur
from dmod_launch.cli import main
from dmod_launch.job import Program
from dmod_launch.restart import Announcer, run_with_restarts
from dmod_launch.supervisor import Failure, Supervisor


class Run:
    """A supervisor whose job ends as it is told."""

    interrupted = False
    failure = Failure("worker 1", "was killed by signal 9 (SIGKILL)", ("loss=3", "loss=2"))

    def __init__(self, code: int, interrupted: bool = False):
        self.code, self.interrupted = code, interrupted

    def run(self, programs: Sequence[Any]) -> int:
        return self.code


def restarts(codes: Sequence[int], max_restarts: int, interrupted: bool = False) -> tuple[Any, ...]:
    """Exit status, what was said, pauses, numbers of the starts, and which of them end all at once."""
    said, pauses, starts, at_once = [], [], [], []
    left = iter(codes)

    def start(number: int) -> list[Any]:
        starts.append(number)
        return []

    def supervise(ends_all: bool) -> Any:
        at_once.append(ends_all)
        return Run(next(left), interrupted)

    code = run_with_restarts(start, supervise, max_restarts, said.append, pauses.append)
    return code, said, pauses, starts, at_once


def test_a_job_that_ends_well_runs_once() -> None:
    assert restarts([0], 3) == (0, [], [], [0], [True])


def test_a_failed_job_is_started_again() -> None:
    code, said, pauses, starts, _ = restarts([137, 1, 0], 5)
    assert (code, starts, pauses) == (0, [0, 1, 2], [1, 2])
    assert said[0] == "worker 1 said last:\n    loss=3\n    loss=2"
    assert said[1] == "restart 1 of 5 in 1 s; the job goes on from its newest checkpoint"


def test_it_is_given_up_at_last() -> None:
    code, said, pauses, starts, at_once = restarts([137, 137, 9], 2)
    assert (code, starts, pauses, at_once) == (9, [0, 1, 2], [1, 2], [True, True, False])
    assert said[-1] == "given up after 2 restarts"


def test_pauses_become_no_longer_than_a_minute() -> None:
    assert restarts([1] * 10, 9)[2] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_interrupted_job_is_not_started_again() -> None:
    assert restarts([130], 3, interrupted=True)[3] == [0]


def test_ctrl_c_in_a_pause() -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    code = run_with_restarts(lambda n: [], lambda at_once: Run(1), 3, lambda text: None, interrupt)  # type: ignore[arg-type,return-value]
    assert code == 130


def test_every_line_says_whose_it_is() -> None:
    sink = io.BytesIO()
    Announcer(sink, colour=False)("one\n  two")
    assert sink.getvalue() == b"[launcher] one\n[launcher]   two\n"


@pytest.mark.parametrize("arguments", [["--max-restarts", "-1"], ["--chaos", "0"]])
def test_options_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["-n", "1", "-s", "1", *arguments, "true"])
    assert arguments[0] in capsys.readouterr().err


# ---- chaos


def test_each_start_has_one_kill_until_none_is_left() -> None:
    saboteur = Saboteur(10.0, kills=2, seed=1)
    assert saboteur.due_in(0.0) is None
    for _ in range(2):
        saboteur.begin(100.0)
        due = saboteur.due_in(100.0)
        assert due is not None
        assert 3.0 <= due <= 17.0
        assert saboteur.due_in(1000.0) == 0
        assert saboteur.choose(["worker 0"], str) == "worker 0"
        assert saboteur.due_in(1000.0) is None
    saboteur.begin(100.0)
    assert saboteur.due_in(100.0) is None


def test_nobody_is_killed_when_no_restart_is_left() -> None:
    out = io.BytesIO()
    program = Program("worker", 0, (sys.executable, "-c", "import time; time.sleep(0.5)"), dict(os.environ))
    assert Supervisor(1.0, out, out, False, False, Saboteur(0.05, 9, 1)).run([program]) == 0
    assert out.getvalue() == b""


def test_a_seed_makes_the_same_choices() -> None:
    names = ["scheduler", "server 0", "server 1", "worker 0", "worker 1"]

    def choices(seed: int) -> list[Any]:
        saboteur = Saboteur(1.0, 20, seed)
        return [saboteur.choose(names, str) for _ in range(20)]

    assert choices(1) == choices(1) != choices(2)
    assert {name.partition(" ")[0] for name in choices(1)} == {"scheduler", "server", "worker"}
