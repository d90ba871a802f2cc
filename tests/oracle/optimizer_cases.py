"""Which optimizers are compared with MXNet's, on which arrays. The oracle imports it too: numpy alone."""

from __future__ import annotations

import numpy as np

STEPS = 20
KEPT = (1, 5, 10, 20)
NAMES = ["fc_weight", "fc_bias", "bn_gamma"]
SHAPES = [(2, 3), (3,), (2,)]
COMMON = {"learning_rate": 0.05}
FULL = {"learning_rate": 0.05, "wd": 0.1, "clip_gradient": 0.3, "rescale_grad": 0.5}
FACTOR = {"step": 4, "factor": 0.7, "base_lr": 0.05}

_OPTIONS: list[tuple[str, list[dict]]] = [
    ("sgd", [{"momentum": 0.9}]),
    ("nag", [{"momentum": 0.9}]),
    ("signum", [{}, {"momentum": 0.0}, {"wd_lh": 0.1}]),
    ("ftml", [{}, {"beta1": 0.3, "beta2": 0.9, "epsilon": 1e-3}]),
    ("dcasgd", [{}, {"lamda": 0.4}]),  # with a momentum MXNet only takes arrays of one element
    ("adam", [{}, {"beta1": 0.5, "beta2": 0.9, "epsilon": 1e-3}]),
    ("adagrad", [{}, {"eps": 1e-2}]),
    ("adadelta", [{}, {"rho": 0.5, "epsilon": 1e-2}]),
    ("rmsprop", [{}, {"centered": True}, {"clip_weights": 0.5}, {"centered": True, "gamma2": 0.3}]),
    ("ftrl", [{}, {"lamda1": 0.2, "beta": 2.0}]),
    ("adamax", [{}, {"beta1": 0.5, "beta2": 0.9}]),
    ("nadam", [{}, {"beta1": 0.5, "beta2": 0.9, "schedule_decay": 0.1}]),
    ("lamb", [{}, {"bias_correction": False}, {"lower_bound": 0.5, "upper_bound": 0.8}]),
    (
        "lars",
        [{}, {"momentum": 0.9, "eta": 0.5}, {"momentum": 0.9, "eta": 0.1, "momentum_correction": False}],
    ),
    (
        "lbsgd",
        [
            {},
            {"momentum": 0.9},
            {"momentum": 0.9, "batch_scale": 2, "warmup_epochs": 2, "updates_per_epoch": 4},
            {"batch_scale": 3, "warmup_epochs": 2, "updates_per_epoch": 4, "warmup_strategy": "power2"},
            {"batch_scale": 2, "warmup_epochs": 2, "updates_per_epoch": 4, "warmup_strategy": "sqrt"},
            {"momentum": 0.9, "warmup_strategy": "lars"},
            {
                "batch_scale": 2,
                "warmup_epochs": 2,
                "updates_per_epoch": 4,
                "begin_epoch": 1,
            },
        ],
    ),
    ("test", [{}]),
]

CASES: list[tuple[str, dict, str, dict | None]] = [
    case
    for name, variants in _OPTIONS
    for options in variants
    for case in (
        (name, {**COMMON, **options}, "float32", None),
        (name, {**FULL, **options}, "float32", None),
        (name, {**FULL, **options}, "float32", FACTOR),
    )
    if not (name == "lbsgd" and case[3])  # MXNet's rate there depends on the order of the arrays
] + [(name, {**COMMON, **variants[0]}, "float16", None) for name, variants in _OPTIONS]

PICKLED: list[tuple[str, dict, str]] = [
    ("sgd", {"momentum": 0.9}, "float32"),
    ("sgd", {"momentum": 0.9}, "float16"),
    ("nag", {}, "float32"),
    ("adam", {}, "float32"),
    ("adam", {}, "float16"),
    ("adagrad", {}, "float16"),
    ("rmsprop", {"centered": True}, "float32"),
]


def starts() -> list[np.ndarray]:
    """The weights before the first step."""
    rng = np.random.RandomState(7)
    return [rng.uniform(-1, 1, shape).astype("float32") for shape in SHAPES]


def gradient(step: int, index: int) -> np.ndarray:
    """The gradient of one array in one step."""
    rng = np.random.RandomState(100 * step + index)
    return rng.uniform(-1, 1, SHAPES[index]).astype("float32")
