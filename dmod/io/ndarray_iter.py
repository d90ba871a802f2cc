"""`NDArrayIter`: batches from arrays in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, NotReadyError
from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.io.resume import numpy_random_state, set_random_state
from dmod.ndarray.ndarray import NDArray, array
from dmod.ndarray.sparse import csr_matrix
from dmod.ndarray.sparse_array import CSRNDArray

__all__ = ["NDArrayIter"]

_HANDLES = ("pad", "discard", "roll_over")


class NDArrayIter(DataIter):
    """Batches from arrays in memory.

    Batches are views: no data is copied but for a batch that wraps around, and once per epoch to shuffle.

    Parameters
    ----------
    data : NDArray, CSRNDArray, numpy.ndarray, list or dict of such
        The inputs, of shape ``(num_data, ...)``. Anything but NDArrays becomes float32. Batches of csr
        arrays (and of scipy's csr matrices) are csr.
    label : like `data`, optional
    batch_size : int
    shuffle : bool
        Permute the instances at the beginning and at every `reset`, with numpy's global generator
        (``numpy.random.seed``).
    last_batch_handle : {'pad', 'discard', 'roll_over'}
        What to do when less than a batch is left: fill it up from the beginning, drop it, or let it begin
        the next epoch.
    data_name, label_name : str
        The name of a single array; those of a list are called ``_0_data``, ``_1_data``, ...
    layout : str
        For `DataDesc`.

    Examples
    --------
    >>> it = NDArrayIter(np.arange(6).reshape(3, 2), np.arange(3), batch_size=2)
    >>> [(batch.label[0].asnumpy().tolist(), batch.pad) for batch in it]
    [([0.0, 1.0], 0), ([2.0, 0.0], 1)]
    """

    peekable = True

    def __init__(
        self,
        data: Any,
        label: Any = None,
        batch_size: int = 1,
        shuffle: bool = False,
        last_batch_handle: str = "pad",
        data_name: str = "data",
        label_name: str = "softmax_label",
        layout: str = "NCHW",
    ):
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise InvalidArgument(f"NDArrayIter: batch_size={batch_size!r}, expected a whole number from 1")
        if last_batch_handle not in _HANDLES:
            raise InvalidArgument(
                f"NDArrayIter: last_batch_handle={last_batch_handle!r}, expected one of {', '.join(_HANDLES)}"
            )
        super().__init__(int(batch_size))
        self.data = _named_arrays(data, data_name, "data")
        self.label = _named_arrays(label, label_name, "label") if label is not None else []
        self.num_data = _common_length(self.data + self.label, {"data": data, "label": label})
        if last_batch_handle != "pad" and self.num_data < self.batch_size:
            raise InvalidArgument(
                f"NDArrayIter: batch_size={batch_size} with {self.num_data} instances and "
                f"last_batch_handle={last_batch_handle!r} gives no batch; use 'pad' or smaller batches"
            )
        self.num_source = len(self.data)
        self.shuffle = shuffle
        self.last_batch_handle = last_batch_handle
        self.layout = layout
        self.idx = np.arange(self.num_data)
        self._source = (self.data, self.label)
        self._order = self.idx.copy()
        self._rolled_over = np.empty(0, self.idx.dtype)  # rows of the source that begin the next epoch
        self.cursor = -self.batch_size
        self.reset()

    @property
    def provide_data(self) -> list[DataDesc]:
        """The names and shapes of the data."""
        return self._describe(self.data)

    @property
    def provide_label(self) -> list[DataDesc]:
        """The names and shapes of the labels."""
        return self._describe(self.label)

    def _describe(self, arrays: list[tuple[str, NDArray]]) -> list[DataDesc]:
        return [DataDesc(n, (self.batch_size, *a.shape[1:]), a.dtype, self.layout) for n, a in arrays]

    # ---- epochs

    def reset(self) -> None:
        """Begin the next epoch; with 'roll_over', with what is left of this one."""
        if self.shuffle:
            self._shuffle()
        if (
            self.last_batch_handle == "roll_over"
            and self.num_data - self.batch_size < self.cursor < self.num_data
        ):
            self.cursor -= self.num_data + self.batch_size
        else:
            self.cursor = -self.batch_size

    def hard_reset(self) -> None:
        """Begin from the first instance, and forget what was left to roll over."""
        if self.shuffle:
            self._shuffle()
        self._rolled_over = self._rolled_over[:0]
        self.cursor = -self.batch_size

    def _shuffle(self) -> None:
        # MXNet shuffles its list of places and then its data by that list, both on top of the last epoch's:
        # so do we, and the same seed gives the same order.
        self.idx = self.idx.copy()  # the old one may be part of a state that was given away
        np.random.shuffle(self.idx)
        self._order = self._order[self.idx]
        self._arrange()

    def _arrange(self) -> None:
        """Put the instances into their order."""
        self.data, self.label = (
            [(name, _taken(a, self._order)) for name, a in arrays] for arrays in self._source
        )

    # ---- batches

    def iter_next(self) -> bool:
        """Move to the next batch; false if the epoch is over."""
        if self.last_batch_handle != "pad" and self.cursor + self.batch_size > self.num_data:
            return False
        self.cursor += self.batch_size
        if self.cursor + self.batch_size <= self.num_data:
            return True
        if self.cursor >= self.num_data:
            return False
        if self.last_batch_handle == "roll_over":
            self._rolled_over = self._order[self.cursor :]
        return self.last_batch_handle == "pad"

    def next(self) -> DataBatch:
        """The next batch; see `DataIter.next`."""
        if not self.iter_next():
            raise StopIteration
        return DataBatch(self.getdata(), self.getlabel(), self.getpad(), None)

    def getdata(self) -> list[NDArray]:
        """The data of the current batch, in the order of `provide_data`."""
        return self._batch(self.data, 0)

    def getlabel(self) -> list[NDArray]:
        """The labels of the current batch, in the order of `provide_label`."""
        return self._batch(self.label, 1)

    def _batch(self, arrays: list[tuple[str, NDArray]], which: int) -> list[NDArray]:
        start, stop = self.cursor, self.cursor + self.batch_size
        if start >= 0 and stop <= self.num_data:
            return _views(arrays, slice(start, stop))
        if start >= self.num_data or stop <= 0:  # after the end, before the beginning
            raise NotReadyError(
                "NDArrayIter: no current batch; call next() or iter_next(), after the end reset()"
            )
        if start < 0:
            rows = np.concatenate((self._rolled_over, self._order[:stop]))
            return [_taken(a, rows) for _, a in self._source[which]]
        places = np.arange(start, stop) % self.num_data
        return [_taken(a, places) for _, a in arrays]

    def getpad(self) -> int:
        """How many instances of the current batch come from another epoch, or from the beginning."""
        if self.last_batch_handle == "pad":
            return max(0, self.cursor + self.batch_size - self.num_data)
        if self.last_batch_handle == "roll_over" and -self.batch_size < self.cursor < 0:
            return -self.cursor
        return 0

    # ---- states

    def state_dict(self) -> dict[str, Any]:
        """See `DataIter.state_dict`. With `shuffle`, the state of numpy's global generator is part of it."""
        state: dict[str, Any] = {"num_data": self.num_data, "cursor": self.cursor}
        if self.last_batch_handle == "roll_over":
            state["rolled_over"] = self._rolled_over
        if self.shuffle:
            state |= {"idx": self.idx, "order": self._order, "random": numpy_random_state()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`. With `shuffle`, it also sets numpy's global generator."""
        if state.get("num_data") != self.num_data or self.shuffle != ("order" in state):
            raise InvalidArgument(
                f"NDArrayIter.load_state_dict: the state is of {state.get('num_data')} instances"
                f"{', shuffled' if 'order' in state else ''}; the iterator has {self.num_data}"
                f"{', shuffled' if self.shuffle else ''}"
            )
        self.cursor = int(state["cursor"])
        self._rolled_over = np.asarray(state.get("rolled_over", ()), self._order.dtype)
        if self.shuffle:
            self.idx = np.asarray(state["idx"], self._order.dtype)
            self._order = np.asarray(state["order"], self._order.dtype)
            self._arrange()
            set_random_state(state["random"])


def _views(arrays: list[tuple[str, NDArray]], part: slice) -> list[NDArray]:
    return [a[part] if a.stype == "csr" else NDArray(a._data[part], a._ctx) for _, a in arrays]


def _taken(array: NDArray, places: np.ndarray) -> NDArray:
    """Some instances of an array, copied."""
    if not isinstance(array, CSRNDArray):
        return NDArray(array._data[places], array.context)
    indptr, columns, values = array._parts()
    lengths = np.diff(indptr)[places]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    stored = np.repeat(indptr[places] - ends[:-1], lengths) + np.arange(ends[-1])
    shape = (len(places), array.shape[1])
    return CSRNDArray(values[stored], [ends, columns[stored]], shape, array.context)


def _named_arrays(data: Any, default_name: str, what: str) -> list[tuple[str, NDArray]]:
    """Names with arrays, from any of the forms in which data may come."""
    if _is_array(data):
        named = {default_name: data}
    elif isinstance(data, Mapping):
        named = {str(name): data[name] for name in sorted(data)}
    elif isinstance(data, list) and len(data) == 1:
        named = {default_name: data[0]}
    elif isinstance(data, list):
        named = {f"_{i}_{default_name}": item for i, item in enumerate(data)}
    else:
        raise TypeError(f"NDArrayIter: {what} is of type {type(data).__name__}; {_expected(what, data)}")
    if not named:
        raise InvalidArgument(f"NDArrayIter: no arrays in {what}; {_expected(what)}")
    for name, value in named.items():
        if not _is_array(value) and not isinstance(value, list):
            raise TypeError(
                f"NDArrayIter: {what} is a {type(data).__name__} in which {name!r} is of type "
                f"{type(value).__name__}; {_expected(what, data)}"
            )
    return [(name, _converted(value, name, what)) for name, value in named.items()]


def _expected(what: str, data: Any = None) -> str:
    """What may be given, and how to make it of a sequence."""
    remedy = f"; numpy.array({what}) makes one array of all" if isinstance(data, (list, tuple)) else ""
    return f"expected an NDArray, a numpy array, a list of arrays or a dict of name to array{remedy}"


def _is_array(value: Any) -> bool:
    return (
        isinstance(value, (NDArray, np.ndarray))
        or (hasattr(value, "__array__") and hasattr(value, "shape"))
        or _is_csr_matrix(value)
    )


def _is_csr_matrix(value: Any) -> bool:
    """Whether this is a csr matrix of scipy, which dmod does not import."""
    return getattr(value, "format", None) == "csr" and hasattr(value, "indptr")


def _converted(value: Any, name: str, what: str) -> NDArray:
    if not isinstance(value, NDArray):
        try:
            if _is_csr_matrix(value):
                parts = (value.data, value.indices, value.indptr)
                value = csr_matrix(parts, shape=value.shape, dtype=np.float32)
            else:
                value = array(value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"NDArrayIter: {name!r} does not make an array of numbers: {error}; {_expected(what)}"
            ) from None
    if value.ndim == 0 or len(value) == 0:
        raise InvalidArgument(
            f"NDArrayIter: {name!r} has shape {value.shape}, expected at least one instance"
        )
    return value


def _common_length(arrays: list[tuple[str, NDArray]], given: Mapping[str, Any]) -> int:
    """The number of instances, which all arrays must have; `given` is what the user gave, for the message."""
    first_name, first = arrays[0]
    for name, other in arrays:
        if len(other) != len(first):
            nested = [
                f"; {what} is a list of {len(value)} lists, each of them read as an array of its own: "
                f"numpy.array({what}) makes one array of all"
                for what, value in given.items()
                if isinstance(value, list) and any(isinstance(item, list) for item in value)
            ]
            raise InvalidArgument(
                f"NDArrayIter: {first_name!r} has {len(first)} instances, {name!r} has {len(other)}"
                + "".join(nested)
            )
    return len(first)
