"""A whole cluster as threads of one process: the same loops and states over the inproc transport."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dmod import symbol as sym
from dmod.base import InvalidArgument, KVStoreError, MXNetError, NotReadyError, PeerLostError
from dmod.config import Settings
from dmod.io import NDArrayIter
from dmod.kvstore import KVStoreType
from dmod.kvstore.client import Client
from dmod.kvstore.dist import DistStore
from dmod.kvstore.scheduler import schedule
from dmod.kvstore.server import serve
from dmod.kvstore.transports.inproc import InprocTransport
from dmod.kvstore.tree import tree_sum
from dmod.module import Module
from dmod.monitor import Monitor
from dmod.ndarray.flat import FlatLayout
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


def interrupted_once(client: Client) -> None:
    """Let Ctrl-C come the next time that `client` waits for an answer."""
    step = client._step

    def interrupt() -> None:
        client._step = step  # type: ignore[method-assign]
        raise KeyboardInterrupt

    client._step = interrupt  # type: ignore[method-assign]


def test_what_ctrl_c_has_interrupted_is_waited_for_before_gradients_change() -> None:
    layout = FlatLayout.plan([(0, "w", (3000,))], "float32")

    def work(kv: DistStore) -> list[float]:
        grads, outs = layout.allocate(), layout.allocate()
        kv.init_flat("w", layout, [outs])
        grads[:] = kv.rank + 1
        found = []
        if kv.rank == 0:
            interrupted_once(kv._client)
            with pytest.raises(KeyboardInterrupt):
                kv.pushpull_flat("w", [grads], [outs])
            kv.settle()
            found.append(float(outs.min()))
        else:
            kv.pushpull_flat("w", [grads], [outs])
        kv.pushpull_flat("w", [grads * 10], [outs])
        found.append(float(outs.max()))
        kv.settle()  # nothing is left behind
        return found

    assert run_cluster(2, 2, work)[:2] == [[3.0, 30.0], [30.0]]


def test_a_step_that_was_interrupted_when_units_had_left_cannot_be_repeated() -> None:
    layout = FlatLayout.plan([(0, "w", (3000,))], "float32")

    def work(kv: DistStore) -> float:
        grads, outs = layout.allocate(), layout.allocate()
        kv.init_flat("w", layout, [outs])
        assert len(kv.flat_units("w")) == 3
        grads[:] = 1
        kv.begin_unit("w", 2, [grads], [outs])
        with pytest.raises(NotReadyError, match=r"'w'\): .* 1 of 3 units .* DMOD_OVERLAP=0"):
            kv.settle()
        kv.pushpull_flat("w", [grads], [outs])  # the others leave, and all are waited for
        kv.settle()
        return float(outs.sum())

    assert run_cluster(2, 1, work)[:2] == [2.0 * layout.size] * 2


class Cautious(Module):
    """A module whose gradients may change before they are used."""

    def update(self) -> None:
        super().update()


KINDS: list[tuple[type[Module], dict[str, Any], bool]] = [
    (Module, {}, True),
    (Cautious, {}, False),
    (Module, {"monitor": Monitor(1, pattern="nothing")}, False),
]


@pytest.mark.parametrize(("kind", "options", "leaves_early"), KINDS, ids=["plain", "overridden", "watched"])
def test_gradients_leave_early_only_where_nobody_can_change_them(
    kind: type[Module], options: dict[str, Any], leaves_early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    data, label = rng.normal(size=(24, 8)).astype("f4"), rng.integers(3, size=24).astype("f4")

    def work(kv: DistStore) -> tuple[int, list[np.ndarray]]:
        net = sym.Variable("data")
        for i in range(3):
            net = sym.FullyConnected(net, name=f"fc{i}", num_hidden=40)
        net = sym.SoftmaxOutput(sym.FullyConnected(net, name="out", num_hidden=3), name="softmax")
        module, left = kind(net), []
        begin = kv.begin_unit
        kv.begin_unit = lambda *args: (left.append(args[1]), begin(*args))[1]  # type: ignore[method-assign]
        half = slice(kv.rank, None, 2)
        source = NDArrayIter(data[half], label[half], 4)
        arrays = {name: NDArray(rng_of(name, shape)) for name, shape in shapes_of(net)}
        module.fit(source, num_epoch=2, kvstore=kv, arg_params=arrays, **options)
        return len(left), [array.asnumpy() for _, array in sorted(module.get_params()[0].items())]

    results = {}
    for overlap in ("0", "1"):
        monkeypatch.setenv("DMOD_OVERLAP", overlap)
        outcome = run_cluster(2, 1, work)
        assert outcome[2:] == [None, None]
        (left, weights), (others, same) = outcome[:2]
        assert left == others and bool(left) == (leaves_early and overlap == "1")
        results[overlap] = weights
        for mine, theirs in zip(weights, same, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    for with_overlap, without in zip(results["1"], results["0"], strict=True):
        np.testing.assert_array_equal(with_overlap, without)


def rng_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """First values of an array, by its name."""
    return np.random.default_rng(len(name) + sum(map(ord, name))).normal(size=shape).astype("f4")


def shapes_of(net: Any) -> list[tuple[str, tuple[int, ...]]]:
    """The parameters of a network."""
    shapes = net.infer_shape(data=(4, 8))[0]
    pairs = zip(net.list_arguments(), shapes, strict=True)
    return [(name, shape) for name, shape in pairs if name not in ("data", "softmax_label")]
