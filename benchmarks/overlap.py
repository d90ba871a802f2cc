"""What it gains that gradients leave while the backward pass goes on.

    python benchmarks/overlap.py [--rounds 5] [--json FILE] [--picture docs/overlap.png]

Two workers and one server on this host train a perceptron of 8 layers of 1024 (33 MB, batches of 128) with
and without overlap (``DMOD_OVERLAP``), in turns: as they are connected here, and over pretended networks
(``DMOD_TEST_NETWORK``) that have latency and a limited bandwidth, but cost no processor time beyond what the
transport beneath costs. The picture shows one step of worker 0 with and without, from recorded events.
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

from benchmarks.jobs import Job, parameter_server_job

WORKER = str(Path(__file__).with_name("overlap_worker.py"))
NETWORKS: dict[str, dict[str, str]] = {
    "shm": {"DMOD_TRANSPORT": "shm"},
    "tcp": {"DMOD_TRANSPORT": "tcp"},
    "shm + 0.2 ms, 1000 MB/s": {"DMOD_TRANSPORT": "shm", "DMOD_TEST_NETWORK": "0.2,1000"},
    "shm + 2 ms, 1000 MB/s": {"DMOD_TRANSPORT": "shm", "DMOD_TEST_NETWORK": "2,1000"},
    "tcp + 0.2 ms, 500 MB/s": {"DMOD_TRANSPORT": "tcp", "DMOD_TEST_NETWORK": "0.2,500"},
}
BATCHES = 8
PICTURED = "shm + 2 ms, 1000 MB/s"
NAMES = {"0": "without overlap", "1": "with overlap"}


def job(network: str, overlap: str, threads: int) -> Job:
    settings = NETWORKS[network] | {"DMOD_OVERLAP": overlap}
    return parameter_server_job(
        f"{network}, {NAMES[overlap]}", sys.executable, "dmod", [WORKER], 2, 1, threads, **settings
    )


def measure(network: str, args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Milliseconds per step with and without; and what was recorded of worker 0."""
    times: dict[str, list[float]] = {"0": [], "1": []}
    recorded = {}
    with contextlib.ExitStack() as stack:
        jobs = {overlap: stack.enter_context(job(network, overlap, args.threads)) for overlap in times}
        for own in jobs.values():
            own.ask(batches=3)
        for _ in range(args.rounds):
            for overlap, own in jobs.items():
                seconds = max(a["seconds"] for a in own.ask(batches=BATCHES))
                times[overlap].append(seconds / BATCHES * 1e3)
        if network == PICTURED:
            recorded = {overlap: own.ask(batches=6, record=True)[0] for overlap, own in jobs.items()}
    ratios = [a / b for a, b in zip(times["1"], times["0"], strict=True)]
    figures: dict[str, Any] = {
        f"{NAMES[overlap]}, ms": round(statistics.median(values), 1) for overlap, values in times.items()
    }
    figures |= {f"{NAMES[o]}, least ms": round(min(values), 1) for o, values in times.items()}
    return figures | {"ratio": round(statistics.median(ratios), 3)}, recorded


def a_step(answer: dict[str, Any]) -> list[tuple[str, float, float]]:
    """The events of the last whole step but one, in milliseconds since it began."""
    events = [(name, a * 1e3, b * 1e3) for name, a, b in answer["events"]]
    starts = sorted(a for name, a, _ in events if name == "forward")
    begin, end = starts[-2], starts[-1]
    return [(name, a - begin, b - begin) for name, a, b in events if begin <= a < end]


def draw(recorded: dict[str, Any], path: str) -> None:
    """Two timelines, one above the other."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(8, 4.6), sharex=True, layout="constrained")
    colours = {"forward": "#4878a8", "backward": "#c06050", "update": "#b0b0b0", "unit": "#60a060"}
    for axis, (overlap, answer) in zip(axes, recorded.items(), strict=True):
        steps = a_step(answer)
        units = sorted(event for event in steps if event[0] == "unit")
        for name, begin, end in steps:
            if name != "unit":
                axis.broken_barh([(begin, end - begin)], (-0.9, 0.8), color=colours[name])
                axis.text((begin + end) / 2, -0.5, name, ha="center", va="center", fontsize=8)
        for i, (_, begin, end) in enumerate(sorted(units, key=lambda unit: unit[1])):
            axis.broken_barh([(begin, end - begin)], (i + 0.1, 0.8), color=colours["unit"])
        axis.set_ylabel(f"{NAMES[overlap]}\nunits on their way", fontsize=9)
        axis.set_yticks([])
        axis.set_xlim(left=0)
    axes[-1].set_xlabel("milliseconds since the step began")
    figure.suptitle(f"A step of worker 0: {PICTURED}", fontsize=10)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="per process (default: 1)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--json", metavar="FILE", help="where to write the figures besides printing them")
    parser.add_argument("--picture", metavar="FILE", help="where to draw a step; needs matplotlib")
    args = parser.parse_args()
    results, recorded = {}, {}
    for network in args.networks:
        results[network], events = measure(network, args)
        recorded.update(events)
        print(f"{network}: {results[network]}", file=sys.stderr)
    if args.picture and recorded:
        draw(recorded, args.picture)
    text = json.dumps({"benchmark": "overlap", "cpus": os.cpu_count(), "results": results}, indent=1)
    if args.json:
        Path(args.json).write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
