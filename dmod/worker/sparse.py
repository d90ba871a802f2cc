"""How parameters with row_sparse gradients are updated: only the rows that some device's gradient has.

They lie outside of the flat buffers. All devices of all workers first agree on the rows, by the sum of
marks, and then sum these rows' gradients, a fixed number of rows at a time; sums go through the store's
flat buffers, and so over the same fixed tree as all others. The optimizer runs in every worker, alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.device import copy, to_host
from dmod.kvstore.base import KVStore
from dmod.ndarray import NDArray
from dmod.ndarray.flat import FlatLayout
from dmod.ndarray.sparse_array import RowSparseNDArray
from dmod.optimizer import Optimizer, OptimizerStates, get_updater
from dmod.worker.parameters import ParameterSet

__all__ = ["SparseUpdate", "WithSparse"]

_ELEMENTS = 1 << 16
"""Of gradients that are summed at a time: 256 KB of float32."""


class _SharedRows:
    """The rows of one parameter, summed over all devices of all workers."""

    def __init__(
        self, store: KVStore, name: str, shape: tuple[int, ...], dtype: Any, count: int, digest: str
    ):
        self.store, self.shape, self.dtype = store, shape, np.dtype(dtype)
        self.width = int(np.prod(shape[1:], dtype=np.int64))
        self.per_round = max(1, min(shape[0], _ELEMENTS // max(1, self.width)))
        self._names = (f"{name}:marks", f"{name}:rows")
        layouts = (
            FlatLayout.plan([(0, "marks", (shape[0],))], "float32"),
            FlatLayout.plan([(0, "rows", (self.per_round, self.width))], self.dtype.name),
        )
        self._buffers: list[list[np.ndarray]] = []
        self._views: list[list[np.ndarray]] = []
        for key, layout, part in zip(self._names, layouts, ("marks", "rows"), strict=True):
            buffers = [layout.allocate() for _ in range(count + 1)]  # the last: the sum
            store.init_flat(key, layout, buffers[:count], digest=digest, mode="sum")
            self._buffers.append(buffers)
            self._views.append([layout.views(b)[part] for b in buffers])

    def _sum(self, which: int) -> np.ndarray:
        *given, total = self._buffers[which]
        self.store.pushpull_flat(self._names[which], given, [total], exact=True)
        return self._views[which][-1]

    def total(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """The rows that any device's part has, and their sums; a part is its rows, ascending, and values."""
        for marks, (rows, _) in zip(self._views[0], parts, strict=False):
            marks.fill(0)
            marks[rows] = 1
        union = np.flatnonzero(self._sum(0))
        values = np.empty((len(union), self.width), self.dtype)
        for start in range(0, len(union), self.per_round):
            chosen = union[start : start + self.per_round]
            for own, (rows, given) in zip(self._views[1], parts, strict=False):
                own.fill(0)
                begin, end = np.searchsorted(rows, [chosen[0], chosen[-1] + 1])
                own[np.searchsorted(chosen, rows[begin:end])] = given[begin:end].reshape(-1, self.width)
            values[start : start + len(chosen)] = self._sum(1)[: len(chosen)]
        return union, values.reshape(-1, *self.shape[1:])


class SparseUpdate:
    """Updates the parameters of a set that lie outside of its flat buffers.

    Parameters
    ----------
    params : ParameterSet
    optimizer : Optimizer
    store : KVStore, optional
        What sums over devices and workers; all weights become those of the first device of rank 0.
    digest : str
        What must be equal on all workers.

    Raises
    ------
    InvalidArgument
        The store is asynchronous.
    """

    def __init__(self, params: ParameterSet, optimizer: Optimizer, store: KVStore | None, digest: str = ""):
        if store is not None and store.asynchronous:
            raise InvalidArgument(
                f"init_optimizer: {params.sparse[0][1]!r} has row_sparse gradients, which all workers sum "
                f"together; use 'dist_sync', not {store.type!r}"
            )
        self.params = params
        self._optimizer = optimizer
        self._updater = get_updater(optimizer)
        self._shared: list[_SharedRows] = []
        if store is None:
            return
        number = store.next_user("sparse")  # several modules may share a store
        for _, name, shape, dtype in params.sparse:
            key = f"sparse{number}:{name}"
            shared = _SharedRows(store, key, shape, dtype, len(params.contexts), digest)
            self._shared.append(shared)
            self._same_start(shared, name, store.rank)

    def _same_start(self, shared: _SharedRows, name: str, rank: int) -> None:
        """Give every device the weights of the first device of rank 0."""
        weights = [arrays[name] for arrays in self.params.arg_arrays]
        nothing = np.zeros(0, np.int64), np.zeros((0, *shared.shape[1:]), shared.dtype)
        everything = np.arange(shared.shape[0]), to_host(weights[0]._data)
        first = everything if rank == 0 else nothing
        _, values = shared.total([first] + [nothing] * (len(weights) - 1))
        for weight in weights:
            copy(weight._data, values)

    def update(self) -> None:
        """Update all devices' weights by the sum of all gradients."""
        for place, (index, name, _, _) in enumerate(self.params.sparse):
            grads = [arrays[name] for arrays in self.params.grad_arrays]
            weights = [arrays[name] for arrays in self.params.arg_arrays]
            grad: Any = grads[0]
            if self._shared:
                rows, values = self._shared[place].total([g._parts() for g in grads])
                grad = RowSparseNDArray(values, [rows], weights[0].shape, weights[0].context)
            self._updater(index, grad, weights[0])
            self._follow(weights, grad)

    def _follow(self, weights: list[NDArray], grad: Any) -> None:
        """Bring what the first device's weights have become to the others."""
        rows = grad._aux[0] if getattr(self._optimizer, "lazy_update", False) else slice(None)
        for other in weights[1:]:
            if weights[0]._data.__class__ is np.ndarray and other._data.__class__ is np.ndarray:
                other._data[rows] = weights[0]._data[rows]
            else:
                copy(other._data, to_host(weights[0]._data))

    def get_states(self) -> OptimizerStates:
        """The optimizer's states, by parameter index."""
        return self._updater.to_states()

    def set_states(self, states: OptimizerStates) -> None:
        """Take over such states; others among them are left alone."""
        numbers = {index for index, _, _, _ in self.params.sparse}
        names = {name for _, name, _, _ in self.params.sparse}
        own = {k: e for k, e in states.entries.items() if k in numbers or k in names}
        self._updater.from_states(OptimizerStates(None, own))


class WithSparse:
    """A strategy for the parameters in flat buffers, and `SparseUpdate` for those that are not."""

    def __init__(self, dense: Any, sparse: SparseUpdate):
        self._dense, self._sparse = dense, sparse
        self.in_store = dense.in_store

    def update(self) -> None:
        """See `UpdateStrategy`. A round that is dropped is dropped by the first sum, before any update."""
        self._dense.update()
        self._sparse.update()

    def end_epoch(self) -> None:
        """See `UpdateStrategy`."""
        self._dense.end_epoch()

    def rebind(self, params: ParameterSet) -> None:
        """See `UpdateStrategy`."""
        self._dense.rebind(params)
        self._sparse.params = params

    def get_states(self, copy: bool = True) -> OptimizerStates:
        """See `UpdateStrategy`."""
        dense = self._dense.get_states(copy)
        return OptimizerStates(dense.config, {**dense.entries, **self._sparse.get_states().entries})

    def set_states(self, states: OptimizerStates) -> None:
        """See `UpdateStrategy`."""
        numbers = {index for index, _, _, _ in self._sparse.params.sparse}
        names = {name for _, name, _, _ in self._sparse.params.sparse}
        rest = {k: e for k, e in states.entries.items() if k not in numbers and k not in names}
        self._dense.set_states(OptimizerStates(states.config, rest))
        self._sparse.set_states(states)
