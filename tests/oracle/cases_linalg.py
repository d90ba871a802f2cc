"""Products and factors of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.family import Table, op

CASES = Table()


def definite(rng: Any, shape: Any) -> Any:
    x = rng.standard_normal(shape)
    return x @ np.swapaxes(x, -1, -2) + 2 * np.eye(shape[-1])


def symmetric(rng: Any, shape: Any) -> Any:
    x = rng.standard_normal(shape)
    return x + np.swapaxes(x, -1, -2)


def regular(rng: Any, shape: Any) -> Any:
    return rng.standard_normal(shape) + 3 * np.eye(shape[-1])


def positive(rng: Any, shape: Any) -> Any:
    return rng.uniform(0.5, 2, shape)


def _two(name: str, a: str, b: str, options: dict, shapes: Any, suffix: str = "", **rest: Any) -> None:
    CASES.add(
        name.lstrip("_") + suffix,
        lambda sym: op(sym, name)(sym.Variable(a), sym.Variable(b), name="y", **options),
        {a: shapes[0], b: shapes[1]},
        **rest,
    )


def _one(name: str, options: dict, shape: Any, suffix: str = "", **rest: Any) -> None:
    CASES.add(
        name.lstrip("_") + suffix,
        lambda sym: op(sym, name)(sym.Variable("A"), name="y", **options),
        {"A": shape},
        **rest,
    )


def _gram(sym: Any) -> Any:
    a = sym.Variable("a")
    return sym.dot(a, a, transpose_b=True, name="y")


def _dots() -> None:
    for i, (ta, tb, left, right) in enumerate(
        [
            (0, 0, (3,), (3,)),
            (0, 0, (2, 3), (3,)),
            (0, 1, (2, 3), (3,)),
            (0, 0, (3,), (3, 2)),
            (1, 1, (2,), (3, 2)),
            (0, 0, (2, 3), (3, 4)),
            (1, 0, (3, 2), (3, 4)),
            (0, 1, (2, 3), (4, 3)),
            (1, 1, (3, 2), (4, 3)),
            (0, 0, (2, 3, 4), (4, 5)),
            (0, 0, (2, 3, 4), (4, 5, 3)),
            (1, 0, (4, 2, 3), (4, 5, 3)),
            (0, 1, (2, 3, 4), (5, 3, 4)),
            (1, 1, (4, 2, 3), (5, 3, 4)),
        ]
    ):
        _two("dot", "a", "b", {"transpose_a": bool(ta), "transpose_b": bool(tb)}, (left, right), f"_{i}")
    _two("dot", "a", "b", {}, ((2, 3), (3, 4)), "_float64", dtype="float64")
    _two("dot", "a", "b", {}, ((2, 3), (3, 4)), "_grad_add", grad_req="add")
    CASES.add("dot_with_itself", _gram, {"a": (3, 4)})
    for ta in (False, True):
        for tb in (False, True):
            left, right = ((4, 3) if ta else (3, 4)), ((5, 4) if tb else (4, 5))
            _two(
                "batch_dot",
                "a",
                "b",
                {"transpose_a": ta, "transpose_b": tb},
                ((2, *left), (2, *right)),
                f"_{ta:d}{tb:d}",
            )
    _two("batch_dot", "a", "b", {}, ((2, 3, 4, 5), (2, 3, 5, 2)), "_4d")
    for count in (1, 2, 3):
        CASES.add(
            f"khatri_rao_{count}",
            lambda sym, n=count: sym.khatri_rao(*[sym.Variable("abc"[i]) for i in range(n)], name="y"),
            {"abc"[i]: (i + 2, 3) for i in range(count)},
            train=False,  # MXNet has no gradient for it
        )


def _gemm(sym: Any, options: dict) -> Any:
    a, b, c = (sym.Variable(n) for n in "ABC")
    return op(sym, "_linalg_gemm")(a, b, c, name="y", **options)


def _linalg() -> None:
    gemms = [
        ({}, (3, 4), (4, 5), (3, 5)),
        ({"transpose_a": True, "alpha": 0.5, "beta": 2.0}, (2, 4, 3), (2, 4, 5), (2, 3, 5)),
        ({"transpose_b": True, "alpha": -1.0}, (2, 3, 4), (2, 5, 4), (2, 3, 5)),
        ({"transpose_a": True, "transpose_b": True}, (4, 3), (5, 4), (3, 5)),
        ({"axis": 1}, (2, 3, 6, 4), (2, 4, 6, 5), (2, 3, 6, 5)),
        ({"axis": 0, "transpose_a": True}, (4, 2, 3), (4, 2, 5), (3, 2, 5)),
    ]
    for i, (options, a, b, c) in enumerate(gemms):
        CASES.add(
            f"linalg_gemm_{i}",
            lambda sym, o=options: _gemm(sym, o),
            {"A": a, "B": b, "C": c},
            dtype="float64",
        )
        options = {k: v for k, v in options.items() if k != "beta"}
        _two("_linalg_gemm2", "A", "B", options, (a, b), f"_{i}")
    for transpose in (False, True):
        options = {"transpose": transpose, "alpha": 0.5}
        _one("_linalg_syrk", options, (2, 3, 4), f"_{transpose:d}")
    for name in ("_linalg_trmm", "_linalg_trsm"):
        for transpose in (False, True):
            for right in (False, True):
                for lower in (False, True):
                    _two(
                        name,
                        "A",
                        "B",
                        {"transpose": transpose, "rightside": right, "lower": lower, "alpha": 2.0},
                        ((2, 3, 3), (2, 4, 3) if right else (2, 3, 4)),
                        f"_{transpose:d}{right:d}{lower:d}",
                        values={"A": regular},
                        dtype="float64",
                    )
    for lower in (True, False):
        for shape in ((3, 3), (2, 4, 4)):
            suffix = f"_{lower:d}_{len(shape)}"
            _one("_linalg_potrf", {"lower": lower}, shape, suffix, values={"A": definite}, dtype="float64")
            _one("_linalg_potri", {"lower": lower}, shape, suffix, values={"A": regular}, dtype="float64")
    for shape in ((3, 3), (2, 4, 4)):
        for name in ("inverse", "det", "slogdet"):
            _one(f"_linalg_{name}", {}, shape, f"_{len(shape)}", values={"A": regular}, dtype="float64")
        _one("_linalg_sumlogdiag", {}, shape, f"_{len(shape)}", values={"A": positive}, atol=1e-5)
        _one(
            "_linalg_syevd",
            {},
            shape,
            f"_{len(shape)}",
            values={"A": symmetric},
            dtype="float64",
            rtol=1e-8,
        )
    for shape in ((3, 3), (2, 3, 5)):
        _one("_linalg_gelqf", {}, shape, f"_{len(shape)}", dtype="float64", rtol=1e-8)
    _one("_linalg_det", {}, (3, 3), "_float32", values={"A": regular}, atol=1e-4)
    for offset in (-2, -1, 0, 1, 2):
        suffix = f"_{offset}"
        _one("_linalg_extractdiag", {"offset": offset}, (2, 4, 4), suffix)
        _one("_linalg_makediag", {"offset": offset}, (2, 3), suffix)
        for lower in (False, True):
            options = {"offset": offset, "lower": lower}
            _one("_linalg_extracttrian", options, (2, 4, 4), f"{suffix}_{lower:d}")
            _one("_linalg_maketrian", options, (2, 6), f"{suffix}_{lower:d}")
    _one("_linalg_extractdiag", {}, (4, 4), "_matrix")
    _one("_linalg_maketrian", {}, (6,), "_matrix")


for _add in (_dots, _linalg):
    _add()
