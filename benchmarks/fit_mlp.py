"""Samples per second of `Module.fit`: MLP 784-128-64-10, batch 64, dmod beside MXNet 1.9.1.

    python benchmarks/fit_mlp.py [--rounds 5] [--json FILE]

Each round runs every system once, one after the other; figures are medians over the rounds, and ratios are
against MXNet's faster setting in one process. Settings of BLAS and OpenMP in the shell are set aside, so that
each library chooses for itself. Without MXNet (`make oracle`) only dmod is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.oracle import find_oracle

PROCESS = str(Path(__file__).with_name("fit_mlp_process.py"))
LAUNCH = str(Path(sys.executable).with_name("dmod-launch"))
TIMEOUT_S = 180


def systems() -> dict[str, tuple[list[str], dict[str, str]]]:
    """Name to the command, less its output file, and what the environment adds."""
    dmod = [sys.executable, PROCESS, "dmod"]
    found: dict[str, tuple[list[str], dict[str, str]]] = {
        "dmod, 1 process": (dmod, {}),
        "dmod, 1 process, 1 thread": (dmod, {"DMOD_NUM_THREADS": "1"}),
        "dmod, 2 workers + 1 server": (
            [LAUNCH, "-n", "2", "-s", "1", "--", *dmod, "--kv-store", "dist_sync"],
            {"DMOD_NUM_THREADS": "1"},
        ),
    }
    oracle = find_oracle()
    if oracle is not None:
        found["MXNet 1.9.1, 1 process"] = ([str(oracle), PROCESS, "mxnet"], {})
        found["MXNet 1.9.1, 1 process, 1 thread"] = (
            [str(oracle), PROCESS, "mxnet"],
            {"OMP_NUM_THREADS": "1"},
        )
    return found


def measure(command: list[str], environ: dict[str, str]) -> float:
    """Samples per second of all workers together."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "OPENBLAS_", "MKL_", "GOTO_"))}
    with tempfile.TemporaryDirectory() as folder:
        at = command.index(PROCESS) + 2
        whole = [*command[:at], str(Path(folder) / "{rank}.json"), *command[at:]]
        done = subprocess.run(
            whole,
            env={**own, **environ},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(whole)} failed:\n{done.stdout}{done.stderr}")
        return sum(json.loads(path.read_text())["samples_per_s"] for path in Path(folder).iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="where to write the figures besides printing them")
    args = parser.parse_args()

    runs: dict[str, list[float]] = {name: [] for name in systems()}
    for done in range(args.rounds):
        for name, (command, environ) in systems().items():
            runs[name].append(measure(command, environ))
        print(f"round {done + 1} of {args.rounds}", file=sys.stderr)

    medians = {name: statistics.median(values) for name, values in runs.items()}
    base = max((value for name, value in medians.items() if name.startswith("MXNet")), default=None)
    result = {
        "benchmark": "fit_mlp 784-128-64-10, batch 64",
        "cpus": os.cpu_count(),
        "samples_per_s": {name: [round(v) for v in values] for name, values in runs.items()},
        "median": {name: round(value) for name, value in medians.items()},
        "times_mxnet": {name: round(value / base, 2) for name, value in medians.items()} if base else None,
    }
    text = json.dumps(result, indent=1)
    if args.json:
        Path(args.json).write_text(text + "\n")
    print(text)
    print(f"\n{'':34}{'samples/s':>10}{'x MXNet':>9}")
    for name, value in medians.items():
        print(f"{name:34}{value:10.0f}{value / base if base else float('nan'):9.2f}")


if __name__ == "__main__":
    main()
