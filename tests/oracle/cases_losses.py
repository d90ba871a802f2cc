"""Softmax and its relatives, and the heads of networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.oracle.family import Table, op

CASES = Table()


def classes(count: int, low: int = 0) -> Callable[[Any, Any], Any]:
    return lambda rng, shape: rng.randint(low, count, shape)


def _softmax() -> None:
    for name in ("softmax", "softmin", "log_softmax"):
        for suffix, options, shape in [
            ("", {}, (3, 5)),
            ("_axis0", {"axis": 0}, (3, 5)),
            ("_axis1", {"axis": 1}, (2, 3, 4)),
            ("_axis_m2", {"axis": -2}, (2, 3, 4)),
            ("_temperature", {"temperature": 0.5}, (2, 3, 4)),
            ("_vector", {}, (7,)),
            ("_float64_out", {"dtype": "float64", "axis": 1}, (2, 3, 4)),
        ]:
            CASES.add(
                name + suffix,
                lambda sym, name=name, options=options: getattr(sym, name)(
                    sym.Variable("data"), name="y", **options
                ),
                {"data": shape},
            )
        for dtype in ("float16", "float64"):
            CASES.add(
                name + "_" + dtype,
                lambda sym, name=name: getattr(sym, name)(sym.Variable("data"), name="y", axis=1),
                {"data": (2, 3, 4)},
                dtype=dtype,
            )
    for axis, shape, length in [(-1, (4, 5), (4,)), (1, (2, 5, 3), (2, 3)), (0, (5, 3), (3,))]:
        for dtype in ("int32", "int64"):
            CASES.add(
                f"softmax_length_{axis % len(shape)}_{len(shape)}_{dtype}",
                lambda sym, axis=axis: sym.softmax(
                    sym.Variable("data"), sym.Variable("length"), axis=axis, use_length=True, name="y"
                ),
                {"data": shape, "length": length},
                values={"length": classes(6)},
                dtypes={"length": dtype},
                no_grad=("length",),
            )
    for mode, shape in [("instance", (3, 5)), ("instance", (2, 3, 4)), ("channel", (2, 3, 4, 2))]:
        CASES.add(
            f"softmax_activation_{mode}_{len(shape)}",
            lambda sym, mode=mode: sym.SoftmaxActivation(sym.Variable("data"), mode=mode, name="y"),
            {"data": shape},
            # MXNet's forward normalises the last axis; its gradient belongs to no normalisation there is.
            train=(mode, len(shape)) != ("instance", 3),
        )


def _heads() -> None:
    CASES.add(
        "softmax_cross_entropy",
        lambda sym: sym.softmax_cross_entropy(sym.Variable("data"), sym.Variable("label"), name="y"),
        {"data": (5, 4), "label": (5,)},
        values={"label": classes(4)},
        no_grad=("label",),
    )
    for name in ("LogisticRegressionOutput", "MAERegressionOutput"):
        for suffix, options, shape, label in [
            ("", {}, (6, 3), (6, 3)),
            ("_scaled", {"grad_scale": 3.0}, (6, 3), (6, 3)),
            ("_flat_label", {}, (6, 1), (6,)),
            ("_image", {"grad_scale": 0.5}, (2, 3, 4), (2, 3, 4)),
        ]:
            CASES.add(
                name + suffix,
                lambda sym, name=name, options=options: getattr(sym, name)(
                    sym.Variable("data"), name="y", **options
                ),
                {"data": shape, "y_label": label},
                heads=False,
            )
    for linear in (False, True):
        for suffix, options in [("", {}), ("_scaled", {"margin": 0.3, "regularization_coefficient": 0.7})]:
            CASES.add(
                f"svm_output_{'linear' if linear else 'squared'}{suffix}",
                lambda sym, options=options, linear=linear: sym.SVMOutput(
                    sym.Variable("data"), use_linear=linear, name="y", **options
                ),
                {"data": (6, 4), "y_label": (6,)},
                values={"y_label": classes(4)},
                heads=False,
            )


def _ctc() -> None:
    def padded(pad: int, low: int, high: int) -> Callable[[Any, Any], Any]:
        def make(rng: Any, shape: Any) -> Any:
            label = rng.randint(low, high, shape)
            for i in range(1, min(shape[0], shape[1] + 1)):
                label[i, shape[1] - i :] = pad
            return label

        return make

    shapes = {"data": (7, 4, 5), "y_label": (4, 3)}
    for name, blank, values in [
        ("first", "first", padded(0, 1, 5)),
        ("last", "last", padded(-1, 0, 4)),
    ]:
        CASES.add(
            "ctc_loss_" + name,
            lambda sym, blank=blank: sym.CTCLoss(sym.Variable("data"), blank_label=blank, name="y"),
            shapes,
            values={"y_label": values},
            no_grad=("y_label",),
            atol=1e-5,
        )
    CASES.add(
        "ctc_loss_repeats",
        lambda sym: sym.ctc_loss(sym.Variable("data"), name="y"),
        shapes,
        values={"y_label": lambda rng, shape: np.array([[2, 2, 2], [1, 1, 0], [1, 2, 1], [3, 3, 1]])},
        no_grad=("y_label",),
        atol=1e-5,
    )
    CASES.add(
        "ctc_loss_lengths",
        lambda sym: op(sym, "_contrib_ctc_loss")(
            sym.Variable("data"), use_data_lengths=True, use_label_lengths=True, name="y"
        ),
        {**shapes, "y_data_lengths": (4,), "y_label_lengths": (4,)},
        values={
            "y_label": classes(5, 1),
            "y_data_lengths": lambda rng, shape: np.array([7, 6, 7, 3]),
            "y_label_lengths": lambda rng, shape: np.array([3, 2, 1, 1]),
        },
        no_grad=("y_label", "y_data_lengths", "y_label_lengths"),
        atol=1e-5,
    )
    CASES.add(
        "ctc_loss_label_lengths",
        lambda sym: sym.CTCLoss(
            sym.Variable("data"),
            label_lengths=sym.Variable("y_label_lengths"),
            use_label_lengths=True,
            name="y",
        ),
        {**shapes, "y_label_lengths": (4,)},
        values={
            "y_label": classes(5, 1),
            "y_label_lengths": lambda rng, shape: np.array([3, 2, 1, 1]),
        },
        no_grad=("y_label", "y_label_lengths"),
        atol=1e-5,
    )


for _add in (_softmax, _heads, _ctc):
    _add()
