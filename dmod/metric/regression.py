"""Metrics for numbers: the means of errors, and of losses that the network computes itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.metric.base import EvalMetric, host, pairs, register
from dmod.ndarray.ndarray import NDArray

__all__ = ["MAE", "MSE", "RMSE", "Caffe", "Loss", "Torch"]


class _ErrorMetric(EvalMetric):
    """The mean over batches of an error of each batch."""

    def __init__(self, name: str, output_names: Sequence[str] | None, label_names: Sequence[str] | None):
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def _error(self, difference: np.ndarray) -> float:
        """The error of a batch."""
        raise NotImplementedError

    def update(self, labels: Any, preds: Any) -> None:
        for label, pred in pairs(labels, preds):
            label = label.reshape(-1, 1) if label.ndim == 1 else label
            pred = pred.reshape(-1, 1) if pred.ndim == 1 else pred
            with np.errstate(all="ignore"):
                try:
                    difference = label - pred
                except ValueError:
                    raise InvalidArgument(
                        f"{self.name}: labels of shape {label.shape} do not fit predictions {pred.shape}"
                    ) from None
                self._add(self._error(difference), 1)
            if label.shape != pred.shape:
                self._warn_once(f"labels {label.shape} are spread over predictions {pred.shape}")


@register
class MAE(_ErrorMetric):
    """The mean absolute error, averaged over batches.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        name: str = "mae",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(name, output_names, label_names)

    def _error(self, difference: np.ndarray) -> float:
        return float(np.abs(difference).mean())


@register
class MSE(_ErrorMetric):
    """The mean squared error, averaged over batches.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.

    Examples
    --------
    >>> from dmod.ndarray.ndarray import array
    >>> metric = MSE()
    >>> metric.update([array([1, 2])], [array([1, 4])])
    >>> metric.get()
    ('mse', 2.0)
    """

    def __init__(
        self,
        name: str = "mse",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(name, output_names, label_names)

    def _error(self, difference: np.ndarray) -> float:
        return float(np.square(difference).mean())


@register
class RMSE(_ErrorMetric):
    """The root of the mean squared error, averaged over batches.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        name: str = "rmse",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(name, output_names, label_names)

    def _error(self, difference: np.ndarray) -> float:
        return math.sqrt(np.square(difference).mean())


@register
class Loss(EvalMetric):
    """The mean of the outputs themselves, for networks that end in a loss.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        name: str = "loss",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def update(self, _: Any, preds: Any) -> None:
        for pred in [preds] if isinstance(preds, (NDArray, np.ndarray)) else preds:
            values = host(pred)
            with np.errstate(all="ignore"):
                self._add(float(values.sum()), values.size)


@register
class Torch(Loss):
    """`Loss`, named for criterions of Torch.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        name: str = "torch",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(name, output_names, label_names)


@register
class Caffe(Loss):
    """`Loss`, named for criterions of Caffe.

    Parameters
    ----------
    name, output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        name: str = "caffe",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        super().__init__(name, output_names, label_names)
