"""One process of benchmarks/step_time.py: one system, one workload; a round for each line on standard input.

It answers with a line of JSON: first when the first epoch has ended (everything is compiled then), afterwards
for each round. Runs on the Python of MXNet 1.9.1 and of the peers as well as on dmod's.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.step_workloads import WORKLOADS, Workload, make_data

SYSTEMS = {
    "dmod": "benchmarks.step_symbol",
    "mxnet": "benchmarks.step_symbol",
    "torch": "benchmarks.step_torch",
    "torch.compile": "benchmarks.step_torch",
    "jax": "benchmarks.step_jax",
}


class RoundsOver(Exception):
    """There is no further round to run."""


class Pace:
    """Times steps by rounds, and waits between them.

    The system calls `step_end` after each batch and `epoch_end` after each epoch, for ever.
    """

    def __init__(self, work: Workload, channel: int):
        self.work = work
        self._channel = channel
        self._start = time.perf_counter()
        self._imported = 0.0
        self._epoch = -1
        self._spent_s = self._began = 0.0
        self._first_step_s = 0.0

    def imported(self) -> None:
        """All is imported, the data is there: memory and the time to the first step count from here."""
        self._imported = peak_mb()
        self._start = time.perf_counter()

    def step_end(self, batch: int) -> None:
        now = time.perf_counter()
        if self._epoch == -1 and batch == 0:
            self._first_step_s = now - self._start
        if batch == 0:
            self._began = now
        elif batch == self.work.batches - 1:
            self._spent_s += now - self._began

    def epoch_end(self) -> None:
        if self._epoch == -1:
            self._answer({"first_step_s": self._first_step_s})
        elif self._epoch == 0:
            self._spent_s = 0.0  # that epoch warmed up
        elif self._epoch == self.work.epochs:
            steps = self.work.epochs * (self.work.batches - 1)
            self._answer({"ms": 1e3 * self._spent_s / steps})
        self._epoch += 1

    def _answer(self, figures: dict[str, float]) -> None:
        figures["peak_mb"] = peak_mb() - self._imported
        figures["process_mb"] = peak_mb()
        os.write(self._channel, (json.dumps(figures) + "\n").encode())
        if not sys.stdin.readline():
            raise RoundsOver
        self._epoch = -1


def peak_mb() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    system, workload, threads = sys.argv[1:]
    channel = os.dup(1)
    os.dup2(2, 1)  # what the systems print goes elsewhere
    work = WORKLOADS[workload]
    module = importlib.import_module(SYSTEMS[system])
    pace = Pace(work, channel)
    try:
        module.train(system, work, int(threads), pace, lambda: make_data(work, work.batches))
    except RoundsOver:
        pass


if __name__ == "__main__":
    main()
