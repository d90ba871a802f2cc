"""Whole clusters under seeded chaos: the bits, the epochs, the deaths, the end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from dmod.base import DeadlineError, EpochEnded, InvalidArgument, JoinRefusedError, PeerLostError
from dmod.kvstore.actions import SCHEDULER
from dmod.kvstore.tree import tree_sum
from dmod.ndarray.flat import FlatLayout
from tests.kvstore.simulator import CHAOS, Momentum, Simulator, Worker

LAYOUT = FlatLayout.plan([(0, "weight", (10, 20)), (1, "bias", (77,))], "float32")
SMALL = FlatLayout.plan([(0, "x", (5,))], "float32")
CONFIG = {"rate": 0.1, "momentum": 0.9}


@dataclass
class Data:
    """Gradients for every round and rank, far apart in magnitude, and the first weights."""

    seed: int
    num_workers: int
    rounds: int
    grads: np.ndarray = field(init=False)
    start: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        shape = (self.rounds, self.num_workers, LAYOUT.size)
        scale = 10.0 ** rng.integers(-4, 5, shape)
        self.grads = (rng.standard_normal(shape) * scale).astype("f4")
        self.start = rng.standard_normal(LAYOUT.size).astype("f4")

    def weights_after(self, rounds: int) -> np.ndarray:
        weights, updater = self.start.copy(), Momentum(CONFIG, (), LAYOUT.size, "f4")
        for round in range(rounds):
            updater.update(weights, tree_sum(list(self.grads[round])))
        return weights


def run(simulator: Simulator, *, clean: bool = True) -> Simulator:
    simulator.run()
    for worker in simulator.workers:
        if clean and worker.error is not None:
            raise worker.error
    if clean:
        assert all(p.exit is not None and p.exit.error is None for p in simulator.processes.values())
    return simulator


def setup(worker: Worker, data: Data) -> Any:
    """What every program begins with."""
    client = worker.client
    rank = client.member.rank
    yield client.init("w", LAYOUT, data.start if rank == 0 else None, worker.now())
    yield client.set_optimizer(CONFIG, worker.now())
    weights = np.empty(LAYOUT.size, "f4")
    yield client.pull([("w", [weights])], worker.now())
    np.testing.assert_array_equal(weights, data.start)
    return client, rank, weights


@pytest.mark.parametrize("network", [{}, CHAOS], ids=["calm", "chaos"])
@pytest.mark.parametrize("seed", range(8))
def test_training_gives_the_bits_of_the_tree_whatever_the_network_does(
    seed: int, network: dict[str, float]
) -> None:
    num_workers, num_servers = 1 + seed % 5, 1 + seed % 3
    data, results = Data(seed, num_workers, 4), {}

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        for round in range(4):
            yield client.pushpull([("w", data.grads[round, rank].copy(), [weights])], worker.now())
        yield client.barrier(worker.now())
        results[rank] = weights
        rounds = yield client.end_epoch(worker.now())
        assert rounds == (4,) * num_workers

    run(Simulator(seed, num_workers, num_servers, program, **network))
    for weights in results.values():
        np.testing.assert_array_equal(weights, data.weights_after(4))


@pytest.mark.parametrize("shared", [False, True], ids=["sent", "shared"])
@pytest.mark.parametrize("seed", range(6))
def test_pushes_and_pulls_of_many_keys_in_any_order_give_the_same_bits(
    seed: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker has its own order, priorities and mixture of calls; gradients are overwritten once done."""
    num_workers, rounds, keys = 3, 3, [f"key{i}" for i in range(12)]
    grads = np.random.default_rng(seed).standard_normal((rounds, len(keys), num_workers, 5)).astype("f4")
    grads *= np.float32(10.0) ** np.random.default_rng(seed + 1).integers(-3, 4, grads.shape).astype("f4")

    def program(worker: Worker) -> Any:
        client, rank = worker.client, worker.client.member.rank
        rng = random.Random(seed * 10 + rank)
        for key in keys:
            yield client.init(key, SMALL, np.zeros(SMALL.size, "f4") if rank == 0 else None, worker.now())
        for round in range(rounds):
            outs = {key: np.zeros(SMALL.size, "f4") for key in keys}
            order = rng.sample(range(len(keys)), len(keys))
            started, pushed = [], []
            while order:
                group, order = order[:4], order[4:]
                arrays = [(keys[i], np.append(grads[round, i, rank], np.zeros(11, "f4"))) for i in group]
                priority = rng.randint(-3, 3)
                if rng.random() < 0.5:
                    entries = [(key, array, [outs[key]]) for key, array in arrays]
                    started.append(client.pushpull(entries, worker.now(), priority=priority))
                else:
                    started.append(client.push(arrays, worker.now(), priority=priority))
                    pushed += arrays
            yield started
            for _, array in pushed:
                array.fill(np.nan)
            yield [client.pull([(key, [outs[key]])], worker.now()) for key, _ in pushed]
            for i, key in enumerate(keys):
                np.testing.assert_array_equal(outs[key][:5], tree_sum(list(grads[round, i])))

    run(Simulator(seed, num_workers, 2, program, unit_bytes=128, shared=shared, **CHAOS))


@pytest.mark.parametrize("seed", range(4))
def test_units_that_leave_one_by_one_give_the_same_bits(seed: int) -> None:
    """In any order, and in the last round of worker 1, which nobody else has, none of them is applied."""
    num_workers, rounds = 2 + seed % 2, 3
    data = Data(seed, num_workers, rounds + 1)

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        units = client.units("w")
        assert len(units) > 2 and sum(cut.stop - cut.start for unit in units for cut in unit) == LAYOUT.size
        rng = random.Random(seed * 10 + rank)
        for round in range(rounds + (rank == 1)):
            entry = ("w", data.grads[round, rank].copy(), [weights])
            order = rng.sample(range(len(units)), len(units))
            try:
                yield [client.pushpull([entry], worker.now(), priority=-i, unit=i) for i in order]
            except EpochEnded:
                assert round == rounds
        np.testing.assert_array_equal(weights, data.weights_after(rounds))
        done = yield client.end_epoch(worker.now())
        assert done == tuple(rounds + (rank == 1) for rank in range(num_workers))

    run(Simulator(seed, num_workers, 1 + seed % 2, program, **CHAOS))


@pytest.mark.parametrize("network", [{}, CHAOS], ids=["calm", "chaos"])
@pytest.mark.parametrize("seed", range(6))
def test_unequal_numbers_of_batches_end_every_epoch_together(seed: int, network: dict[str, float]) -> None:
    """Of each epoch the rounds in which the shortest rank took part are applied, and no others, anywhere."""
    num_workers = 2 + seed % 3
    rng = random.Random(seed)
    batches = [[rng.randint(0, 4) for _ in range(num_workers)] for _ in range(3)]
    total = sum(min(of_epoch) for of_epoch in batches)
    data, results, dropped = Data(seed, num_workers, total + 5), {}, set()

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        done = 0
        for epoch, of_epoch in enumerate(batches):
            before = done
            for _ in range(of_epoch[rank]):
                previous = weights.copy()
                try:
                    yield client.pushpull([("w", data.grads[done, rank].copy(), [weights])], worker.now())
                except EpochEnded:
                    dropped.add((epoch, rank))
                    yield client.pull([("w", [weights])], worker.now())
                    np.testing.assert_array_equal(weights, previous)
                    break
                done += 1
            rounds = yield client.end_epoch(worker.now())
            assert done - before == min(of_epoch) and client.epoch == epoch + 1
            assert rounds == tuple(min(count, min(of_epoch) + 1) for count in of_epoch)
        yield client.pull([("w", [weights])], worker.now())
        results[rank] = weights

    run(Simulator(seed, num_workers, 3, program, **network))
    assert dropped == {(e, r) for e, of in enumerate(batches) for r in range(num_workers) if of[r] > min(of)}
    for weights in results.values():
        np.testing.assert_array_equal(weights, data.weights_after(total))


@pytest.mark.parametrize("network", [{}, CHAOS], ids=["calm", "chaos"])
@pytest.mark.parametrize("victim", ["worker process 1", "server process 0", SCHEDULER])
@pytest.mark.parametrize("seed", range(4))
def test_a_death_is_named_by_everyone_else_within_the_deadline(
    seed: int, victim: str, network: dict[str, float]
) -> None:
    data, died_at = Data(seed, 3, 1), 107.0 + seed * 1.37

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        while True:
            if seed % 2:
                yield client.pushpull([("w", data.grads[0, rank].copy(), [weights])], worker.now())
            yield client.barrier(worker.now())

    simulator = Simulator(seed, 3, 2, program, **network)
    simulator.kill(victim, died_at)
    run(simulator, clean=False)
    dead = simulator.processes[victim]
    pid = "" if victim == SCHEDULER else f"(pid {dead.state.member.join.pid} on host"
    for process in simulator.processes.values():
        if process is dead:
            continue
        # A worker may have heard of it from a server, and be leaving, before the scheduler tells it.
        error = process.error if isinstance(process, Worker) else process.lost and process.lost.error
        assert isinstance(error, PeerLostError), process
        assert victim.split()[0] in str(error) and pid in str(error)
        assert process.exit is not None and process.exit.error is not None
        if isinstance(process, Worker):
            # The timeout, a heartbeat to hear of it, and what the network adds to both.
            assert process.error_at is not None
            assert process.error_at - died_at < 10.0 + (1.5 if not network else 8.0)


@pytest.mark.parametrize("victim", ["worker process 1", "server process 0"])
@pytest.mark.parametrize("seed", range(3))
def test_a_death_is_heard_of_at_once_where_links_end_with_it(seed: int, victim: str) -> None:
    data, died_at = Data(seed, 3, 1), 107.0 + seed * 1.37

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        while True:
            yield client.pushpull([("w", data.grads[0, rank].copy(), [weights])], worker.now())

    simulator = Simulator(seed, 3, 2, program, shared=True)
    simulator.kill(victim, died_at)
    run(simulator, clean=False)
    dead = simulator.processes[victim]
    for process in simulator.processes.values():
        if process is not dead:
            error = process.error if isinstance(process, Worker) else process.lost and process.lost.error
            assert isinstance(error, PeerLostError) and "all its connections have ended" in str(error)
            assert f"(pid {dead.state.member.join.pid} on host" in str(error)
            assert process.exited_at is not None and process.exited_at < died_at + 1.0  # of a timeout of 10
        if isinstance(process, Worker) and process is not dead:
            assert "pushpull('w') was waiting in round" in str(process.error)


@pytest.mark.parametrize("network", [{}, CHAOS], ids=["calm", "chaos"])
@pytest.mark.parametrize("seed", range(3))
def test_links_that_end_because_a_worker_has_left_end_no_job(seed: int, network: dict[str, float]) -> None:
    data = Data(seed, 3, 1)

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        yield client.pushpull([("w", data.grads[0, rank].copy(), [weights])], worker.now())
        for _ in range(10 * rank):  # and so they leave one after the other
            yield client.pull([("w", [weights])], worker.now())

    run(Simulator(seed, 3, 2, program, shared=True, **network))


@pytest.mark.parametrize("seed", range(4))
def test_an_error_in_one_worker_reaches_the_others_at_once(seed: int) -> None:
    data = Data(seed, 3, 1)

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        if rank == 1:
            raise ValueError("no data")
        yield client.pushpull([("w", data.grads[0, rank].copy(), [weights])], worker.now())

    simulator = run(Simulator(seed, 3, 2, program), clean=False)
    for worker in simulator.ranked():
        if worker.client.member.rank != 1:
            assert isinstance(worker.error, PeerLostError)
            assert "worker 1 " in str(worker.error) and "ValueError: no data" in str(worker.error)
    assert simulator.now < 110


def test_a_worker_that_leaves_early_fails_those_who_wait_for_it() -> None:
    data = Data(0, 2, 2)

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        for round in range(1 + rank):
            yield client.pushpull([("w", data.grads[round, rank].copy(), [weights])], worker.now())

    simulator = run(Simulator(0, 2, 2, program), clean=False)
    stayed = simulator.ranked()[1]
    assert isinstance(stayed.error, PeerLostError) and "worker 0" in str(stayed.error)


@pytest.mark.parametrize("change", ["shape", "order", "config", "missing"])
def test_workers_that_differ_are_all_told(change: str) -> None:
    def program(worker: Worker) -> Any:
        client, rank = worker.client, worker.client.member.rank
        layout = FlatLayout.plan([(0, "x", (4 + (rank == 2 and change == "shape"),))], "float32")
        values = np.zeros(layout.size, "f4")
        for key in ("a", "b") if rank < 2 or change != "order" else ("b", "a"):
            if change == "missing" and rank == 2 and key == "b":
                return
            yield client.init(key, layout, values, worker.now())
        yield client.set_optimizer({"rate": 0.1 if rank < 2 or change != "config" else 0.2}, worker.now())
        yield client.barrier(worker.now())

    simulator = run(Simulator(3, 3, 2, program), clean=False)
    errors = [worker.error for worker in simulator.ranked()]
    expected = {
        "shape": "'x': shape",
        "order": "in the same order",
        "config": "rate is",
        "missing": "worker 2",
    }
    for error in errors[:2] if change == "missing" else errors:
        kind = PeerLostError if change == "missing" else (InvalidArgument, PeerLostError)
        assert isinstance(error, kind)
    assert any(expected[change] in str(error) for error in errors)


def test_a_slow_worker_is_waited_for_and_then_named() -> None:
    data = Data(0, 2, 1)

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)
        if rank == 0:
            yield client.pushpull([("w", data.grads[0, rank].copy(), [weights])], worker.now())
        else:
            yield client.barrier(worker.now())

    simulator = run(Simulator(0, 2, 1, program, wait_s=60.0), clean=False)
    first, second = simulator.ranked()
    assert isinstance(first.error, DeadlineError | PeerLostError)
    texts = f"{first.error} {second.error}"
    assert "still waits for worker 1" in texts or "still waits for worker 0" in texts
    assert 160 < simulator.now < 190


def test_a_worker_of_another_build_is_refused_with_both_values() -> None:
    def program(worker: Worker) -> Any:
        yield worker.client.barrier(worker.now())

    simulator = Simulator(0, 2, 1, program, fingerprints={0: {"numpy": "1.26"}, 1: {"numpy": "2.4"}})
    run(simulator, clean=False)
    refused = [p for p in simulator.workers if isinstance(p.lost and p.lost.error, JoinRefusedError)]
    assert any("1.26" in str(p.lost.error) and "2.4" in str(p.lost.error) for p in refused if p.lost)
    assert all(p.exit is not None for p in simulator.processes.values())


@pytest.mark.parametrize("seed", range(3))
def test_optimizer_states_survive_a_round_trip(seed: int) -> None:
    data, results = Data(seed, 2, 4), {}

    def program(worker: Worker) -> Any:
        client, rank, weights = yield from setup(worker, data)

        def train(rounds: range) -> Any:
            for round in rounds:
                yield client.pushpull([("w", data.grads[round, rank].copy(), [weights])], worker.now())

        yield from train(range(2))
        states = yield client.get_states(["w"], worker.now())
        assert [state.count for state in states] == [2] * len(states)
        yield client.barrier(worker.now())
        yield client.set_optimizer(CONFIG, worker.now())  # begins with new states
        if rank == 0:
            yield client.set_states(states, worker.now())
        yield client.barrier(worker.now())
        yield from train(range(2, 4))
        results[rank] = weights

    run(Simulator(seed, 2, 2, program, **CHAOS))
    for weights in results.values():
        np.testing.assert_array_equal(weights, data.weights_after(4))


def test_a_run_is_the_same_for_the_same_seed() -> None:
    def once() -> tuple[float, int]:
        data = Data(1, 2, 1)

        def program(worker: Worker) -> Any:
            client, rank, weights = yield from setup(worker, data)
            yield client.pushpull([("w", data.grads[0, rank].copy(), [weights])], worker.now())

        simulator = run(Simulator(11, 2, 2, program, **CHAOS))
        return simulator.now, next(simulator._count)

    first: Callable[[], tuple[float, int]] = once
    assert first() == once()
