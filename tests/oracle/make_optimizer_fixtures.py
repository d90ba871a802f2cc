"""Writes fixtures of what MXNet 1.9.1's optimizers make of three arrays in twenty steps.

Run it in the oracle. Numbers that MXNet produces, nothing else: no code of MXNet's is read or copied.
Starts and gradients follow from `optimizer_cases`, so only the weights after steps 1, 5, 10 and 20 are kept.
"""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import optimizer_cases as cases

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def trajectory(name: str, options: dict, dtype: str, schedule: dict | None) -> list:
    """The weights, one list for each array, after the steps that are kept."""
    options = dict(options)
    if schedule:
        options["lr_scheduler"] = mx.lr_scheduler.FactorScheduler(**schedule)
    optimizer = mx.optimizer.create(
        name, param_idx2name=dict(enumerate(cases.NAMES)), multi_precision=True, **options
    )
    optimizer.set_lr_mult({"fc_bias": 2.0})
    optimizer.set_wd_mult({"fc_bias": 0.5})
    updater = mx.optimizer.get_updater(optimizer)
    weights = [mx.nd.array(w, dtype=dtype) for w in cases.starts()]
    kept = []
    for step in range(1, cases.STEPS + 1):
        for index, weight in enumerate(weights):
            if name == "nadam" and index:
                continue  # its schedule runs on with every array, so that only one array tells
            updater(index, mx.nd.array(cases.gradient(step, index), dtype=dtype), weight)
        if step in cases.KEPT:
            kept.append([[round(float(v), 8) for v in w.asnumpy().reshape(-1)] for w in weights])
    return kept


def pickled_states() -> dict:
    """What `Updater.get_states` writes, as hexadecimal digits."""
    found = {}
    for name, options, dtype in cases.PICKLED:
        updater = mx.optimizer.get_updater(mx.optimizer.create(name, multi_precision=True, **options))
        weights = [mx.nd.array(w, dtype=dtype) for w in cases.starts()]
        for step in (1, 2):
            for index, weight in enumerate(weights):
                updater(index, mx.nd.array(cases.gradient(step, index), dtype=dtype), weight)
        found[f"{name} {dtype}"] = [
            updater.get_states().hex(),
            updater.get_states(dump_optimizer=True).hex(),
        ]
    return found


if __name__ == "__main__":
    rows = [[*case, trajectory(*case)] for case in cases.CASES]
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    (FIXTURES / "optimizer_trajectories.json").write_text(text)
    (FIXTURES / "optimizer_pickles.json").write_text(json.dumps(pickled_states(), indent=0) + "\n")
