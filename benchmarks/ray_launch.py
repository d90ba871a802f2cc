"""What Ray costs a job: how much later it ends than a local one, and how fast its steps are.

    python benchmarks/ray_launch.py --json ray_launch.json

The same training runs under both launchers in turns, with two workers and a server. The launchers' share is
the time of a whole run less that of its training; steps are timed by the workers themselves, once they run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).with_name("ray_launch_worker.py")
NOT_OURS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def run(launcher: str, steps: int, under: str) -> dict[str, float]:
    """Seconds of a whole run, from its start to the first worker's first line, and per step."""
    command = [*shlex.split(under), sys.executable, "-m", "dmod_launch", "--launcher", launcher]
    environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    started = time.time()
    done = subprocess.run(
        [*command, "-n", "2", "-s", "1", "--", sys.executable, str(PROGRAM), str(steps)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    whole_s = time.time() - started
    (began,) = re.findall(r"^\[worker 0\] began (\S+)", done.stdout, re.MULTILINE)
    (ended,) = re.findall(r"^\[worker 0\] ended (\S+)", done.stdout, re.MULTILINE)
    (step_s,) = re.findall(r"^\[worker 0\] step (\S+)", done.stdout, re.MULTILINE)
    own_s = float(ended) - float(began)
    return {"whole_s": whole_s, "launcher_s": whole_s - own_s, "step_ms": 1000 * float(step_s)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=200, help="timed ones of a run; default: %(default)s")
    parser.add_argument(
        "--under",
        default="",
        metavar="COMMAND",
        help="runs every job, such as 'nice -n -20' on a machine that has other work too",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    pairs = []
    for number in range(args.pairs):
        order = ("local", "ray") if number % 2 == 0 else ("ray", "local")
        pair = {launcher: run(launcher, args.steps, args.under) for launcher in order}
        pairs.append(pair)
        print(json.dumps(pair), flush=True)
    ratio = statistics.median(pair["local"]["step_ms"] / pair["ray"]["step_ms"] for pair in pairs)
    added = statistics.median(pair["ray"]["launcher_s"] - pair["local"]["launcher_s"] for pair in pairs)
    print(f"| {len(pairs)} pairs, medians | local | ray |\n| --- | --- | --- |")
    for name, title in (("launcher_s", "s beside the training"), ("step_ms", "ms per step")):
        local, ray = (statistics.median(pair[kind][name] for pair in pairs) for kind in ("local", "ray"))
        print(f"| {title} | {local:.2f} | {ray:.2f} |")
    print(f"Ray adds {added:.1f} s (with its own start); its steps run at {ratio:.2f} of the local speed.")
    if args.json is not None:
        args.json.write_text(json.dumps({"pairs": pairs, "added_s": added, "speed": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
