"""How copies of batches lie beside computing: one training with copies ahead, and one without.

    python benchmarks/input_overlap.py [--gpu] [--json FILE]

Without `--gpu` the device is the stand-in that tests use: numpy in a thread, and copies at a speed that is
set (`--mb-per-s`), so that a step's copy takes about half as long as its backward pass. The stand-in computes
its forward pass while the host waits, so copies can only lie beside the backward pass. What it shows is that
the waiting is right and the overlap real; how long a GPU takes it cannot show. With `--gpu` the first GPU
trains, and only times per step are printed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("DMOD_NUM_THREADS", "1")  # of the stand-in: the other processor is the host's

import dmod as mx
from dmod.device import synchronize
from dmod.device.standin import stand_in_gpus

BATCHES, WARM = 12, 3
WIDTH = 72  # of the picture


class Timeline:
    """When each piece of work began and ended, on which stream; seconds."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, float, float]] = []
        self._began: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, stream: str, work: str, moment: str) -> None:
        now = time.perf_counter()
        with self._lock:
            if moment == "begin":
                self._began[stream] = now
            else:
                self.spans.append((stream, work, self._began.pop(stream), now))


def train(batch: int, hidden: int) -> list[float]:
    """Seconds of the steps of the second epoch."""
    net = mx.sym.Variable("data")
    for i in range(2):
        net = mx.sym.FullyConnected(net, num_hidden=hidden, name=f"fc{i}")
        net = mx.sym.Activation(net, act_type="relu", name=f"relu{i}")
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=10, name="last"), name="softmax")
    rng = np.random.RandomState(0)
    rows = batch * (BATCHES + WARM)
    data = mx.io.NDArrayIter(rng.rand(rows, 4096).astype("float32"), rng.randint(0, 10, rows), batch)
    ends: list[float] = []

    def note(param: Any) -> None:
        ends.append(time.perf_counter())

    mx.mod.Module(net, context=mx.gpu(0)).fit(
        data, num_epoch=1, initializer=mx.init.Xavier(), batch_end_callback=note
    )
    synchronize()
    return np.diff(ends)[WARM - 1 :].tolist()


def picture(spans: list[tuple[str, str, float, float]]) -> list[str]:
    """Two steps as text: `F` forward, `B` backward, `C` copy, `.` waiting for an event."""
    forwards = [span for span in spans if span[1] == "forward"]
    begin, end = forwards[-4][2], forwards[-2][2]
    lines = []
    for stream in ("gpu(0) computes", "gpu(0) copies"):
        row = [" "] * WIDTH
        for name, work, start, stop in spans:
            if name == stream and stop > begin and start < end:
                first, last = (int((t - begin) / (end - begin) * WIDTH) for t in (start, stop))
                for place in range(max(first, 0), min(max(last, first + 1), WIDTH)):
                    row[place] = {"forward": "F", "backward": "B", "copy": "C"}.get(work, ".")
        lines.append(f"{stream:16}|{''.join(row)}|")
    return lines


def shares(spans: list[tuple[str, str, float, float]]) -> float:
    """The part of the time of copies in which a forward or backward pass ran."""
    computing = [(start, stop) for _, work, start, stop in spans if work in ("forward", "backward")]
    copies = [(start, stop) for _, work, start, stop in spans if work == "copy"]
    both = sum(max(0.0, min(b, d) - max(a, c)) for a, b in copies for c, d in computing)
    total = sum(stop - start for start, stop in copies)
    return both / total if total else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--mb-per-s", type=float, default=400.0, help="of the stand-in's copies")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    result: dict[str, Any] = {"device": "gpu(0)" if args.gpu else "stand-in", "step_ms": {}, "overlap": []}
    steps: dict[str, list[float]] = {"without": [], "ahead": []}
    for _ in range(args.rounds):
        for name, on in (("without", "0"), ("ahead", "1")):
            os.environ["DMOD_COPY_AHEAD"] = on
            timeline = Timeline()
            device = nullcontext() if args.gpu else stand_in_gpus(1, timeline, args.mb_per_s * 1e6)
            with device:
                steps[name].append(statistics.median(train(args.batch, args.hidden)))
            if name == "ahead" and not args.gpu:
                result["overlap"].append(shares(timeline.spans))
                result["timeline"] = picture(timeline.spans)
    result["step_ms"] = {name: round(1e3 * statistics.median(times), 2) for name, times in steps.items()}
    print("\n".join(result.get("timeline", [])))
    print(json.dumps({key: value for key, value in result.items() if key != "timeline"}))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
