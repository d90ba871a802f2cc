"""What a second worker is worth: 2 workers + 1 server beside two independent processes.

    python benchmarks/scaling.py [--rounds 7] [--models "small MLP" ...] [--json FILE]

A *share* is the samples per second of the workers that train together over those of as many processes
that train at the same time, each for itself: 1 would be sharing for nothing. Both run in turns, with one
thread each, through `Module.fit`, or DistributedDataParallel over gloo. With more cores than workers the
server has one to itself; on two cores it takes its time from the workers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.jobs import Job, environment, gloo_job, parameter_server_job
from benchmarks.oracle import find_oracle, find_peers
from benchmarks.scaling_worker import MODELS

WORKER = str(Path(__file__).with_name("scaling_worker.py"))
BURST_S = 1.5
"""About so long one job trains before it is the other's turn."""


def pythons(only_dmod: bool) -> dict[str, str]:
    """The systems that can be measured here, each with its Python."""
    found = {"dmod": sys.executable}
    if not only_dmod and (oracle := find_oracle()) is not None:
        found["mxnet"] = str(oracle)
    if not only_dmod and (peers := find_peers()) is not None:
        found["torch"] = str(peers)
    return found


def jobs_of(system: str, python: str, model: str, args: argparse.Namespace) -> tuple[Job, Job]:
    """The job that trains together, and the independent processes."""
    workers, together = args.workers, [WORKER, system, model, "together"]
    if system == "torch":
        job = gloo_job("torch together", python, together, workers, 1)
    else:
        settings = {"DMOD_TRANSPORT": args.transport} if system == "dmod" else {}
        job = parameter_server_job(
            f"{system} together", python, system, together, workers, args.servers, 1, **settings
        )
    alone = [([python, WORKER, system, model, "alone"], environment(1))] * workers
    return job, Job(f"{system} alone", [], alone)


def samples_per_s(job: Job, model: str, batches: int) -> float:
    """Of all workers together."""
    samples = batches * MODELS[model][1]
    return sum(samples / answer["seconds"] for answer in job.ask(batches=batches))


def measure(system: str, python: str, model: str, args: argparse.Namespace) -> dict[str, Any]:
    """Both jobs in turns; medians, and the median of the shares of the single rounds."""
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(job) for job in jobs_of(system, python, model, args)]
        counts = []
        for job in jobs:
            samples_per_s(job, model, 8)  # warms up
            rate = samples_per_s(job, model, 8) / args.workers / MODELS[model][1]
            counts.append(args.batches or max(8, int(rate * BURST_S)))
        runs = [
            [samples_per_s(job, model, count) for job, count in zip(jobs, counts, strict=True)]
            for _ in range(args.rounds)
        ]
    together, alone = zip(*runs, strict=True)
    return {
        "together": round(statistics.median(together)),
        "alone": round(statistics.median(alone)),
        "share": round(statistics.median(a / b for a, b in runs), 3),
        "shares": [round(a / b, 3) for a, b in runs],
    }


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--workers", type=int, default=2)
    own.add_argument("--servers", type=int, default=1)
    own.add_argument("--rounds", type=int, default=7)
    own.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    own.add_argument("--transport", default="auto", help="dmod's DMOD_TRANSPORT")
    own.add_argument("--batches", type=int, help="per round (default: as many as take 1.5 s)")
    own.add_argument("--only-dmod", action="store_true", help="leave the others out")
    own.add_argument("--json", metavar="FILE", help="where to write the figures besides printing them")
    return own


def main() -> None:
    args = parser().parse_args()
    results: dict[str, dict[str, Any]] = {}
    for model in args.models:
        for system, python in pythons(args.only_dmod).items():
            results.setdefault(model, {})[system] = measure(system, python, model, args)
            print(f"{model}, {system}: done", file=sys.stderr)
    result = {
        "benchmark": "scaling: workers that train together over as many independent processes",
        "workers": args.workers,
        "servers": args.servers,
        "cpus": os.cpu_count(),
        "results": results,
    }
    text = json.dumps(result, indent=1)
    if args.json:
        Path(args.json).write_text(text + "\n")
    print(text)
    print(f"\n{'samples/s':20}{'together':>12}{'alone':>12}{'share':>8}")
    for model, systems in results.items():
        for system, row in systems.items():
            print(f"{model + ', ' + system:20}{row['together']:12}{row['alone']:12}{row['share']:8.2f}")


if __name__ == "__main__":
    main()
