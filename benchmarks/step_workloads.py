"""The workloads of benchmarks/step_time.py: their data, how long a round is, and the products a step needs.

Nothing here knows a framework: numpy alone, on any Python since 3.8, because every system's process reads it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["LEARNING_RATE", "MOMENTUM", "WORKLOADS", "Workload", "gigaflops", "make_data"]

LEARNING_RATE, MOMENTUM = 0.01, 0.9


class Workload(NamedTuple):
    """One network with its batches.

    Attributes
    ----------
    title : str
    kind : str
        'mlp', 'lenet', 'resnet' or 'lstm'.
    batch : int
    shape : tuple of int
        Of one sample: (features,), (channels, height, width) or (steps,) of word numbers.
    classes : int
    hidden : tuple of int
        Widths of hidden layers.
    batches : int
        Batches in an epoch; the first one of each is not timed.
    epochs : int
        Timed epochs in a round, after one that warms up.
    """

    title: str
    kind: str
    batch: int
    shape: tuple[int, ...]
    classes: int
    hidden: tuple[int, ...]
    batches: int
    epochs: int


WORKLOADS = {
    "mlp": Workload("MLP 784-128-64-10, b64", "mlp", 64, (784,), 10, (128, 64), 64, 8),
    "mlp_large": Workload("MLP 784-1024-1024-10, b128", "mlp", 128, (784,), 10, (1024, 1024), 16, 3),
    "lenet": Workload("LeNet, b64", "lenet", 64, (1, 28, 28), 10, (500,), 12, 2),
    "resnet20": Workload("ResNet-20 (CIFAR), b32", "resnet", 32, (3, 32, 32), 10, (), 5, 2),
    "lstm": Workload("LSTM 2x200, b20, t35, v10000", "lstm", 20, (35,), 10000, (200, 200), 4, 2),
}


def make_data(work: Workload, batches: int) -> tuple[np.ndarray, np.ndarray]:
    """Random samples and labels for `batches` batches: float32, or numbers of words as float32."""
    rng = np.random.default_rng(0)
    count = batches * work.batch
    if work.kind == "lstm":
        words = rng.integers(work.classes, size=(count, work.shape[0] + 1)).astype(np.float32)
        return np.ascontiguousarray(words[:, :-1]), np.ascontiguousarray(words[:, 1:])
    data = rng.random(
        (count, *work.shape), dtype=np.float32
    )  # no float64 on the way: it would count as memory
    return data, rng.integers(work.classes, size=count).astype(np.float32)


def gigaflops(work: Workload) -> float:
    """10**9 floating-point operations in the matrix products of one training step.

    Each product of forward comes again for its weight's gradient, and, but for the first layer, for its
    input's.
    """
    products = {"mlp": _mlp, "lenet": _lenet, "resnet": _resnet, "lstm": _lstm}[work.kind](work)
    total = sum(2 * m * n * k * (2 + wants_input_grad) for m, n, k, wants_input_grad in products)
    return total / 1e9


Products = "list[tuple[int, int, int, bool]]"
"""Rows, columns and inner length of forward's products, and whether the input has a gradient."""


def _mlp(work: Workload) -> Products:
    widths = (*work.shape, *work.hidden, work.classes)
    return [(work.batch, widths[i + 1], widths[i], i > 0) for i in range(len(widths) - 1)]


def _lenet(work: Workload) -> Products:
    rows = work.batch
    return [
        (rows * 24 * 24, 20, 25, False),
        (rows * 8 * 8, 50, 20 * 25, True),
        (rows, work.hidden[0], 50 * 4 * 4, True),
        (rows, work.classes, work.hidden[0], True),
    ]


def _resnet(work: Workload) -> Products:
    found = [(work.batch * 32 * 32, 16, 27, False)]
    width = 16
    for channels, side in ((16, 32), (32, 16), (64, 8)):
        rows = work.batch * side * side
        if channels != width:
            found.append((rows, channels, width, True))
        for _ in range(3):
            found += [(rows, channels, 9 * width, True), (rows, channels, 9 * channels, True)]
            width = channels
    return [*found, (work.batch, work.classes, width, True)]


def _lstm(work: Workload) -> Products:
    rows, width = work.batch * work.shape[0], work.hidden[0]
    found = [(rows, 4 * hidden, width, True) for hidden in work.hidden for _ in ("input", "state")]
    return [*found, (rows, work.classes, width, True)]
