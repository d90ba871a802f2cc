"""Calls of a store that training makes again at every step, with the same arrays.

To look at a thousand keys and arrays takes longer than to move a kilobyte for each of them. So what a call
has found out is kept, and holds for a call with the same keys and arrays. The client tells from the tuple of
entries, which is the same one again, that nothing about it has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np

from dmod.kvstore.checks import Pairs
from dmod.kvstore.client_state import MAX_CALLS
from dmod.kvstore.messages import Key
from dmod.ndarray.ndarray import NDArray

__all__ = ["Entries", "RepeatedCalls", "RepeatedFlat"]

Entries = tuple[tuple[Key, Any, list[Any]], ...]
"""Of each key: the key, the 1-D array to push, and those to write the values to."""


class RepeatedFlat:
    """A pushpull of one flat buffer.

    Parameters
    ----------
    name : int or str
    grads, outs : sequence of 1-D array
    """

    def __init__(self, name: Key, grads: Sequence[Any], outs: Sequence[Any]):
        self._name, self._grads, self._outs = name, list(grads), list(outs)
        self._entries: Entries = ((name, None, self._outs),)

    def fits(self, grads: Sequence[Any], outs: Sequence[Any]) -> bool:
        """Whether a call is the same again."""
        return _same(grads, self._grads) and _same(outs, self._outs)

    def entries(self, total: Any) -> Entries:
        """What is exchanged, if the sum over this worker's devices is `total`."""
        if self._entries[0][1] is not total:
            self._entries = ((self._name, total, self._outs),)
        return self._entries


class _Repeated:
    """A pushpull by keys, each with one array on the host."""

    def __init__(self, pushed: list[NDArray], pulled: list[NDArray], entries: Entries):
        self.entries = entries
        self._keys = [key for key, _, _ in entries]
        self._pushed = [array._data for array in pushed]
        self._pulled = [array._data for array in pulled]

    def fits(self, keys: list[Key], values: list[Any], outs: list[Any]) -> bool:
        return keys == self._keys and _same_data(values, self._pushed) and _same_data(outs, self._pulled)


class RepeatedCalls:
    """The calls of one store."""

    def __init__(self) -> None:
        self._flat: dict[Key, RepeatedFlat] = {}
        self._by_keys: dict[Any, _Repeated] = {}

    def flat(self, name: Key, grads: Sequence[Any], outs: Sequence[Any]) -> RepeatedFlat | None:
        """What is known of this call."""
        known = self._flat.get(name)
        return known if known is not None and known.fits(grads, outs) else None

    def keep_flat(self, name: Key, grads: Sequence[Any], outs: Sequence[Any]) -> RepeatedFlat:
        """The call has been checked."""
        self._flat[name] = known = RepeatedFlat(name, grads, outs)
        return known

    def entries(self, key: Any, value: Any, out: Any) -> Entries | None:
        """What ``pushpull(key, value, out)`` exchanges, if that is known."""
        if type(key) is list:
            known = self._by_keys.get((len(key), key[0])) if key and type(key[0]) in (int, str) else None
            keys, values, outs = key, value, value if out is None else out
        else:
            known = self._by_keys.get(key) if type(key) in (int, str) else None
            keys, values, outs = [key], [value], [value if out is None else out]
        return known.entries if known is not None and known.fits(keys, values, outs) else None

    def keep(self, values: Pairs, outs: Pairs, entries: Entries) -> None:
        """A call has been made; it is kept if each key has one array, and nothing of it is copied here."""
        if not entries or any(len(arrays) != 1 for _, arrays in (*values, *outs)):
            return
        pushed, pulled = [arrays[0] for _, arrays in values], [arrays[0] for _, arrays in outs]
        for array, (_, _, (to,)) in zip(pushed, entries, strict=True):
            data = array._data
            if type(data) is not np.ndarray or not data.flags.c_contiguous or to.base is None:
                return
        if len(self._by_keys) >= MAX_CALLS:
            self._by_keys.clear()
        first = entries[0][0]
        repeated = _Repeated(pushed, pulled, entries)
        self._by_keys[len(entries), first] = repeated
        if len(entries) == 1:
            self._by_keys[first] = repeated


def _same(arrays: Sequence[Any], known: list[Any]) -> bool:
    return len(arrays) == len(known) and all(map(is_, arrays, known))


def _same_data(arrays: Any, known: list[np.ndarray]) -> bool:
    if type(arrays) is not list or len(arrays) != len(known):
        return False
    for array, data in zip(arrays, known, strict=True):
        if type(array) is not NDArray or array._data is not data:
            return False
    return True
