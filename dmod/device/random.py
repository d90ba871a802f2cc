"""The process's seed, and counter-based random streams that follow from it.

Every random number in dmod is a function of (seed, what it is for): a stream of a slot at a node in a
step does not depend on what was drawn elsewhere, so two workers with one device each draw what one
process with two devices draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument

__all__ = ["SlotStream", "get_state", "global_seed", "host_generator", "seed", "set_state"]

_MASK64 = (1 << 64) - 1
_INFERENCE = 1 << 63


def _host_generator(value: int) -> np.random.Generator:
    """A generator whose key no slot's stream has."""
    return np.random.Generator(np.random.Philox(key=np.array([value, _MASK64], np.uint64)))


class _SeedState:
    """The seed, a count of calls to `seed`, and the generator for draws on the host."""

    def __init__(self) -> None:
        self.value = 0
        self.generation = 0
        self.host = _host_generator(0)


_STATE = _SeedState()


def seed(value: int) -> None:
    """Set the process's seed and restart every stream from its beginning."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InvalidArgument(f"seed({value!r}): expected a whole number")
    _STATE.value = int(value) & _MASK64
    _STATE.generation += 1
    _STATE.host = _host_generator(_STATE.value)


def global_seed() -> int:
    """The seed in force; 0 if none was set."""
    return _STATE.value


def host_generator() -> np.random.Generator:
    """The generator for draws outside of executors: initializers, ``mx.random``."""
    return _STATE.host


def get_state() -> dict[str, Any]:
    """The seed, and where the host's generator stands, for `set_state`."""
    state: Any = _STATE.host.bit_generator.state
    return {"seed": _STATE.value, "host": state}


def set_state(state: dict[str, Any]) -> None:
    """Go back to where `get_state` was called; streams of slots have states of their own."""
    seed(state["seed"])
    _STATE.host.bit_generator.state = state["host"]


class SlotStream:
    """The random streams of one global slot (rank, device): one per node and step.

    Parameters
    ----------
    slot : int
        The global slot: ``rank * devices_per_worker + device``.
    """

    def __init__(self, slot: int = 0):
        self.slot = slot
        self.step = 0
        self._counts = [0, 0]
        self._generation = -1
        self._philox = np.random.Philox(key=0)
        self._generator = np.random.Generator(self._philox)

    def advance(self, is_train: bool = True) -> None:
        """Begin the next step; after a call of `seed`, the first one.

        Inference counts apart from training, so that an evaluation changes no mask of a later step.
        """
        if self._generation != _STATE.generation:
            self._generation = _STATE.generation
            self._counts = [0, 0]
        self._counts[is_train] += 1
        self.step = self._counts[is_train] + (0 if is_train else _INFERENCE)

    def step_back(self) -> None:
        """Forget the last step of training: the next one repeats its numbers."""
        self._counts[True] -= 1

    def get_state(self) -> list[int]:
        """How many steps of inference and of training there were, for `set_state`."""
        return list(self._counts) if self._generation == _STATE.generation else [0, 0]

    def set_state(self, counts: list[int]) -> None:
        """Go on after as many steps, with the seed that is in force."""
        self._generation = _STATE.generation
        self._counts = [int(count) for count in counts]

    @property
    def seed(self) -> int:
        """The process's seed, which all streams follow."""
        return _STATE.value

    def generator(self, node: int) -> np.random.Generator:
        """The generator of `node` in the current step, at its beginning; valid until the next call."""
        state: Any = {
            "bit_generator": "Philox",
            "state": {
                "counter": np.array([0, 0, self.step, node], np.uint64),
                "key": np.array([_STATE.value, self.slot], np.uint64),
            },
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._philox.state = state
        return self._generator
