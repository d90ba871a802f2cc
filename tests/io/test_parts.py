"""Two worker processes read each record of a file exactly once an epoch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RECORDS = Path(__file__).resolve().parent.parent / "fixtures" / "pictures.rec"
PROGRAM = Path(__file__).with_name("part_program.py")


def test_two_workers_see_each_record_once_an_epoch(tmp_path: Path) -> None:
    launch = [str(Path(sys.executable).with_name("dmod-launch")), "-n", "2", "-s", "1", "--"]
    command = [*launch, sys.executable, str(PROGRAM), str(RECORDS), str(tmp_path / "seen")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads((tmp_path / f"seen.{rank}").read_text()) for rank in range(2))
    for mine, theirs in zip(first, second, strict=True):
        assert mine and theirs and sorted(mine + theirs) == list(range(100, 108))
