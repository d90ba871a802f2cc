"""Iterators around iterators: `ResizeIter`, `PrefetchingIter`, `MXDataIter`."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from dmod.base import InvalidArgument, NotReadyError
from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.io.fetching import Fetcher, end_all
from dmod.io.resume import is_peekable, random_state, resumable, set_random_state

__all__ = ["MXDataIter", "PrefetchingIter", "ResizeIter"]


class _OfBatches(DataIter):
    """An iterator that has whole batches, and keeps the current one."""

    current_batch: DataBatch | None = None

    def _current(self) -> DataBatch:
        if self.current_batch is None:
            raise NotReadyError(
                f"{type(self).__name__}: no current batch; call next() or iter_next(), after the end reset()"
            )
        return self.current_batch

    def next(self) -> DataBatch:
        """The next batch; see `DataIter.next`."""
        if not self.iter_next():
            raise StopIteration
        return self._current()

    def getdata(self) -> Any:
        """The data of the current batch."""
        return self._current().data

    def getlabel(self) -> Any:
        """The labels of the current batch."""
        return self._current().label

    def getindex(self) -> Any:
        """The numbers of the instances of the current batch, if the iterator keeps them."""
        return self._current().index

    def getpad(self) -> Any:
        """How many instances of the current batch are there only to fill it."""
        return self._current().pad


class ResizeIter(_OfBatches):
    """Another iterator, with another number of batches per epoch.

    Parameters
    ----------
    data_iter : DataIter
        It begins anew where it ends before the epoch does.
    size : int
        Batches per epoch.
    reset_internal : bool
        Whether `reset` resets `data_iter` too; else the next epoch goes on where this one ended.

    Examples
    --------
    >>> import numpy as np
    >>> from dmod.io.ndarray_iter import NDArrayIter
    >>> it = ResizeIter(NDArrayIter(np.arange(4), batch_size=2), 3)
    >>> [batch.data[0].asnumpy().tolist() for batch in it]
    [[0.0, 1.0], [2.0, 3.0], [0.0, 1.0]]
    """

    def __init__(self, data_iter: DataIter, size: int, reset_internal: bool = True):
        super().__init__(data_iter.batch_size)
        self.data_iter = data_iter
        self._resumable = resumable(data_iter)
        self.size = size
        self.reset_internal = reset_internal
        self.cur = 0
        self.provide_data = data_iter.provide_data  # type: ignore[attr-defined]
        self.provide_label = data_iter.provide_label  # type: ignore[attr-defined]
        if hasattr(data_iter, "default_bucket_key"):
            self.default_bucket_key = data_iter.default_bucket_key

    @property
    def peekable(self) -> bool:  # type: ignore[override]  # a class's constant elsewhere
        """Whether the iterator within is, and draws from no generator of the process where it is reset."""
        return not getattr(self.data_iter, "reset_draws", True) and is_peekable(self.data_iter)

    def reset(self) -> None:
        """Begin the next epoch."""
        self.cur = 0
        if self.reset_internal:
            self._resumable.reset()

    def iter_next(self) -> bool:
        """Move to the next batch; false if the epoch is over."""
        if self.cur == self.size:
            return False
        try:
            self.current_batch = self._resumable.next()
        except StopIteration:
            self._resumable.reset()
            try:
                self.current_batch = self._resumable.next()
            except StopIteration:
                raise InvalidArgument("ResizeIter: the iterator has no batch, even after a reset") from None
        self.cur += 1
        return True

    def state_dict(self) -> dict[str, Any]:
        """See `DataIter.state_dict`."""
        return {"cur": self.cur, "inner": self._resumable.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`."""
        _check_keys(self, state, {"cur", "inner"})
        self._resumable.load_state_dict(state["inner"])
        self.cur = int(state["cur"])
        self.current_batch = None


def _check_keys(iterator: DataIter, state: dict[str, Any], keys: set[str]) -> None:
    if set(state) != keys:
        raise InvalidArgument(
            f"{type(iterator).__name__}.load_state_dict: the state has {sorted(state)}, expected "
            f"{sorted(keys)}; is it of another iterator?"
        )


class PrefetchingIter(_OfBatches):
    """Other iterators, whose next batches threads prepare while this one's is in use.

    Parameters
    ----------
    iters : DataIter or list of DataIter
        A batch has the data and labels of all of them; they must be of equal length.
    rename_data, rename_label : list of dict of str to str, optional
        For each iterator, new names of its inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from dmod.io.ndarray_iter import NDArrayIter
    >>> parts = [NDArrayIter(np.zeros((4, 2)), batch_size=2) for _ in range(2)]
    >>> it = PrefetchingIter(parts, rename_data=[{'data': 'left'}, {'data': 'right'}])
    >>> it.provide_data
    [DataDesc[left,(2, 2),<class 'numpy.float32'>,NCHW], DataDesc[right,(2, 2),<class 'numpy.float32'>,NCHW]]
    >>> len(list(it))
    2
    """

    def __init__(
        self,
        iters: DataIter | Sequence[DataIter],
        rename_data: Sequence[Mapping[str, str]] | None = None,
        rename_label: Sequence[Mapping[str, str]] | None = None,
    ):
        self.iters = list(iters) if isinstance(iters, Sequence) else [iters]
        if not self.iters:
            raise InvalidArgument("PrefetchingIter: expected at least one iterator")
        for what, names in (("rename_data", rename_data), ("rename_label", rename_label)):
            if names is not None and len(names) != len(self.iters):
                raise InvalidArgument(
                    f"PrefetchingIter: {what} has {len(names)} maps, {len(self.iters)} iterators"
                )
        self.n_iter = len(self.iters)
        self.rename_data, self.rename_label = rename_data, rename_label
        if hasattr(self.iters[0], "default_bucket_key"):
            self.default_bucket_key = self.iters[0].default_bucket_key
        super().__init__(self.provide_data[0].shape[0])
        self._fetchers = [Fetcher(iterator) for iterator in self.iters]
        self._ender = weakref.finalize(self, end_all, self._fetchers)

    @property
    def provide_data(self) -> list[DataDesc]:
        """The names and shapes of the data."""
        return self._described("provide_data", self.rename_data)

    @property
    def provide_label(self) -> list[DataDesc]:
        """The names and shapes of the labels."""
        return self._described("provide_label", self.rename_label)

    def _described(self, what: str, names: Sequence[Mapping[str, str]] | None) -> list[DataDesc]:
        found = []
        for number, iterator in enumerate(self.iters):
            renamed = names[number] if names is not None else {}
            for desc in getattr(iterator, what):
                desc = desc if isinstance(desc, DataDesc) else DataDesc(*desc)
                name = renamed.get(desc.name, desc.name)
                found.append(DataDesc(name, desc.shape, desc.dtype, desc.layout))
        return found

    def reset(self) -> None:
        """Begin the next epoch."""
        self.current_batch = None
        for fetcher in self._fetchers:
            fetcher.reset()

    def peek(self) -> DataBatch | None:
        """What the next batch will hold, once the threads have it; None if there is none."""
        try:
            return self._joined([fetcher.peek() for fetcher in self._fetchers])
        except Exception:  # it comes again when the batch is taken
            return None

    def iter_next(self) -> bool:
        """Move to the next batch; false if the epoch is over."""
        self.current_batch = self._joined([fetcher.take() for fetcher in self._fetchers])
        return self.current_batch is not None

    def _joined(self, answers: list[Any]) -> DataBatch | None:
        """One batch of those of all iterators; None if they have come to their ends."""
        errors = [a for a in answers if isinstance(a, BaseException)]
        for error in errors:
            if not isinstance(error, StopIteration):
                raise error
        if errors:
            if len(errors) < len(answers):
                raise InvalidArgument("PrefetchingIter: the iterators have different numbers of batches")
            return None
        batches = [a for a in answers if isinstance(a, DataBatch)]
        pads = {batch.pad for batch in batches}
        if len(pads) > 1:
            raise InvalidArgument(f"PrefetchingIter: the iterators' batches differ in padding: {pads}")
        return DataBatch(
            [array for batch in batches for array in batch.data or ()],
            [array for batch in batches for array in batch.label or ()],
            batches[0].pad,
            batches[0].index,
            bucket_key=batches[0].bucket_key,
            provide_data=self.provide_data if len(batches) > 1 else self._renamed(batches[0], "provide_data"),
            provide_label=self.provide_label
            if len(batches) > 1
            else self._renamed(batches[0], "provide_label"),
        )

    def state_dict(self) -> dict[str, Any]:
        """See `DataIter.state_dict`: where the caller stands, not the threads, who are ahead."""
        for fetcher in self._fetchers:  # who may be drawing from the global generators
            fetcher.wait()
        return {
            "inner": [fetcher.state for fetcher in self._fetchers],
            "ahead": [fetcher.is_ahead for fetcher in self._fetchers],
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`. It sets the global generators too: iterators may use them."""
        _check_keys(self, state, {"inner", "ahead", "random"})
        if len(state["inner"]) != len(self._fetchers):
            raise InvalidArgument(
                f"PrefetchingIter.load_state_dict: the state is of {len(state['inner'])} iterators, "
                f"here are {len(self._fetchers)}"
            )
        self.current_batch = None
        for fetcher, inner, is_ahead in zip(self._fetchers, state["inner"], state["ahead"], strict=True):
            fetcher.load_state(inner, is_ahead)
            fetcher.wait()
        set_random_state(state["random"])

    def _renamed(self, batch: DataBatch, what: str) -> list[DataDesc]:
        """What a batch says that it holds, which is the bucket's shapes where there are buckets."""
        own = getattr(batch, what)
        names = self.rename_data if what == "provide_data" else self.rename_label
        if own is None:
            return self._described(what, names)
        renamed = names[0] if names is not None else {}
        descs = [desc if isinstance(desc, DataDesc) else DataDesc(*desc) for desc in own]
        return [DataDesc(renamed.get(d.name, d.name), d.shape, d.dtype, d.layout) for d in descs]


class MXDataIter(_OfBatches):
    """The iterator that file iterators (`CSVIter`, `ImageRecordIter`, ...) give, around their reader.

    Parameters
    ----------
    handle : DataIter
        What reads; in MXNet, an object of its C++ library.
    data_name, label_name : str
        What to call the reader's single input and label.
    """

    reset_draws = False  # from the process's generators

    def __init__(
        self, handle: DataIter, data_name: str = "data", label_name: str = "softmax_label", **_: Any
    ):
        if not isinstance(handle, DataIter):
            raise InvalidArgument(f"MXDataIter: expected a DataIter, got {type(handle).__name__}")
        super().__init__(handle.batch_size)
        self.handle = handle
        self._resumable = resumable(handle)
        self.provide_data = _named(handle.provide_data, data_name)  # type: ignore[attr-defined]
        self.provide_label = _named(handle.provide_label, label_name)  # type: ignore[attr-defined]
        self._loads = True

    @property
    def peekable(self) -> bool:  # type: ignore[override]  # a class's constant elsewhere
        """Whether the reader is."""
        return self._loads and is_peekable(self.handle)

    def reset(self) -> None:
        """Begin the next epoch."""
        self.current_batch = None
        self._resumable.reset()

    def debug_skip_load(self) -> None:
        """Give the same batch again and again, to measure training without reading."""
        self._loads = False

    def iter_next(self) -> bool:
        """Move to the next batch; false if the epoch is over."""
        if self._loads or self.current_batch is None:
            try:
                self.current_batch = self._resumable.next()
            except StopIteration:
                self.current_batch = None
                return False
        return True

    def state_dict(self) -> dict[str, Any]:
        """See `DataIter.state_dict`."""
        state: dict[str, Any] = self._resumable.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`."""
        self._resumable.load_state_dict(state)
        self.current_batch = None


def _named(descs: Sequence[DataDesc], name: str) -> list[DataDesc]:
    if len(descs) != 1:
        return list(descs)
    return [DataDesc(name, descs[0].shape, descs[0].dtype, descs[0].layout)]
