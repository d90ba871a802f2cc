"""Every case of the families of operators gives MXNet's numbers, operators and names."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from dmod.device.standin import stand_in_gpus
from tests.oracle import family

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
MODULES = {
    path.stem.removeprefix("cases_"): importlib.import_module(f"tests.oracle.{path.stem}")
    for path in sorted(Path(family.__file__).parent.glob("cases_*.py"))
}
# A module that calls functions of arrays has tests of its own.
FAMILIES = [n for n, m in MODULES.items() if not hasattr(m, "run_with_arrays")]
TABLES = {name: MODULES[name].CASES for name in FAMILIES}
NUMBERS = {name: np.load(FIXTURES / f"operators_{name}.npz") for name in FAMILIES}
# The rounding of sums in another order, and of another library's functions.
RTOL = {"float16": 2e-3, "float32": 2e-5, "float64": 1e-10}


@pytest.fixture(autouse=True)
def fresh_names() -> Iterator[None]:
    with mx.name.NameManager():
        yield


CASES = [(n, c) for n in FAMILIES for c in TABLES[n]]


@pytest.mark.parametrize(("name", "case_name"), CASES)
def test_case_is_that_of_mxnet(name: str, case_name: str) -> None:
    case, prefix = TABLES[name][case_name], case_name + "/"
    found = family.run(mx, case_name, case)
    numbers = NUMBERS[name]
    wanted = {k.removeprefix(prefix): numbers[k] for k in numbers.files if k.startswith(prefix)}
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert found[key].shape == array.shape, key
        if array.dtype.kind not in "f":
            np.testing.assert_array_equal(found[key], array, err_msg=key)
            continue
        assert found[key].dtype == array.dtype, key
        kind = max(case.dtype, array.dtype.name, key=lambda name: RTOL.get(name, 0))  # the coarser one
        atol = {"float16": 1e-3, "float64": min(case.atol, 1e-12)}.get(kind, case.atol)
        np.testing.assert_allclose(
            found[key], array, case.rtol or RTOL[kind], atol, err_msg=f"{case_name}/{key}"
        )


@pytest.mark.parametrize(("name", "case_name"), CASES)
def test_case_gives_the_same_bits_on_a_stand_in_gpu(
    name: str, case_name: str, without_numba: None, without_onednn: None
) -> None:
    case = TABLES[name][case_name]
    wanted = family.run(mx, case_name, case)
    with mx.name.NameManager(), stand_in_gpus(1):
        found = family.run(mx, case_name, case, mx.gpu(0))
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array, err_msg=key)
