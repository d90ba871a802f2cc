"""Milliseconds per training step of dmod, MXNet 1.9.1, PyTorch (eager and compiled) and JAX, in turns.

    python benchmarks/step_time.py [--workloads mlp,lstm] [--systems dmod,jax] [--threads 1,2] [--rounds 7]

dmod and MXNet train through `Module.fit` from an `NDArrayIter`, with the same code; the others in a loop of
their own: each batch is copied in from a host array, SGD with momentum updates the weights, and the metric
(accuracy; the cross-entropy for the language model) is read after every step.

Each system has its own process for each workload and number of threads. They all wait; in each round they run
one after the other. A figure is the median over the rounds of a round's mean step; the ratio is a system's
figure over dmod's, so above 1 dmod is faster. The limit is what the step's matrix products alone would take
at the speed at which numpy multiplies large matrices, measured in the same rounds. Memory is the peak of the
process less what it held when all was imported, code generators and libraries included, and the data made;
the JSON has the whole process's as `process_mb`.

Settings of BLAS and OpenMP in the shell are set aside. Systems that aren't installed are left out with a
word: `make oracle` and `make peers` install them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import select
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.oracle import find_oracle, find_peers
from benchmarks.step_workloads import WORKLOADS, gigaflops

SYSTEMS = ("dmod", "mxnet", "torch", "torch.compile", "jax")
PROCESS = str(Path(__file__).with_name("step_process.py"))
SGEMM = str(Path(__file__).with_name("step_sgemm.py"))
START_S = 600
"""The longest that a system may take to compile and train its first epoch."""
ROUND_S = 120
PAUSE_S = 0.25
"""Between two systems' turns: OpenMP's threads spin up to 0.2 s before they sleep."""
SET_ASIDE = re.compile(
    r"(OMP|GOMP|KMP|OPENBLAS|GOTO|MKL|BLIS|NUMBA|NUMEXPR|VECLIB|MXNET|DMOD|DNNL|XLA|TORCH)_"
)


def environ_for(threads: int) -> dict[str, str]:
    """The shell's environment without its settings of libraries, and with a number of threads for all."""
    kept = {name: value for name, value in os.environ.items() if not SET_ASIDE.match(name)}
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "DMOD_NUM_THREADS")
    return {**kept, **dict.fromkeys(names, str(threads))}


def interpreter(system: str) -> Path | None:
    """The python that has a system, or None if there is none."""
    if system in ("dmod", "sgemm"):
        return Path(sys.executable)
    return find_oracle() if system == "mxnet" else find_peers()


class Runner:
    """One system's process for one workload and number of threads; it has compiled everything by now.

    Raises
    ------
    RuntimeError
        It ended, or did not answer in time; its output is part of the message.
    """

    def __init__(self, system: str, workload: str, threads: int, python: str):
        self.system, self.workload = system, workload
        program = [SGEMM] if system == "sgemm" else [PROCESS, system, workload, str(threads)]
        self.runs_ms: list[float] = []
        self._process = subprocess.Popen(
            [python, *program],
            env=environ_for(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.set_blocking(self._process.stderr.fileno(), False)  # type: ignore[union-attr]
        self._messages = b""
        try:
            self.figures = self._read(START_S)
        except BaseException:
            self.close()
            raise

    def round(self) -> None:
        """Run one round."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        answer = self._read(ROUND_S)
        self.runs_ms.append(answer.pop("ms"))
        self.figures.update(answer)

    def close(self) -> None:
        """End the process, and wait for it."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, timeout_s: float) -> dict[str, float]:
        out, err = self._process.stdout, self._process.stderr
        assert out is not None and err is not None
        line, deadline = b"", time.monotonic() + timeout_s
        while not line.endswith(b"\n"):
            ready = select.select([out, err], [], [], max(0.0, deadline - time.monotonic()))[0]
            if err in ready:
                self._messages = (self._messages + os.read(err.fileno(), 65536))[-4000:]
            if out in ready:
                part = os.read(out.fileno(), 4096)
                line += part
            if not ready or (out in ready and not part):
                what = "ended" if ready else f"said nothing for {timeout_s:g} s"
                raise RuntimeError(f"{self.system}, {self.workload}: {what}\n{self._messages.decode()}")
        found: dict[str, float] = json.loads(line)
        return found


def measure(workload: str, threads: int, systems: list[str], rounds: int) -> dict[str, Any]:
    """The figures of one workload with one number of threads, by system."""
    runners: list[Runner] = []
    try:
        for system in (*systems, "sgemm"):
            try:
                runners.append(Runner(system, workload, threads, str(interpreter(system))))
            except RuntimeError as error:
                if system == "dmod":
                    raise
                print(f"left out: {error}", file=sys.stderr)
        for _ in range(rounds):
            for runner in runners:
                time.sleep(PAUSE_S)
                runner.round()
    finally:
        for runner in runners:
            runner.close()
    found: dict[str, Any] = {}
    for runner in runners:
        found[runner.system] = {
            "ms": statistics.median(runner.runs_ms),
            "least_ms": min(runner.runs_ms),
            "runs_ms": [round(ms, 4) for ms in runner.runs_ms],
            **{name: round(value, 3) for name, value in runner.figures.items()},
        }
    sgemm = found.pop("sgemm")
    rate = 2 * 1024**3 / 1e6 / sgemm["ms"]  # a product of 1024 x 1024 matrices
    limit_ms = gigaflops(WORKLOADS[workload]) / rate * 1e3
    own = found["dmod"]["ms"] if "dmod" in found else None
    return {
        "workload": workload,
        "threads": threads,
        "systems": found,
        "ratios": {name: round(f["ms"] / own, 2) for name, f in found.items() if own and name != "dmod"},
        "sgemm_gflop_per_s": round(rate, 1),
        "sgemm_limit_ms": round(limit_ms, 3),
        "times_sgemm_limit": round(own / limit_ms, 2) if own else None,
    }


def table(results: list[dict[str, Any]], systems: list[str]) -> str:
    """The figures as a table in Markdown, one row for each workload and number of threads."""
    others = [s for s in systems if s != "dmod"]
    head = [
        "workload",
        "threads",
        "dmod ms",
        *others,
        "limit ms",
        "x limit",
        "MB: dmod",
        *(s for s in others),
    ]
    rows = [head, ["---"] * len(head)]
    for result in results:
        figures, ratios = result["systems"], result["ratios"]
        cells = [WORKLOADS[result["workload"]].title, str(result["threads"])]
        cells.append(f"{figures['dmod']['ms']:.3g}" if "dmod" in figures else "-")
        for name in others:
            ratio = f" ({ratios[name]:.2f})" if name in ratios else ""
            cells.append(f"{figures[name]['ms']:.3g}{ratio}" if name in figures else "-")
        cells += [f"{result['sgemm_limit_ms']:.3g}", str(result["times_sgemm_limit"] or "-")]
        cells += [f"{figures[s]['peak_mb']:.0f}" if s in figures else "-" for s in ("dmod", *others)]
        rows.append(cells)
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows
    )


def _names(known: Any, what: str) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {what} {name!r}; there are {', '.join(known)}")
        return names

    return parse


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workloads", type=_names(WORKLOADS, "workload"), default=list(WORKLOADS))
    parser.add_argument("--systems", type=_names(SYSTEMS, "system"), default=list(SYSTEMS))
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", metavar="FILE", help="where to write the figures")
    args = parser.parse_args()

    systems = []
    for system in args.systems:
        if interpreter(system) is not None:
            systems.append(system)
        else:
            target = "oracle" if system == "mxnet" else "peers"
            print(f"left out: {system}; `make {target}` installs it", file=sys.stderr)
    results = []
    for workload in args.workloads:
        for threads in args.threads:
            results.append(measure(workload, threads, systems, args.rounds))
            print(table(results[-1:], systems).splitlines()[-1], file=sys.stderr)
            if args.json:
                about = {
                    "benchmark": "step_time",
                    "cpus": os.cpu_count(),
                    "python": platform.python_version(),
                    "numpy": version("numpy"),
                    "rounds": args.rounds,
                    "results": results,
                }
                Path(args.json).write_text(json.dumps(about, indent=1) + "\n")
    print("Milliseconds per step (in brackets: times dmod's), and peak memory in MB\n")
    print(table(results, systems))


if __name__ == "__main__":
    main()
