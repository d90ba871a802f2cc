"""Killed at any moment of writing a checkpoint, a training goes on to the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster.cluster import environment

ROOT = Path(__file__).parent.parent.parent
DEADLINE_S = 240.0


def test_killed_at_every_moment_of_a_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.recovery.killed", str(tmp_path)],
        cwd=ROOT,
        env=environment(DMOD_NUMBA=0, PYTHONPATH=ROOT),  # forks: no threads but its own
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
    )
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 0, done.stdout
    assert last.endswith(" moments, 0 wrong")
    assert int(last.split()[0]) > 25
