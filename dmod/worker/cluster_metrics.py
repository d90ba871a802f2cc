"""The metrics of an epoch: those of all workers, where their sums can be added up.

Each worker sees its share of the data, and its metric is that of its share. At the end of an epoch the
sums and counts go through the store, so that all workers report the same figures, of all data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dmod.config import settings
from dmod.kvstore.base import KVStore
from dmod.metric import EvalMetric

__all__ = ["ClusterMetrics", "Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """One metric as it stands: what it says by itself, and its sum and count, if these can be added up."""

    metric: EvalMetric
    values: list[tuple[str, float]]
    tally: tuple[float, float] | None

    @classmethod
    def of(cls, metric: EvalMetric) -> list[Snapshot]:
        """Of a metric, or of each in a composite one."""
        return [cls(leaf, leaf.get_global_name_value(), leaf.tally()) for leaf in metric.leaves()]


class ClusterMetrics:
    """Turns the metrics of one worker into those of all.

    Parameters
    ----------
    store : KVStore or None
        The one that connects the workers.
    logger : logging.Logger
        Is told once of metrics that cannot be added up.
    """

    def __init__(self, store: KVStore | None, logger: Any):
        self._store = store if store is not None and settings().cluster_metrics else None
        if self._store is not None and (self._store.num_workers == 1 or self._store.asynchronous):
            self._store = None
        self._logger = logger
        self._warned: set[str] = set()

    def train(self, own: Sequence[Snapshot], will_score: bool) -> tuple[list[tuple[str, float]], bool]:
        """The figures of an epoch's training, and whether any worker is going to score.

        Every worker calls this once an epoch, with metrics of the same kinds.
        """
        if self._store is None:
            return [pair for snapshot in own for pair in snapshot.values], will_score
        *totals, scoring = self._store.sum_over_workers([*self._numbers(own), float(will_score)])
        return self._figures(own, totals), scoring > 0

    def validation(self, metric: EvalMetric, scored: bool) -> list[tuple[str, float]]:
        """The figures of a validation; a worker that has not `scored` adds nothing, and gets them too.

        Every worker calls this if `train` has said that any scores.
        """
        if not scored:
            metric.reset()
        own = Snapshot.of(metric)
        if self._store is None:
            return [pair for snapshot in own for pair in snapshot.values]
        return self._figures(own, self._store.sum_over_workers(self._numbers(own)))

    @staticmethod
    def _numbers(own: Sequence[Snapshot]) -> list[float]:
        return [number for snapshot in own for number in snapshot.tally or ()]

    def _figures(self, own: Sequence[Snapshot], totals: Sequence[float]) -> list[tuple[str, float]]:
        left = list(totals)
        figures: list[tuple[str, float]] = []
        for snapshot in own:
            if snapshot.tally is None:
                self._say_local(snapshot.metric)
                figures += snapshot.values
            else:
                total, count = left.pop(0), left.pop(0)
                figures.append((snapshot.metric.name, snapshot.metric.figure_of(total, count)))
        return figures

    def _say_local(self, metric: EvalMetric) -> None:
        if metric.name not in self._warned:
            self._warned.add(metric.name)
            self._logger.warning(
                "metric %s is this worker's own: it is no mean that could be taken over all workers",
                metric.name,
            )
