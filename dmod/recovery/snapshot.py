"""What a worker's training consists of at one moment: taken, and put back.

Weights and optimizer states are the job's, see `contents`. Every worker's own are: where its iterator and its
compression has left of its gradients, the metric, and the counters of callbacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dmod.base import InvalidArgument
from dmod.context import Context
from dmod.device import random as streams
from dmod.io.resume import has_state, random_state, set_random_state
from dmod.kvstore.base import KVStore
from dmod.ndarray import NDArray
from dmod.optimizer import Optimizer, OptimizerStates
from dmod.symbol import Symbol

__all__ = [
    "Learner",
    "Trainable",
    "restore_worker",
    "take_callbacks",
    "take_metric",
    "take_worker",
]


class Learner(Protocol):
    """A module with parameters, devices and an optimizer of its own."""

    @property
    def symbol(self) -> Symbol:
        """What it computes."""

    @property
    def store(self) -> KVStore | None:
        """The store through which its devices and workers share gradients."""

    @property
    def optimizer(self) -> Optimizer | None:
        """What updates its parameters, here or on servers."""

    @property
    def contexts(self) -> Sequence[Context]:
        """Its devices."""

    def get_optimizer_states(self, copy: bool = True) -> OptimizerStates:
        """The optimizer's states, wherever it runs; copies, if the next update would change them."""

    def set_optimizer_states(self, states: OptimizerStates) -> None:
        """Take over such states; called by all workers."""

    def get_device_states(self) -> dict[str, Any]:
        """What the devices hold besides weights; copies."""

    def set_device_states(self, state: dict[str, Any]) -> None:
        """Put it back."""


class Trainable(Protocol):
    """What is needed of a module; `BaseModule` has it."""

    @property
    def symbol(self) -> Any:
        """What it computes, if that is a symbol."""

    @property
    def learners(self) -> Sequence[Learner]:
        """The modules that it consists of."""

    def get_params(self) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """Weights, and means of auxiliary states."""


def take_worker(module: Trainable, train_data: Any, metric: Any, callbacks: Sequence[Any]) -> dict[str, Any]:
    """Copy this worker's part; `restore_worker` puts it back."""
    return {
        "devices": [learner.get_device_states() for learner in module.learners],
        "stores": [store.get_worker_state() for store in _stores(module)],
        "iterator": train_data.state_dict() if has_state(train_data) else None,
        "random": {"global": random_state(), "dmod": streams.get_state()},
        **take_metric(metric),
        **take_callbacks(callbacks),
    }


def take_metric(metric: Any) -> dict[str, Any]:
    """The metric's part of a worker's."""
    return {"metric": metric.state_dict() if hasattr(metric, "state_dict") else None}


def take_callbacks(callbacks: Sequence[Any]) -> dict[str, Any]:
    """The callbacks' part of a worker's."""
    return {"callbacks": [c.state_dict() if hasattr(c, "state_dict") else None for c in callbacks]}


def _stores(module: Trainable) -> list[Any]:
    """The different stores of a module, as far as they keep something for a worker."""
    stores = {id(learner.store): learner.store for learner in module.learners}
    return [store for store in stores.values() if hasattr(store, "get_worker_state")]


def restore_worker(
    state: dict[str, Any],
    module: Trainable,
    train_data: Any,
    metric: Any,
    callbacks: Sequence[Any],
    where: str,
) -> None:
    """Put back what `take_worker` took.

    Raises
    ------
    InvalidArgument
        The iterator, or the module's parts, are others than then.
    """
    if len(state["devices"]) != len(module.learners):
        raise InvalidArgument(
            f"{where}: taken of {len(state['devices'])} modules, there are {len(module.learners)} now"
        )
    if state["iterator"] is not None:
        if not has_state(train_data):
            raise InvalidArgument(
                f"{where}: taken with an iterator that has a state, {type(train_data).__name__} has none; "
                "resume with the iterator that it was taken with"
            )
        train_data.load_state_dict(state["iterator"])
    if hasattr(metric, "load_state_dict") and state["metric"] is not None:
        metric.load_state_dict(state["metric"])
    for callback, kept in zip(callbacks, state["callbacks"], strict=False):
        if kept is not None and hasattr(callback, "load_state_dict"):
            callback.load_state_dict(kept)
    # Generators come after all that may draw from them, and streams after the seed that they count from.
    set_random_state(state["random"]["global"])
    streams.set_state(state["random"]["dmod"])
    for learner, kept in zip(module.learners, state["devices"], strict=True):
        learner.set_device_states(kept)
    for store, kept in zip(_stores(module), state["stores"], strict=False):
        store.set_worker_state(kept)
