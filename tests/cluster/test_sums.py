"""What workers get from servers is the fixed tree's sum, bit for bit, whatever carries it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dmod.kvstore import create
from dmod.kvstore.tree import tree_sum
from tests.cluster.cluster import Cluster
from tests.cluster.programs import KEYS, LAYOUT, STEPS, first_weights, sgd, train, value


@pytest.mark.parametrize(("transport", "num_servers"), [("shm", 1), ("shm", 3), ("ipc", 1), ("tcp", 3)])
def test_sums_and_updates_have_the_bits_of_one_process(
    tmp_path: Path, transport: str, num_servers: int
) -> None:
    with Cluster(tmp_path, 2, num_servers, DMOD_TRANSPORT=transport, DMOD_UNIT_BYTES=1 << 16) as cluster:
        cluster.run("sums")
    results = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(2)]
    for name in results[0].files:
        np.testing.assert_array_equal(results[0][name], results[1][name], err_msg=name)
    for key in KEYS:
        assert not results[0][f"init {key}"].any()  # rank 0's
        for step, call in enumerate(("push", "pushpull")):
            expected = tree_sum([value(key, slot, step) for slot in range(4)])
            np.testing.assert_array_equal(results[0][f"{call} {key}"], expected)
    kv, weights = create("local"), [first_weights() for _ in range(4)]
    kv.init_flat("flat", LAYOUT, weights)
    kv.set_optimizer(sgd())
    train(kv, weights, range(STEPS))
    np.testing.assert_array_equal(results[0]["weights"], weights[0])


@pytest.mark.parametrize(("num_workers", "num_servers"), [(2, 2), (3, 1)])
def test_what_compiled_code_carries_has_the_same_bits(
    tmp_path: Path, num_workers: int, num_servers: int
) -> None:
    for transport in ("auto", "tcp"):
        (tmp_path / transport).mkdir()
        with Cluster(
            tmp_path / transport, num_workers, num_servers, DMOD_TRANSPORT=transport, DMOD_UNIT_BYTES=1 << 15
        ) as cluster:
            cluster.run("trips", 150)
    for rank in range(num_workers):
        fast, slow = (np.load(tmp_path / transport / f"rank{rank}.npz") for transport in ("auto", "tcp"))
        np.testing.assert_array_equal(fast["weights"], slow["weights"])
        assert fast["trips"] > 80 and slow["trips"] == 0


def test_a_step_may_be_interrupted_anywhere(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1) as cluster:
        cluster.run("interrupted_anywhere")
        said = [process.output for name, process in cluster.processes.items() if name.startswith("worker")]
    assert any("all calls interrupted: True" in text for text in said), said
    assert all(int(text.split("trips ")[1].split(",")[0]) > 50 for text in said), said


def test_where_shared_memory_is_used_up_arrays_travel_through_sockets(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1, DMOD_UNIT_BYTES=1 << 16, DMOD_SHM_BYTES=1 << 17) as cluster:
        cluster.run("sums")
        for process in cluster.processes.values():
            told = "no shared memory for" in process.output and "DMOD_SHM_BYTES=131072" in process.output
            assert told == (process.name != "scheduler"), f"{process.name}:\n{process.output}"
    for key in KEYS:
        expected = tree_sum([value(key, slot, 1) for slot in range(4)])
        for rank in range(2):
            np.testing.assert_array_equal(np.load(tmp_path / f"rank{rank}.npz")[f"pushpull {key}"], expected)


def test_optimizer_states_are_gathered_from_and_scattered_to_all_servers(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 3, DMOD_UNIT_BYTES=1 << 14) as cluster:
        cluster.run("states")
    momenta = [np.load(tmp_path / f"rank{rank}.npz")["momentum"] for rank in range(2)]
    np.testing.assert_array_equal(*momenta)
    assert momenta[0].shape == (64, 301) and momenta[0].all()
    assert (tmp_path / "rank0.states").read_bytes() == (tmp_path / "rank1.states").read_bytes()
