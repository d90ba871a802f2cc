"""Densities of samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.oracle.family import Table

CASES = Table()
INPUTS = {
    "uniform": ["low", "high"],
    "normal": ["mu", "sigma"],
    "gamma": ["alpha", "beta"],
    "exponential": ["lam"],
    "poisson": ["lam"],
    "negative_binomial": ["k", "p"],
    "generalized_negative_binomial": ["mu", "alpha"],
}
WHOLE = ("poisson", "negative_binomial", "generalized_negative_binomial")
ROUGH = ("gamma", *WHOLE)  # MXNet has gamma functions and constants of single precision


def positive(rng: Any, shape: Any) -> Any:
    return rng.uniform(0.3, 2.0, shape)


def share(rng: Any, shape: Any) -> Any:
    return rng.uniform(0.2, 0.8, shape)


def above(rng: Any, shape: Any) -> Any:
    return rng.uniform(3, 4, shape)


def count(rng: Any, shape: Any) -> Any:
    return rng.randint(0, 6, shape)


def simplex(rng: Any, shape: Any) -> Any:
    return rng.dirichlet(np.ones(shape[-1]) * 2, shape[:-1])


for _name, _inputs in INPUTS.items():
    for _log in (False, True):
        for _sample, _params in [((3,), (3,)), ((2, 5), (2,)), ((2, 3, 4), (2, 3))]:
            _values = {n: share if n == "p" else above if n == "high" else positive for n in _inputs}
            _values["sample"] = count if _name in WHOLE else positive
            CASES.add(
                f"random_pdf_{_name}_{_log:d}_{len(_sample)}",
                lambda sym, name=_name, inputs=tuple(_inputs), log=_log: getattr(sym, f"random_pdf_{name}")(
                    sym.Variable("sample"), *map(sym.Variable, inputs), is_log=log, name="y"
                ),
                {"sample": _sample, **dict.fromkeys(_inputs, _params)},
                values=_values,
                dtype="float64",
                rtol=2e-4 if _name in ROUGH else 1e-6,
            )
for _log in (False, True):
    for _sample, _params in [((2, 3), (2, 3)), ((2, 4, 3), (2, 3)), ((4, 3), (3,))]:
        CASES.add(
            f"random_pdf_dirichlet_{_log:d}_{len(_sample)}_{len(_params)}",
            lambda sym, log=_log: sym.random_pdf_dirichlet(
                sym.Variable("sample"), sym.Variable("alpha"), is_log=log, name="y"
            ),
            {"sample": _sample, "alpha": _params},
            values={"sample": simplex, "alpha": positive},
            dtype="float64",
            rtol=2e-4,
        )
