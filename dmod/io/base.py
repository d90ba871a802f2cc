"""What every data iterator gives and is: `DataBatch`, `DataDesc`, `DataIter`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dmod.ndarray.ndarray import NDArray

__all__ = ["DataBatch", "DataDesc", "DataIter"]


class _NameAndShape(NamedTuple):
    name: str
    shape: tuple[int, ...]


class DataDesc(_NameAndShape):
    """The name, shape, dtype and layout of one input; as a tuple, its name and shape.

    Parameters
    ----------
    name : str
    shape : tuple of int
        The batch axis included.
    dtype : numpy dtype
    layout : str
        A letter per axis; ``N`` is the batch axis.

    Examples
    --------
    >>> desc = DataDesc('data', (64, 3, 28, 28))
    >>> name, shape = desc
    >>> DataDesc.get_batch_axis(desc.layout)
    0
    """

    dtype: Any
    layout: str | None

    def __new__(cls, name: str, shape: Any, dtype: Any = np.float32, layout: str | None = "NCHW") -> DataDesc:
        self = super().__new__(cls, name, shape)
        self.dtype = dtype
        self.layout = layout
        return self

    def __repr__(self) -> str:
        return f"DataDesc[{self.name},{self.shape},{self.dtype},{self.layout}]"

    @staticmethod
    def get_batch_axis(layout: str | None) -> int:
        """The place of ``N`` in `layout`: 0 without a layout, -1 if there is no batch axis."""
        return 0 if layout is None else layout.find("N")

    @staticmethod
    def get_list(shapes: Sequence[Any], types: Sequence[Any] | None) -> list[DataDesc]:
        """Descriptions from pairs of name and shape, and pairs of name and dtype."""
        if types is None:
            return [DataDesc(name, shape) for name, shape in shapes]
        dtypes = dict(types)
        return [DataDesc(name, shape, dtypes[name]) for name, shape in shapes]


class DataBatch:
    """A batch of data.

    Parameters
    ----------
    data : list of NDArray
    label : list of NDArray, optional
    pad : int, optional
        How many instances at the end are there only to fill the batch.
    index : numpy.ndarray, optional
        The numbers of the instances.
    bucket_key : optional
        Which bucket the batch belongs to.
    provide_data, provide_label : list of DataDesc, optional
        What the batch holds, if that differs from what its iterator says.
    """

    def __init__(
        self,
        data: list[NDArray] | None,
        label: list[NDArray] | None = None,
        pad: int | None = None,
        index: Any = None,
        bucket_key: Any = None,
        provide_data: list[DataDesc] | None = None,
        provide_label: list[DataDesc] | None = None,
    ):
        if data is not None and not isinstance(data, (list, tuple)):
            raise TypeError(f"DataBatch: data must be a list of NDArrays, got {type(data).__name__}")
        if label is not None and not isinstance(label, (list, tuple)):
            raise TypeError(f"DataBatch: label must be a list of NDArrays, got {type(label).__name__}")
        self.data = data
        self.label = label
        self.pad = pad
        self.index = index
        self.bucket_key = bucket_key
        self.provide_data = provide_data
        self.provide_label = provide_label

    def __str__(self) -> str:
        data = [d.shape for d in self.data] if self.data else None
        label = [d.shape for d in self.label] if self.label else None
        return f"{type(self).__name__}: data shapes: {data} label shapes: {label}"


class DataIter:
    """Base of all data iterators.

    An iterator of one's own defines `next`, or `iter_next` with `getdata`, `getlabel` and `getpad`; it has
    `provide_data` and `provide_label`, lists of `DataDesc`; and `reset` begins the next epoch.

    If it also defines `state_dict` and `load_state_dict`, a training that is resumed goes on where the
    iterator stood; without them its batches are drawn again (`dmod.io.resume`).

    Parameters
    ----------
    batch_size : int

    Attributes
    ----------
    prefetchable : bool
        Whether `fit` may prepare the next batch in a thread while it trains on this one, as `PrefetchingIter`
        does. That pays for iterators that wait, or compute outside of Python; batches that only are views of
        an array would come later, not sooner. False by default: what an iterator draws from the process's
        generators would come in no fixed order.
    peekable : bool
        Whether the next batch may be drawn while this one is in use, so that a GPU can copy the one while it
        computes the other: this one's arrays keep their values, and nothing else depends on when the next
        one is drawn, such as the process's generators. The iterator needs `state_dict` and `load_state_dict`
        too, to go back.
    """

    prefetchable: bool = False
    peekable: bool = False

    def __init__(self, batch_size: int = 0):
        self.batch_size = batch_size

    def __iter__(self) -> DataIter:
        return self

    def __next__(self) -> DataBatch:
        return self.next()

    def reset(self) -> None:
        """Begin the next epoch."""

    def next(self) -> DataBatch:
        """The next batch.

        Raises
        ------
        StopIteration
            The epoch is over.
        """
        if not self.iter_next():
            raise StopIteration
        return DataBatch(self.getdata(), self.getlabel(), self.getpad(), self.getindex())

    def iter_next(self) -> bool:
        """Move to the next batch; false if the epoch is over."""
        return False

    def getdata(self) -> Any:
        """The data of the current batch."""
        return None

    def getlabel(self) -> Any:
        """The labels of the current batch."""
        return None

    def getindex(self) -> Any:
        """The numbers of the instances of the current batch, if the iterator keeps them."""
        return None

    def getpad(self) -> Any:
        """How many instances of the current batch are there only to fill it."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Where the iterator stands: its place in the epoch, the order of instances, its random generators.

        Returns
        -------
        dict
            For `load_state_dict` of an iterator made in the same way, possibly in another process, which
            then gives the batches that this one is going to give, in this epoch and in all later ones.
            Its values are None, bool, int, float, str, bytes, numpy arrays, and lists and dicts of such. The
            iterator never writes to what it has given away.

        Raises
        ------
        NotImplementedError
            The iterator has none; ``dmod.io.resume.resumable(iterator)`` gives one that is replayed.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no state_dict; dmod.io.resume.resumable(iterator) replays it"
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go where the iterator stood that gave `state`; there is no current batch until the next one.

        Raises
        ------
        InvalidArgument
            The state is of another kind of iterator, or of other data; nothing is changed.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no load_state_dict; dmod.io.resume.resumable(iterator) replays it"
        )
