"""`KVStore`: the arrays that devices and workers share, by key; and `create`, which makes one by name.

This file has the part that all stores have in common. It moves no data.
"""

from __future__ import annotations

import operator
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np

from dmod.base import InvalidArgument, KVStoreError
from dmod.config import settings
from dmod.context import num_gpus
from dmod.device import to_host
from dmod.kvstore.checks import Pairs, arrays_of, dense_pairs, row_numbers
from dmod.kvstore.kinds import KVStoreType
from dmod.kvstore.messages import Key
from dmod.ndarray.flat import FlatLayout
from dmod.ndarray.ndarray import NDArray, zeros
from dmod.ndarray.sparse_array import RowSparseNDArray
from dmod.optimizer import Optimizer, OptimizerStates

__all__ = ["KVStore", "KVStoreBase", "KVStoreType", "create"]


class KVStoreBase:
    """What a store must offer to be used for training; `register` adds stores of one's own."""

    OPTIMIZER = "optimizer"
    kv_registry: ClassVar[dict[str, type[KVStoreBase]]] = {}

    @staticmethod
    def register(klass: type[KVStoreBase]) -> type[KVStoreBase]:
        """Let `create` make `klass` by its name, in lower case; usable as a decorator."""
        KVStoreBase.kv_registry[klass.__name__.lower()] = klass
        return klass

    @staticmethod
    def is_capable(capability: str) -> bool:
        """Whether the store can do more than pass arrays on: run an ``'optimizer'``."""
        raise NotImplementedError

    @property
    def type(self) -> str:
        """The name of the kind of store."""
        raise NotImplementedError

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""
        raise NotImplementedError

    @property
    def num_workers(self) -> int:
        """The number of worker processes."""
        raise NotImplementedError

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """Give the value of rank 0 to all."""
        raise NotImplementedError

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """Sum over all devices and workers, and give the result to all."""
        raise NotImplementedError

    def set_optimizer(self, optimizer: Optimizer) -> None:
        """Let the store run `optimizer`, if it is capable of that."""
        raise NotImplementedError

    def save_optimizer_states(self, fname: str, dump_optimizer: bool = False) -> None:
        """Save the optimizer's states to a file."""
        raise NotImplementedError

    def load_optimizer_states(self, fname: str) -> None:
        """Load the optimizer's states from a file."""
        raise NotImplementedError


class KVStore(KVStoreBase):
    """Arrays by key, shared between devices and, with the 'dist' kinds, between workers.

    A key is a whole number or a string (one kind per store). Where several keys are given, as a list,
    there is a value, or a list of values (one per device), for each. `create` makes a store.

    Examples
    --------
    >>> from dmod.ndarray.ndarray import ones, zeros
    >>> kv = create('local')
    >>> kv.init('w', ones((2, 2)))
    >>> kv.push('w', [ones((2, 2)) * 2, ones((2, 2)) * 3])    # one value per device: the sum is stored
    >>> out = zeros((2, 2))
    >>> kv.pull('w', out=out)
    >>> out.asnumpy()
    array([[5., 5.],
           [5., 5.]], dtype=float32)
    """

    def __init__(self, handle: KVStoreType):
        self._kind = handle
        self._key_type: type | None = None
        self._checked_keys: dict[Key, Key] = {}
        self._number_buffers: set[str] = set()
        self._users: Counter[str] = Counter()

    # ---- what it is

    @property
    def type(self) -> str:
        """The name of the kind of store, such as 'dist_sync'."""
        return self._kind.name

    @property
    def asynchronous(self) -> bool:
        """Whether each worker's push is applied when it arrives: 'dist_async' and its kin."""
        return self._kind.asynchronous

    @property
    def rank(self) -> int:
        """This worker's number, from 0; always 0 in a store of one process."""
        return 0

    @property
    def num_workers(self) -> int:
        """The number of worker processes."""
        return 1

    @staticmethod
    def is_capable(capability: str) -> bool:
        """Whether the store has a capability: ``'optimizer'``, that is, it can run the optimizer."""
        if capability.lower() != KVStoreBase.OPTIMIZER:
            raise InvalidArgument(f"is_capable({capability!r}): unknown capability; known: 'optimizer'")
        return True

    # ---- arrays by key

    def init(self, key: Any, value: Any) -> None:
        """Store the first value of each key. Done once per key, and with 'dist' by all workers alike.

        Parameters
        ----------
        key : int, str, or list of either
        value : NDArray or list of NDArray
            One for each key. With 'dist', all workers get the values of rank 0.

        Raises
        ------
        InvalidArgument
            The key has been initialised, or the value is not one array.
        """
        pairs = dense_pairs(self._pairs("init", key, value))
        for k, values in pairs:
            if len(values) != 1:
                raise InvalidArgument(f"init({k!r}): expected one value per key, got {len(values)}")
        self._init([(k, values[0]) for k, values in pairs])

    def push(self, key: Any, value: Any, priority: int = 0) -> None:
        """Add values up over devices and workers; the optimizer updates with the sum, or it is stored.

        Parameters
        ----------
        key : int, str, or list of either
        value : NDArray, list of NDArray, or list of these lists
            For each key one value per device.
        priority : int
            Higher ones may leave first.

        Raises
        ------
        UnknownKeyError
            The key has not been initialised.
        InvalidArgument
            A value does not have the key's shape or dtype.
        """
        self._push(dense_pairs(self._pairs("push", key, value)), priority)

    def pull(self, key: Any, out: Any = None, priority: int = 0, ignore_sparse: bool = True) -> None:
        """Copy the values of the keys into `out`, after what this worker has pushed.

        Parameters
        ----------
        key : int, str, or list of either
        out : NDArray, list of NDArray, or list of these lists
            Where to put the values: one or more for each key.
        priority : int
        ignore_sparse : bool
            Whether sparse arrays in `out` are left as they are; else they are an error.
        """
        if out is None:
            raise InvalidArgument(f"pull({key!r}): expected out=, the arrays to copy the values into")
        pairs = self._pairs("pull", key, out)
        dense = [(k, [o for o in outs if o.stype == "default"]) for k, outs in pairs]
        if dense != pairs and not ignore_sparse:
            raise InvalidArgument(f"pull({key!r}): out is sparse; row_sparse_pull() gets rows")
        self._pull([(k, outs) for k, outs in dense if outs], priority)

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> None:
        """`push` and then `pull`, in half the time; `out` defaults to `value`."""
        values = dense_pairs(self._pairs("pushpull", key, value))
        outs = values if out is None else self._pairs("pushpull", key, out)
        self._pushpull(values, outs, priority)

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> None:
        """`init` and then `pull`: all workers get the values of rank 0."""
        self.init(key, value)
        self.pull(key, out=out, priority=priority)

    def row_sparse_pull(self, key: Any, out: Any = None, priority: int = 0, row_ids: Any = None) -> None:
        """Copy some rows of the keys' values into row_sparse arrays.

        Parameters
        ----------
        key : int, str, or list of either
        out : RowSparseNDArray, list of them, or list of these lists
        priority : int
        row_ids : NDArray, or list of NDArray
            The numbers of the rows: one array for all of `out`, or one for each.

        Raises
        ------
        InvalidArgument
            `out` is not row_sparse, or a row is outside of the value.
        """
        pairs = self._pairs("row_sparse_pull", key, [] if out is None else out)
        outs = [o for _, arrays in pairs for o in arrays]
        ids = list(row_ids) if isinstance(row_ids, (list, tuple)) else [row_ids] * len(outs)
        if row_ids is None or len(ids) != len(outs):
            given = "none" if row_ids is None else str(len(ids))
            raise InvalidArgument(
                f"row_sparse_pull({key!r}): expected row_ids for {len(outs)} arrays, got {given}"
            )
        for o in outs:
            if not isinstance(o, RowSparseNDArray):
                raise InvalidArgument(
                    f"row_sparse_pull({key!r}): out is {o.stype}, expected row_sparse arrays"
                )
        keys = [k for k, arrays in pairs for _ in arrays]
        for k, o, rows in zip(keys, outs, ids, strict=True):
            wanted = row_numbers(f"row_sparse_pull({k!r})", rows, o.shape[0])
            o._set(self._pull_rows(k, o, wanted, priority), [wanted])

    def _pull_rows(self, key: Key, out: NDArray, rows: np.ndarray, priority: int) -> np.ndarray:
        """Some rows, ascending and each once, of a value of the shape and dtype of `out`."""
        whole = zeros(out.shape, dtype=out.dtype)
        self._pull([(key, [whole])], priority)
        values: np.ndarray = to_host(whole._data)[rows]
        return values

    def set_gradient_compression(self, compression_params: dict[str, Any]) -> None:
        """From now on send gradients in fewer bytes.

        Parameters
        ----------
        compression_params : dict
            ``{'type': '2bit', 'threshold': 0.5}``: each element becomes threshold, -threshold or 0, and
            what that leaves out is added to the next push: 1/16 of the bytes. ``{'type': 'bf16'}`` or
            ``{'type': 'fp16'}``: rounded to 16 bits: 1/2 of the bytes. With 'dist' the way from worker to
            server is compressed, with 'device' what each device contributes; values that come back are
            exact.

        Raises
        ------
        InvalidArgument
            There is no such compression, or not in this kind of store.
        """
        raise InvalidArgument(
            f"set_gradient_compression: a {self.type!r} store moves nothing that could be compressed; "
            "'device' and 'dist_sync' do"
        )

    # ---- flat buffers

    def next_user(self, kind: str) -> int:
        """A number, from 0, for another user of this store: names are made of it, alike on all workers."""
        self._users[kind] += 1
        return self._users[kind] - 1

    def num_slots(self, n_local: int) -> int:
        """How many devices all workers have together, when each has `n_local`."""
        return self.num_workers * n_local

    def first_slot(self, n_local: int) -> int:
        """The number of this worker's first device among those of all workers."""
        return self.rank * n_local

    def init_flat(
        self,
        name: str,
        layout: FlatLayout,
        weights: Sequence[np.ndarray],
        *,
        digest: str = "",
        mode: str = "update",
    ) -> None:
        """Register a whole flat buffer under one name.

        Parameters
        ----------
        name : str
        layout : FlatLayout
            The same on all workers, which is checked.
        weights : sequence of ndarray, each 1-D of ``layout.size``
            One per local device; on return all have the values of rank 0 (with mode 'sum', their own).
        digest : str
            What the buffer belongs to, such as a symbol's digest: must be equal on all workers.
        mode : {'update', 'sum'}
            With 'update' the store runs the optimizer, once there is one.
        """
        raise NotImplementedError

    def pushpull_flat(
        self, name: str, grads: Sequence[np.ndarray], outs: Sequence[np.ndarray], *, exact: bool = False
    ) -> None:
        """Sum gradients over all devices of all workers; write the new weights, or the sum, into `outs`.

        Parameters
        ----------
        name : str
        grads : sequence of ndarray
            One per local device; left as they are, unless they are among `outs`.
        outs : sequence of ndarray
            With mode 'update' and an optimizer: the weights, which are replaced by the updated ones.
            Otherwise they get the sum.
        exact : bool
            Never compress: these are no gradients.

        Raises
        ------
        EpochEnded
            Another worker has ended the epoch: nothing was applied, here or elsewhere.
        """
        raise NotImplementedError

    def flat_units(self, name: str) -> list[list[slice]]:
        """Into which parts a flat buffer is cut that can be pushed one by one; none if it cannot."""
        return []

    def begin_unit(
        self, name: str, unit: int, grads: Sequence[np.ndarray], outs: Sequence[np.ndarray]
    ) -> None:
        """Let one of `flat_units` leave ahead of the next `pushpull_flat`, which has the same arguments.

        Its part of `grads` is final, and `outs` may be written from now on.
        """
        raise NotImplementedError

    @property
    def keeps_weights(self) -> bool:
        """Whether an optimizer in the store updates weights of its own, and not those of this process."""
        return False

    @property
    def prefers_overlap(self) -> bool:
        """Whether gradients should leave early: as ``DMOD_OVERLAP`` says, else if a server is elsewhere."""
        return False

    def settle(self) -> None:
        """Wait for what a call has left behind that was interrupted, as by Ctrl-C.

        Until then servers may read the gradients that it pushed, so `Module` calls this before it computes
        new ones.

        Raises
        ------
        NotReadyError
            It was interrupted when a part of its gradients had left: it cannot be completed.
        """

    def end_epoch(self) -> tuple[int, ...]:
        """Take part in no more rounds of this epoch; returns when all workers have said so.

        Returns
        -------
        tuple of int
            How many rounds each rank had in this epoch; empty for a store of one process.
        """
        return ()

    def sum_over_workers(self, numbers: Sequence[float]) -> list[float]:
        """Add up numbers of all workers, who call this alike, between epochs; the same sums on all.

        In a store of one process, and one whose workers do not wait for each other, they stay as they are.
        """
        if self.num_workers == 1 or self.asynchronous:
            return list(numbers)
        name = f"numbers:{len(numbers)}"
        layout = FlatLayout.plan([(0, "numbers", (len(numbers),))], np.float64)
        buffer = layout.allocate()
        buffer[: len(numbers)] = numbers
        if name not in self._number_buffers:
            self.init_flat(name, layout, [buffer], mode="sum")
            self._number_buffers.add(name)
        self.pushpull_flat(name, [buffer], [buffer], exact=True)
        return [float(number) for number in buffer[: len(numbers)]]

    # ---- the optimizer

    def set_optimizer(self, optimizer: Optimizer) -> None:
        """Let the store run `optimizer`: from now on, a push updates the stored values."""
        raise NotImplementedError

    def set_updater(self, updater: Callable[[Any, NDArray, NDArray], None]) -> None:
        """Let the store call ``updater(key, pushed_sum, stored_value)`` at every push."""
        raise NotImplementedError

    def _set_updater(self, updater: Callable[[Any, NDArray, NDArray], None]) -> None:
        """MXNet's name of `set_updater`."""
        self.set_updater(updater)

    def get_optimizer_states(
        self, dump_optimizer: bool = False, names: Sequence[str] | None = None, copy: bool = True
    ) -> OptimizerStates:
        """The optimizer's states: of all servers, with 'dist'. Each worker may ask for itself.

        Parameters
        ----------
        dump_optimizer : bool
            Whether the optimizer's parameters are wanted too.
        names : sequence of str, optional
            Of these flat buffers only; default: of everything in the store.
        copy : bool
            Whether the next update must leave what is returned as it is.

        Raises
        ------
        KVStoreError
            Two flat buffers number their arrays alike, so that their states cannot be told apart: `names`
            is missing.
        """
        raise NotImplementedError

    def set_optimizer_states(self, states: OptimizerStates, names: Sequence[str] | None = None) -> None:
        """Take over states of `get_optimizer_states`. With 'dist', called by all workers alike."""
        raise NotImplementedError

    def get_worker_state(self) -> dict[str, Any]:
        """What the store keeps for this worker alone: with gradient compression, what it has left over.

        Returns
        -------
        dict
            For `set_worker_state`, of plain values and arrays; empty if there is nothing.
        """
        return {}

    def set_worker_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `get_worker_state` gave, after the same keys are initialised.

        Parameters
        ----------
        state : dict
            What the store has no use for, such as without compression, is left out.
        """

    def save_optimizer_states(self, fname: str, dump_optimizer: bool = False) -> None:
        """Save the optimizer's states to the file `fname`, with the optimizer's parameters if asked."""
        self.get_optimizer_states(dump_optimizer).save(fname)

    def load_optimizer_states(self, fname: str) -> None:
        """Load the optimizer's states from the file `fname`."""
        self.set_optimizer_states(OptimizerStates.load(fname))

    # ---- the other workers

    def barrier(self) -> None:
        """Wait for all workers."""

    def _barrier(self) -> None:
        """MXNet's name of `barrier`."""
        self.barrier()

    def _send_command_to_servers(self, head: int, body: str) -> None:
        raise KVStoreError(
            "_send_command_to_servers: servers take no commands; set_optimizer() sends the optimizer"
        )

    def get_num_dead_node(self, node_id: int, timeout: float = 60) -> int:
        """How many processes are known to be lost.

        Parameters
        ----------
        node_id : int
            Which ones count, as a sum: 1 the scheduler, 2 servers, 4 workers.
        timeout : float
            Without effect: a silent process is lost after ``DMOD_TIMEOUT_S``, and all others end.
        """
        return 0

    def close(self) -> None:
        """Leave the job; the store cannot be used any more. A store that is not closed is closed at exit."""

    # ---- for the kinds of stores

    def _init(self, pairs: list[tuple[Key, NDArray]]) -> None:
        raise NotImplementedError

    def _push(self, pairs: Pairs, priority: int) -> None:
        raise NotImplementedError

    def _pull(self, pairs: Pairs, priority: int) -> None:
        raise NotImplementedError

    def _pushpull(self, values: Pairs, outs: Pairs, priority: int) -> None:
        self._push(values, priority)
        self._pull(outs, priority)

    def _pairs(self, call: str, key: Any, value: Any) -> Pairs:
        """Keys with their arrays; a key that is given more than once has all of its arrays."""
        keys, values = [key], [value]
        if isinstance(key, (list, tuple)):
            keys = list(key)
            values = list(value) if isinstance(value, (list, tuple)) else [value]
        if len(keys) != len(values):
            raise InvalidArgument(f"{call}: {len(keys)} keys, but {len(values)} values")
        pairs: dict[Key, list[NDArray]] = {}
        known, kind = self._checked_keys, NDArray
        for one, arrays in zip(keys, values, strict=True):
            # Thousands of keys go through here at every step: texts are made when something is wrong only.
            k = known.get(one) if type(one) is str else None
            if k is None:
                k = self._checked_key(call, one)
            found = [arrays] if type(arrays) is kind else arrays_of(call, k, arrays)
            if k in pairs:
                pairs[k] += found
            else:
                pairs[k] = found
        return list(pairs.items())

    def _checked_key(self, call: str, key: Any) -> Key:
        if not isinstance(key, str):
            if isinstance(key, bool) or not hasattr(key, "__index__"):
                raise InvalidArgument(
                    f"{call}({key!r}): expected a key (whole number or str), got {type(key).__name__}"
                )
            key = operator.index(key)
        if self._key_type is None:
            self._key_type = type(key)
        elif type(key) is not self._key_type:
            kinds = "strings" if self._key_type is str else "whole numbers"
            raise InvalidArgument(f"{call}({key!r}): mixed key types: this store's other keys are {kinds}")
        self._checked_keys[key] = key
        return key  # type: ignore[no-any-return]


def create(name: str = "local") -> KVStore:
    """Make a store.

    Parameters
    ----------
    name : str
        'local', 'device' or 'nccl': between the devices of this process; 'nccl' needs GPUs.
        'dist_sync', 'dist_device_sync', 'dist_async': between worker processes, through servers. With
        'dist_async' a push updates the values when it arrives, and nobody waits. The processes find
        each other by the variables ``DMLC_*``, which `dmod-launch` sets. In a process whose
        ``DMLC_ROLE`` is 'server' or 'scheduler' this call serves until the job is over, and then ends
        the process. A worker has one such store: asking again gives the same one.

    Raises
    ------
    InvalidArgument
        There is no such kind of store.
    ClusterError
        The workers, servers and scheduler did not get together.
    """
    if isinstance(name, str) and name.lower() in KVStoreBase.kv_registry:
        return KVStoreBase.kv_registry[name.lower()]()  # type: ignore[return-value]
    kind = KVStoreType.parse(name)
    if kind.name == "nccl" and not num_gpus():
        raise InvalidArgument(
            "kvstore.create('nccl'): sums between GPUs, and there is none that can be used here; 'device' "
            "sums on whatever devices there are"
        )
    if not kind.distributed:
        from dmod.kvstore.local import LocalStore

        return LocalStore(kind)
    if settings().role in ("server", "scheduler"):
        _serve_and_exit()
    from dmod.kvstore.dist import DistStore

    return DistStore.open(kind)


def _serve_and_exit() -> NoReturn:
    """What MXNet's documentation expects where the same script is started in every role."""
    from dmod.kvstore.__main__ import main

    sys.exit(main())
