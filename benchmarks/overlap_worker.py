"""One worker of benchmarks/overlap.py: trains by `Module.fit`, and can record what happens when in a step."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dmod as mx
from benchmarks.jobs import answer, requests
from benchmarks.scaling_worker import fit

LAYERS, WIDTH, BATCH, DISTINCT = 8, 1024, 128, 4


def network() -> Any:
    """A perceptron of 8 layers of 1024: 33 MB of parameters."""
    net = mx.sym.Variable("data")
    for i in range(LAYERS):
        net = mx.sym.FullyConnected(net, name=f"fc{i}", num_hidden=WIDTH)
        net = mx.sym.Activation(net, name=f"relu{i}", act_type="relu")
    net = mx.sym.FullyConnected(net, name="out", num_hidden=10)
    return mx.sym.SoftmaxOutput(net, name="softmax")


class Recorder:
    """What a worker does when: spans of computing and of units on their way, in seconds."""

    def __init__(self, module: Any, store: Any):
        self.events: list[tuple[str, float, float]] = []
        self._begun: dict[int, float] = {}
        client = store._client
        executor = module._group("overlap").execs[0]
        begin, results = client.begin, client._results
        recorder = self

        class Results(dict):  # type: ignore[type-arg]
            def __setitem__(self, number: int, result: Any) -> None:
                if number in recorder._begun:
                    recorder.events.append(("unit", recorder._begun.pop(number), time.perf_counter()))
                super().__setitem__(number, result)

        def recorded_begin(operation: Any, *args: Any, **kwargs: Any) -> int:
            now = time.perf_counter()
            number = int(begin(operation, *args, **kwargs))
            self._begun[number] = now
            return number

        client._results = Results(results)
        client.begin = recorded_begin
        for name in ("forward", "backward"):
            setattr(executor, name, self._timed(name, getattr(executor, name)))
        module._strategy.update = self._timed("update", module._strategy.update)

    def _timed(self, name: str, call: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.events.append((name, begin, time.perf_counter()))

        return timed


def main() -> None:
    logging.disable(logging.WARNING)  # fit says each time that the module is bound already
    kv = mx.kv.create("dist_sync")
    rng = np.random.RandomState(kv.rank)
    data = rng.standard_normal((DISTINCT * BATCH, WIDTH)).astype("float32")
    label = rng.randint(10, size=DISTINCT * BATCH).astype("float32")
    source = mx.io.NDArrayIter(data, label, BATCH)
    module = mx.mod.Module(network())

    recorder: Recorder | None = None
    for request in requests():
        if request.get("record"):
            recorder = recorder or Recorder(module, kv)
            recorder.events.clear()
        kv.barrier()
        begin = time.perf_counter()
        fit(mx, module, source, kv, request["batches"])
        events = recorder.events if recorder is not None and request.get("record") else []
        answer({"seconds": time.perf_counter() - begin, "begin": begin, "events": events})
    kv.close()


if __name__ == "__main__":
    main()
