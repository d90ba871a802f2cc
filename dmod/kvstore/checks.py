"""What a user gives to a store: whether it fits, as arrays by key. Errors name the call and the key."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any, TypeAlias

import numpy as np

from dmod.base import InvalidArgument, KVStoreError
from dmod.device import to_host
from dmod.kvstore.messages import Key
from dmod.ndarray.flat import FlatLayout
from dmod.ndarray.ndarray import NDArray
from dmod.optimizer import OptimizerStates

__all__ = [
    "Pairs",
    "add_states",
    "arrays_of",
    "check_buffers",
    "check_new_flat",
    "check_out",
    "check_value",
    "dense_pairs",
    "row_numbers",
]

Pairs: TypeAlias = list[tuple[Key, list[NDArray]]]
"""Keys, each with its arrays: one per device."""


def dense_pairs(pairs: Pairs) -> Pairs:
    """Values as dense arrays, which is how stores keep them."""
    return [(k, [v if type(v) is NDArray else v._dense() for v in values]) for k, values in pairs]


def row_numbers(call: str, rows: Any, count: int) -> np.ndarray:
    """Numbers of rows as int64, ascending and each once; InvalidArgument unless they are among `count`."""
    given = to_host(rows._data) if isinstance(rows, NDArray) else np.asarray(rows)
    wanted: np.ndarray = np.unique(given).astype(np.int64)
    if wanted.size and not 0 <= wanted[0] <= wanted[-1] < count:
        raise InvalidArgument(f"{call}: rows {wanted[0]} to {wanted[-1]} of {count}")
    return wanted


def check_new_flat(
    name: str, mode: str, known: Container[Any], layout: FlatLayout, weights: Sequence[np.ndarray]
) -> None:
    """Raise `InvalidArgument` for what `init_flat` cannot register."""
    if mode not in ("update", "sum"):
        raise InvalidArgument(f"init_flat({name!r}): mode {mode!r}, expected 'update' or 'sum'")
    if name in known:
        raise InvalidArgument(f"init_flat({name!r}): the name has been initialised already")
    check_buffers(f"init_flat({name!r})", weights, layout)


def check_buffers(
    call: str, buffers: Sequence[np.ndarray], layout: FlatLayout, count: int | None = None
) -> None:
    """Raise `InvalidArgument` unless these are `count` flat buffers of `layout`."""
    if len(buffers) != count if count is not None else not buffers:
        raise InvalidArgument(f"{call}: {len(buffers)} buffers, expected {count or 'one or more'}")
    for buffer in buffers:
        if buffer.shape != (layout.size,) or buffer.dtype != layout.dtype:
            raise InvalidArgument(
                f"{call}: buffer {buffer.shape} {buffer.dtype}, "
                f"the layout has ({layout.size},) {layout.dtype}"
            )


def add_states(states: OptimizerStates, entries: dict[int | str, Any], name: str) -> None:
    """Add the states of one flat buffer, whose numbers must be its own.

    Raises
    ------
    KVStoreError
        They are those of another one too.
    """
    if both := states.entries.keys() & entries.keys():
        raise KVStoreError(
            f"get_optimizer_states: {name!r} and another flat buffer both have an array number "
            f"{min(both, key=str)}: several modules share this store; save the states through each module"
        )
    states.entries.update(entries)


def check_value(call: str, array: NDArray | np.ndarray, shape: tuple[int, ...], dtype: Any) -> None:
    """Raise `InvalidArgument` if a pushed array does not fit its key."""
    if array.shape != shape:
        raise InvalidArgument(f"{call}: shape {array.shape}, initialised as {shape}")
    if np.dtype(array.dtype) != dtype:
        raise InvalidArgument(f"{call}: dtype {np.dtype(array.dtype)}, initialised as {np.dtype(dtype)}")


def check_out(call: str, out: NDArray, shape: tuple[int, ...]) -> None:
    """Raise `InvalidArgument` if a value does not fit where it shall go."""
    if out.shape != shape:
        raise InvalidArgument(f"{call}: out has shape {out.shape}, the key was initialised as {shape}")


def arrays_of(call: str, key: Key, value: Any) -> list[NDArray]:
    arrays = list(value) if isinstance(value, (list, tuple)) else [value]
    for array in arrays:
        if not isinstance(array, NDArray):
            raise InvalidArgument(
                f"{call}({key!r}): expected NDArray, or a list of them, got {type(array).__name__}"
            )
    if not arrays:
        raise InvalidArgument(f"{call}({key!r}): expected at least one NDArray, got an empty list")
    return arrays
