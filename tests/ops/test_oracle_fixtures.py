"""Every case of tests/oracle/cases.py gives MXNet's numbers, and writes and reads MXNet's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from tests.oracle import cases

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
NUMBERS = np.load(FIXTURES / "operators.npz")
SYMBOLS = json.loads((FIXTURES / "symbols.json").read_text())
# float32 sums in another order, and exp and tanh of another library, differ by a few units in the last place.
RTOL = {"float32": 2e-5, "float64": 1e-12}


@pytest.fixture(autouse=True)
def fresh_names() -> Iterator[None]:
    with mx.name.NameManager():
        yield


def expected(name: str) -> dict[str, np.ndarray]:
    prefix = name + "/"
    return {key.removeprefix(prefix): NUMBERS[key] for key in NUMBERS.files if key.startswith(prefix)}


def compare(name: str, found: dict[str, np.ndarray]) -> None:
    wanted = expected(name)
    assert found.keys() == wanted.keys()
    for key, array in wanted.items():
        assert found[key].dtype == array.dtype, key
        rtol = RTOL[array.dtype.name]
        atol = cases.CASES[name].atol if array.dtype == "float32" else 1e-13
        np.testing.assert_allclose(found[key], array, rtol, atol, err_msg=f"{name}/{key}")


@pytest.mark.parametrize("name", cases.CASES)
def test_numbers_are_those_of_mxnet(name: str) -> None:
    compare(name, cases.run(mx, name))


@pytest.mark.parametrize("name", ["network_mlp", "network_two_heads", "batch_norm_last_axis", "reshape_m3_0"])
def test_a_symbol_read_from_mxnets_json_computes_the_same(name: str) -> None:
    net = mx.sym.load_json(json.dumps(SYMBOLS[name]))
    compare(name, cases.run(mx, name, net))


def nodes(graph: dict[str, Any]) -> list[tuple[Any, ...]]:
    """What a graph's JSON says about its nodes.

    MXNet copies an operator's parameters to the variables that it makes for it; they mean nothing there.
    """
    return [
        (
            node["op"],
            node["name"],
            [edge[:2] for edge in node["inputs"]],
            {k: v for k, v in node.get("attrs", {}).items() if node["op"] != "null" or k.startswith("__")},
        )
        for node in graph["nodes"]
    ]


@pytest.mark.parametrize("name", cases.CASES)
def test_json_is_that_of_mxnet(name: str) -> None:
    found = json.loads(cases.CASES[name].build(mx.sym).tojson())
    assert nodes(found) == nodes(SYMBOLS[name])
    for key in ("arg_nodes", "node_row_ptr"):
        assert found[key] == SYMBOLS[name][key]
    assert [head[:2] for head in found["heads"]] == [head[:2] for head in SYMBOLS[name]["heads"]]


@pytest.mark.parametrize("name", cases.CASES)
def test_json_round_trip_changes_nothing(name: str) -> None:
    text = mx.sym.load_json(json.dumps(SYMBOLS[name])).tojson()
    assert mx.sym.load_json(text).tojson() == text
    assert nodes(json.loads(text)) == nodes(SYMBOLS[name])
