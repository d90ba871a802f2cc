"""Reductions over axes: sums, products, extrema, norms, moments, positions, and shapes as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.cases_unary import exactly, integers, op, uniform
from tests.oracle.family import Table, Values

CASES = Table()
SHAPE = (2, 3, 4)
AXES: dict[str, dict[str, Any]] = {
    "all": {},
    "0": {"axis": 0},
    "1": {"axis": 1},
    "last": {"axis": -1},
    "0_2": {"axis": (0, 2)},
    "kept": {"axis": (1, 2), "keepdims": True},
    "all_kept": {"keepdims": True},
    "excluded": {"axis": 1, "exclude": True},
    "excluded_kept": {"axis": (-1, 0), "exclude": True, "keepdims": True},
    "none_left": {"axis": (0, 1, 2), "exclude": True},
    "empty": {"axis": (), "exclude": True},
}


def _some_nan(rng: Any, shape: Any) -> Any:
    values = rng.uniform(0.3, 2, shape)
    values[rng.uniform(0, 1, shape) < 0.3] = np.nan
    return values


def _reduce() -> None:
    for name in ("sum", "mean", "prod", "nansum", "nanprod", "max", "min"):
        values: Values = _some_nan if name.startswith("nan") else uniform(0.3, 2)
        for label, options in AXES.items():
            CASES.add(
                f"{name}_{label}",
                lambda sym, name=name, options=options: getattr(sym, name)(sym.Variable("data"), **options),
                {"data": SHAPE},
                values={"data": values},
            )
        for dtype in ("float64", "float16"):
            CASES.add(
                f"{name}_{dtype}",
                lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), axis=(0, 2)),
                {"data": SHAPE},
                values={"data": values},
                dtype=dtype,
                rtol=4e-3 if dtype == "float16" else 0.0,
            )
        for dtype in ("int32", "uint8"):
            CASES.add(
                f"{name}_{dtype}",
                lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), axis=1),
                {"data": SHAPE},
                values={"data": integers(1, 5)},
                dtype=dtype,
                train=False,
            )
        CASES.add(
            f"{name}_of_ones",
            lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), axis=0),
            {"data": (1, 1, 3)},
        )
    for name in ("sum_axis", "max_axis", "min_axis"):
        CASES.add(
            name,
            lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), axis=1),
            {"data": SHAPE},
        )
    for name in ("max", "min"):
        CASES.add(
            f"{name}_ties",
            lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), axis=1),
            {"data": (3, 3)},
            values={"data": exactly(1, 2, 2, 0, 0, 0, 3, 1, 3)},
        )
    for name in ("sum", "max", "mean"):
        CASES.add(
            f"{name}_nan",
            lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), axis=1),
            {"data": SHAPE},
            values={"data": _some_nan},
        )
    for name in ("prod", "nanprod"):
        CASES.add(
            f"{name}_with_zeros",
            lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), axis=1),
            {"data": (2, 3)},
            values={"data": exactly(0, 2, 3, 1, 0, 0)},
        )
    CASES.add(
        "sum_grad_add",
        lambda sym: sym.sum(sym.Variable("data"), axis=(1, 2)),
        {"data": SHAPE},
        grad_req="add",
    )
    CASES.add(
        "mean_of_squares",
        lambda sym: sym.mean(sym.square(sym.Variable("data"))) * 2,
        {"data": SHAPE},
    )


def _norms() -> None:
    for order in (1, 2):
        for label, options in {
            "all": {},
            "1": {"axis": 1},
            "last_kept": {"axis": -1, "keepdims": True},
            "0_2": {"axis": (0, 2)},
        }.items():
            for dtype in ("float32", "float64"):
                CASES.add(
                    f"norm{order}_{label}_{dtype}",
                    lambda sym, order=order, options=options: sym.norm(
                        sym.Variable("data"), ord=order, **options
                    ),
                    {"data": SHAPE},
                    dtype=dtype,
                )
        CASES.add(
            f"norm{order}_of_zeros",
            lambda sym, order=order: sym.norm(sym.Variable("data"), ord=order, axis=1),
            {"data": (2, 2)},
            values={"data": exactly(0, 0, 0, 1)},
        )
    CASES.add(  # for the root of squares MXNet divides integers by the greatest one on its way
        "norm1_int32",
        lambda sym: sym.norm(sym.Variable("data"), ord=1, axis=1),
        {"data": SHAPE},
        values={"data": integers(-4, 5)},
        dtype="int32",
        train=False,
    )
    for label, options in {
        "0_1": {"axes": (0, 1)},
        "last_kept": {"axes": (-1,), "keepdims": True},
        "all": {"axes": (0, 1, 2)},
    }.items():
        CASES.add(
            f"moments_{label}",
            lambda sym, options=options: sym.moments(sym.Variable("data"), **options),
            {"data": SHAPE},
        )
    CASES.add(
        "moments_float64",
        lambda sym: sym.moments(sym.Variable("data"), axes=(0, 2)),
        {"data": SHAPE},
        dtype="float64",
    )
    CASES.add(
        "variance_alone",
        lambda sym: sym.moments(sym.Variable("data"), axes=(0,))[1] * 3,
        {"data": (4, 3)},
    )


def _positions() -> None:
    for name in ("argmax", "argmin"):
        for label, options in {
            "all": {},
            "0": {"axis": 0},
            "1": {"axis": 1},
            "last": {"axis": -1},
            "kept": {"axis": 1, "keepdims": True},
            "all_kept": {"keepdims": True},
        }.items():
            for dtype in ("float32", "int32") if label == "1" else ("float32",):
                CASES.add(
                    f"{name}_{label}_{dtype}",
                    lambda sym, name=name, options=options: getattr(sym, name)(
                        sym.Variable("data"), **options
                    ),
                    {"data": SHAPE},
                    values={"data": integers(0, 4)},  # with ties
                    dtype=dtype,
                )
        CASES.add(
            f"{name}_nan",
            lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), axis=1),
            {"data": SHAPE},
            values={"data": _some_nan},
            train=False,
        )
    for shape in ((3, 4), (2, 3, 4)):
        CASES.add(
            f"argmax_channel_{len(shape)}",
            lambda sym: sym.argmax_channel(sym.Variable("data")),
            {"data": shape},
            train=False,
        )


def _running() -> None:
    for label, options in {
        "all": {},
        "0": {"axis": 0},
        "1": {"axis": 1},
        "float64": {"axis": 1, "dtype": "float64"},
        "float32": {"dtype": "float32"},
    }.items():
        CASES.add(
            f"cumsum_{label}",
            lambda sym, options=options: sym.cumsum(sym.Variable("data"), **options),
            {"data": SHAPE},
        )
    CASES.add(
        "cumsum_int32",
        lambda sym: sym.cumsum(sym.Variable("data"), axis=1),
        {"data": SHAPE},
        values={"data": integers(-4, 5)},
        dtype="int32",
    )


def _arrays() -> None:
    for name in ("shape_array", "size_array"):
        CASES.add(name, lambda sym, name=name: op(sym, name)(sym.Variable("data")), {"data": SHAPE})
    for label, values in {
        "finite": uniform(-1, 1),
        "nan": exactly(1, 2, np.nan, 3),
        "inf": exactly(1, -np.inf, 0, 3),
    }.items():
        CASES.add(
            f"all_{label}",
            lambda sym: sym.all_finite(sym.Variable("data")),
            {"data": (2, 2)},
            values={"data": values},
            train=False,
        )
        CASES.add(
            f"multi_all_{label}",
            lambda sym: sym.multi_all_finite(sym.Variable("a"), sym.Variable("data"), num_arrays=2),
            {"a": (3,), "data": (2, 2)},
            values={"data": values},
            train=False,
        )
    CASES.add(
        "multi_sum_sq",
        lambda sym: sym.multi_sum_sq(sym.Variable("a"), sym.Variable("b"), num_arrays=2),
        {"a": (3, 5), "b": (7,)},
        train=False,
    )


for _add in (_reduce, _norms, _positions, _running, _arrays):
    _add()
