"""Metrics of correlation: Pearson's, between numbers, and its form for classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.metric.base import EvalMetric, alias, pairs, register

__all__ = ["PCC", "PearsonCorrelation"]


class _Moments:
    """Means, variances and covariance of two variables, instance by instance or batch by batch.

    Batches are merged by the formulas of Chan, Golub and LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances" (1979), which lose no digits to large means.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean_x = self.mean_y = self.xx = self.yy = self.xy = 0.0

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        count, n = self.count, x.size
        if not n:
            return
        mean_x, mean_y = float(x.mean()), float(y.mean())
        x, y = x - mean_x, y - mean_y
        dx, dy = mean_x - self.mean_x, mean_y - self.mean_y
        weight = count * n / (count + n)
        self.xx += float(x @ x) + dx * dx * weight
        self.yy += float(y @ y) + dy * dy * weight
        self.xy += float(x @ y) + dx * dy * weight
        self.count += n
        self.mean_x += dx * n / self.count
        self.mean_y += dy * n / self.count

    @property
    def correlation(self) -> float:
        """NaN if one of the variables does not vary."""
        product = self.xx * self.yy
        return self.xy / math.sqrt(product) if product > 0 else math.nan


@register
@alias("pearsonr")
class PearsonCorrelation(EvalMetric):
    """Pearson's correlation coefficient of labels and predictions.

    MXNet's 'micro' average survives `reset_local` and is 0 in `get_global`; here it counts what they say.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.
    average : {'macro', 'micro'}
        The mean of the batches' coefficients, or the coefficient of all numbers.

    Examples
    --------
    >>> from dmod.ndarray.ndarray import array
    >>> metric = PearsonCorrelation()
    >>> metric.update([array([[1, 0], [0, 1], [0, 1]])], [array([[0.3, 0.7], [0, 1.], [0.4, 0.6]])])
    >>> round(metric.get()[1], 5)
    0.42164
    """

    def __init__(
        self,
        name: str = "pearsonr",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        average: str = "macro",
    ):
        if average not in ("macro", "micro"):
            raise InvalidArgument(f"PearsonCorrelation: average={average!r}, expected 'macro' or 'micro'")
        self.average = average
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "average": self.average}

    def tally(self) -> tuple[float, float] | None:
        return super().tally() if self.average == "macro" else None

    def reset(self) -> None:
        super().reset()
        self._moments, self._global_moments = _Moments(), _Moments()

    def reset_local(self) -> None:
        super().reset_local()
        self.reset_micro()

    def reset_micro(self) -> None:
        """Forget what the 'micro' average counts."""
        self._moments = _Moments()

    def update_variance(self, new_values: Any, *aggregate: Any) -> tuple[float, float, float]:
        """Add numbers to a running count, mean and sum of squared differences from the mean.

        Parameters
        ----------
        new_values : array-like
        *aggregate : float
            Count, mean and sum so far.

        Returns
        -------
        count, mean, sum_of_squares : float

        Examples
        --------
        >>> PearsonCorrelation().update_variance([1., 2., 3.], 0, 0., 0.)
        (3, 2.0, 2.0)
        """
        moments = _Moments()
        moments.count, moments.mean_x, moments.xx = aggregate
        values = np.asarray(new_values, np.float64).reshape(-1)
        moments.add(values, values)
        return moments.count, moments.mean_x, moments.xx

    def update_cov(self, label: Any, pred: Any) -> None:
        """Add numbers to what the 'micro' average counts.

        Parameters
        ----------
        label, pred : numpy.ndarray
        """
        x, y = (np.asarray(a, np.float64).reshape(-1) for a in (label, pred))
        self._moments.add(x, y)
        self._global_moments.add(x, y)

    def update(self, labels: Any, preds: Any) -> None:
        for label, pred in pairs(labels, preds):
            if label.shape != pred.shape:
                raise InvalidArgument(
                    f"{self.name}: labels of shape {label.shape}, predictions of shape {pred.shape}; "
                    "expected the same"
                )
            if self.average == "macro":
                batch = _Moments()
                x, y = (a.reshape(-1).astype(np.float64) for a in (label, pred))
                batch.add(x, y)
                self._add(batch.correlation, 1)
            else:
                self.update_cov(label, pred)
                self.num_inst += 1
                self.global_num_inst += 1
                self.sum_metric = self._moments.correlation * self.num_inst
                self.global_sum_metric = self._global_moments.correlation * self.global_num_inst


@register
class PCC(EvalMetric):
    """Pearson's correlation coefficient of classes: Matthews' for any number of them.

    It is that of the confusion matrix of all instances (Gorodkin, "Comparing two K-category assignments
    by a K-category correlation coefficient", 2004): 1 if all are right, about 0 if predictions say
    nothing. Labels of several axes count element by element; MXNet counts a pair of classes once, however
    often it occurs along the last axis.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.
    has_global_stats : bool

    Examples
    --------
    >>> from dmod.ndarray.ndarray import array
    >>> metric = PCC()
    >>> metric.update([array([0, 1, 2, 2])], [array([0, 1, 2, 1])])
    >>> round(metric.get()[1], 4)
    0.7
    """

    def __init__(
        self,
        name: str = "pcc",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        has_global_stats: bool = True,
    ):
        super().__init__(name, output_names, label_names, has_global_stats=has_global_stats)

    def tally(self) -> tuple[float, float] | None:
        return None  # a coefficient of counts

    def reset(self) -> None:
        self.num_inst = self.global_num_inst = 0
        self._matrix, self._global_matrix = np.zeros((2, 2)), np.zeros((2, 2))

    def reset_local(self) -> None:
        self.num_inst = 0
        self._matrix = np.zeros((2, 2))

    @property
    def sum_metric(self) -> float:
        """The coefficient times the number of batches since `reset_local`."""
        return _coefficient(self._matrix) * self.num_inst

    @property
    def global_sum_metric(self) -> float:
        """The coefficient times the number of batches since `reset`."""
        return _coefficient(self._global_matrix) * self.global_num_inst

    def update(self, labels: Any, preds: Any) -> None:
        for label, pred in pairs(labels, preds):
            if pred.shape != label.shape:
                if pred.ndim < 2:
                    raise InvalidArgument(
                        f"{self.name}: predictions of shape {pred.shape} for labels {label.shape}"
                    )
                num_classes = pred.shape[1]
                pred = pred.argmax(1)
            else:
                num_classes = 2
            expected, found = (self._classes(a) for a in (label, pred))
            if expected.size != found.size:
                raise InvalidArgument(f"{self.name}: {expected.size} labels, {found.size} predictions")
            if not expected.size:
                continue
            size = max(num_classes, len(self._matrix), int(expected.max()) + 1, int(found.max()) + 1)
            counts = np.bincount(found * size + expected, minlength=size * size).reshape(size, size)
            self._matrix = _padded(self._matrix, size) + counts
            self._global_matrix = _padded(self._global_matrix, size)
            self._global_matrix[:size, :size] += counts
        self.num_inst += 1
        self.global_num_inst += 1

    def _classes(self, values: np.ndarray) -> np.ndarray:
        flat = values.reshape(-1)
        # A confusion matrix has a row per class, so one wild number would take all memory.
        if flat.size and not (flat.min() >= 0 and flat.max() < 1 << 14):
            raise InvalidArgument(
                f"{self.name}: labels and predictions must be class numbers from 0 to {(1 << 14) - 1}"
            )
        return flat.astype(np.int64)


def _padded(matrix: np.ndarray, size: int) -> np.ndarray:
    """A copy with room for `size` classes."""
    grown = np.zeros((max(size, len(matrix)),) * 2)
    grown[: len(matrix), : len(matrix)] = matrix
    return grown


def _coefficient(confusion: np.ndarray) -> float:
    """NaN if there is only one class among the labels, or among the predictions."""
    total, right = confusion.sum(), np.trace(confusion)
    found, expected = confusion.sum(1), confusion.sum(0)
    varies = (total * total - found @ found) * (total * total - expected @ expected)
    return float((right * total - found @ expected) / math.sqrt(varies)) if varies > 0 else math.nan
