"""Metrics: MXNet's figures, what they accept and refuse, composition and creation."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import metric as metrics
from dmod.base import InvalidArgument
from dmod.ndarray.ndarray import array

FIGURES = json.loads((Path(__file__).parent.parent / "fixtures" / "metrics.json").read_text())
SCORES = [[0.1, 0.6, 0.3], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5]]
LABELS = [1, 0, 0]
NAN = math.nan


def feed(metric: metrics.EvalMetric, label: Any, pred: Any) -> metrics.EvalMetric:
    metric.update([array(label)], [array(pred)])
    return metric


def assert_same(result: tuple[Any, Any], expected: Any) -> None:
    assert result[0] == expected[0]
    assert result[1] == pytest.approx(expected[1], rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.filterwarnings("ignore:metric ")
@pytest.mark.parametrize(("name", "options", "batches", "expected"), FIGURES)
def test_figures_are_those_of_mxnet(name: str, options: Any, batches: Any, expected: Any) -> None:
    metric = metrics.create(name, **options)
    for label, pred in batches:
        feed(metric, label, pred)
    assert_same(metric.get(), expected[0])
    metric.reset_local()
    assert metric.num_inst == 0 and math.isnan(metric.get()[1])
    feed(metric, *batches[0])
    assert_same(metric.get(), expected[1])
    assert_same(metric.get_global(), expected[2])
    metric.reset()
    assert math.isnan(metric.get_global()[1])


@pytest.mark.parametrize(
    ("name", "label", "pred"),
    [
        ("acc", [1, NAN, 0], SCORES),
        ("acc", [1, 7, 0], SCORES),
        ("ce", [1, -1, 0], SCORES),
        ("mse", [1, 2, 3], SCORES),
        ("f1", [0, -1, 0], SCORES),
    ],
)
def test_odd_input_is_accepted_with_one_warning(name: str, label: Any, pred: Any) -> None:
    metric = metrics.create(name)
    with pytest.warns(UserWarning, match="metric "):
        feed(metric, label, pred)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        feed(metric, label, pred)
    assert metric.num_inst in (2, 6)


@pytest.mark.parametrize(
    ("name", "options", "label", "pred"),
    [
        ("acc", {}, [1, 0], SCORES),
        ("top_k_acc", {"top_k": 5}, LABELS, SCORES),
        ("top_k_acc", {"top_k": 2}, LABELS, [[SCORES]]),
        ("ce", {}, [1, 7, 0], SCORES),
        ("ce", {}, [1, NAN, 0], SCORES),
        ("ce", {}, [1, 0], SCORES),
        ("ce", {}, LABELS, [0.1, 0.2, 0.3]),
        ("f1", {}, [0, 1, 2], SCORES),
        ("f1", {}, LABELS, [0.1, 0.2, 0.3]),
        ("mse", {}, [1, 2, 3, 4], SCORES),
        ("perplexity", {"ignore_label": None}, [1, 0], SCORES),
    ],
)
def test_what_mxnet_refuses_is_refused(name: str, options: Any, label: Any, pred: Any) -> None:
    with pytest.raises(InvalidArgument, match=metrics.create(name, **options).name):
        feed(metrics.create(name, **options), label, pred)


def test_the_numbers_of_labels_and_predictions_must_agree() -> None:
    with pytest.raises(InvalidArgument, match="1 of labels, 2 of predictions"):
        metrics.create("acc").update([array(LABELS)], [array(SCORES)] * 2)


def test_several_outputs_are_added() -> None:
    metric = metrics.create("acc")
    metric.update([array(LABELS), array([2, 2, 2])], [array(SCORES)] * 2)
    assert metric.get() == ("accuracy", 0.5)


def test_numpy_arrays_and_integer_labels_serve_as_well() -> None:
    metric = metrics.create("acc")
    metric.update([np.array(LABELS)], [np.array(SCORES)])
    metric.update([array(LABELS, dtype="uint8")], [array(SCORES)])
    assert metric.get() == ("accuracy", 2 / 3)


def test_single_arrays_are_lists_of_one() -> None:
    metric = metrics.create("acc")
    metric.update(array(LABELS), array(SCORES))
    assert metric.get() == ("accuracy", 2 / 3)


def test_arrays_are_chosen_by_name() -> None:
    metric = metrics.Accuracy(output_names=["out"], label_names=["lab"])
    metric.update_dict(
        {"other": array([0]), "lab": array(LABELS)}, {"out": array(SCORES), "extra": array(SCORES)}
    )
    assert metric.get() == ("accuracy", 2 / 3)
    with pytest.raises(InvalidArgument, match="no output 'out' among 'softmax_output'"):
        metric.update_dict({"lab": array(LABELS)}, {"softmax_output": array(SCORES)})


def test_what_does_not_fit_is_named_with_shapes_and_remedy() -> None:
    label, outputs = {"softmax_label": array([0, 1])}, {"a_output": array(SCORES), "b_output": array(SCORES)}
    with pytest.raises(InvalidArgument) as caught:
        metrics.create("acc").update_dict(label, outputs)
    for text in (
        "labels: softmax_label (2,); outputs: a_output (3, 3), b_output (3, 3)",
        "mx.metric.Accuracy(..., output_names=['a_output'], label_names=['softmax_label'])",
    ):
        assert text in str(caught.value)
    with pytest.raises(InvalidArgument, match=r"labels: none; .* NDArrayIter\(data, label\) does"):
        metrics.create("acc").update_dict({}, outputs)
    with pytest.raises(InvalidArgument, match=r"names are .'a_outpt'., .* did you mean 'a_output'"):
        metrics.Accuracy(output_names=["a_outpt"]).update_dict(label, {"a_output": array(SCORES)})
    own = metrics.np(lambda label, pred: float((label == pred).mean()) + label.nothing, name="own")
    with pytest.raises(AttributeError) as raised:  # of the user's function: what it was given goes with it
        own.update_dict({"softmax_label": array(LABELS)}, {"a_output": array(LABELS)})
    assert raised.value.__notes__ == [
        "metric own was given labels: softmax_label (3,); outputs: a_output (3,)"
    ]


def test_a_list_of_metrics_is_one_metric() -> None:
    metric = metrics.create(["acc", ["ce", "mse"]])
    with pytest.warns(UserWarning, match="spread"):
        metric.update_dict({"label": array(LABELS)}, {"out": array(SCORES)})
    names, values = metric.get()
    assert names == ["accuracy", "cross-entropy", "mse"]
    assert values == pytest.approx([2 / 3, 0.7811357, 0.2777778])
    assert metric.get_name_value() == list(zip(names, values, strict=True))
    metric.reset_local()
    assert math.isnan(metric.get()[1][0]) and metric.get_global()[1] == values
    assert metric.get_global_name_value() == list(zip(names, values, strict=True))
    metric.reset()
    assert all(math.isnan(value) for value in metric.get_global()[1])
    assert type(metric.get_metric(0)) is metrics.Accuracy
    with pytest.raises(InvalidArgument, match="2 metrics"):
        metric.get_metric(2)


def test_a_composite_chooses_for_its_children() -> None:
    metric = metrics.CompositeEvalMetric(["acc"], output_names=["out"], label_names=["lab"])
    metric.add("f1")
    metric.update_dict({"a": array([0]), "lab": array([1, 0])}, {"out": array(SCORES[:2]), "b": array([0])})
    assert metric.get() == (["accuracy", "f1"], [1.0, 1.0])


def test_functions_become_metrics() -> None:
    def wrong(label: np.ndarray, pred: np.ndarray) -> float:
        assert type(label) is type(pred) is np.ndarray
        return float((pred.argmax(1) != label).sum())

    def pair(label: np.ndarray, pred: np.ndarray) -> tuple[float, int]:
        return 3.0, 2

    makers: list[tuple[Callable[[], metrics.EvalMetric], str, float]] = [
        (lambda: metrics.create(wrong), "wrong", 1.0),
        (lambda: metrics.create(pair), "pair", 1.5),
        (lambda: metrics.create(lambda label, pred: 2.0), "custom(<lambda>)", 2.0),
        (lambda: metrics.np(pair), "pair", 1.5),
        (lambda: metrics.np(wrong, name="other"), "other", 1.0),
    ]
    for make, name, value in makers:
        assert feed(make(), LABELS, SCORES).get() == (name, value)


def test_extra_outputs_are_left_aside_only_if_allowed() -> None:
    def one(label: Any, pred: Any) -> float:
        return 1.0

    with pytest.raises(InvalidArgument):
        metrics.np(one).update([array(LABELS)], [array(SCORES)] * 2)
    metric = metrics.np(one, allow_extra_outputs=True)
    metric.update([array(LABELS)], [array(SCORES)] * 2)
    assert metric.num_inst == 1


def test_a_metric_of_ones_own_needs_only_update() -> None:
    class Batches(metrics.EvalMetric):
        def update(self, labels: Any, preds: Any) -> None:
            self.sum_metric += 2
            self.num_inst += 1

    metric = feed(Batches("batches"), LABELS, SCORES)
    assert metric.get() == metric.get_global() == ("batches", 2.0)
    assert metric.get_global_name_value() == [("batches", 2.0)]


@pytest.mark.parametrize(
    ("name", "klass"),
    [
        ("acc", "Accuracy"),
        ("Accuracy", "Accuracy"),
        ("ce", "CrossEntropy"),
        ("nll_loss", "NegativeLogLikelihood"),
        ("F1", "F1"),
        ("composite", "CompositeEvalMetric"),
        ('["accuracy", {"axis": 2}]', "Accuracy"),
        ({"metric": "mse"}, "MSE"),
    ],
)
def test_names_and_descriptions_make_metrics(name: Any, klass: str) -> None:
    assert type(metrics.create(name)).__name__ == klass


@pytest.mark.parametrize("name", ["acc", "ce", "f1", "mse", ["acc", "ce"]])
def test_a_description_makes_the_same_metric(name: Any) -> None:
    metric = metrics.create(name)
    copy = metrics.create(json.dumps(metric.get_config()))
    assert type(copy) is type(metric) and copy.get_config() == metric.get_config()
    top = metrics.create("top_k_acc", top_k=3)
    assert metrics.create(top.get_config()).name == "top_k_accuracy_3"


@pytest.mark.parametrize("bad", ["acuracy", "[", '["acc"]', {"name": "x"}, 3, None])
def test_what_is_no_metric_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidArgument):
        metrics.create(bad)


def test_near_names_are_offered() -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'accuracy'"):
        metrics.create("acuracy")
    with pytest.raises(InvalidArgument, match="use Accuracy"):
        metrics.create("top_k_acc")


def test_a_registered_metric_is_found_by_name() -> None:
    @metrics.alias("ninety")
    @metrics.register
    class Ninety(metrics.EvalMetric):
        def __init__(self) -> None:
            super().__init__("ninety")

    assert type(metrics.create("NINETY")) is Ninety


def test_a_metric_prints_its_values() -> None:
    assert str(feed(metrics.create("acc"), [1, 0], SCORES[:2])) == "EvalMetric: {'accuracy': 1.0}"


def test_a_metric_that_keeps_no_global_sums_has_them_all_the_same():
    """Speedometer forgets the local ones now and then; the figure of an epoch is over all of it."""

    class Error(metrics.EvalMetric):
        def update(self, labels, preds):
            self.sum_metric += float((preds[0].asnumpy().argmax(1) != labels[0].asnumpy()).sum())
            self.num_inst += len(labels[0])

    metric, right = Error("error"), [array([[0, 1], [0, 1]])]
    for labels in ([1, 1], [0, 0], [1, 1]):
        metric.update([array(labels)], right)
        assert metric.get() == ("error", float(labels == [0, 0]))
        metric.reset_local()
    assert metric.get_global() == ("error", 2 / 6) and metric.get_global_name_value() == [("error", 2 / 6)]
    assert metric.tally() == (2.0, 6.0)
    copy = Error("error")
    copy.load_state_dict(metric.state_dict())
    assert copy.get_global() == ("error", 2 / 6)
    metric.reset()
    assert np.isnan(metric.get_global()[1])
