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


SCORES = [[0.1, 0.6, 0.3], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5]]
TWO = [[0.3, 0.7], [0.4, 0.6], [0.8, 0.2]]
NAN = float("nan")
WIDE = (np.arange(12).reshape(3, 4) * 0.1).tolist()

# Metric, options, batches of (labels, predictions).
METRICS = [
    ("acc", {}, [([1, 0, 0], SCORES), ([2, 2, 2], SCORES)]),
    ("acc", {}, [([1, NAN, 0], SCORES)]),
    ("acc", {}, [([1, 7, -1], SCORES)]),
    ("acc", {}, [([1.7, 0.2, 0], SCORES)]),
    ("acc", {}, [([1, 0, 0], [1, 0, 2])]),
    ("acc", {}, [([[1], [0], [0]], SCORES)]),
    ("acc", {}, [([0, 1], [[0.5, 0.5], [0.5, 0.5]])]),
    ("acc", {"axis": 2}, [([[1, 0], [2, 1]], [SCORES[:2], SCORES[1:]])]),
    ("top_k_acc", {"top_k": 2}, [([1, 0, 0], SCORES), ([2, 2, 2], SCORES)]),
    ("top_k_acc", {"top_k": 3}, [([1, 0, 0], SCORES)]),
    ("top_k_acc", {"top_k": 2}, [([0, NAN, 2], SCORES)]),
    ("ce", {}, [([1, 0, 0], SCORES), ([2, 2, 2], SCORES)]),
    ("ce", {}, [([1, -1, 0], SCORES)]),
    ("ce", {}, [([1, 1, 1], [[1, 0, 0]] * 3)]),
    ("nll_loss", {"eps": 0.01}, [([1, 0, 0], SCORES)]),
    ("f1", {}, [([1, 0, 1], TWO), ([1, 1, 1], TWO)]),
    ("f1", {"average": "micro"}, [([1, 0, 1], TWO), ([1, 1, 1], TWO)]),
    ("f1", {}, [([1, 1, 0], SCORES)]),
    ("f1", {}, [([2, 0, 2], TWO)]),
    ("f1", {}, [([0, 0, 0], [[0.7, 0.3]] * 3)]),
    ("mcc", {}, [([1, 0, 1], TWO), ([1, 1, 0], TWO)]),
    ("mcc", {"average": "micro"}, [([1, 0, 1], TWO), ([0, 1, 0], TWO)]),
    ("mse", {}, [([1, 2, 3], [[1.5], [2.5], [2]]), ([1, 2, 3], [[5.5], [2.5], [2]])]),
    ("mse", {}, [([0, 1, 2], WIDE)]),
    ("mse", {}, [([1, NAN], [[1], [2]])]),
    ("mae", {}, [([1, 2, 3], [[1.5], [2.5], [2]]), ([1, 2, 3], [[5.5], [2.5], [2]])]),
    ("mae", {}, [([0, 1, 2], WIDE)]),
    ("rmse", {}, [([1, 2, 3], [[1.5], [2.5], [2]]), ([1, 2, 3], [[5.5], [2.5], [2]])]),
    ("perplexity", {"ignore_label": None}, [([1, 0, 0], SCORES), ([2, 2, 2], SCORES)]),
    ("perplexity", {"ignore_label": 0}, [([1, 0, 2], SCORES)]),
    ("perplexity", {"ignore_label": 0}, [([0, 0, 0], SCORES)]),
    ("perplexity", {"ignore_label": None}, [([1, 9, NAN], SCORES)]),
    ("perplexity", {"ignore_label": None}, [([1, 0, 0], [[1, 0, 0]] * 3)]),
    ("loss", {}, [([1, 0, 0], SCORES)]),
    ("torch", {}, [([1, 0, 0], SCORES)]),
]


def metrics() -> list:
    """`get` after all batches, then it and `get_global` after a local reset and one more batch."""
    found = []
    for name, options, batches in METRICS:
        metric = mx.metric.create(name, **options)
        for label, pred in batches:
            metric.update([mx.nd.array(label)], [mx.nd.array(pred)])
        whole = metric.get()
        metric.reset_local()
        metric.update([mx.nd.array(batches[0][0])], [mx.nd.array(batches[0][1])])
        found.append([name, options, batches, [whole, metric.get(), metric.get_global()]])
    return found


def iterators() -> list:
    """The labels and padding of each batch in three epochs over ten rows, by way of ending and shuffling."""
    found = []
    for handle in ("pad", "discard", "roll_over"):
        for shuffle in (False, True):
            for batch_size in (3, 4, 5):
                np.random.seed(3)
                rows = np.arange(10)
                iterator = mx.io.NDArrayIter(rows, rows, batch_size, shuffle, handle)
                epochs = []
                for _ in range(3):
                    epochs.append([[b.label[0].asnumpy().astype(int).tolist(), b.pad] for b in iterator])
                    iterator.reset()
                iterator.hard_reset()
                epochs.append([[b.label[0].asnumpy().astype(int).tolist(), b.pad] for b in iterator])
                found.append([handle, shuffle, batch_size, epochs])
    return found


def write(name: str, rows: list) -> None:
    """One row per line."""
    (FIXTURES / name).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    write("lr_schedules.json", lr_schedules())
    write("optimizers.json", optimizers())
    write("metrics.json", metrics())
    write("iterators.json", iterators())
