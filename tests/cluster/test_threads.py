"""A whole cluster as threads of one process: the same loops and states over the inproc transport."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dmod.base import InvalidArgument, KVStoreError, MXNetError, NotReadyError, PeerLostError
from dmod.config import Settings
from dmod.kvstore import KVStoreType
from dmod.kvstore.client import Client
from dmod.kvstore.dist import DistStore
from dmod.kvstore.scheduler import schedule
from dmod.kvstore.server import serve
from dmod.kvstore.transports.inproc import InprocTransport
from dmod.kvstore.tree import tree_sum
from dmod.ndarray.ndarray import NDArray, zeros

SCHEDULER = "inproc://scheduler"
DEADLINE_S = 60.0


def run_cluster(num_workers: int, num_servers: int, work: Callable[[DistStore], Any]) -> list[Any]:
    """Run `work` in every worker; returns what each returned or raised, then the nodes' errors if any."""
    settings = Settings(
        num_workers=num_workers, num_servers=num_servers, timeout_s=20, heartbeat_s=1, unit_bytes=4096
    )
    transport = InprocTransport()
    endpoints = [transport.endpoint() for _ in range(1 + num_servers)]
    endpoints[0].bind(SCHEDULER)
    results: list[Any] = [None] * (num_workers + 1 + num_servers)

    def worker(rank: int) -> Any:
        client = Client(
            Settings(**{**settings.__dict__, "rank": rank}), transport=transport, scheduler=SCHEDULER
        )
        kv, error = DistStore(KVStoreType.parse("dist_sync"), client), ""
        try:
            return work(kv)
        except ZeroDivisionError as caught:
            error = str(caught)
            raise
        finally:
            client.close(error)

    def server(number: int) -> None:
        address = endpoints[1 + number].bind("inproc://server:0")
        serve(settings, endpoints[1 + number], SCHEDULER, [address])

    jobs: list[Callable[[], Any]] = [lambda rank=rank: worker(rank) for rank in range(num_workers)]
    jobs.append(lambda: schedule(settings, endpoints[0]))
    jobs += [lambda number=number: server(number) for number in range(num_servers)]

    def run(slot: int, job: Callable[[], Any]) -> None:
        try:
            results[slot] = job()
        except (MXNetError, ZeroDivisionError) as error:
            results[slot] = error

    threads = [threading.Thread(target=run, args=entry, daemon=True) for entry in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "a node of the cluster has not ended"
    return results


@pytest.mark.parametrize(("num_workers", "num_servers"), [(1, 1), (3, 2), (5, 1)])
def test_every_worker_gets_the_tree_s_sum(num_workers: int, num_servers: int) -> None:
    values = [np.random.default_rng(rank).normal(size=(70, 50)).astype(np.float32) for rank in range(5)]

    def work(kv: DistStore) -> np.ndarray:
        out = zeros((70, 50))
        kv.broadcast("w", NDArray(values[kv.rank] + 1), out=out)
        assert np.array_equal(out.asnumpy(), values[0] + 1)
        for step in range(3):
            kv.pushpull("w", NDArray(values[(kv.rank + step) % kv.num_workers]), out=out)
        kv.barrier()
        return out.asnumpy()

    results = run_cluster(num_workers, num_servers, work)
    expected = tree_sum([values[(rank + 2) % num_workers] for rank in range(num_workers)])
    for result in results[:num_workers]:
        np.testing.assert_array_equal(result, expected)
    assert results[num_workers:] == [None] * (1 + num_servers)


def test_the_error_of_one_worker_reaches_all_others_and_the_nodes() -> None:
    def work(kv: DistStore) -> None:
        kv.init("w", zeros((3,)))
        if kv.rank == 1:
            raise ZeroDivisionError("a mistake of mine")
        kv.pushpull("w", zeros((3,)))

    results = run_cluster(2, 1, work)
    assert isinstance(results[0], PeerLostError) and isinstance(results[1], ZeroDivisionError)
    for error in (results[0], *results[2:]):
        assert "worker 1" in str(error) and "a mistake of mine" in str(error)


def test_misuse_changes_nothing() -> None:
    def work(kv: DistStore) -> float:
        kv.init("w", zeros((3, 4)))
        with pytest.raises(InvalidArgument, match=r"push\('w'\): shape \(4, 3\), initialised as \(3, 4\)"):
            kv.push("w", zeros((4, 3)))
        with pytest.raises(InvalidArgument, match="initialised already"):
            kv.init("w", zeros((3, 4)))
        with pytest.raises(NotReadyError, match="set_optimizer"):
            kv.get_optimizer_states()
        with pytest.raises(KVStoreError, match="set_optimizer"):
            kv._set_updater(lambda key, grad, weight: None)
        out = zeros((3, 4))
        kv.pushpull("w", [NDArray(np.full((3, 4), 2, np.float32))] * 2, out=[out, out])
        return float(out.asnumpy()[2, 3])

    assert run_cluster(2, 1, work) == [8, 8, None, None]
