"""What the workers of the tests in this directory run: ``programs.py NAME DIRECTORY ARGUMENTS...``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from dmod import optimizer as opt
from dmod.base import EpochEnded
from dmod.kvstore import KVStore, create, wire
from dmod.ndarray.flat import FlatLayout
from dmod.ndarray.ndarray import NDArray, zeros

KEYS = {"small": (3,), "matrix": (40, 30), "large": (200, 301)}  # the last one is cut into several pieces
LAYOUT = FlatLayout.plan([(0, "weight", (64, 301)), (1, "bias", (64,)), (2, "out", (10, 64))], "float32")
STEPS = 4


def value(key: str, slot: int, step: int) -> np.ndarray:
    """What the device with the number `slot` contributes to `key`."""
    seed = [slot, step, *key.encode()]
    return np.random.default_rng(seed).normal(size=KEYS[key]).astype(np.float32)


def gradient(slot: int, step: int) -> np.ndarray:
    flat = LAYOUT.allocate()
    for name, view in LAYOUT.views(flat).items():
        view[...] = np.random.default_rng([slot, step, *name.encode()]).normal(size=view.shape)
    return flat


def first_weights() -> np.ndarray:
    return gradient(99, 99)


def train(kv: KVStore, weights: list[np.ndarray], steps: range) -> None:
    """Rounds over the flat buffer, with one gradient for each of this worker's devices."""
    first = kv.first_slot(len(weights))
    for step in steps:
        kv.pushpull_flat("flat", [gradient(first + d, step) for d in range(len(weights))], weights)


def sgd() -> opt.Optimizer:
    names = {s.index: s.name for s in LAYOUT.segments}
    return opt.create("sgd", learning_rate=0.1, momentum=0.9, wd=1e-3, param_idx2name=names)


def sums(directory: Path) -> None:
    """Two devices each: push and pull, pushpull, several keys in one call; then SGD on the servers."""
    kv, results = create("dist_sync"), {}
    for key, shape in KEYS.items():
        kv.init(key, NDArray(np.full(shape, kv.rank, np.float32)))
    outs = {key: zeros(shape) for key, shape in KEYS.items()}
    kv.pull(list(KEYS), out=list(outs.values()))
    results |= {f"init {key}": out.asnumpy() for key, out in outs.items()}

    def devices(key: str, step: int) -> list[NDArray]:
        return [NDArray(value(key, kv.first_slot(2) + d, step)) for d in range(2)]

    for key, out in outs.items():
        kv.push(key, devices(key, 0))
        kv.pull(key, out=out)
        results[f"push {key}"] = out.asnumpy()
    kv.pushpull(list(KEYS), [devices(key, 1) for key in KEYS], out=[[out] for out in outs.values()])
    results |= {f"pushpull {key}": out.asnumpy() for key, out in outs.items()}

    weights = [first_weights() * (1 + kv.rank), LAYOUT.allocate()]  # rank 0's count
    kv.init_flat("flat", LAYOUT, weights)
    kv.set_optimizer(sgd())
    train(kv, weights, range(STEPS))
    assert np.array_equal(weights[0], weights[1])
    results["weights"] = weights[0]
    np.savez(directory / f"rank{kv.rank}.npz", **results)


def states(directory: Path) -> None:
    """Saves the optimizer's states, and goes on from them as if nothing had happened in between."""
    kv, weights = create("dist_sync"), [first_weights()]
    kv.init_flat("flat", LAYOUT, weights)
    kv.set_optimizer(sgd())
    train(kv, weights, range(2))
    kv.save_optimizer_states(str(directory / f"rank{kv.rank}.states"), dump_optimizer=True)
    again = kv.get_optimizer_states()
    train(kv, weights, range(2, 4))
    moved = kv.get_optimizer_states()
    kv.load_optimizer_states(str(directory / "rank0.states"))
    restored = kv.get_optimizer_states()
    for index, entry in again.entries.items():
        assert entry.count == restored.entries[index].count == 2
        np.testing.assert_array_equal(entry.arrays[0], restored.entries[index].arrays[0])
        assert not np.array_equal(entry.arrays[0], moved.entries[index].arrays[0])
    np.savez(directory / f"rank{kv.rank}.npz", momentum=again.entries[0].arrays[0])


def rounds(directory: Path, count: str = "1000000", then: str = "") -> None:
    """Rounds until something happens; after `count` of them this worker does what `then` says."""
    kv, weights = create("dist_sync"), [LAYOUT.allocate()]
    kv.init_flat("flat", LAYOUT, weights, mode="sum")
    for step in range(int(count)):
        kv.pushpull_flat("flat", [weights[0]], weights)
        if step == 2:
            print("under way", flush=True)
    if then == "raise":
        raise ZeroDivisionError("a mistake of mine")
    if then == "exit":
        sys.exit(3)


def barriers(directory: Path) -> None:
    """Barriers until somebody says that it is enough."""
    kv = create("dist_sync")
    while not (directory / "enough").exists():
        kv.barrier()
        print("passed", flush=True)


def epochs(directory: Path, *lengths: str) -> None:
    """Two epochs; this worker has ``lengths[rank]`` batches in each."""
    kv, weights = create("dist_sync"), [LAYOUT.allocate()]
    kv.init_flat("flat", LAYOUT, weights)
    kv.set_optimizer(sgd())
    for epoch in range(2):
        done = 0
        for step in range(int(lengths[kv.rank])):
            try:
                train(kv, weights, range(10 * epoch + step, 10 * epoch + step + 1))
            except EpochEnded:
                break
            done += 1
        print(f"epoch {epoch}: {done} rounds, all: {kv.end_epoch()}", flush=True)
    np.savez(directory / f"rank{kv.rank}.npz", weights=weights[0])


def another_version(directory: Path) -> None:
    wire.PROTOCOL_VERSION = 77
    create("dist_sync")


def shapes(directory: Path) -> None:
    kv = create("dist_sync")
    kv.init("w", zeros((3, 4 + kv.rank)))


def unknown_key(directory: Path) -> None:
    create("dist_sync").push("w", zeros((3,)))


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
