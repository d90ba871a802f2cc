"""Two worker processes read each record of a file exactly once an epoch."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.cluster import Cluster

RECORDS = Path(__file__).resolve().parent.parent / "fixtures" / "pictures.rec"
PROGRAM = Path(__file__).with_name("part_program.py")


def test_two_workers_see_each_record_once_an_epoch(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1) as cluster:
        cluster.run_script(PROGRAM, RECORDS, tmp_path / "seen")
    first, second = (json.loads((tmp_path / f"seen.{rank}").read_text()) for rank in range(2))
    for mine, theirs in zip(first, second, strict=True):
        assert mine and theirs and sorted(mine + theirs) == list(range(100, 108))
