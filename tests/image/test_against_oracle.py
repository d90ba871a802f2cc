"""Pixels, boxes, settings and epochs are those of MXNet 1.9.1, for the same seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from tests.oracle import image_cases

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
FACTS = json.loads((FIXTURES / "images.json").read_text())
# MXNet's OpenCV is of 2018: JPEG and bicubic interpolation may round a grey level otherwise (1 / 57, where
# values are normalised); rotation computes its grid in single precision.
TOLERANCES = {"wide.jpg": 1, "gray.jpg": 1, "resize 2": 1, "det list 0": 1, "list 1": 0.02, "rotate": 0.01}


def tolerance(name: str) -> float:
    return next((value for start, value in TOLERANCES.items() if name.startswith(start)), 2e-4)


@pytest.mark.parametrize("case", image_cases.ARRAYS, ids=lambda case: case.__name__)
def test_arrays_are_the_oracles(case: Callable[[Any], dict[str, Any]]) -> None:
    with np.load(FIXTURES / "images.npz") as expected:
        for name, value in case(mx).items():
            found = value if isinstance(value, np.ndarray) else value.asnumpy()
            assert list(found.shape) == FACTS["shapes"][name], name
            assert found.dtype == expected[name].dtype, name
            np.testing.assert_allclose(
                image_cases.sampled(found).astype(float),
                expected[name].astype(float),
                rtol=0,
                atol=tolerance(name),
                err_msg=name,
            )


def test_dumps_are_the_oracles() -> None:
    assert image_cases.dumps(mx) == FACTS["dumps"]


@pytest.mark.parametrize("name", FACTS["epochs"])
def test_labels_and_padding_of_epochs_are_the_oracles(name: str, epochs: dict[str, Any]) -> None:
    assert epochs[name] == FACTS["epochs"][name]


@pytest.fixture(scope="module")
def epochs() -> dict[str, Any]:
    return image_cases.epochs(mx)
