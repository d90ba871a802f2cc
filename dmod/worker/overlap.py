"""Gradients that leave while the backward pass goes on.

A backward pass computes the gradients of the last layers first. A unit of the flat buffer can leave as soon
as the gradients of all arrays in it are final, if nobody can change them any more: in `fit`'s own loop, with
gradients that are written, not added to, and on one device of the host. What comes back is written to the
weights in `update`, after the last step that reads them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Any

from dmod.device import backend
from dmod.executor.plan import Plan
from dmod.kvstore.base import KVStore
from dmod.worker.group import ExecutorGroup, Stops
from dmod.worker.update import StoreUpdate, SummedUpdate

__all__ = ["Overlap", "overlap_of"]


class Overlap:
    """When the units of a module's gradients can leave.

    Parameters
    ----------
    plan : Plan
    strategy : StoreUpdate or SummedUpdate

    Attributes
    ----------
    stops : list of (int, callable)
        For `Executor.backward`. Units that are final only at the last step leave in `update`.
    """

    def __init__(self, plan: Plan, strategy: StoreUpdate | SummedUpdate):
        self.plan, self.strategy = plan, strategy
        leaving: dict[int, list[Callable[[], None]]] = {}
        for name, group, outs in strategy.exchanged():
            segments = group.layout.segments
            ends = [segment.stop for segment in segments]
            for number, parts in enumerate(strategy.store.flat_units(name)):
                step = -1
                for part in parts:
                    first = bisect_right(ends, part.start)
                    for segment in segments[first:]:
                        if segment.start >= part.stop:
                            break
                        step = max(step, plan.gradient_steps.get(segment.name, len(plan.backward)))
                begin = partial(strategy.store.begin_unit, name, number, group.grads, outs)
                leaving.setdefault(step + 1, []).append(begin)
        stops = sorted(stop for stop in leaving if stop < len(plan.backward))
        self.stops: Stops = [(stop, partial(_call_all, leaving[stop])) for stop in stops]


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


def overlap_of(group: ExecutorGroup, strategy: Any) -> Overlap | None:
    """The overlap of a module's next step; None if nothing can, or should, leave early."""
    plan = group.execs[0].plan(True)
    known = group.overlap
    if known is None or known[0] is not plan or known[1] is not strategy:
        found = Overlap(plan, strategy) if _possible(group, strategy) else None
        known = group.overlap = (plan, strategy, found)
    overlap: Overlap | None = known[2]
    return overlap


def _possible(group: ExecutorGroup, strategy: Any) -> bool:
    if type(strategy) not in (StoreUpdate, SummedUpdate) or not group.writes_all_gradients:
        return False
    store: KVStore = strategy.store
    if not store.prefers_overlap:
        return False
    contexts = [context for flat in group.params.groups for context in flat.contexts]
    return len(group.execs) == 1 and all(backend(context).is_host for context in contexts)
