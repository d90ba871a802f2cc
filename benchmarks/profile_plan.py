"""Prints a bound plan step by step: what runs, how long it takes, and the memory of the whole.

    python benchmarks/profile_plan.py lstm [--threads 1] [--runs 20] [--inference] [--json FILE]

The network is one of those of step_time.py, trained in single steps as `Module.fit` would, without the
iterator and the metric. Times are medians over the runs, in microseconds, each step timed by itself; bytes
are those of the arrays that a node's outputs take, as far as the plan names them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.step_workloads import LEARNING_RATE, MOMENTUM, WORKLOADS, make_data


def measure(workload: str, runs: int, is_train: bool) -> dict[str, Any]:
    """The rows of the table, and the plan's memory."""
    import dmod as mx
    from benchmarks.step_symbol import NETWORKS

    work = WORKLOADS[workload]
    data, label = make_data(work, 1)
    symbol = NETWORKS[work.kind](mx, work)
    exe = symbol.simple_bind(mx.cpu(), data=data.shape, softmax_label=label.shape)
    init = mx.init.Xavier()
    for name, array in exe.arg_dict.items():
        if name in ("data", "softmax_label"):
            array[:] = data if name == "data" else label
        elif array.ndim > 1:
            init(mx.init.InitDesc(name), array)
        elif name.endswith("gamma"):
            array[:] = 1
    plan = exe.plan(is_train)
    parts = [("forward", plan.forward, plan.forward_titles, plan.names)]
    if is_train:
        parts.append(("backward", plan.backward, plan.backward_titles, [[]] * len(plan.backward)))
    times: dict[tuple[str, int], list[float]] = {}
    whole: list[float] = []
    for run in range(runs + 1):
        began = time.perf_counter()
        for part, steps, _, _ in parts:
            for i, step in enumerate(steps):
                start = time.perf_counter()
                step()
                if run:  # the first one may compile
                    times.setdefault((part, i), []).append(1e6 * (time.perf_counter() - start))
        if run:
            whole.append(1e6 * (time.perf_counter() - began))
    rows = [
        {
            "part": part,
            "operator": titles[i][0],
            "node": titles[i][1],
            "us": round(statistics.median(times[part, i]), 1),
            "bytes": sum(array.nbytes for _, array in names[i]),
        }
        for part, steps, titles, names in parts
        for i in range(len(steps))
    ]
    if is_train:
        rows.append(_update(mx, exe, runs))
    return {
        "workload": workload,
        "nbytes": plan.nbytes,
        "us": round(statistics.median(whole), 1),
        "rows": rows,
    }


def _update(mx: Any, exe: Any, runs: int) -> dict[str, Any]:
    """The optimizer's row: all parameters in one flat buffer, as a module keeps them."""
    from dmod.ndarray.flat import FlatLayout
    from dmod.optimizer import FlatUpdater

    shapes = {n: a.shape for n, a in exe.arg_dict.items() if n not in ("data", "softmax_label")}
    layout = FlatLayout.plan([(i, n, s) for i, (n, s) in enumerate(shapes.items())], "float32")
    optimizer = mx.optimizer.create("sgd", learning_rate=LEARNING_RATE, momentum=MOMENTUM)
    updater = FlatUpdater(optimizer, layout.segments, layout.size, "float32")
    weight, grad = (mx.nd.zeros((layout.size,))._data for _ in range(2))
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        updater.update(weight, grad)
        times.append(1e6 * (time.perf_counter() - start))
    us = round(statistics.median(times[1:]), 1)
    return {"part": "update", "operator": "sgd", "node": "all parameters", "us": us, "bytes": weight.nbytes}


def show(result: dict[str, Any]) -> None:
    total = sum(row["us"] for row in result["rows"])
    print(f"{'':9}{'operator':34}{'node':30}{'us':>10}{'%':>7}{'MB':>8}")
    for row in result["rows"]:
        print(
            f"{row['part']:9}{row['operator'][:33]:34}{row['node'][:29]:30}"
            f"{row['us']:10.1f}{100 * row['us'] / total:7.1f}{row['bytes'] / 1e6:8.2f}"
        )
    print(f"{'total':73}{total:10.1f}; intermediate results take {result['nbytes'] / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--inference", action="store_true", help="the plan that keeps nothing for backward")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    os.environ["DMOD_NUM_THREADS"] = str(args.threads)
    result = measure(args.workload, args.runs, not args.inference)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    show(result)


if __name__ == "__main__":
    main()
