"""What the workers of the tests in this directory run: ``programs.py NAME DIRECTORY ARGUMENTS...``."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmod import optimizer as opt
from dmod.base import EpochEnded
from dmod.config import settings
from dmod.kvstore import KVStore, create, wire
from dmod.kvstore.transports.loading import compiled_links
from dmod.kvstore.transports.segments import gradient_buffer
from dmod.kvstore.transports.trips import Trip
from dmod.kvstore.transports.windows import open_window, weights_buffer
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


def trips(directory: Path, count: str = "1000000") -> None:
    """The same as fast as it goes: nothing is copied, and compiled code carries what repeats."""
    kv, weights = create("dist_sync"), weights_buffer(LAYOUT.size, "float32")
    given, arrived = gradient_buffer(LAYOUT.size, "float32"), count_trips()
    kv.init_flat("flat", LAYOUT, [first_weights()])
    kv.set_optimizer(sgd())
    open_window(weights, "flat")
    for step in range(int(count)):
        given[:] = gradient(kv.rank, step % 8)
        if step == 30:
            while kv.type == "dist_sync" and settings().transport == "auto" and compiled_links() is None:
                time.sleep(0.01)
            kv.barrier()
        if step == 60:
            kv.init("w", zeros((3,)))
            kv.pushpull("w", zeros((3,)) + 1, zeros((3,)))
        if step in (70, 80):  # the other one is late, and it is not waited for to the end
            interrupted = kv.rank == 0 and is_interrupted(
                lambda: kv.pushpull_flat("flat", [given], [weights])
            )
            if interrupted:
                kv.settle()
                continue
            time.sleep(0.3)
        kv.pushpull_flat("flat", [given], [weights])
        if step == 90:
            weights[:] = 0  # which is nobody else's affair
        if step == 100:
            kv.end_epoch()
        if step == 120:
            print("under way", flush=True)
    np.savez(directory / f"rank{kv.rank}.npz", weights=weights, trips=arrived[0])


def interrupted_anywhere(directory: Path) -> None:
    """One worker gets a Ctrl-C at every Python call of a step, one after the other; no sum may be wrong."""
    kv, total, given = (
        create("dist_sync"),
        np.zeros(LAYOUT.size, "f4"),
        gradient_buffer(LAYOUT.size, "float32"),
    )
    kv.init_flat("flat", LAYOUT, [total], mode="sum")
    arrived, [piece] = count_trips(), kv._client.state._keys["flat"].pieces
    uninterrupted = False
    for step in range(1000):
        given[:] = 10 * step + kv.rank
        if step == 30:
            while compiled_links() is None:
                time.sleep(0.01)
            kv.barrier()
        if step >= 60 and kv.rank == 0 and not uninterrupted:
            before = piece.round
            uninterrupted = not is_interrupted_at(
                step - 60, lambda: kv.pushpull_flat("flat", [given], [total])
            )
            kv.settle()
            if piece.round == before:  # it was before anything had been done
                kv.pushpull_flat("flat", [given], [total])
            kv.pushpull_flat("flat", [given], [total])  # the answer before may not have been seen
        else:
            kv.pushpull_flat("flat", [given], [total])
            if step >= 60:
                kv.pushpull_flat("flat", [given], [total])
        assert (total == 20 * step + 1).all(), (step, total[0])
        if step == 150:
            print(f"trips {arrived[0]}, all calls interrupted: {uninterrupted}", flush=True)
            return


def is_interrupted_at(count: int, call: Callable[[], None]) -> bool:
    """Whether a call has made more than so many calls in Python, and was interrupted at the next one."""
    left = [count]

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and "/dmod/kvstore/" in frame.f_code.co_filename:
            left[0] -= 1
            if left[0] < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(look)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def count_trips() -> list[int]:
    """How many trips have arrived, as the only element."""
    count, await_answers = [0], Trip.await_answers

    def counted(trip: Trip, timeout_s: float) -> bool:
        arrived = await_answers(trip, timeout_s)
        count[0] += arrived
        return arrived

    Trip.await_answers = counted  # type: ignore[method-assign]
    return count


def is_interrupted(call: Callable[[], None]) -> bool:
    """Whether a call was interrupted, as Ctrl-C would, after a tenth of a second."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False


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
