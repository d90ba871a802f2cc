"""Metrics for classes: accuracy, cross-entropy, F1 and what goes with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.device.kernels import kernels_for
from dmod.metric.base import EvalMetric, alias, pairs, register

__all__ = ["F1", "MCC", "Accuracy", "CrossEntropy", "NegativeLogLikelihood", "Perplexity", "TopKAccuracy"]

_ODD_LABELS = (
    "labels that are not a class's number (NaN, negative or too large) are accepted, and count as wrong"
)


def _classes(values: np.ndarray) -> np.ndarray:
    """Class numbers as a flat int32 array; fractions are cut off, and NaN becomes a negative number."""
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            return values.reshape(-1).astype(np.int32)
    return values.reshape(-1).astype(np.int32, copy=False)


def _any_outside(classes: np.ndarray, num_classes: int) -> bool:
    # As unsigned numbers, negative ones are large too: one pass finds both.
    return classes.size > 0 and int(classes.view(np.uint32).max()) >= num_classes


@register
@alias("acc")
class Accuracy(EvalMetric):
    """The share of instances whose highest score is at their label.

    Parameters
    ----------
    axis : int
        The axis of classes in predictions; predictions of the label's shape are class numbers.
    name, output_names, label_names
        See `EvalMetric`.

    Examples
    --------
    >>> from dmod.ndarray.ndarray import array
    >>> metric = Accuracy()
    >>> metric.update([array([1, 0])], [array([[0.3, 0.7], [0.4, 0.6]])])
    >>> metric.get()
    ('accuracy', 0.5)
    """

    def __init__(
        self,
        axis: int = 1,
        name: str = "accuracy",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(name, output_names, label_names, axis=axis, has_global_stats=True)
        self.axis = axis

    def update(self, labels: Any, preds: Any) -> None:
        for label, pred in pairs(labels, preds):
            num_classes = 0
            if pred.ndim == 2 and self.axis in (1, -1) and label.shape == pred.shape[:1] and pred.shape[1]:
                kernels = kernels_for(label, pred)
                if kernels is not None:
                    correct, odd = kernels.count_correct(pred, label)
                    if odd:
                        self._warn_once(_ODD_LABELS)
                    self._add(correct, len(label))
                    continue
            if pred.shape != label.shape:
                num_classes = pred.shape[self.axis]
                pred = pred.argmax(self.axis)
            expected, found = _classes(label), pred.reshape(-1) if num_classes else _classes(pred)
            if expected.size != found.size:
                raise InvalidArgument(f"accuracy: {expected.size} labels, {found.size} predictions")
            if num_classes and _any_outside(expected, num_classes):
                self._warn_once(_ODD_LABELS)
            self._add(int(np.count_nonzero(expected == found)), expected.size)


@register
@alias("top_k_accuracy", "top_k_acc")
class TopKAccuracy(EvalMetric):
    """The share of instances whose label is among the `top_k` highest scores.

    Parameters
    ----------
    top_k : int
        At least 2; for 1 use `Accuracy`.
    name, output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        top_k: int = 1,
        name: str = "top_k_accuracy",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        if top_k <= 1:
            raise InvalidArgument(
                f"TopKAccuracy: top_k={top_k}; use Accuracy ('acc') if top_k is no more than 1"
            )
        super().__init__(f"{name}_{top_k}", output_names, label_names, top_k=top_k, has_global_stats=True)
        self._base_name = name
        self.top_k = top_k

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "name": self._base_name}

    def update(self, labels: Any, preds: Any) -> None:
        for label, pred in pairs(labels, preds):
            expected = _classes(label)
            if pred.ndim > 2 or len(pred) != expected.size:
                raise InvalidArgument(
                    f"{self.name}: predictions of shape {pred.shape} for {expected.size} labels"
                )
            if pred.ndim == 1:
                self._add(int(np.count_nonzero(_classes(pred) == expected)), expected.size)
                continue
            num_classes = pred.shape[1]
            if self.top_k > num_classes:
                raise InvalidArgument(f"{self.name}: predictions have {num_classes} classes only")
            if _any_outside(expected, num_classes):
                self._warn_once(_ODD_LABELS)
            best = np.argpartition(pred, -self.top_k, axis=1)[:, -self.top_k :]
            self._add(int(np.count_nonzero(best == expected[:, None])), expected.size)


class _BinaryCounts:
    """True and false positives and negatives."""

    def __init__(self) -> None:
        self.tp = self.fp = self.fn = self.tn = 0

    def add(self, positive: np.ndarray, predicted: np.ndarray) -> None:
        tp = int(np.count_nonzero(positive & predicted))
        positives, predictions = int(np.count_nonzero(positive)), int(np.count_nonzero(predicted))
        self.tp += tp
        self.fp += predictions - tp
        self.fn += positives - tp
        self.tn += positive.size - positives - predictions + tp

    @property
    def total(self) -> int:
        return self.tp + self.fp + self.fn + self.tn

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        precision = self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0
        recall = self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    @property
    def mcc(self) -> float:
        """Matthews' correlation coefficient; empty sums in the denominator count as 1."""
        if not self.total:
            return 0.0
        sums = (self.tp + self.fp, self.tp + self.fn, self.tn + self.fp, self.tn + self.fn)
        return (self.tp * self.tn - self.fp * self.fn) / math.sqrt(math.prod(s or 1 for s in sums))


class _BinaryMetric(EvalMetric):
    """A figure of the four counts: averaged over batches ('macro') or of all instances ('micro')."""

    _figure: str

    def __init__(
        self,
        name: str,
        output_names: Sequence[str] | None,
        label_names: Sequence[str] | None,
        average: str,
    ):
        self.average = average
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def reset(self) -> None:
        super().reset()
        self._counts, self._global_counts = _BinaryCounts(), _BinaryCounts()

    def reset_local(self) -> None:
        super().reset_local()
        self._counts = _BinaryCounts()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "average": self.average}

    def tally(self) -> tuple[float, float] | None:
        return super().tally() if self.average == "macro" else None

    def update(self, labels: Any, preds: Any) -> None:
        for label, pred in pairs(labels, preds):
            positive, predicted = self._decisions(label, pred)
            self._counts.add(positive, predicted)
            self._global_counts.add(positive, predicted)
        if self.average == "macro":
            self._add(getattr(self._counts, self._figure), 1)
            self._counts, self._global_counts = _BinaryCounts(), _BinaryCounts()
        else:
            self.num_inst, self.global_num_inst = self._counts.total, self._global_counts.total
            self.sum_metric = getattr(self._counts, self._figure) * self.num_inst
            self.global_sum_metric = getattr(self._global_counts, self._figure) * self.global_num_inst

    def _decisions(self, label: np.ndarray, pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Per instance: whether it is of class 1, and whether it was found to be."""
        expected = _classes(label)
        if pred.ndim != 2 or len(pred) != expected.size:
            raise InvalidArgument(
                f"{self.name}: predictions of shape {pred.shape} for {expected.size} labels, "
                f"expected ({expected.size}, 2): a score per class"
            )
        if _any_outside(expected, 2):
            if np.unique(expected).size > 2:
                raise InvalidArgument(f"{self.name}: labels of more than two classes; expected 0 and 1")
            self._warn_once("labels other than 0 and 1 are accepted, and count as 0")
        return expected == 1, pred.argmax(1) == 1


@register
class F1(_BinaryMetric):
    """The F1 score of a binary classification: the harmonic mean of precision and recall of class 1.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.
    average : {'macro', 'micro'}
        The mean of the batches' scores, or the score of all instances.
    """

    _figure = "f1"

    def __init__(
        self,
        name: str = "f1",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        average: str = "macro",
    ):
        super().__init__(name, output_names, label_names, average)


@register
class MCC(_BinaryMetric):
    """Matthews' correlation coefficient of a binary classification.

    Parameters
    ----------
    name, output_names, label_names, average
        See `F1`.
    """

    _figure = "mcc"

    def __init__(
        self,
        name: str = "mcc",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        average: str = "macro",
    ):
        super().__init__(name, output_names, label_names, average)


class _LogLoss(EvalMetric):
    """The mean of -log of the probability at the label."""

    def __init__(
        self, eps: float, name: str, output_names: Sequence[str] | None, label_names: Sequence[str] | None
    ):
        super().__init__(name, output_names, label_names, eps=eps, has_global_stats=True)
        self.eps = eps

    def update(self, labels: Any, preds: Any) -> None:
        for label, pred in pairs(labels, preds):
            classes = _classes(label)
            if pred.ndim != 2 or len(pred) != classes.size:
                raise InvalidArgument(
                    f"{self.name}: predictions of shape {pred.shape} for {classes.size} labels"
                )
            if _any_outside(classes, pred.shape[1]):
                if classes.min() < -pred.shape[1] or classes.max() >= pred.shape[1]:
                    raise InvalidArgument(f"{self.name}: labels must be class numbers below {pred.shape[1]}")
                self._warn_once("negative labels are accepted, and count from the last class")
            with np.errstate(all="ignore"):
                chances = pred[np.arange(classes.size), classes]
                self._add(-float(np.log(chances + self.eps, dtype=np.float64).sum()), classes.size)


@register
@alias("ce")
class CrossEntropy(_LogLoss):
    """The mean cross-entropy of predicted probabilities at the labels.

    Parameters
    ----------
    eps : float
        Added to probabilities, which may be zero.
    name, output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        eps: float = 1e-12,
        name: str = "cross-entropy",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(eps, name, output_names, label_names)


@register
@alias("nll_loss")
class NegativeLogLikelihood(_LogLoss):
    """The mean negative log-likelihood of the labels: the figure of `CrossEntropy` under another name.

    Parameters
    ----------
    eps, name, output_names, label_names
        See `CrossEntropy`.
    """

    def __init__(
        self,
        eps: float = 1e-12,
        name: str = "nll-loss",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(eps, name, output_names, label_names)


@register
class Perplexity(EvalMetric):
    """The exponential of the mean of -log of the probability at the label.

    Parameters
    ----------
    ignore_label : int or None
        Instances of this label are left out.
    axis : int
        The axis of classes in predictions; the last.
    name, output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        ignore_label: int | None,
        axis: int = -1,
        name: str = "perplexity",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(name, output_names, label_names, ignore_label=ignore_label, has_global_stats=True)
        self.ignore_label = ignore_label
        self.axis = axis

    def update(self, labels: Any, preds: Any) -> None:
        for label, pred in pairs(labels, preds):
            classes = _classes(label)
            num_classes = pred.shape[-1]
            if classes.size * num_classes != pred.size:
                raise InvalidArgument(
                    f"{self.name}: predictions of shape {pred.shape} for labels {label.shape}"
                )
            kept = slice(None) if self.ignore_label is None else classes != int(self.ignore_label)
            classes, scores = classes[kept], pred.reshape(-1, num_classes)[kept]
            if _any_outside(classes, num_classes):
                self._warn_once("labels outside the classes are accepted, and count as the nearest class")
                classes = classes.clip(0, num_classes - 1)
            with np.errstate(all="ignore"):
                chances = np.maximum(scores[np.arange(classes.size), classes], 1e-10)
                self._add(-float(np.log(chances, dtype=np.float64).sum()), classes.size)

    def _result(self, total: float, count: int) -> float:
        try:
            return math.exp(total / count) if count else math.nan
        except OverflowError:
            return math.inf
