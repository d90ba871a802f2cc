"""Writes fixtures of what MXNet 1.9.1's optimizers, schedules, metrics and iterators return.

Run it in the oracle. Numbers that MXNet produces, nothing else: no code of MXNet's is read or copied.
"""

from __future__ import annotations

import json
from pathlib import Path

import mxnet as mx
import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"

SCHEDULES = [
    ("FactorScheduler", {"step": 3, "factor": 0.7, "base_lr": 0.3, "stop_factor_lr": 0.05}),
    (
        "FactorScheduler",
        {"step": 5, "factor": 0.9, "base_lr": 0.3, "warmup_steps": 7, "warmup_begin_lr": 0.1},
    ),
    ("MultiFactorScheduler", {"step": [4, 9, 11], "factor": 0.3, "base_lr": 0.2}),
    (
        "MultiFactorScheduler",
        {
            "step": [4, 9, 11],
            "factor": 0.3,
            "base_lr": 0.2,
            "warmup_steps": 5,
            "warmup_begin_lr": 0.01,
            "warmup_mode": "constant",
        },
    ),
    ("PolyScheduler", {"max_update": 20, "base_lr": 0.4, "pwr": 2}),
    ("PolyScheduler", {"max_update": 17, "base_lr": 0.4, "pwr": 3, "final_lr": 0.01, "warmup_steps": 4}),
    ("CosineScheduler", {"max_update": 20, "base_lr": 0.4}),
    (
        "CosineScheduler",
        {"max_update": 15, "base_lr": 0.4, "final_lr": 0.02, "warmup_steps": 5, "warmup_begin_lr": 0.1},
    ),
]

OPTIMIZERS = [
    ("sgd", {"learning_rate": 0.5}),
    ("sgd", {"learning_rate": 0.5, "wd": 0.1}),
    ("sgd", {"learning_rate": 0.5, "wd": 0.1, "clip_gradient": 0.2, "rescale_grad": 0.25}),
    ("sgd", {"learning_rate": 0.5, "momentum": 0.9}),
    ("sgd", {"learning_rate": 0.5, "momentum": 0.9, "wd": 0.1, "clip_gradient": 0.2, "rescale_grad": 0.25}),
    ("nag", {"learning_rate": 0.5, "wd": 0.1}),
    ("nag", {"learning_rate": 0.5, "momentum": 0.9}),
    ("nag", {"learning_rate": 0.5, "momentum": 0.9, "wd": 0.1, "clip_gradient": 0.2, "rescale_grad": 0.25}),
]


def lr_schedules() -> list:
    """Each schedule's rates for updates 0 to 25, asked in order."""
    made = [(name, options, getattr(mx.lr_scheduler, name)(**options)) for name, options in SCHEDULES]
    return [[name, options, [schedule(n) for n in range(26)]] for name, options, schedule in made]


def optimizers() -> list:
    """Weights after each of five steps, for float32 and for float16 with a float32 copy."""
    found = []
    for name, options in OPTIMIZERS:
        for dtype in ("float32", "float16"):
            rng = np.random.RandomState(7)
            start, grads = rng.uniform(-1, 1, 7), rng.uniform(-1, 1, (5, 7))
            updater = mx.optimizer.get_updater(mx.optimizer.create(name, multi_precision=True, **options))
            weight, weights = mx.nd.array(start, dtype=dtype), []
            for grad in grads:
                updater(0, mx.nd.array(grad, dtype=dtype), weight)
                weights.append(weight.asnumpy().tolist())
            found.append([name, options, dtype, start.tolist(), grads.tolist(), weights])
    return found


def write(name: str, rows: list) -> None:
    """One row per line."""
    (FIXTURES / name).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    write("lr_schedules.json", lr_schedules())
    write("optimizers.json", optimizers())
