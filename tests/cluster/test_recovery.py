"""Jobs that lose processes, and workers that disagree: recovery between real processes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.cluster import environment

PROGRAM = str(Path(__file__).parent.parent / "recovery" / "program.py")
LAUNCH = (sys.executable, "-m", "dmod_launch.cli", "-n", "2", "-s", "2")
DEADLINE_S = 150


def launch(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run a job; its output, errors among it."""
    root = str(Path(__file__).parent.parent.parent)
    return subprocess.run(
        [*LAUNCH, *arguments],
        # Without compiled kernels, on which recovery does not depend, processes start in half the time.
        env=environment(PYTHONPATH=f"{root}:{root}/launch", DMOD_NUMBA=0, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )


def digests(output: str) -> list[str]:
    return re.findall(r"\[worker \d\] digest (\w+)", output)


@pytest.fixture(scope="module")
def undisturbed() -> str:
    done = launch("--", sys.executable, PROGRAM, "none")
    assert done.returncode == 0, done.stdout
    first, second = digests(done.stdout)
    assert first == second
    return first


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In which a job leaves its checkpoints."""
    return tmp_path_factory.mktemp("checkpoints")


def test_a_worker_that_is_killed(directory: Path, undisturbed: str) -> None:
    done = launch("--max-restarts", "1", "--", sys.executable, PROGRAM, str(directory), "1", "16")
    assert done.returncode == 0, done.stdout
    assert digests(done.stdout) == [undisturbed] * 2
    assert "[launcher] worker 1 was killed by signal 9" in done.stdout
    assert "[launcher] restart 1 of 1" in done.stdout
    assert "[worker 0] INFO:dmod:Resumed from" in done.stdout


def test_kills_at_random(tmp_path: Path, undisturbed: str) -> None:
    done = launch(
        *("--max-restarts", "2", "--chaos", "1", "--chaos-seed", "4"),
        *("--", sys.executable, PROGRAM, str(tmp_path)),
    )
    assert done.returncode == 0, done.stdout
    found = digests(done.stdout)  # of several starts, if somebody was killed after the training
    assert len(found) >= 2
    assert set(found) == {undisturbed}


def test_what_compression_leaves_over_and_unequal_numbers_of_batches(tmp_path: Path) -> None:
    """Also what a round took from it that another worker's end of the epoch dropped."""
    program = (sys.executable, PROGRAM)
    whole = launch("--", *program, "none", "-1", "0", "2bit")
    assert whole.returncode == 0, whole.stdout
    done = launch("--max-restarts", "1", "--", *program, str(tmp_path), "0", "14", "2bit")
    assert done.returncode == 0, done.stdout
    assert digests(done.stdout) == digests(whole.stdout)
    assert "Resumed from" in done.stdout


def test_workers_that_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Checkpoints come after epochs, also where one worker has more batches; no bits are promised."""
    done = launch("--max-restarts", "1", "--", sys.executable, PROGRAM, str(tmp_path), "1", "16", "async")
    assert done.returncode == 0, done.stdout
    assert "are taken after epochs only" in done.stdout
    assert "Resumed from" in done.stdout
    assert len(digests(done.stdout)) == 2


def test_workers_that_see_different_directories(tmp_path: Path, directory: Path) -> None:
    """The one that has found a checkpoint, and the one that has not, are told so."""
    if not any(directory.iterdir()):  # this test runs alone
        launch("--", sys.executable, PROGRAM, str(directory), "1", "16")
    shutil.copytree(directory, tmp_path / "0")
    done = launch("--", sys.executable, PROGRAM, str(tmp_path / "by-rank"))
    assert done.returncode != 0
    assert "the directory must be the same" in done.stdout
