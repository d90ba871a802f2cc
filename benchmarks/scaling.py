"""What a second worker is worth: 2 workers + 1 server beside two independent processes.

    python benchmarks/scaling.py [--rounds 7] [--models "small MLP" ...] [--json FILE]

A *share* is the samples per second of the workers that train together over those of as many processes
that train at the same time, each for itself: 1 would be sharing for nothing. A *gain* is the same over
MXNet's single process (or the system's own, without MXNet), which has the machine to itself and as many
threads as it likes. All run in turns, through `Module.fit`, or DistributedDataParallel over gloo; workers
that share the machine have one thread each. With more cores than workers the server has one to itself; on
two cores it takes its time from the workers.
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


def jobs_of(system: str, python: str, model: str, args: argparse.Namespace) -> dict[str, Job]:
    """The job that trains together, the independent processes, and the single one."""
    workers, together = args.workers, [WORKER, system, model, "together"]
    if system == "torch":
        job = gloo_job("torch together", python, together, workers, 1)
    else:
        settings = {"DMOD_TRANSPORT": args.transport} if system == "dmod" else {}
        job = parameter_server_job(
            f"{system} together", python, system, together, workers, args.servers, 1, **settings
        )
    command = [python, WORKER, system, model, "alone"]
    return {
        "together": job,
        "alone": Job(f"{system} alone", [], [(command, environment(1))] * workers),
        "single": Job(f"{system} single", [], [(command, environment(None))]),
    }


def samples_per_s(job: Job, model: str, batches: int) -> float:
    """Of all workers together."""
    samples = batches * MODELS[model][1]
    return sum(samples / answer["seconds"] for answer in job.ask(batches=batches))


def measure(model: str, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All jobs of all systems in turns; medians over the rounds, of ratios those of the single rounds."""
    with contextlib.ExitStack() as stack:
        jobs = {
            (system, kind): stack.enter_context(job)
            for system, python in pythons(args.only_dmod).items()
            for kind, job in jobs_of(system, python, model, args).items()
        }
        counts = {}
        for key, job in jobs.items():
            samples_per_s(job, model, 8)  # warms up
            rate = samples_per_s(job, model, 8) / MODELS[model][1]
            rate /= 1 if key[1] == "single" else args.workers
            counts[key] = args.batches or max(8, int(rate * BURST_S))
        runs: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
        for _ in range(args.rounds):
            for key, job in jobs.items():
                runs[key].append(samples_per_s(job, model, counts[key]))
    systems = dict.fromkeys(system for system, _ in jobs)
    return {system: summary(runs, system, "mxnet" if "mxnet" in systems else system) for system in systems}


def summary(runs: dict[tuple[str, str], list[float]], system: str, peer: str) -> dict[str, Any]:
    """The figures of one system."""

    def over(other: list[float]) -> float:
        pairs = zip(runs[system, "together"], other, strict=True)
        return round(statistics.median(a / b for a, b in pairs), 3)

    kinds = ("together", "alone", "single")
    medians = {kind: round(statistics.median(runs[system, kind])) for kind in kinds}
    return {**medians, "share": over(runs[system, "alone"]), "gain": over(runs[peer, "single"])}


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
        results[model] = measure(model, args)
        print(f"{model}: done", file=sys.stderr)
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
    print(f"\n{'samples/s':20}{'together':>10}{'alone':>10}{'share':>8}{'single':>10}{'gain':>8}")
    for model, systems in results.items():
        for system, row in systems.items():
            print(
                f"{model + ', ' + system:20}{row['together']:10}{row['alone']:10}{row['share']:8.2f}"
                f"{row['single']:10}{row['gain']:8.2f}"
            )


if __name__ == "__main__":
    main()
