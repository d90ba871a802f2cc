"""Small keys that travel together: the bits are those of single keys, however workers group their calls."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from dmod.base import EpochEnded
from dmod.kvstore.bundles import Bundle
from dmod.ndarray.flat import FlatLayout
from tests.kvstore.simulator import CHAOS, Simulator, Worker, values_of_epochs

KEYS = [f"key{i}" for i in range(9)]
LAYOUTS = {key: FlatLayout.plan([(i, "x", (3 + i,))], "float32") for i, key in enumerate(KEYS)}
CONFIG = {"rate": 0.1, "momentum": 0.9}
ROUNDS, EPOCHS = 7, 2


@pytest.mark.parametrize("mode", ["update", "sum"])
@pytest.mark.parametrize(("seed", "shared"), [(0, True), (1, False), (3, True), (4, True), (5, False)])
def test_bundles_made_and_taken_apart_give_the_bits_of_single_keys(
    seed: int, shared: bool, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mostly all keys in one call, sometimes in two, one by one, or pushed and pulled; epochs are unequal."""
    seen = {"rounds": 0, "taken apart within a round": 0}
    apply, take_apart = Bundle.apply, Bundle.take_apart

    def counting_apply(bundle: Bundle) -> None:
        seen["rounds"] += 1
        apply(bundle)

    def counting_take_apart(bundle: Bundle) -> None:
        seen["taken apart within a round"] += not bundle.idle
        take_apart(bundle)

    monkeypatch.setattr(Bundle, "apply", counting_apply)
    monkeypatch.setattr(Bundle, "take_apart", counting_take_apart)
    rng = np.random.default_rng(seed)
    num_workers = 2 + seed % 3
    scale = np.float32(10.0) ** rng.integers(-3, 4, (EPOCHS, ROUNDS + 1, len(KEYS), num_workers, 16))
    grads = (rng.standard_normal(scale.shape) * scale).astype("f4")
    sizes = [LAYOUTS[key].size for key in KEYS]
    expected = values_of_epochs(grads[:, :ROUNDS], sizes, mode, CONFIG)

    def program(worker: Worker) -> Any:
        client, rank = worker.client, worker.client.member.rank
        choose = random.Random(seed * 10 + rank)
        outs = [np.zeros(LAYOUTS[key].size, "f4") for key in KEYS]
        for key, out in zip(KEYS, outs, strict=True):
            first = out.copy() if rank == 0 and mode == "update" else None
            yield client.init(key, LAYOUTS[key], first, worker.now(), mode=mode)
        if mode == "update":
            yield client.set_optimizer(CONFIG, worker.now())
        for epoch in range(EPOCHS):
            for round in range(ROUNDS + (rank == 1)):
                arrays = [
                    (key, grads[epoch, round, i, rank, : out.size].copy(), [out])
                    for i, (key, out) in enumerate(zip(KEYS, outs, strict=True))
                ]
                kind = choose.choice(["all"] * 6 + ["two", "one by one", "apart"])
                cut = {"all": len(KEYS), "two": 5, "one by one": 1, "apart": len(KEYS)}[kind]
                parts = [arrays[i : i + cut] for i in range(0, len(arrays), cut)]
                try:
                    if kind == "apart":
                        yield client.push([entry[:2] for entry in arrays], worker.now())
                        for _, array, _ in arrays:
                            array.fill(np.nan)
                        yield client.pull([(key, to) for key, _, to in arrays], worker.now())
                    else:
                        yield [client.pushpull(part, worker.now()) for part in parts]
                except EpochEnded:
                    assert round == ROUNDS
            for out, value in zip(outs, expected[epoch], strict=True):
                np.testing.assert_array_equal(out, value)
            if mode == "update" and rank == 0:
                states = yield client.get_states(KEYS, worker.now())
                assert {state.count for state in states} == {ROUNDS * (epoch + 1)}
            yield client.end_epoch(worker.now())

    simulator = Simulator(seed, num_workers, 1 + seed % 2, program, unit_bytes=512, shared=shared, **CHAOS)
    simulator.run_without_errors()
    assert all(seen.values()), seen
