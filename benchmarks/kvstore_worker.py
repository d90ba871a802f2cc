"""One worker of benchmarks/kvstore.py: ``kvstore_worker.py dmod|mxnet|gloo sum|sgd [scale]``.

Runs under MXNet's and torch's Python as well as under dmod's. A request names a workload and a number of
rounds; the answer is the seconds that they took. A round is what a training step asks of the store:
the sum of all gradients, over all workers, in every worker.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.jobs import answer, requests
from benchmarks.kvstore_shapes import WORKLOADS

BUCKET_NBYTES = 25 << 20
"""What torch's DistributedDataParallel joins gradients into."""

Round = Callable[[], None]
Value = Callable[[], float]


class ParameterServer:
    """dmod's or MXNet's store, by keys, as both have it."""

    def __init__(self, package: str, optimizer: str):
        self.mx: Any = importlib.import_module(package)
        self.kv = self.mx.kv.create("dist_sync")
        self.rank, self.num_workers = self.kv.rank, self.kv.num_workers
        self.optimizer = optimizer
        if optimizer == "sgd":
            self.kv.set_optimizer(self.mx.optimizer.create("sgd", learning_rate=0.01, momentum=0.9))

    def prepare(self, shapes: dict[str, tuple[int, ...]], name: str) -> tuple[Round, Value]:
        mx, kv = self.mx, self.kv
        keys = [f"{name}:{key}" for key in shapes]
        grads = [mx.nd.full(shape, self.rank + 1.0) for shape in shapes.values()]
        outs = [mx.nd.zeros(shape) for shape in shapes.values()]
        kv.init(keys, [mx.nd.zeros(shape) for shape in shapes.values()])
        if mx.__name__ == "dmod":

            def one_round() -> None:
                kv.pushpull(keys, grads, out=outs)
        else:

            def one_round() -> None:
                kv.push(keys, grads)
                kv.pull(keys, out=outs)
                mx.nd.waitall()

        return one_round, lambda: float(outs[-1].reshape((-1,))[0].asscalar())

    def barrier(self) -> None:
        self.kv._barrier()

    def close(self) -> None:
        if hasattr(self.kv, "close"):
            self.kv.close()


class FlatStore(ParameterServer):
    """dmod's store as `Module` uses it: all arrays in one flat buffer."""

    def prepare(self, shapes: dict[str, tuple[int, ...]], name: str) -> tuple[Round, Value]:
        from dmod.kvstore.transports.segments import gradient_buffer
        from dmod.kvstore.transports.windows import open_window, weights_buffer
        from dmod.ndarray.flat import FlatLayout

        layout = FlatLayout.plan([(i, key, shapes[key]) for i, key in enumerate(shapes)], "float32")
        grads, outs = (make(layout.size, layout.dtype) for make in (gradient_buffer, weights_buffer))
        grads[:] = self.rank + 1.0
        key = f"flat:{name}"
        self.kv.init_flat(key, layout, [outs], mode="sum" if self.optimizer == "sum" else "update")
        open_window(outs, key)
        last = layout.segments[-1].start
        return lambda: self.kv.pushpull_flat(key, [grads], [outs]), lambda: float(outs[last])


class Gloo:
    """torch.distributed, by buckets, as DistributedDataParallel sums gradients."""

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist

        self.torch, self.dist = torch, dist
        dist.init_process_group("gloo")
        self.rank, self.num_workers = dist.get_rank(), dist.get_world_size()

    def prepare(self, shapes: dict[str, tuple[int, ...]], name: str) -> tuple[Round, Value]:
        sizes, limit = [int(np.prod(shape)) for shape in shapes.values()], BUCKET_NBYTES // 4
        counts = [0]
        for size in sizes:
            if counts[-1] and counts[-1] + size > limit:
                counts.append(0)
            counts[-1] += size
        buckets = [self.torch.zeros(count) for count in counts]

        def one_round() -> None:
            works = [self.dist.all_reduce(bucket, async_op=True) for bucket in buckets]
            for work in works:
                work.wait()

        def value() -> float:
            for bucket in buckets:
                bucket.fill_(self.rank + 1.0)
            one_round()
            return float(buckets[-1][0])

        return one_round, value

    def barrier(self) -> None:
        self.dist.barrier()

    def close(self) -> None:
        self.dist.destroy_process_group()


def main() -> None:
    system, optimizer = sys.argv[1], sys.argv[2]
    divide = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    store: Any
    if system == "gloo":
        store = Gloo()
    elif system == "dmod-flat":
        store = FlatStore("dmod", optimizer)
    else:
        store = ParameterServer(system, optimizer)
    prepared: dict[str, tuple[Round, Value]] = {}
    for request in requests():
        name, rounds = request["workload"], request["rounds"]
        if name not in prepared:
            prepared[name] = store.prepare(WORKLOADS[name](divide), name)
            prepared[name][0]()
            if optimizer == "sum":
                expected = store.num_workers * (store.num_workers + 1) / 2
                if (got := prepared[name][1]()) != expected:
                    raise SystemExit(f"{system}: {name}: the sum is {got}, expected {expected}")
        store.barrier()
        begin = time.perf_counter()
        for _ in range(rounds):
            prepared[name][0]()
        answer({"seconds": time.perf_counter() - begin})
    store.close()


if __name__ == "__main__":
    main()
