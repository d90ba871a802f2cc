"""Whole networks: what they predict, and the gradient of their data through all layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from examples.resnet import resnet
from tests.oracle.family import Table

CASES = Table()


def _weight(rng: np.random.RandomState, shape: tuple[int, ...]) -> Any:
    """Random weights that keep the size of what goes through them."""
    return rng.standard_normal(shape) * np.sqrt(2 / max(1, np.prod(shape[1:])))


def _positive(rng: np.random.RandomState, shape: tuple[int, ...]) -> Any:
    return rng.uniform(0.5, 1.5, shape)


def _classes(rng: np.random.RandomState, shape: tuple[int, ...]) -> Any:
    return rng.randint(0, 10, shape)


class _Values(dict):
    """How an argument is filled, by the end of its name."""

    def get(self, name: str, default: Any = None) -> Any:
        if name.endswith(("_gamma", "_moving_var")):
            return _positive
        if name.endswith("_weight"):
            return _weight
        return _classes if name == "softmax_label" else default


def _resnet(layers: int) -> None:
    def build(sym: Any) -> Any:
        return resnet(sym, layers, 10)

    shapes = {"data": (2, 3, 32, 32)}
    for train in (False, True):
        CASES.add(
            f"resnet{layers}_" + ("training" if train else "inference"),
            build,
            shapes,
            values=_Values(),
            train=train,
            heads=False,
            no_grad=_Parameters(),
            rtol=1e-4,
            atol=1e-6,
            skip=_States(),
        )


class _Parameters(tuple):
    """All arguments but the data."""

    def __contains__(self, name: object) -> bool:
        return name != "data"


class _States(tuple):
    """The auxiliary states: the operators' own cases compare these."""

    def __contains__(self, name: object) -> bool:
        return str(name).startswith("aux/")


_resnet(8)
_resnet(20)
