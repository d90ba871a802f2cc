"""`Module.fit` in clusters of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from tests.cluster import modules
from tests.cluster.cluster import Cluster

MODULES = Path(__file__).with_name("modules.py")


def run(directory: Path, program: str, *arguments: object, workers: int = 2, servers: int = 1) -> list[str]:
    with Cluster(directory, workers, servers) as cluster:
        return cluster.run_script(MODULES, program, directory, *arguments)


def equal(one: Path, other: Path) -> None:
    first, second = np.load(one), np.load(other)
    assert sorted(first.files) == sorted(second.files)
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], name)


def test_workers_with_unequal_numbers_of_batches_end_every_epoch_together(tmp_path: Path) -> None:
    outputs = run(tmp_path, "unequal", 3, 5, servers=2)
    equal(tmp_path / "unequal0.npz", tmp_path / "unequal1.npz")
    (tmp_path / "unequal0.npz").rename(tmp_path / "longer.npz")
    assert "worker 0 had no batch left" in outputs[1] and "Epoch[2] Train-accuracy" in outputs[1]
    run(tmp_path, "unequal", 3, 3)  # what was dropped has left no trace, in no state and no random number
    equal(tmp_path / "longer.npz", tmp_path / "unequal0.npz")


def test_the_modules_of_a_chain_end_every_epoch_together(tmp_path: Path) -> None:
    run(tmp_path, "chain", 3, 5)
    equal(tmp_path / "chain0.npz", tmp_path / "chain1.npz")
    (tmp_path / "chain0.npz").rename(tmp_path / "longer.npz")
    run(tmp_path, "chain", 3, 3)  # what was dropped has left no trace, in either module
    equal(tmp_path / "longer.npz", tmp_path / "chain0.npz")


def test_a_job_resumed_from_a_checkpoint_ends_with_the_bits_of_the_whole(tmp_path: Path) -> None:
    run(tmp_path, "train", "whole", 0, 4, servers=2)
    run(tmp_path, "train", "half", 0, 2, servers=2)
    run(tmp_path, "train", "resumed", 2, 4, servers=1)  # states do not depend on the number of servers
    equal(tmp_path / "whole0.npz", tmp_path / "whole1.npz")
    equal(tmp_path / "whole0.npz", tmp_path / "resumed0.npz")
    equal(tmp_path / "whole0.npz", tmp_path / "resumed1.npz")


def test_symbols_that_differ_between_workers_are_named_to_both(tmp_path: Path) -> None:
    with Cluster(tmp_path, 2, 1, DMOD_TIMEOUT_S=3) as cluster:
        cluster.start_nodes()
        for worker in [cluster.start_script(rank, MODULES, "symbols", tmp_path) for rank in range(2)]:
            assert worker.wait() != 0
            assert "fc1_weight" in worker.output and "(16, 6)" in worker.output, worker.output
            assert "(17, 6)" in worker.output, worker.output


@pytest.mark.parametrize("servers", [1, 2])
def test_two_modules_may_ask_for_the_store_by_name(tmp_path: Path, servers: int) -> None:
    run(tmp_path, "twice", servers=servers)
    for i in range(2):
        equal(tmp_path / f"twice{i}0.npz", tmp_path / f"twice{i}1.npz")


@pytest.mark.parametrize("on_servers", [True, False])
def test_what_a_worker_writes_to_its_weights_is_nobody_elses(tmp_path: Path, on_servers: bool) -> None:
    settings = {"DMOD_UPDATE_ON_KVSTORE": int(on_servers), "DMOD_UNIT_BYTES": 65536}
    for transport in ("auto", "tcp"):
        (tmp_path / transport).mkdir()
        with Cluster(tmp_path, 2, 2, DMOD_TRANSPORT=transport, **settings) as cluster:
            cluster.run_script(MODULES, "scribbles", tmp_path / transport)
            said = "".join(process.output for process in cluster.processes.values())
            assert said.count("last until the next update only") == 2 * on_servers  # once by each worker
            assert ("lr 0.1 -> 0.2), and the servers go on" in said) == on_servers, said
    for rank in range(2):
        equal(tmp_path / "auto" / f"scribbles{rank}.npz", tmp_path / "tcp" / f"scribbles{rank}.npz")
        assert int((tmp_path / "auto" / f"shown{rank}").read_text()) >= 4 * 4096 * modules.FEATURES
        assert (tmp_path / "tcp" / f"shown{rank}").read_text() == "0"
    if on_servers:  # whose weights are everybody's again after the next update
        equal(tmp_path / "auto" / "scribbles0.npz", tmp_path / "auto" / "scribbles1.npz")


def summed_by_hand() -> dict[str, np.ndarray]:
    """What two workers on different buckets must arrive at: plain modules, and SGD with momentum in numpy."""
    mx.random.seed(1)
    whole = mx.mod.BucketingModule(modules.unrolled, default_bucket_key=4)
    data = [modules.Lengths(order, rank) for rank, order in enumerate(modules.ORDERS)]
    whole.bind(data[0].provide_data, data[0].provide_label)
    whole.init_params(mx.init.Xavier())
    weights = {name: value.asnumpy().copy() for name, value in whole.get_params()[0].items()}
    momentum = {name: np.zeros_like(value) for name, value in weights.items()}
    for step in [*range(4)] * 2:
        total = {name: np.zeros_like(value) for name, value in weights.items()}
        for worker in data:
            batch = worker.batches[step]
            executor = modules.unrolled(batch.bucket_key)[0].simple_bind(
                mx.cpu(), data=batch.data[0].shape, softmax_label=batch.label[0].shape
            )
            executor.copy_params_from(
                {name: mx.nd.array(value) for name, value in weights.items()}, allow_extra_params=True
            )
            executor.forward(is_train=True, data=batch.data[0], softmax_label=batch.label[0])
            executor.backward()
            for name, grad in executor.grad_dict.items():
                if name in total:
                    total[name] += grad.asnumpy()
        for name, value in weights.items():
            momentum[name] = 0.9 * momentum[name] - 0.1 * total[name] / (2 * modules.BATCH)
            weights[name] = value + momentum[name]
    return weights


def test_workers_whose_buckets_differ_in_the_same_step_stay_equal(tmp_path: Path) -> None:
    run(tmp_path, "buckets")
    equal(tmp_path / "buckets0.npz", tmp_path / "buckets1.npz")
    trained, expected = np.load(tmp_path / "buckets0.npz"), summed_by_hand()
    assert sorted(trained.files) == sorted(expected)
    for name in trained.files:
        np.testing.assert_allclose(trained[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
