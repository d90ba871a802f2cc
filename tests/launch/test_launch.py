"""dmod-launch with real processes: environment, output, exit status, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from dmod_launch.child import start_child
from dmod_launch.job import Program, programs
from tests.cluster.cluster import Process, environment, wait_until

PROGRAMS = str(Path(__file__).with_name("programs.py"))


class Launcher(Process):
    """A launcher that runs a function of programs.py; `with` ends it and what it has started."""

    def __init__(self, directory: Path, options: str, *program: object, **settings: object):
        worker = (sys.executable, PROGRAMS, *map(str, program)) if program else ()
        command = (sys.executable, "-m", "dmod_launch", *options.split(), *worker)
        super().__init__("launcher", command, environment(DMOD_NUMBA=0, **settings), directory)

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.reap()  # its keepers end the rest
        if error is not None:
            error.add_note(self.output)

    def lines(self, start: str) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith(start)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids(directory: Path, count: int) -> list[int]:
    wait_until(lambda: len(list(directory.glob("*.pid"))) == count, "the workers have not started")
    return [int(path.read_text()) for path in directory.glob("*.pid")]


def test_workers_train_through_the_servers_and_all_end_well(tmp_path: Path) -> None:
    with Launcher(tmp_path, "-n 2 -s 2 --", "train", tmp_path) as launcher:
        assert launcher.wait() == 0
        assert sorted(launcher.lines("[worker")) == ["[worker 0] sum 2 of 2", "[worker 1] sum 2 of 2"]


def test_every_line_comes_out_whole_with_its_prefix(tmp_path: Path) -> None:
    with Launcher(tmp_path, "-n 2 -s 1 --timeout 0.5", "say", 3000) as launcher:
        launcher.wait()
        for rank in range(2):
            lines = launcher.lines(f"[worker {rank}] ")
            expected = [f"[worker {rank}] out {i} " + "x" * (i % 300) for i in range(3000)]
            assert [line for line in lines if " out " in line] == expected
            assert [line for line in lines if " err " in line] == [
                f"[worker {rank}] err {i}" for i in range(3000)
            ]
            assert f"[worker {rank}] partial" in lines


def test_processes_get_the_variables_of_their_job_and_the_user_s_go_first(tmp_path: Path) -> None:
    options = "-n 1 -s 1 --timeout 1 --env EXTRA=a=b --env OMP_NUM_THREADS=5"
    with Launcher(tmp_path, options, "variables", DMLC_NUM_WORKER=7, DMLC_RANK=3) as launcher:
        assert launcher.wait() == 0  # though the servers have waited in vain for the worker to join
        assert launcher.lines("[worker 0]") == [
            "[worker 0] DMLC_ROLE=worker DMLC_NUM_WORKER=1 DMLC_NUM_SERVER=1 DMLC_RANK=None",
            "[worker 0] OMP_NUM_THREADS=5 DMOD_TIMEOUT_S=1 EXTRA=a=b",
        ]


def test_the_cores_are_shared_out_between_the_workers() -> None:
    cores = len(os.sched_getaffinity(0))
    for num_workers, threads in ((1, cores), (2, max(1, cores // 2)), (1000, 1)):
        found = programs(["true"], num_workers, 1, {"OMP_NUM_THREADS": "7"}, {})
        assert {p.environment["OMP_NUM_THREADS"] for p in found} == {"7"}
        assert {p.environment["DMOD_NUM_THREADS"] for p in found} == {str(threads)}
    assert [p.name for p in programs(["true"], 2, 1, {}, {})] == [
        "scheduler",
        "server 0",
        "worker 0",
        "worker 1",
    ]


@pytest.fixture
def four_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 6, 7})


@pytest.mark.usefixtures("four_processors")
@pytest.mark.parametrize(
    ("workers", "environment", "shares"),
    [
        (2, {}, ["2,3", "6,7"]),
        (3, {}, ["2", "3", "6"]),  # one is left for servers
        (2, {"DMOD_NUM_THREADS": "2"}, ["2,3", "6,7"]),
        (2, {"DMOD_NUM_THREADS": "3"}, None),
        (2, {"DMOD_CPUS": "all"}, None),
        (2, {"DMOD_CPUS": "6"}, ["2,3", "6,7"]),  # of the job that this launcher is a worker of
        (1, {}, None),
        (5, {}, None),
    ],
)
def test_each_worker_has_its_share_of_the_processors(
    workers: int, environment: dict[str, str], shares: list[str] | None
) -> None:
    found = programs(["true"], workers, 1, environment, {}, bind=True)
    wanted = shares or [environment.get("DMOD_CPUS")] * workers
    assert [program.environment.get("DMOD_CPUS") for program in found[2:]] == wanted
    assert all(program.environment.get("DMOD_CPUS") in (None, "all") for program in found[:2])


@pytest.mark.parametrize("processors", ["own", "all", "100000", "none"])
def test_a_process_keeps_to_its_processors_or_takes_any(processors: str) -> None:
    here = sorted(os.sched_getaffinity(0))
    setting = str(here[-1]) if processors == "own" else processors
    command = (sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))")
    child = start_child(Program("worker", 0, command, {**os.environ, "DMOD_CPUS": setting}))
    try:
        assert child.process.stdout is not None and child.process.stderr is not None
        assert child.process.stdout.read().decode().strip() == str(here[-1:] if processors == "own" else here)
        child.process.stderr.close()
        child.process.stdout.close()
    finally:
        child.close_lifeline()
        child.process.wait(10)


@pytest.mark.parametrize(("how", "code"), [(7, 7), (-signal.SIGSEGV, 139)])
def test_the_exit_status_is_that_of_the_first_failure(tmp_path: Path, how: int, code: int) -> None:
    with Launcher(tmp_path, "-n 2 -s 1 --timeout 0.5", "fail", 1, how) as launcher:
        assert launcher.wait(20) == code
        how = "was killed by signal 11 (SIGSEGV)" if how < 0 else "has ended with exit status 7"
        assert f"[launcher] worker 1 {how}" in launcher.output
        last = launcher.lines("[")[-1]
        assert last.startswith("[launcher] the job failed: worker 1 ") and how in last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-n 2 -s 0 -- true", "need a server: pass -s 1 or more"),
        ("-n 0 -s 1 -- true", "at least one worker"),
        ("-n 1 -s 1", "expected a COMMAND"),
        ("-n 1 -s 1 --env X true", "expected NAME=VALUE"),
        ("-n 1 -s 1 --timeout -3 true", "DMOD_TIMEOUT_S=-3"),
    ],
)
def test_misuse_says_what_to_do(tmp_path: Path, options: str, message: str) -> None:
    with Launcher(tmp_path, options) as launcher:
        assert launcher.wait() == 2
        assert message in launcher.output


def test_a_command_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    with Launcher(tmp_path, "-n 1 -s 1 --timeout 0.5 -- train.py") as launcher:
        assert launcher.wait(20) == 127
        said = "cannot run train.py: No such file or directory; did you mean: python train.py"
        assert f"[worker 0] dmod-launch: {said}" in launcher.output


@pytest.mark.parametrize("stubborn", ["", "stubborn"])
def test_ctrl_c_ends_all_within_5_s(tmp_path: Path, stubborn: str) -> None:
    with Launcher(tmp_path, "-n 2 -s 1", "family", tmp_path, *filter(None, [stubborn])) as launcher:
        family = pids(tmp_path, 4)
        os.kill(launcher.pid, signal.SIGINT)
        assert launcher.wait(5) == 130
        assert not any(is_running(pid) for pid in family)


def test_ctrl_c_shows_no_tracebacks(tmp_path: Path) -> None:
    with Launcher(tmp_path, "-n 2 -s 1", "for_ever") as launcher:
        wait_until(lambda: len(launcher.lines("[worker")) == 2, "the workers are not under way")
        os.kill(launcher.pid, signal.SIGINT)
        assert launcher.wait(10) == 130
        assert "Traceback" not in launcher.output and "SIGINT: ending all processes" in launcher.output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_death_is_known_at_once_and_named_last(tmp_path: Path, number: signal.Signals) -> None:
    with Launcher(tmp_path, "-n 2 -s 1 --timeout 30", "for_ever") as launcher:
        wait_until(lambda: len(launcher.lines("[worker")) == 2, "the workers are not under way")
        [line] = launcher.lines("[worker 1] pid ")
        os.kill(int(line.split()[-1]), number)
        assert launcher.wait(10) == 128 + number  # far within the 30 s after which its silence would tell
        killed = f"killed by signal 9 (SIGKILL) at {time.strftime('%H:')}"
        reason = killed if number == signal.SIGKILL else "it was ended by SIGTERM"
        [said] = [line for line in launcher.lines("[worker 0] ") if "PeerLostError" in line]
        assert f"worker 1 (pid {line.split()[-1]} on" in said and reason in said
        assert launcher.lines("[")[-1].startswith("[launcher] the job failed: worker 1 ")
        assert not launcher.lines("[worker 1] Traceback")


def test_a_worker_that_dies_before_the_job_begins_is_named(tmp_path: Path) -> None:
    with Launcher(tmp_path, "-n 2 -s 1 --timeout 30", "join_or_fail") as launcher:
        assert launcher.wait(10) == 4
        assert "worker 1 is lost: it has ended with exit status 4" in launcher.output
        assert "before all had joined" in launcher.lines("[launcher] the job failed: worker 1")[0]


def test_nothing_outlives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    with Launcher(tmp_path, "-n 2 -s 1", "family", tmp_path, "stubborn") as launcher:
        family = pids(tmp_path, 4)
        nodes = children_of(launcher.pid)
        assert len(nodes) == 4
        os.kill(launcher.pid, signal.SIGKILL)
        wait_until(lambda: not any(is_running(pid) for pid in (*family, *nodes)), "something is left", 10)


def children_of(pid: int) -> list[int]:
    found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in found for child in children]
