"""`Monitor`: which arrays it looks at, when, and how it tells."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

import dmod.executor  # noqa: F401  (gives symbols their `bind`)
import dmod.symbol as sym
from dmod.context import cpu
from dmod.monitor import Monitor
from dmod.ndarray import array, ones, zeros


@pytest.fixture
def executor() -> Any:
    network = sym.FullyConnected(sym.Variable("data"), num_hidden=2, name="fc")
    network = sym.SoftmaxOutput(network, name="softmax")
    args = {
        "data": ones((2, 3)),
        "fc_weight": ones((2, 3)),
        "fc_bias": zeros((2,)),
        "softmax_label": array([0, 1]),
    }
    grads = {"fc_weight": zeros((2, 3)), "fc_bias": zeros((2,))}
    return network.bind(cpu(), args, grads, "write")


def step(monitor: Monitor, executor: Any) -> list[tuple[int, str, str]]:
    monitor.tic()
    executor.forward(is_train=True)
    executor.backward()
    return monitor.toc()


def test_every_interval_is_looked_at(executor: Any) -> None:
    monitor = Monitor(2, pattern=".*weight|fc_output", sort=True)
    monitor.install(executor)
    rows = [step(monitor, executor) for _ in range(3)]
    assert rows == [
        [(1, "fc_output", "3.0\t"), (1, "fc_weight", "1.0\t")],
        [],
        [(3, "fc_output", "3.0\t"), (3, "fc_weight", "1.0\t")],
    ]


def test_outputs_come_as_they_are_computed_then_parameters(executor: Any) -> None:
    monitor = Monitor(1)
    monitor.install(executor)
    names = [name for _, name, _ in step(monitor, executor)]
    assert names[:2] == ["fc_output", "softmax_output"]
    assert names[-4:] == ["data", "fc_weight", "fc_bias", "softmax_label"]


def test_all_inputs_are_looked_at_on_request(executor: Any) -> None:
    monitor = Monitor(1, pattern="fc_.*", monitor_all=True)
    monitor.install(executor)
    names = [name for _, name, _ in step(monitor, executor)]
    assert names.index("fc_weight") < names.index("fc_output")  # while it runs, not only at toc()


def test_a_statistic_may_be_a_list_a_number_or_an_array(executor: Any) -> None:
    monitor = Monitor(1, lambda x: [x.sum() / 60, 3, x[0]], pattern="fc_weight")
    monitor.install(executor)
    assert step(monitor, executor)[-1] == (1, "fc_weight", "0.1\t3\t[1. 1. 1.]\t")


def test_auxiliary_states_are_looked_at() -> None:
    network = sym.BatchNorm(sym.Variable("data"), name="bn")
    executor = network.simple_bind(cpu(), data=(4, 3))
    monitor = Monitor(1, pattern="bn_moving")
    monitor.install(executor)
    monitor.tic()
    executor.forward(is_train=True)
    assert {name for _, name, _ in monitor.toc()} == {"bn_moving_mean", "bn_moving_var"}


def test_the_log_has_a_line_per_array(executor: Any, caplog: Any) -> None:
    monitor = Monitor(1, pattern="fc_weight")
    monitor.install(executor)
    monitor.tic()
    with caplog.at_level(logging.INFO, "dmod"):
        monitor.toc_print()
    assert caplog.messages == ["Batch:       1 " + "fc_weight".rjust(30) + " 1.0\t"]


def test_an_idle_monitor_costs_nothing(executor: Any) -> None:
    calls: list[Any] = []
    monitor = Monitor(10, calls.append)
    monitor.install(executor)
    executor.forward()
    assert monitor.toc() == [] and calls == []


def test_monitoring_does_not_change_what_is_computed(executor: Any) -> None:
    executor.forward(is_train=True)
    executor.backward()
    before = [executor.outputs[0].asnumpy(), executor.grad_dict["fc_weight"].asnumpy()]
    monitor = Monitor(1, monitor_all=True)
    monitor.install(executor)
    step(monitor, executor)
    after = [executor.outputs[0].asnumpy(), executor.grad_dict["fc_weight"].asnumpy()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
