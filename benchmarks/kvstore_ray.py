"""The Ray actors of benchmarks/kvstore.py: ``kvstore_ray.py sum|sgd DIVIDE WORKERS SERVERS``.

A parameter server as Ray's users write one: actors that hold the values and add up the gradients which other
actors return, through Ray's object store. This process is the driver, which asks them in turns.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.jobs import answer, requests
from benchmarks.kvstore_shapes import WORKLOADS

RATE, MOMENTUM = np.float32(0.01), np.float32(0.9)


class Server:
    """Some of the keys: their values and momenta."""

    def __init__(self, shapes: list[tuple[int, ...]], optimizer: str):
        self._values = [np.zeros(shape, np.float32) for shape in shapes]
        self._states = [np.zeros(shape, np.float32) for shape in shapes] if optimizer == "sgd" else []

    def update(self, *gradients: list[np.ndarray]) -> list[np.ndarray]:
        """Add up the workers' gradients, and apply them; the new values."""
        for i, (first, *others) in enumerate(zip(*gradients, strict=True)):
            if not self._states:
                np.add(first, others[0], out=self._values[i]) if others else np.copyto(self._values[i], first)
                for other in others[1:]:
                    self._values[i] += other
                continue
            total = sum(others, first)
            self._states[i] *= MOMENTUM
            self._states[i] -= RATE * total
            self._values[i] += self._states[i]
        return self._values


class Worker:
    """Gradients, which stay the same, and a copy of the values."""

    def __init__(self, rank: int, shares: list[list[tuple[int, ...]]]):
        self._gradients = [[np.full(shape, rank + 1.0, np.float32) for shape in share] for share in shares]
        self._values = [[np.zeros(shape, np.float32) for shape in share] for share in shares]

    def gradients(self, server: int) -> list[np.ndarray]:
        """What one server gets."""
        return self._gradients[server]

    def take(self, *values: list[np.ndarray]) -> None:
        """The new values of all servers."""
        for own, given in zip(self._values, values, strict=True):
            for array, value in zip(own, given, strict=True):
                array[...] = value

    def last(self) -> float:
        """An element of the last value."""
        return float(self._values[-1][-1].reshape(-1)[-1])


class Actors:
    """The actors for one workload."""

    def __init__(self, ray: Any, shapes: list[tuple[int, ...]], optimizer: str, workers: int, servers: int):
        servers = min(servers, len(shapes))
        shares = [shapes[server::servers] for server in range(servers)]
        remote = ray.remote(num_cpus=0)
        self._ray = ray
        self.servers = [remote(Server).remote(share, optimizer) for share in shares]
        self.workers = [remote(Worker).remote(rank, shares) for rank in range(workers)]

    def round(self) -> None:
        """One push and pull of everything."""
        new = [
            server.update.remote(*[worker.gradients.remote(i) for worker in self.workers])
            for i, server in enumerate(self.servers)
        ]
        self._ray.get([worker.take.remote(*new) for worker in self.workers])

    def last(self) -> float:
        """See `Worker.last`."""
        value: float = self._ray.get(self.workers[0].last.remote())
        return value

    def end(self) -> None:
        """Free their memory."""
        for actor in (*self.servers, *self.workers):
            self._ray.kill(actor)


def main() -> None:
    optimizer, divide, workers, servers = sys.argv[1], *map(int, sys.argv[2:5])
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=2 << 30,
        log_to_driver=False,
        logging_level="ERROR",
    )
    name, actors = "", None
    try:
        for request in requests():
            if request["workload"] != name:
                if actors is not None:
                    actors.end()
                name = request["workload"]
                actors = Actors(ray, list(WORKLOADS[name](divide).values()), optimizer, workers, servers)
                actors.round()
                if optimizer == "sum" and (got := actors.last()) != (expected := workers * (workers + 1) / 2):
                    raise SystemExit(f"Ray: {name}: the sum is {got}, expected {expected}")
            assert actors is not None
            begin = time.perf_counter()
            for _ in range(request["rounds"]):
                actors.round()
            answer({"seconds": time.perf_counter() - begin})
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
