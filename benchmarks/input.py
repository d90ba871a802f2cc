"""How fast the input pipeline is, pictures and text: dmod beside MXNet 1.9.1 and PyTorch.

    python benchmarks/input.py [--rounds 5] [--only text] [--json FILE]

All read the same JPEGs of about 400 x 300: shorter edge to 256, a random crop of 224 x 224, half of them
mirrored, mean and deviation, float32 NCHW batches of 64. Each round runs every system once, one after the
other, each in a process that is bound to one CPU. Figures are medians over the rounds of pictures per second
of CPU time, which others on the machine disturb least, and of the clock. PyTorch's DataLoader decodes with
OpenCV, or Pillow, whichever its environment has; without `make oracle`, or `make peers`, it is left out.

Then a million numbers of six digits as CSV (20 columns), and as LibSVM (20 of 1000 columns), in batches of
500 lines, by dmod and MXNet on all CPUs: milliseconds of an epoch by the clock.
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
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.oracle import find_oracle, find_peers
from dmod.recordio import IRHeader, MXIndexedRecordIO, pack_img

PROCESS = str(Path(__file__).with_name("input_process.py"))
TIMEOUT_S = 120


def write_pictures(path: Path, count: int) -> None:
    """JPEGs with soft shapes and some noise: about 43 KB each, as photographs of this size have."""
    rng = np.random.RandomState(0)
    record = MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "w")
    for i in range(count):
        height, width = 300 + int(rng.randint(-20, 21)), 400 + int(rng.randint(-20, 21))
        coarse = rng.randint(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(int)
        pixels = np.clip(smooth + rng.randint(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
        record.write_idx(i, pack_img(IRHeader(0, float(i % 10), i, 0), pixels, 90))
    record.close()


def write_text(folder: Path) -> dict[str, Path]:
    """Files of a million numbers between 0 and 1."""
    rng = np.random.RandomState(0)
    lines, columns, width = 50_000, 20, 1000
    numbers = rng.rand(lines, columns)
    with open(folder / "numbers.csv", "w", encoding="ascii") as file:
        for row in numbers:
            file.write(",".join(f"{x:.6f}" for x in row) + "\n")
    with open(folder / "numbers.libsvm", "w", encoding="ascii") as file:
        for i, row in enumerate(numbers):
            places = np.sort(rng.permutation(width)[:columns])
            pairs = " ".join(f"{place}:{x:.6f}" for place, x in zip(places, row, strict=True))
            file.write(f"{i % 2} {pairs}\n")
    return {"CSV": folder / "numbers.csv", "LibSVM": folder / "numbers.libsvm"}


def measure_text(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of an epoch, by kind of file and system."""
    named = {name: command for name, command in systems().items() if not name.startswith("PyTorch")}
    with tempfile.TemporaryDirectory() as folder:
        files = write_text(Path(folder))
        found: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in named} for kind in files}
        for done in range(rounds):
            for kind, path in files.items():
                for name, command in named.items():
                    measured = measure(command, path)
                    assert measured is not None  # nothing to decode
                    found[kind][name].append(measured["ms"])
            print(f"text: round {done + 1} of {rounds} done", file=sys.stderr)
    return found


def print_text(found: dict[str, dict[str, list[float]]]) -> None:
    """A table of medians."""
    print(f"{'':26}{'ms per million':>24}{'dmod is':>22}")
    for kind, runs in found.items():
        own = statistics.median(runs["dmod"])
        for name, times in runs.items():
            median = statistics.median(times)
            print(f"{kind + ', ' + name:26}{median:>24.1f}{median / own:>21.2f}x")


def systems() -> dict[str, list[str]]:
    """Name to command, less the record file."""
    found = {"dmod": [sys.executable, PROCESS, "dmod"]}
    oracle, peers = find_oracle(), find_peers()
    if oracle is not None:
        found["MXNet 1.9.1"] = [str(oracle), PROCESS, "mxnet"]
    if peers is not None:
        found["PyTorch, in the process"] = [str(peers), PROCESS, "torch", "--workers", "0"]
        found["PyTorch, 1 worker"] = [str(peers), PROCESS, "torch", "--workers", "1"]
    return found


def measure(command: list[str], path: Path) -> dict[str, float] | None:
    """What the process prints; None if it has nothing to decode with."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "OPENBLAS_", "MKL_", "GOTO_"))}
    done = subprocess.run(
        [*command, "--records", str(path)],
        env=own,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode == 3:
        print(f"{command[2]}: {done.stderr.strip()}", file=sys.stderr)
        return None
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--json", metavar="FILE", help="where to write the figures besides printing them")
    parser.add_argument("--only", choices=("pictures", "text"), help="default: both")
    args = parser.parse_args()
    result: dict[str, Any] = {"rounds": args.rounds}
    if args.only != "text":
        result |= measure_pictures(args.rounds, args.pictures)
        print_pictures(result["medians"])
    if args.only != "pictures":
        result["text_ms"] = measure_text(args.rounds)
        print_text(result["text_ms"])
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


def measure_pictures(rounds: int, pictures: int) -> dict[str, Any]:
    """Pictures per second, by system: of every round, and medians."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in systems()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.rec"
        write_pictures(path, pictures)
        for done in range(rounds):
            for name, command in systems().items():
                if name in runs:
                    measured = measure(command, path)
                    if measured is None:
                        del runs[name]
                    else:
                        runs[name].append(measured)
            print(f"round {done + 1} of {rounds} done", file=sys.stderr)
    medians = {
        name: {key: statistics.median(run[key] for run in measured) for key in measured[0]}
        for name, measured in runs.items()
    }
    return {"pictures": pictures, "medians": medians, "runs": runs}


def print_pictures(medians: dict[str, dict[str, float]]) -> None:
    """A table of medians."""
    print(f"{'':26}{'pictures per CPU second':>24}{'per second':>12}{'dmod is':>10}")
    for name, row in medians.items():
        times = medians["dmod"]["per_cpu_s"] / row["per_cpu_s"]
        print(f"{name:26}{row['per_cpu_s']:>24.0f}{row['per_s']:>12.0f}{times:>9.2f}x")


if __name__ == "__main__":
    main()
