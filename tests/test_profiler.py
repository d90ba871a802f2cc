"""The profiler: what a trace holds, that nothing is left behind when it stops, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod import profiler
from dmod.base import InvalidArgument
from dmod.ndarray import invoke


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Path]:
    profiler._profiler = profiler._Profiler()
    path = tmp_path / "trace.json"
    profiler.set_config(filename=str(path))
    yield path
    profiler.set_state("stop")


def network() -> mx.sym.Symbol:
    x = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc1")
    x = mx.sym.Activation(x, act_type="relu", name="relu1")
    return mx.sym.SoftmaxOutput(x, name="softmax")


def spans(path: Path) -> list[dict[str, Any]]:
    return [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]


def test_steps_are_recorded_with_operator_and_node(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMOD_PASSES", "none")
    executor = network().simple_bind(mx.cpu(), data=(2, 4))
    executor.forward(is_train=True)
    profiler.set_config(profile_symbolic=True)
    profiler.set_state("run")
    executor.backward()  # of a pass that began before
    executor.forward(is_train=True)
    executor.backward()
    profiler.set_state("stop")
    executor.forward(is_train=True)
    profiler.dump()
    found = [(e["name"], e["args"].get("node")) for e in spans(trace)]
    backward = [
        ("_backward_SoftmaxOutput", "softmax"),
        ("_backward_Activation", "relu1"),
        ("_backward_FullyConnected", "fc1"),
    ]
    forward = [("FullyConnected", "fc1"), ("Activation", "relu1"), ("SoftmaxOutput", "softmax")]
    assert [f for f in found if f[1]] == backward + forward + backward
    starts = [e["ts"] for e in spans(trace)]
    assert starts == sorted(starts) and all(e["dur"] >= 0 and e["pid"] == os.getpid() for e in spans(trace))


def test_a_profile_changes_no_result() -> None:
    def results() -> list[np.ndarray]:
        executor = network().simple_bind(mx.cpu(), data=(2, 4))
        for value in executor.arg_arrays:
            value[:] = np.linspace(-1, 1, value.size).reshape(value.shape)
        executor.forward(is_train=True)
        executor.backward()
        return [a.asnumpy() for a in (*executor.outputs, *executor.grad_arrays) if a is not None]

    expected = results()
    profiler.set_state("run")
    try:
        assert all(np.array_equal(a, b) for a, b in zip(results(), expected, strict=True))
    finally:
        profiler.set_state("stop")


def test_stopping_and_pausing_take_every_wrapper_away(trace: Path) -> None:
    executor = network().simple_bind(mx.cpu(), data=(2, 4))
    plan = executor.plan(True)
    places = [(mx.executor.Executor, "plan"), (invoke, "_compute"), (mx.kv.KVStore, "push")]
    places += [(plan, "forward"), (plan, "backward")]
    before = [getattr(*place) for place in places]
    for end in (lambda: profiler.set_state("stop"), profiler.pause, profiler.dump):
        profiler.set_state("run")
        executor.forward()
        executor.forward(is_train=True)
        assert all(getattr(*p) is not b for p, b in zip(places, before, strict=True))
        end()
        assert all(getattr(*p) is b for p, b in zip(places, before, strict=True))


def test_store_operations_are_recorded_with_their_keys(trace: Path) -> None:
    profiler.set_state("run")
    store = mx.kv.create("local")
    store.init("w", mx.nd.ones((2,)))
    store.push("w", mx.nd.ones((2,)))
    store.pull(key="w", out=mx.nd.zeros((2,)))
    profiler.dump()
    found = {e["name"]: e["args"] for e in spans(trace) if e["cat"] == "kvstore"}
    assert found == {f"KVStore.{n}": {"key": "w", "store": "local"} for n in ("init", "push", "pull")}


def test_a_joined_step_has_the_name_of_its_last_node(trace: Path) -> None:
    profiler.set_state("run")
    network().simple_bind(mx.cpu(), data=(2, 4)).forward(is_train=True)
    profiler.dump()
    found = [(e["name"], e["args"].get("node")) for e in spans(trace)]
    assert ("_fused_fully_connected_activation", "relu1") in found and ("SoftmaxOutput", "softmax") in found


def test_training_with_a_store_is_recorded_whole(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMOD_PASSES", "none")
    data = mx.io.NDArrayIter(np.ones((8, 4)), np.zeros(8), batch_size=4)
    profiler.set_state("run")
    module = mx.mod.Module(network(), context=[mx.cpu(0), mx.cpu(1)])
    module.fit(data, num_epoch=1, kvstore="local")
    profiler.dump()
    names = [e["name"] for e in spans(trace)]
    assert names.count("KVStore.pushpull_flat") == 2 and names.count("_backward_FullyConnected") == 4


def test_operators_on_arrays_are_recorded_on_request(trace: Path) -> None:
    profiler.set_config(profile_imperative=True)
    profiler.set_state("run")
    mx.nd.relu(mx.nd.array([-1, 1]))
    network().simple_bind(mx.cpu(), data=(2, 4)).forward()
    profiler.set_state("stop")
    assert "relu" in profiler.dumps() and "FullyConnected" not in profiler.dumps()


def test_nothing_is_recorded_while_paused(trace: Path) -> None:
    profiler.set_state("run")
    profiler.pause()
    with profiler.Event("hidden"):
        mx.nd.relu(mx.nd.array([-1, 1]))
    profiler.resume()
    with profiler.Event("seen"):
        pass
    profiler.dump()
    assert [e["name"] for e in spans(trace)] == ["seen"]


def test_a_programs_own_events_are_in_the_trace(trace: Path) -> None:
    domain = profiler.Domain("mine")
    ignored = domain.new_task("before")
    ignored.start()
    ignored.stop()
    profiler.set_state("run")
    counter = domain.new_counter("samples", 3)
    counter += 2
    counter -= 1
    with domain.new_task("work"), domain.new_frame("pass"):
        domain.new_marker("here").mark("thread")
    profiler.dump(finished=False)
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("cat") == "mine"]
    assert [(e["ph"], e["name"]) for e in events] == [
        *[("C", "samples")] * 3,
        ("i", "here"),
        ("X", "pass"),
        ("X", "work"),
    ]
    assert [e["args"]["samples"] for e in events[:3]] == [3, 5, 4]
    profiler.dump()  # the events are still there, and then are not
    assert len(spans(trace)) == 2
    profiler.dump()
    assert spans(trace) == []


def test_sums_are_sorted_and_can_be_begun_anew(trace: Path) -> None:
    profiler.set_state("run")
    for name in ("a", "b", "b"):
        with profiler.Event(name):
            pass
    found = json.loads(profiler.dumps(format="json", sort_by="count"))
    rows = found["Time"]["event"]
    assert list(rows) == ["b", "a"] and rows["b"]["Count"] == 2 and found["Unit"]["Time"] == "ms"
    assert list(
        json.loads(profiler.dumps(format="json", sort_by="count", ascending=True))["Time"]["event"]
    ) == [
        "a",
        "b",
    ]
    table = profiler.dumps(reset=True)
    assert "Total Count" in table and "\nb  " in table
    assert "event" not in profiler.dumps()


def test_the_old_names_work(trace: Path) -> None:
    profiler.profiler_set_config(mode="all", filename=str(trace))
    profiler.profiler_set_state("run")
    with profiler.Event("x"):
        pass
    profiler.dump_profile()
    assert len(spans(trace)) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: profiler.set_config(file_name="x"), "did you mean 'filename'|'filename'"),
        (lambda: profiler.set_state("go"), "'run' or 'stop'"),
        (lambda: profiler.set_state("run", profile_process="server"), "cannot profile servers"),
        (lambda: profiler.pause("client"), "expected 'worker'"),
        (lambda: profiler.dumps(format="xml"), "'table' or 'json'"),
        (lambda: profiler.dumps(sort_by="name"), "total, avg, min, max, count"),
        (lambda: profiler.profiler_set_config(mode="some"), "profile_some"),
    ],
)
def test_what_cannot_be_is_refused(trace: Path, call: Any, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        call()
