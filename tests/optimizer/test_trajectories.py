"""Twenty steps of every optimizer, compared with MXNet's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import lr_scheduler
from dmod import optimizer as opt
from dmod.ndarray.ndarray import array

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location(
    "optimizer_cases", HERE.parent / "oracle" / "optimizer_cases.py"
)
assert _spec is not None and _spec.loader is not None
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
ROWS = json.loads((HERE.parent / "fixtures" / "optimizer_trajectories.json").read_text())


def title(row: list[Any]) -> str:
    name, options, dtype, schedule, _ = row
    shown = [f"{k}={v}" for k, v in options.items() if k not in cases.FULL]
    return "-".join(
        [name, dtype, *shown, *(["full"] if "wd" in options else []), *(["lrs"] if schedule else [])]
    )


@pytest.mark.parametrize("row", ROWS, ids=title)
def test_twenty_steps_are_those_of_mxnet(row: list[Any]) -> None:
    name, options, dtype, schedule, kept = row
    if schedule:
        options = {**options, "lr_scheduler": lr_scheduler.FactorScheduler(**schedule)}
    optimizer = opt.create(name, param_idx2name=dict(enumerate(cases.NAMES)), multi_precision=True, **options)
    optimizer.set_lr_mult({"fc_bias": 2.0})
    optimizer.set_wd_mult({"fc_bias": 0.5})
    updater = opt.get_updater(optimizer)
    weights = [array(w, dtype=dtype) for w in cases.starts()]
    # Weights that pass near zero keep the rounding of larger ones; and MXNet rounds 1 - 0.999 to float32.
    tolerance = {"rtol": 1e-5, "atol": 4e-6} if dtype == "float32" else {"rtol": 2e-3, "atol": 2e-3}
    # What MXNet computes for the other arrays depends on their order: see the docstrings of both.
    first_only = name == "nadam" or (name == "lars" and schedule and options.get("momentum"))
    expected = dict(zip(cases.KEPT, kept, strict=True))
    for step in range(1, cases.STEPS + 1):
        for index, weight in enumerate(weights):
            updater(index, array(cases.gradient(step, index), dtype=dtype), weight)
        if step in cases.KEPT:
            for index, weight in enumerate(weights[:1] if first_only else weights):
                wanted = np.array(expected[step][index]).reshape(weight.shape)
                np.testing.assert_allclose(weight.asnumpy(), wanted, **tolerance)
