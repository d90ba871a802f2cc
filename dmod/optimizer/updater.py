"""`Updater`: an optimizer together with the states of its parameters, array by array."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.context import Context
from dmod.ndarray.ndarray import NDArray, zeros
from dmod.optimizer.flat import supports_flat
from dmod.optimizer.optimizer import NotSerializable, Optimizer, from_config
from dmod.optimizer.pickled import dump_pickle
from dmod.optimizer.states import OptimizerStates, StateEntry

__all__ = ["Updater", "get_updater", "to_mxnet"]


class Updater:
    """Updates weights and keeps their states: what a store without servers calls.

    Parameters
    ----------
    optimizer : Optimizer

    Attributes
    ----------
    states : dict
        By index: None, an NDArray, or a tuple of such.
    states_synced : dict
        By index: whether the state has been fitted to its weight, which loaded ones are at their first use.
    """

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self.states: dict[Any, Any] = {}
        self.states_synced: dict[Any, bool] = {}

    def __call__(self, index: Any, grad: Any, weight: Any) -> None:
        """Update one weight, or each of a list, in place."""
        if isinstance(index, (list, tuple)):
            for one in zip(index, grad, weight, strict=True):
                self(*one)
            return
        if index not in self.states:
            self._take_over_by_name(index)
        if index not in self.states:
            self.states[index] = self.optimizer.create_state_multi_precision(index, weight)
        elif not self.states_synced[index]:
            self.states[index] = self._fitted(index, weight)
        self.states_synced[index] = True
        self.optimizer.update_multi_precision(index, weight, grad, self.states[index])

    def _take_over_by_name(self, index: Any) -> None:
        """Use states that were loaded under the parameter's name, as MXNet's stores save them."""
        name = self.optimizer.idx2name.get(index)
        if name is not None and self.states_synced.get(name) is False:
            counts = self.optimizer._index_update_count
            self.states[index] = self.states.pop(name)
            self.states_synced[index] = self.states_synced.pop(name)
            counts[index] = counts.pop(name, self.optimizer.begin_num_update)

    def _fitted(self, index: Any, weight: NDArray) -> Any:
        """The loaded state, in the structure and on the device that the optimizer uses for `weight`."""
        fresh = self.optimizer.create_state_multi_precision(index, weight)
        places, loaded = self._ordered(fresh), _leaves(self.states[index])
        if [p.shape for p in places] != [s.shape for s in loaded]:
            raise InvalidArgument(
                f"optimizer states of {index!r}: shapes {[s.shape for s in loaded]}, "
                f"{type(self.optimizer).__name__} needs {[p.shape for p in places]}"
            )
        for place, state in zip(places, loaded, strict=True):
            state.copyto(place)
        return fresh

    def _ordered(self, state: Any) -> list[NDArray]:
        """The arrays within a state in the order of files and flat buffers: a float32 copy comes last."""
        leaves, optimizer = _leaves(state), self.optimizer
        if optimizer.master_first and supports_flat(optimizer) and len(leaves) > optimizer.flat_states():
            return [*leaves[1:], leaves[0]]
        return leaves

    def sync_state_context(self, state: Any, context: Context) -> Any:
        """The state on another device."""
        if isinstance(state, NDArray):
            return state.as_in_context(context)
        if isinstance(state, (list, tuple)):
            return type(state)(self.sync_state_context(part, context) for part in state)
        return state

    def to_states(self, dump_optimizer: bool = False) -> OptimizerStates:
        """The states and counts as plain arrays, which are copies.

        Parameters
        ----------
        dump_optimizer : bool
            Add the optimizer's description, if it has one.
        """
        names, counts = self.optimizer.idx2name, self.optimizer._index_update_count
        entries = {
            index: StateEntry(
                str(names.get(index, "")),
                counts.get(index, self.optimizer.begin_num_update),
                tuple(leaf.asnumpy() for leaf in self._ordered(state)),
            )
            for index, state in self.states.items()
        }
        config = None
        if dump_optimizer:
            try:
                config = self.optimizer.to_config()
            except NotSerializable:
                config = None
        return OptimizerStates(config, entries)

    def from_states(self, states: OptimizerStates) -> None:
        """Take over states and counts, and the optimizer too if the states describe one."""
        if states.config is not None:
            self.optimizer = from_config(states.config)
        loaded = {i: tuple(NDArray(a) for a in entry.arrays) for i, entry in states.entries.items()}
        self.states = {i: s[0] if len(s) == 1 else s or None for i, s in loaded.items()}
        self.states_synced = dict.fromkeys(loaded, False)
        counts = {index: entry.count for index, entry in states.entries.items()}
        self.optimizer._index_update_count = dict(counts)
        self.optimizer.num_update = max([self.optimizer.begin_num_update, *counts.values()])

    def get_states(self, dump_optimizer: bool = False) -> bytes:
        """The states in the format of a ``.states`` file; see `to_states`."""
        return self.to_states(dump_optimizer).to_bytes()

    def get_mxnet_states(self) -> bytes:
        """The states as a pickle that MXNet's ``Updater.set_states`` reads."""
        return to_mxnet(self.optimizer, self.to_states())

    def set_states(self, states: bytes) -> None:
        """Take over what `get_states` returned.

        Raises
        ------
        FormatError
            `states` are corrupt, truncated or something else; nothing is changed.
        """
        self.from_states(OptimizerStates.from_bytes(states))


def _leaves(state: Any) -> list[NDArray]:
    """The arrays within a state, in order."""
    if state is None:
        return []
    if isinstance(state, (list, tuple)):
        return [leaf for part in state for leaf in _leaves(part)]
    if isinstance(state, np.ndarray):
        return [NDArray(state)]
    return [state]


def to_mxnet(optimizer: Optimizer, states: OptimizerStates) -> bytes:
    """The content of a ``.states`` file for MXNet, with states nested as it has them for `optimizer`."""
    nested: dict[int | str, Any] = {}
    for index, entry in states.entries.items():
        plain = optimizer.create_state(index, zeros((1,)))
        arrays = list(entry.arrays)
        if len(arrays) == len(_leaves(plain)):
            nested[index] = _filled(plain, arrays)
        elif not supports_flat(optimizer):
            form = optimizer.create_state_multi_precision(index, zeros((1,), dtype="float16"))
            nested[index] = _filled(form, arrays)
        else:
            inner = _filled(plain, arrays)
            nested[index] = (arrays[0], inner) if optimizer.master_first else (inner, arrays[0])
    return dump_pickle(nested)


def _filled(form: Any, arrays: list[np.ndarray]) -> Any:
    """`form` with `arrays` in the place of its own, taken off the list in order."""
    if form is None:
        return None
    if isinstance(form, (list, tuple)):
        return tuple(_filled(part, arrays) for part in form)
    return arrays.pop(0)


def get_updater(optimizer: Optimizer) -> Updater:
    """A function of ``(index, grad, weight)`` that updates `weight` in place and keeps states by index."""
    return Updater(optimizer)
