"""What surrounds a server's states: it does not fall silent while an optimizer's kernels are compiled."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from dmod.kvstore import patient_maker
from dmod.kvstore.patient_maker import PatientMaker
from dmod.ndarray.flat import Segment
from dmod.optimizer import SGD

SEGMENTS = (Segment(0, "w", 0, 16, (16,)),)


def test_signs_of_life_are_shown_while_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    alive, shown, compiled = threading.Event(), [], []

    class Slow:
        def update(self, weight: np.ndarray, grad: object) -> None:
            assert alive.wait(20), "nobody has shown a sign of life"
            compiled.append(grad)

    def make(config: dict, segments: tuple, size: int, dtype: str) -> Slow:
        return Slow()

    def show_life() -> None:
        shown.append(1)
        if len(shown) == 3:
            alive.set()

    monkeypatch.setattr(patient_maker, "make_updater", make)
    maker = PatientMaker(show_life, 0.001)
    for _ in range(2):
        maker({"name": "sgd"}, SEGMENTS, 16, "float32")
    assert len(compiled) == 2 and len(shown) >= 3  # tried out once, on both kinds of gradients


def test_the_updater_that_is_made_has_not_been_used() -> None:
    config = SGD(learning_rate=0.1, momentum=0.9).to_config()
    updater = PatientMaker(lambda: None, 1.0)(config, SEGMENTS, 16, "float32")
    assert updater.count == 0 and not any(state.any() for state in updater.get_states())


def test_an_optimizer_that_fails_when_it_is_tried_out_fails_later_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing:
        def update(self, weight: np.ndarray, grad: object) -> None:
            raise ZeroDivisionError

    monkeypatch.setattr(patient_maker, "make_updater", lambda *arguments: Failing())
    assert isinstance(PatientMaker(lambda: None, 1.0)({}, SEGMENTS, 16, "float32"), Failing)
