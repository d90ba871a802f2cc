"""Time for one push and pull of everything: dmod's transports beside MXNet, gloo and Ray actors.

    python benchmarks/kvstore.py [--workers 2] [--servers 1] [--rounds 7] [--json FILE]

Workloads: ResNet-50's 161 keys (102 MB), one key of 64 MB, 1000 keys of 1 KB in one list call, 4 bytes;
as a sum, and with SGD momentum on the servers. All systems of a table run at the same time and take
turns; figures are medians over the rounds, minima beside them. At the end stands the memory that the
largest server takes: when it has served 4 bytes, so that all code is loaded; after the workloads; and what
it may take then, which is room for values, states, and 1.2 times the gradients that its transport holds.
MXNet's dist_sync (`make oracle`, or ``DMOD_ORACLE``), torch's gloo (`make peers`, or ``DMOD_PEERS``), which
only sums, and a parameter server of Ray actors take part where they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.jobs import Job, environment, gloo_job, parameter_server_job
from benchmarks.kvstore_shapes import WORKLOADS
from benchmarks.oracle import find_oracle, find_peers

WORKER = str(Path(__file__).with_name("kvstore_worker.py"))
RAY_DRIVER = str(Path(__file__).with_name("kvstore_ray.py"))
BURST_S = 0.4
"""About so long one system measures before it is another's turn."""
MOST_ROUNDS = 50
TRANSPORTS = ("auto", "shm", "ipc", "tcp")


def systems(args: argparse.Namespace, optimizer: str) -> list[Job]:
    """The jobs to compare."""
    jobs = []
    for transport in args.transports:
        for api, label in (("dmod-flat", "flat"), ("dmod", "keys")):
            if label in args.api:
                program = [WORKER, api, optimizer, str(args.divide)]
                jobs.append(
                    parameter_server_job(
                        f"dmod {transport}, {label}",
                        sys.executable,
                        "dmod",
                        program,
                        args.workers,
                        args.servers,
                        args.threads,
                        DMOD_TRANSPORT=transport,
                    )
                )
    if (oracle := find_oracle()) is not None and not args.only_dmod:
        program = [WORKER, "mxnet", optimizer, str(args.divide)]
        jobs.append(
            parameter_server_job(
                "MXNet 1.9.1", str(oracle), "mxnet", program, args.workers, args.servers, args.threads
            )
        )
    if (peers := find_peers()) is not None and optimizer == "sum" and not args.only_dmod:
        program = [WORKER, "gloo", optimizer, str(args.divide)]
        jobs.append(gloo_job("torch gloo", str(peers), program, args.workers, args.threads))
    if find_spec("ray") is not None and not args.only_dmod:
        counts = [str(args.divide), str(args.workers), str(args.servers)]
        command = [sys.executable, RAY_DRIVER, optimizer, *counts]
        jobs.append(Job("Ray actors", [], [(command, environment(args.threads))]))
    return jobs


def server_memory(job: Job) -> float | None:
    """The resident memory of the largest server in MB, shared pages counted in; None without servers."""
    found = []
    for process in job.nodes:
        status = Path(f"/proc/{process.popen.pid}/status")
        if process.name.startswith("server") and status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
            found.append(int(line.split()[1]) / 1e3)
    return max(found, default=None)


def measure(job: Job, workload: str, rounds: int) -> float:
    """Seconds per round; of the worker that took longest."""
    return float(max(a["seconds"] for a in job.ask(workload=workload, rounds=rounds)) / rounds)


def compare(args: argparse.Namespace, optimizer: str) -> dict[str, Any]:
    """All systems on all workloads with one optimizer."""
    result: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        jobs = [stack.enter_context(job) for job in systems(args, optimizer)]
        for job in jobs:
            measure(job, "4 bytes", 2)
        idle = {job.name: memory for job in jobs if (memory := server_memory(job)) is not None}
        for workload in args.workloads:
            bursts = {}
            for job in jobs:
                measure(job, workload, 1)
                once = measure(job, workload, 2)
                bursts[job.name] = max(1, min(MOST_ROUNDS, int(BURST_S / once)))
            runs: dict[str, list[float]] = {job.name: [] for job in jobs}
            for _ in range(args.rounds):
                for job in jobs:
                    runs[job.name].append(measure(job, workload, bursts[job.name]))
            result[workload] = figures(runs)
            print(f"{optimizer}: {workload} done", file=sys.stderr)
        room = server_room(args, optimizer)
        result["server memory, MB"] = {
            job.name: {
                "idle": round(idle[job.name]),
                "now": round(memory),
                "at most": round(idle[job.name] + room),
            }
            for job in jobs
            if (memory := server_memory(job)) is not None
        }
    return result


def server_room(args: argparse.Namespace, optimizer: str) -> float:
    """MB that a server of dmod may take for the workloads."""
    shapes = [shape for name in args.workloads for shape in WORKLOADS[name](args.divide).values()]
    values = sum(4 * math.prod(shape) for shape in shapes) / args.servers / 1e6
    return values * ((2 if optimizer == "sgd" else 1) + 1.2 * args.workers)


def figures(runs: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians, minima and ratios to the peers. A ratio is the median of those of the single rounds."""
    found = {}
    for name, values in runs.items():
        own = {"median_ms": statistics.median(values) * 1e3, "min_ms": min(values) * 1e3}
        for peer, label in (("MXNet 1.9.1", "of_mxnet"), ("torch gloo", "of_gloo")):
            if peer in runs:
                ratios = [mine / theirs for mine, theirs in zip(values, runs[peer], strict=True)]
                own[label] = statistics.median(ratios)
        found[name] = {key: float(f"{value:.4g}") for key, value in own.items()}
    return found


def table(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = []
    for optimizer, workloads in result["results"].items():
        for workload, rows in workloads.items():
            lines.append(f"\n{optimizer}: {workload}")
            if workload == "server memory, MB":
                lines.append(f"  {'':22}{'idle':>12}{'now':>12}{'at most':>10}")
                for name, row in rows.items():
                    lines.append(f"  {name:22}{row['idle']:12}{row['now']:12}{row['at most']:10}")
                continue
            lines.append(f"  {'':22}{'median ms':>12}{'min ms':>12}{'/ MXNet':>10}{'/ gloo':>10}")
            for name, row in rows.items():
                ratios = "".join(
                    f"{row[key]:10.2f}" if key in row else f"{'':10}" for key in ("of_mxnet", "of_gloo")
                )
                lines.append(f"  {name:22}{row['median_ms']:12.3f}{row['min_ms']:12.3f}{ratios}")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--workers", type=int, default=2)
    own.add_argument("--servers", type=int, default=1)
    own.add_argument("--rounds", type=int, default=7)
    own.add_argument("--threads", type=int, default=1, help="per process (default: 1)")
    own.add_argument("--transports", nargs="+", default=["auto", "ipc", "tcp"], choices=TRANSPORTS)
    own.add_argument("--api", nargs="+", default=["flat", "keys"], choices=["flat", "keys"])
    own.add_argument("--optimizers", nargs="+", default=["sum", "sgd"], choices=["sum", "sgd"])
    own.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    own.add_argument("--only-dmod", action="store_true", help="leave the others out")
    own.add_argument("--divide", type=int, default=1, help="make arrays so much smaller, for a quick try")
    own.add_argument("--json", metavar="FILE", help="where to write the figures besides printing them")
    return own


def main() -> None:
    args = parser().parse_args()
    result = {
        "benchmark": "kvstore: one push and pull of everything",
        "cpus": os.cpu_count(),
        "workers": args.workers,
        "servers": args.servers,
        "threads": args.threads,
        "rounds": args.rounds,
        "results": {optimizer: compare(args, optimizer) for optimizer in args.optimizers},
    }
    text = json.dumps(result, indent=1)
    if args.json:
        Path(args.json).write_text(text + "\n")
    print(text)
    print(table(result))


if __name__ == "__main__":
    main()
