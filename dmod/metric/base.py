"""The base of all metrics, several metrics as one, metrics from functions, and their registry.

Metrics count on the host: `update` works on the memory of arrays on the CPU without a copy.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from dmod.base import InvalidArgument
from dmod.device import to_host
from dmod.ndarray.ndarray import NDArray
from dmod.registry import Registry, nearest

__all__ = [
    "CompositeEvalMetric",
    "CustomMetric",
    "EvalMetric",
    "alias",
    "check_label_shapes",
    "create",
    "np",
    "register",
]

_registry = Registry("metric")
_GIVING = ("get", "get_global", "get_name_value", "get_global_name_value")
_PACKAGE = Path(__file__).parent.parent


def register(klass: type[EvalMetric]) -> type[EvalMetric]:
    """Register a metric under its class name; usable as a decorator."""
    _registry.register(klass)
    return klass


def alias(*names: str) -> Callable[[Any], Any]:
    """Return a decorator that registers a metric under further names."""
    return _registry.alias(*names)


def host(array: Any) -> numpy.ndarray:
    """The values of an NDArray or anything like an array; no copy if they are on the host already."""
    return to_host(array._data) if type(array) is NDArray else numpy.asarray(array)


def pairs(labels: Any, preds: Any) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
    """Labels with their predictions, as arrays on the host."""
    labels, preds = check_label_shapes(labels, preds, wrap=True)
    for label, pred in zip(labels, preds, strict=True):
        yield host(label), host(pred)


def check_label_shapes(labels: Any, preds: Any, wrap: bool = False, shape: bool = False) -> tuple[Any, Any]:
    """Check that there are as many labels as predictions.

    Parameters
    ----------
    labels, preds : NDArray or list of NDArray
    wrap : bool
        Make single arrays lists of one.
    shape : bool
        Compare the shapes, not the lengths.

    Returns
    -------
    labels, preds

    Raises
    ------
    InvalidArgument
        They differ.
    """
    left, right = (labels.shape, preds.shape) if shape else (len(labels), len(preds))
    if left != right:
        raise InvalidArgument(f"labels and predictions differ: {left} of labels, {right} of predictions")
    if wrap:
        labels = [labels] if isinstance(labels, (NDArray, numpy.ndarray)) else labels
        preds = [preds] if isinstance(preds, (NDArray, numpy.ndarray)) else preds
    return labels, preds


class EvalMetric:
    """Base of all metrics: a sum over instances, since the last `reset` and since the last `reset_local`.

    A metric of one's own defines `update`, which adds to ``sum_metric`` and ``num_inst``. If it adds to
    ``global_sum_metric`` and ``global_num_inst`` too, it passes ``has_global_stats=True``; if it does not,
    `reset_local` keeps what it has added, for `get_global`, unless it has a `reset_local` of its own.

    Parameters
    ----------
    name : str
    output_names, label_names : list of str, optional
        Which outputs and labels `update_dict` uses; default: all.
    **kwargs
        Kept for `get_config`.
    """

    def __init__(
        self,
        name: str,
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        self.name = str(name)
        self.output_names = output_names
        self.label_names = label_names
        self._has_global_stats = bool(kwargs.pop("has_global_stats", False))
        self._kwargs = kwargs
        self._warned = False
        self.reset()

    def __str__(self) -> str:
        return f"EvalMetric: {dict(self.get_name_value())}"

    def get_config(self) -> dict[str, Any]:
        """A description that `create` takes."""
        return {
            **self._kwargs,
            "metric": type(self).__name__,
            "name": self.name,
            "output_names": self.output_names,
            "label_names": self.label_names,
        }

    # ---- adding up

    def update(self, labels: Any, preds: Any) -> None:
        """Add a batch.

        Parameters
        ----------
        labels, preds : list of NDArray
        """
        raise NotImplementedError(f"{type(self).__name__} does not define update(labels, preds)")

    def update_dict(self, label: Mapping[str, Any], pred: Mapping[str, Any]) -> None:
        """Add a batch of labels and outputs by name; `label_names` and `output_names` choose among them."""
        labels = _chosen(self, "label", label, self.label_names)
        outputs = _chosen(self, "output", pred, self.output_names)
        try:
            self.update(list(labels.values()), list(outputs.values()))
        except InvalidArgument as error:
            raise InvalidArgument(f"{error}; {_told(self, labels, outputs)}") from error
        except Exception as error:  # such as of a metric of the user's
            error.add_note(_told(self, labels, outputs))
            raise

    def _add(self, total: float, count: int) -> None:
        self.sum_metric += total
        self.global_sum_metric += total
        self.num_inst += count
        self.global_num_inst += count

    def _warn_once(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"metric {self.name}: {text}", stacklevel=_level_of_user())

    # ---- for several workers

    def leaves(self) -> list[EvalMetric]:
        """The metrics that this one consists of: itself, or those of a `CompositeEvalMetric`."""
        return [self]

    def tally(self) -> tuple[float, float] | None:
        """Sum and count since `reset`, which several workers may add up; `figure_of` makes the value of them.

        None where the value is something else than that, as it is wherever `get` is overridden.
        """
        kind = type(self)
        if any(getattr(kind, name) is not getattr(EvalMetric, name) for name in _GIVING):
            return None
        if self._has_global_stats:
            return float(self.global_sum_metric), float(self.global_num_inst)
        return float(self._sum_before + self.sum_metric), float(self._num_before + self.num_inst)

    def figure_of(self, total: float, count: float) -> float:
        """The metric's value for a sum over `count` instances."""
        return self._result(total, count)  # type: ignore[arg-type]  # whole, whatever its type

    # ---- for checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What was added up so far, for `load_state_dict`: all numbers and arrays that the metric holds."""
        return _numbers(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called."""
        _set_numbers(self, state)

    # ---- resetting

    def reset(self) -> None:
        """Forget everything."""
        self.num_inst = 0
        self.sum_metric: Any = 0.0
        self.global_num_inst = 0
        self.global_sum_metric: Any = 0.0
        self._num_before = 0  # what `reset_local` has taken from a metric without global sums
        self._sum_before: Any = 0.0

    def reset_local(self) -> None:
        """Forget what `get` counts, but not what `get_global` does."""
        if not self._has_global_stats:  # `update` adds to the local ones only
            self._num_before += self.num_inst
            self._sum_before = self._sum_before + self.sum_metric
        self.num_inst = 0
        self.sum_metric = 0.0

    # ---- results

    def _result(self, total: float, count: int) -> float:
        """The metric for a sum over `count` instances."""
        return total / count if count else math.nan

    def get(self) -> tuple[Any, Any]:
        """The name and the value since `reset_local`; NaN if nothing was added."""
        return self.name, self._result(self.sum_metric, self.num_inst)

    def get_global(self) -> tuple[Any, Any]:
        """The name and the value since `reset`."""
        if self._has_global_stats:
            return self.name, self._result(self.global_sum_metric, self.global_num_inst)
        if self.tally() is None or not self._num_before:
            return self.get()
        return self.name, self._result(self._sum_before + self.sum_metric, self._num_before + self.num_inst)

    def get_name_value(self) -> list[tuple[str, float]]:
        """`get` as a list of pairs."""
        return _as_pairs(*self.get())

    def get_global_name_value(self) -> list[tuple[str, float]]:
        """`get_global` as a list of pairs."""
        if self._has_global_stats or self._num_before:
            return _as_pairs(*self.get_global())
        return self.get_name_value()


def _level_of_user() -> int:
    """The `stacklevel` by which a warning names the user's line: the first one outside of dmod."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and Path(frame.f_code.co_filename).is_relative_to(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _numbers(tally: Any) -> dict[str, Any]:
    """The numbers and arrays among an object's attributes, and those of the tallies that it holds."""
    found: dict[str, Any] = {}
    for name, value in vars(tally).items():
        if isinstance(value, (bool, int, float, numpy.generic)):
            found[name] = value
        elif isinstance(value, numpy.ndarray):
            found[name] = value.copy()
        elif hasattr(value, "__dict__") and not callable(value):
            found[name] = _numbers(value)
    return found


def _set_numbers(tally: Any, numbers: Mapping[str, Any]) -> None:
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            _set_numbers(getattr(tally, name), value)
        else:
            setattr(tally, name, value.copy() if isinstance(value, numpy.ndarray) else value)


def _as_pairs(name: Any, value: Any) -> list[tuple[str, float]]:
    names = name if isinstance(name, list) else [name]
    values = value if isinstance(value, list) else [value]
    return list(zip(names, values, strict=True))


def _chosen(
    metric: EvalMetric, what: str, arrays: Mapping[str, Any], names: Sequence[str] | None
) -> Mapping[str, Any]:
    """The labels or outputs (`what`) that a metric is for."""
    if names is None:
        return arrays
    for name in names:
        if name not in arrays:
            raise InvalidArgument(
                f"metric {metric.name}: its {what}_names are {list(names)}, but there is no {what} {name!r} "
                f"among {', '.join(map(repr, arrays)) or 'none'}{nearest(name, arrays)}"
            )
    return {name: arrays[name] for name in names}


def _told(metric: EvalMetric, labels: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    """What a metric was given that did not fit, and how to give it something else."""
    told = f"metric {metric.name} was given labels: {_shapes(labels)}; outputs: {_shapes(outputs)}"
    if not labels:
        return f"{told}; the iterator must provide labels, as NDArrayIter(data, label) does"
    if len(labels) == len(outputs):
        return told
    return (
        f"{told}; choose by name: mx.metric.{type(metric).__name__}(..., output_names={list(outputs)[:1]}, "
        f"label_names={list(labels)[:1]})"
    )


def _shapes(arrays: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {getattr(a, 'shape', '')}" for name, a in arrays.items()) or "none"


@register
@alias("composite")
class CompositeEvalMetric(EvalMetric):
    """Several metrics as one.

    Parameters
    ----------
    metrics : list, optional
        What `create` takes.
    name, output_names, label_names
        See `EvalMetric`.

    Examples
    --------
    >>> CompositeEvalMetric(['acc', 'mse']).get()[0]
    ['accuracy', 'mse']
    """

    def __init__(
        self,
        metrics: Sequence[Any] | None = None,
        name: str = "composite",
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        self.metrics = [create(metric) for metric in metrics or ()]
        super().__init__(name, output_names, label_names, has_global_stats=True)

    def add(self, metric: Any) -> None:
        """Add a child: what `create` takes."""
        self.metrics.append(create(metric))

    def get_metric(self, index: int) -> EvalMetric:
        """The child at `index`."""
        if not -len(self.metrics) <= index < len(self.metrics):
            raise InvalidArgument(f"get_metric({index}): there are {len(self.metrics)} metrics")
        return self.metrics[index]

    def update(self, labels: Any, preds: Any) -> None:
        for metric in self.metrics:
            metric.update(labels, preds)

    def update_dict(self, labels: Mapping[str, Any], preds: Mapping[str, Any]) -> None:
        labels = _chosen(self, "label", labels, self.label_names)
        preds = _chosen(self, "output", preds, self.output_names)
        for metric in self.metrics:
            metric.update_dict(labels, preds)

    def leaves(self) -> list[EvalMetric]:
        return [leaf for metric in self.metrics for leaf in metric.leaves()]

    def state_dict(self) -> dict[str, Any]:
        return {"metrics": [metric.state_dict() for metric in self.metrics]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for metric, kept in zip(self.metrics, state["metrics"], strict=True):
            metric.load_state_dict(kept)

    def reset(self) -> None:
        for metric in self.metrics:
            metric.reset()

    def reset_local(self) -> None:
        for metric in self.metrics:
            metric.reset_local()

    def get(self) -> tuple[list[str], list[float]]:
        return _joined(metric.get() for metric in self.metrics)

    def get_global(self) -> tuple[list[str], list[float]]:
        return _joined(metric.get_global() for metric in self.metrics)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "metrics": [metric.get_config() for metric in self.metrics]}


def _joined(results: Iterator[tuple[Any, Any]]) -> tuple[list[str], list[float]]:
    found = [pair for result in results for pair in _as_pairs(*result)]
    return [name for name, _ in found], [value for _, value in found]


@register
class CustomMetric(EvalMetric):
    """A metric from a function.

    Parameters
    ----------
    feval : callable
        ``feval(label, pred)`` of numpy arrays; returns the value for a batch, or ``(sum, count)``.
    name : str, optional
        Default: the function's.
    allow_extra_outputs : bool
        Leave predictions without a label aside.
    output_names, label_names
        See `EvalMetric`.
    """

    def __init__(
        self,
        feval: Callable[[Any, Any], Any],
        name: str | None = None,
        allow_extra_outputs: bool = False,
        output_names: Sequence[str] | None = None,
        label_names: Sequence[str] | None = None,
    ):
        if name is None:
            name = getattr(feval, "__name__", type(feval).__name__)
            name = f"custom({name})" if "<" in name else name
        super().__init__(name, output_names, label_names, has_global_stats=True)
        self._feval = feval
        self._allow_extra_outputs = allow_extra_outputs

    def update(self, labels: Any, preds: Any) -> None:
        if not self._allow_extra_outputs:
            labels, preds = check_label_shapes(labels, preds, wrap=True)
        for label, pred in zip(labels, preds, strict=False):
            result = self._feval(host(label), host(pred))
            total, count = result if isinstance(result, tuple) else (result, 1)
            self._add(total, count)

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError("CustomMetric cannot be described: it holds a function")


def np(
    numpy_feval: Callable[[Any, Any], Any], name: str | None = None, allow_extra_outputs: bool = False
) -> CustomMetric:
    """A metric from a function of numpy arrays; see `CustomMetric`.

    Examples
    --------
    >>> np(lambda label, pred: abs(label - pred).max(), name='worst').get()
    ('worst', nan)
    """

    def feval(label: Any, pred: Any) -> Any:
        return numpy_feval(label, pred)

    feval.__name__ = getattr(numpy_feval, "__name__", type(numpy_feval).__name__)
    return CustomMetric(feval, name, allow_extra_outputs)


def create(metric: Any, *args: Any, **kwargs: Any) -> EvalMetric:
    """Make a metric.

    Parameters
    ----------
    metric : str, callable, list, EvalMetric or dict
        A registered name, whatever its case; a function for `CustomMetric`; a list, for all of them
        together; a metric, which is returned as it is; a description of `EvalMetric.get_config`, also as
        JSON.
    *args, **kwargs
        For the metric.

    Raises
    ------
    InvalidArgument
        No such metric; the message offers near names.

    Examples
    --------
    >>> create('acc').get()
    ('accuracy', nan)
    """
    if isinstance(metric, EvalMetric):
        return metric
    if isinstance(metric, str):
        if metric[:1] in ("[", "{"):
            return create(_parsed(metric), *args, **kwargs)
        return _registry.get(metric)(*args, **kwargs)
    if isinstance(metric, Mapping):
        options = {**metric, **kwargs}
        name = options.pop("metric", None)
        if not isinstance(name, str):
            raise InvalidArgument(f"metric.create({metric!r}): expected a description with its 'metric'")
        return _registry.get(name)(*args, **options)
    if isinstance(metric, (list, tuple)):
        return CompositeEvalMetric([create(child, *args, **kwargs) for child in metric])
    if callable(metric):
        return CustomMetric(metric, *args, **kwargs)
    raise InvalidArgument(
        f"metric.create({metric!r}): expected a name, a function, a metric or a list of these"
    )


def _parsed(text: str) -> Any:
    """A metric's description from JSON: a map, or ``["name", {options}]``."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"metric.create({text!r}): not JSON: {error}") from None
    if isinstance(value, list):
        if len(value) != 2 or not isinstance(value[1], dict):
            raise InvalidArgument(f'metric.create({text!r}): expected ["name", {{options}}]')
        return {**value[1], "metric": value[0]}
    return value
