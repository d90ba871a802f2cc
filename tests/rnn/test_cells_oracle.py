"""Cells unroll to MXNet's graphs - names, nodes, parameters - and to its numbers and gradients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from tests.oracle import cases_rnn_cells as cells

NUMBERS = np.load(Path(__file__).resolve().parent.parent / "fixtures" / "operators_rnn_cells.npz")


@pytest.fixture(autouse=True)
def fresh_names() -> Iterator[None]:
    with mx.name.NameManager():
        yield


def expected(case: str) -> dict[str, np.ndarray]:
    prefix = case + "/"
    return {key.removeprefix(prefix): NUMBERS[key] for key in NUMBERS.files if key.startswith(prefix)}


@pytest.mark.parametrize("name", cells.CASES)
def test_nodes_and_names_are_those_of_mxnet(name: str) -> None:
    found = json.loads(json.dumps(cells.nodes(cells.BUILD[name](mx))))
    assert found == [json.loads(node) for node in expected(name)["nodes"].tolist()]


@pytest.mark.parametrize("name", cells.CASES)
def test_numbers_are_those_of_mxnet(name: str) -> None:
    found, wanted = cells.run_with_arrays(mx, name), expected(name)
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        if array.dtype.kind == "U":
            continue
        assert found[key].dtype == array.dtype, key
        np.testing.assert_allclose(found[key], array, 2e-5, 4e-6, err_msg=f"{name}/{key}")
