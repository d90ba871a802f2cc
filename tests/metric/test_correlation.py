"""Pearson's correlation and PCC: MXNet's figures, what counts as a batch, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dmod import metric as metrics
from dmod.base import InvalidArgument
from dmod.ndarray.ndarray import array

LABEL = [[1.0, 0.5, 2.0], [0.0, 3.0, 1.0]]
PRED = [[0.8, 0.7, 1.5], [0.1, 2.0, 1.9]]


def feed(metric: Any, label: Any, pred: Any) -> Any:
    metric.update([array(label)], [array(pred)])
    return metric


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_pearsons_coefficient_of_a_batch_is_numpys(average: str) -> None:
    metric = feed(metrics.create("pearsonr", average=average), LABEL, PRED)
    expected = np.corrcoef(np.ravel(LABEL), np.ravel(PRED))[0, 1]
    assert metric.get() == ("pearsonr", pytest.approx(expected, rel=1e-6))
    assert metric.get_global()[1] == pytest.approx(expected, rel=1e-6)
    assert metric.get_config()["average"] == average
    assert metrics.create(metric.get_config()).average == average


def test_macro_is_the_mean_of_batches_and_micro_the_coefficient_of_all() -> None:
    random = np.random.RandomState(3)
    batches = [random.rand(2, n, 3) + 1000 for n in (4, 1, 7)]
    macro, micro = metrics.PearsonCorrelation(), metrics.PearsonCorrelation(average="micro")
    for label, pred in batches:
        macro.update([label], [pred])
        micro.update([label], [pred])
    each = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in batches]
    together = np.corrcoef(*(np.concatenate([b[i].ravel() for b in batches]) for i in (0, 1)))[0, 1]
    assert macro.get()[1] == pytest.approx(np.mean(each), rel=1e-9)
    assert micro.get()[1] == pytest.approx(together, rel=1e-9)
    micro.reset_local()
    assert math.isnan(micro.get()[1]) and micro.get_global()[1] == pytest.approx(together, rel=1e-9)
    micro.update(*([a] for a in batches[0]))
    assert micro.get()[1] == pytest.approx(each[0], rel=1e-9)


def test_what_does_not_vary_has_no_correlation() -> None:
    assert math.isnan(feed(metrics.PearsonCorrelation(), [1.0, 1.0], [1.0, 2.0]).get()[1])
    assert math.isnan(feed(metrics.PCC(), [1, 1], [[0, 1], [0, 1]]).get()[1])


def test_running_variance_is_that_of_all_numbers() -> None:
    metric = metrics.PearsonCorrelation()
    count, mean, total = metric.update_variance([1.0, 2.0, 3.0], *metric.update_variance([4.0], 0, 0.0, 0.0))
    assert (count, mean, total) == (4, 2.5, 5.0)


# MXNet's figures after each of these batches.
PCC_BATCHES = [
    ([0, 1, 2, 1], [[0.55, 0.72, 0.6], [0.54, 0.42, 0.65], [0.44, 0.89, 0.96], [0.38, 0.79, 0.53]]),
    ([5, 1, 2, 1], [[0.57, 0.93, 0.07], [0.09, 0.02, 0.83], [0.78, 0.87, 0.98], [0.8, 0.46, 0.78]]),
    ([0, 1], [0, 1]),
    ([0, 1], [[0], [1]]),
]


def test_pcc_is_that_of_the_confusion_matrix_of_all_batches() -> None:
    metric = metrics.create("pcc")
    truth, found = [], []
    for label, pred in PCC_BATCHES:
        feed(metric, label, pred)
        truth += label
        found += [int(np.argmax(p)) if isinstance(p, list) else p for p in pred]
        # The correlation of one-hot codes: covariances summed over classes.
        x, y = np.eye(6)[truth], np.eye(6)[found]
        x, y = x - x.mean(0), y - y.mean(0)
        expected = (x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())
        assert metric.get() == ("pcc", pytest.approx(expected))
        assert metric.sum_metric == pytest.approx(expected * metric.num_inst)
    assert metric.num_inst == 4
    metric.reset_local()
    assert math.isnan(metric.get()[1]) and metric.get_global()[1] == pytest.approx(expected)
    metric.reset()
    assert math.isnan(metric.get_global()[1])


def test_pcc_of_two_classes_is_matthews() -> None:
    label, pred = [0, 1, 1, 0, 1], [[0.6, 0.4], [0.2, 0.8], [0.9, 0.1], [0.3, 0.7], [0.1, 0.9]]
    mcc = feed(metrics.MCC(), label, pred).get()[1]
    assert feed(metrics.PCC(), label, pred).get()[1] == pytest.approx(mcc)


@pytest.mark.parametrize(
    ("name", "label", "pred", "message"),
    [
        ("pearsonr", [[1, 2]], [[1], [2]], r"labels of shape \(1, 2\), predictions of shape \(2, 1\)"),
        ("pcc", [0, 1], [[0, 1]] * 3, "2 labels, 3 predictions"),
        ("pcc", [0, -1], [[0, 1]] * 2, "class numbers from 0"),
        ("pcc", [0, math.nan], [[0, 1]] * 2, "class numbers from 0"),
        ("pcc", [0, 1e9], [[0, 1]] * 2, "class numbers from 0"),
        ("pcc", [0, 1], [0, 1, 2], r"predictions of shape \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, label: Any, pred: Any, message: str) -> None:
    metric = metrics.create(name)
    with pytest.raises(InvalidArgument, match=message):
        feed(metric, label, pred)
    assert metric.num_inst == 0


def test_an_unknown_average_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'macro' or 'micro'"):
        metrics.PearsonCorrelation(average="mean")
