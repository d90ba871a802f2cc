"""Batches that are copied to their devices while the batch before them is computed.

A group of executors has two sets of inputs then, which take turns: while the devices read one, the next batch
goes into the other, by way of pinned host memory, which the devices read by themselves. Three moments keep
them apart. A copy begins when all computing is done that was started before the present batch's
(`Turns.begun`), which is all that has read this set. The next batch's computing begins when the copy is done.
Pinned memory is written again when the copy from it is done. Outputs, gradients and parameters are the same
for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmod.device import pinned_memory
from dmod.device.base import Backend, Event
from dmod.executor.executor import Executor
from dmod.ndarray import NDArray

__all__ = ["Ahead", "InputSet", "Staged", "Target", "Turns", "host_array"]

Target = tuple[str, int, list[NDArray]]
"""An input: its name, its batch axis, and its array on each device."""


@dataclass
class InputSet:
    """Executors that read one set of inputs.

    Attributes
    ----------
    turn : int
        0 or 1.
    pinned : dict
        Host memory by input and device.
    sources : list
        What else devices read: pinned arrays of a batch itself.
    copied : list of Event
        When each device will have read all that.
    """

    turn: int
    execs: list[Executor]
    data: list[Target]
    labels: list[Target]
    pinned: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    sources: list[np.ndarray] = field(default_factory=list)
    copied: list[Event] = field(default_factory=list)


@dataclass(frozen=True)
class Staged:
    """A batch that was copied ahead, or still is."""

    inputs: InputSet
    arrays: list[Any]
    has_labels: bool
    events: list[Event]

    def is_of(self, batch: Any) -> bool:
        """Whether these are the arrays of `batch`."""
        arrays = [*batch.data, *((getattr(batch, "label", None) or ()) if self.has_labels else ())]
        return len(arrays) >= len(self.arrays) and all(
            a is b for a, b in zip(self.arrays, arrays, strict=False)
        )


class Turns:
    """Whose turn it is, for all groups of a module: they may have inputs in common.

    Attributes
    ----------
    wanted : bool
        Whether batches are copied ahead at present, as in `fit`.
    turn : int
        Which set of inputs the last `forward` read.
    begun : list of Event
        For each device, the moment when all is done that was started before that.
    staged : Staged, optional
        The next batch.
    """

    def __init__(self, backends: Sequence[Backend]):
        self.backends = list(backends)
        self.wanted = False
        self.turn = 0
        self.begun: list[Event] = []
        self.staged: Staged | None = None

    def take(self) -> Staged | None:
        """The batch that was copied ahead; all computing from now on comes after the copies."""
        staged, self.staged = self.staged, None
        if staged is not None:
            for memory, event in zip(self.backends, staged.events, strict=True):
                memory.wait_for(event)
        return staged

    def begin(self, turn: int) -> None:
        """Note that a batch's computing begins, from one set of inputs."""
        self.turn = turn
        if self.wanted:
            self.begun = [memory.mark() for memory in self.backends]

    def want(self, wanted: bool) -> bool:
        """Copy batches ahead from now on, or do not; returns what was before."""
        before, self.wanted = self.wanted, wanted
        self.take()
        self.begun = []
        return before


class Ahead:
    """The two sets of inputs of a group of executors.

    Parameters
    ----------
    first : InputSet
    second : InputSet
    turns : Turns
    slices : list of slice
        The devices' parts of a batch.
    """

    def __init__(self, first: InputSet, second: InputSet, turns: Turns, slices: Sequence[slice]):
        self._sets = (first, second)
        self._turns, self._slices = turns, slices

    def stage(self, batch: Any, lack_labels: bool) -> bool:
        """Begin to copy a batch; false if it must be copied when it is computed.

        Parameters
        ----------
        batch : DataBatch
        lack_labels : bool
            Whether that may be done to a batch that has no labels where there are inputs for them.
        """
        turns = self._turns
        turns.take()  # one that was not used after all
        inputs = self._sets[1 - turns.turn]
        if not isinstance(getattr(batch, "data", None), (list, tuple)):
            return False
        labels = getattr(batch, "label", None) or []
        targets = [*inputs.data, *(inputs.labels if labels else [])]
        sources = [*batch.data, *labels[: len(inputs.labels)]]
        if len(batch.data) != len(inputs.data) or len(sources) != len(targets):
            return False
        if inputs.labels and not labels and not lack_labels:
            return False
        jobs = []
        for source, (name, axis, arrays) in zip(sources, targets, strict=True):
            host = host_array(source)
            if host is None:
                return False
            for device, (array, part) in enumerate(zip(arrays, self._slices, strict=True)):
                whole = axis < 0 or len(arrays) == 1
                piece = host if whole else host[(slice(None),) * axis + (part,)]
                if piece.shape != array.shape:
                    return False
                jobs.append((name, device, array, piece))
        for event in inputs.copied:  # long since: that batch is computed
            event.synchronize()
        inputs.sources = []
        after = turns.begun or [memory.mark() for memory in turns.backends]
        events = list(after)
        for name, device, array, piece in jobs:
            memory, read = turns.backends[device], piece
            if _is_pinned(piece) and piece.dtype == array.dtype:
                inputs.sources.append(piece)
            else:
                read = _pinned(inputs, name, device, array, memory)
                np.copyto(read, piece, casting="unsafe")
            events[device] = memory.copy_in_ahead(array._data, read, after[device])
        inputs.copied = events
        turns.staged = Staged(inputs, sources, bool(labels), events)
        return True

    def knows(self, inputs: InputSet) -> bool:
        """Whether it is one of these."""
        return any(inputs is own for own in self._sets)


def host_array(source: Any) -> np.ndarray | None:
    """The memory of a batch's array if that is dense and on the host, else None."""
    memory = source._data if type(source) is NDArray else source
    return memory if isinstance(memory, np.ndarray) else None


def _is_pinned(piece: np.ndarray) -> bool:
    memory = pinned_memory()
    return memory is not None and memory.holds(piece)


def _pinned(inputs: InputSet, name: str, device: int, array: NDArray, memory: Backend) -> np.ndarray:
    """Host memory for a device's part of an input, in the shape and dtype of its array there."""
    found = inputs.pinned.get((name, device))
    if found is None:
        dtype = np.dtype(array.dtype)
        made = memory.pinned(array.size * dtype.itemsize)
        found = inputs.pinned[name, device] = made.view(dtype).reshape(array.shape)
    return found
