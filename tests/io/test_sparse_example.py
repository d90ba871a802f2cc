"""The example of a sparse linear model learns its data, alone and with two workers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "sparse_linear.py"
LAUNCH = [str(Path(sys.executable).with_name("dmod-launch")), "-n", "2", "-s", "1", "--"]
SMALL = ["--num-features", "300", "--num-lines", "1000", "--batch-size", "50"]


def run(*options: str, before: list[str] | None = None) -> str:
    command = [*(before or []), sys.executable, str(EXAMPLE), *SMALL, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_classes_are_learned() -> None:
    assert "1 workers: accuracy 0.9" in run("--min-accuracy", "0.93")


def test_two_workers_learn_together() -> None:
    printed = run("--kv-store", "dist_sync", "--min-accuracy", "0.93", before=LAUNCH)
    assert len(re.findall(r"2 workers: accuracy 0\.9", printed)) == 2
