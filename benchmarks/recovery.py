"""Kills processes of training jobs and compares what they end with; measures what checkpoints cost.

    python benchmarks/recovery.py [--jobs 20] [--kills 2] [--seed 0]
    python benchmarks/recovery.py --watch       # one job, with its output
    python benchmarks/recovery.py --cost        # digits every epoch, and a 100 MB model every 100 steps

A job has 2 workers and 2 servers, batch normalisation, dropout, momentum and shuffled data, and takes a
checkpoint every 5 batches. Workers, servers and the scheduler are killed with signal 9 at random moments,
`dmod-launch` starts the job again, and the digest of its parameters must be that of an undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = str(Path(sys.executable).with_name("dmod-launch"))
DIGITS = (sys.executable, str(ROOT / "examples" / "train_digits.py"))
BIG = (sys.executable, str(Path(__file__).with_name("recovery_process.py")))
TIMEOUT_S = 300
_ATTEMPTS = 3
_DIGEST = re.compile(r"Digest of the parameters: (\w+)")
_KILLED = re.compile(r"chaos: killing (.*) with")
_SECONDS = re.compile(r"in ([\d.]+) s")
_EPOCH = re.compile(r"Epoch\[(\d+)\] (Train-accuracy=)?")
_EPOCHS_PER_LINE = 5
_INTRODUCTION = """\
Two workers and two servers train a small network, first undisturbed. Then the same job runs again, and
dmod-launch kills processes of it with signal 9, at random moments, and starts it again each time. It goes
on from its newest checkpoint, and has to end with the same parameters, bit for bit.
"""


def run(command: list[str], watch: bool = False) -> tuple[str, float]:
    """A command's output and its time in seconds; it must end well."""
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ)
    )
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if watch and _is_worth_showing(line):
                print(line, end="", flush=True)
        code = process.wait(TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    output = "".join(lines)
    if code != 0:
        raise SystemExit(f"{' '.join(command)} ended with {code}:\n{output}")
    return output, time.monotonic() - start


def _is_worth_showing(line: str) -> bool:
    """Whether a line is to be watched: of the figures, one worker's accuracy now and then."""
    found = _EPOCH.search(line)
    if found is None:
        return not line.rstrip().endswith("]")
    return "worker 0" in line and found[2] is not None and int(found[1]) % _EPOCHS_PER_LINE == 0


def job(checkpoint: str | None, epochs: int, *chaos: str) -> list[str]:
    command = [LAUNCH, "-n", "2", "-s", "2", *chaos, "--", *DIGITS, "--kv-store", "dist_sync"]
    command += ["--network", "mlp-bn", "--num-epochs", str(epochs)]
    if checkpoint is not None:
        command += ["--checkpoint", checkpoint, "--checkpoint-batches", "5"]
    return command


def digest_of(output: str) -> str:
    found = _DIGEST.search(output)
    if found is None:
        raise SystemExit(f"the job printed no digest:\n{output}")
    return found[1]


def recover(jobs: int, kills: int, seed: int, epochs: int, watch: bool) -> int:
    """Run the jobs; returns how many ended with other bits."""
    if watch:
        print(f"{_INTRODUCTION}\n1. Undisturbed:\n", flush=True)
    output, undisturbed_s = run(job(None, epochs), watch)
    expected = digest_of(output)
    print(f"\nUndisturbed: {expected} in {undisturbed_s:.1f} s\n", flush=True)
    if watch:
        print("2. With kills:\n", flush=True)
    wrong = 0
    roles: Counter[str] = Counter()
    for number in range(jobs):
        for attempt in range(_ATTEMPTS):  # a job may have ended before its first kill
            with tempfile.TemporaryDirectory() as folder:
                chaos = ["--max-restarts", str(kills), "--chaos", f"{0.6 * undisturbed_s:.2f}"]
                command = job(folder, epochs, *chaos, "--chaos-seed", str(seed + number + 1000 * attempt))
                output, seconds = run(command, watch)
            found, killed = digest_of(output), _KILLED.findall(output)
            if killed or found != expected:
                break
        wrong += found != expected
        roles.update(name.split()[0] for name in killed)
        verdict = "equal" if found == expected else "DIFFERENT"
        said = f"killed {', '.join(killed) or 'nobody: it was faster'}"
        if not watch:
            print(f"Job {number + 1:2}: {found} {verdict} in {seconds:.1f} s; {said}", flush=True)
    if watch:
        print(f"\nWith kills:  {found} in {seconds:.1f} s; {said}")
        print(f"Undisturbed: {expected} in {undisturbed_s:.1f} s\n")
        if found != expected:
            print("DIFFERENT: the parameters are not those of the undisturbed run. This is a bug.")
        elif not killed:
            print("The job ended before anything was killed; run this again.")
        else:
            print("EQUAL: both ended with the same parameters, bit for bit.")
        return wrong
    print(f"\n{jobs - wrong} of {jobs} jobs ended with the undisturbed run's parameters, bit for bit;")
    print(f"killed: {', '.join(f'{count} times a {role}' for role, count in roles.most_common())}")
    return wrong


def _cpu_s() -> float:
    """What the processes that have ended took of processors."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of training, as the program prints them, and processor seconds of all of it."""
    before = _cpu_s()
    output, _ = run(command)
    return float(_SECONDS.findall(output)[-1]), _cpu_s() - before


def disk_s(folder: str, nbytes: int) -> float:
    """Seconds to write a file of so many bytes, and sync it."""
    content, start = os.urandom(1 << 20), time.monotonic()
    with open(Path(folder) / "file", "wb") as file:
        for _ in range(nbytes >> 20):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return time.monotonic() - start


def cost(rounds: int, directory: str | None) -> None:
    """Compare training with and without checkpoints, in turns."""
    digits = [LAUNCH, "-n", "2", "-s", "1", "--", *DIGITS, "--kv-store", "dist_sync", "--num-epochs", "40"]
    kinds = (("digits, every epoch", digits), ("100 MB, every 100 steps", list(BIG)))
    rows: dict[str, list[list[float]]] = {name: [] for name, _ in kinds}
    disk = []
    for _ in range(rounds):
        for name, command in kinds:
            with tempfile.TemporaryDirectory(dir=directory) as folder:
                rows[name].append([*timed(command), *timed([*command, "--checkpoint", folder])])
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            disk.append(disk_s(folder, 200 << 20))
    print(f"{'':24}{'without':>16}{'with checkpoints':>20}{'more':>9}    medians of {rounds}")
    for name, measured in rows.items():
        wall, cpu, with_wall, with_cpu = (statistics.median(c) for c in zip(*measured, strict=True))
        more = statistics.median(row[2] / row[0] - 1 for row in measured)
        print(
            f"{name:24}{wall:7.2f} s {cpu:5.1f} s{with_wall:11.2f} s {with_cpu:5.1f} s{more:+9.1%}    "
            "(training; processors)"
        )
    print(f"{'200 MB to that disk':24}{statistics.median(disk):7.2f} s, {min(disk):.2f} to {max(disk):.2f} s")
    print(json.dumps({"cost": rows, "disk_s": disk}))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2, help="per job, at most; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--watch", action="store_true", help="one job, with all its output")
    parser.add_argument("--cost", action="store_true", help="measure what checkpoints cost")
    parser.add_argument(
        "--directory", help="where --cost keeps checkpoints; default: that for temporary files"
    )
    parser.add_argument("--rounds", type=int, default=5, help="of --cost; default: %(default)s")
    args = parser.parse_args()
    if args.cost:
        cost(args.rounds, args.directory)
        return 0
    jobs, epochs = (1, max(args.epochs, 30)) if args.watch else (args.jobs, args.epochs)
    return min(1, recover(jobs, args.kills, args.seed, epochs, args.watch))


if __name__ == "__main__":
    sys.exit(main())
