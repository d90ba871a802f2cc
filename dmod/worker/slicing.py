"""How a batch is cut over devices, and where names and shapes of its parts come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument
from dmod.device import copy
from dmod.io import DataDesc
from dmod.ndarray import NDArray, array
from dmod.ndarray.sparse_array import CSRNDArray, cast_storage

__all__ = ["as_descs", "batch_axis", "batch_size_of", "load_slices", "on_device", "split_batch"]


def as_descs(shapes: Any, what: str) -> list[DataDesc]:
    """Normalise ``provide_data``: a list of `DataDesc` or of (name, shape) pairs.

    Raises
    ------
    InvalidArgument
        An element is neither.
    """
    if shapes is None:
        return []
    descs = []
    for entry in shapes:
        if isinstance(entry, DataDesc):
            descs.append(entry)
            continue
        try:
            name, shape = entry[0], tuple(int(n) for n in entry[1])
        except (TypeError, ValueError, IndexError):
            raise InvalidArgument(
                f"{what}: expected (name, shape) pairs or DataDesc, got {entry!r}"
            ) from None
        if not isinstance(name, str):
            raise InvalidArgument(f"{what}: expected a name, got {name!r}")
        descs.append(DataDesc(name, shape, *entry[2:4]))
    return descs


def batch_axis(desc: DataDesc) -> int:
    """The axis of the samples; -1 if the array has none and every device gets it whole."""
    return DataDesc.get_batch_axis(getattr(desc, "layout", None))


def batch_size_of(descs: Sequence[DataDesc]) -> int:
    """The number of samples that all arrays have in common.

    Raises
    ------
    InvalidArgument
        They have different numbers of samples.
    """
    size = None
    for desc in descs:
        axis = batch_axis(desc)
        if axis < 0:
            continue
        if axis >= len(desc.shape):
            raise InvalidArgument(f"{desc.name!r} has shape {desc.shape}, which lacks the batch axis {axis}")
        if size is None:
            size, first = desc.shape[axis], desc.name
        elif desc.shape[axis] != size:
            raise InvalidArgument(
                f"{desc.name!r} has {desc.shape[axis]} samples, {first!r} has {size}; expected as many"
            )
    if size is None:
        raise InvalidArgument("no input has a batch axis")
    return size


def split_batch(batch_size: int, work_load: Sequence[float]) -> list[slice]:
    """Cut a batch in proportion to the devices' work loads.

    Examples
    --------
    >>> split_batch(7, [1, 1, 1])
    [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]

    Raises
    ------
    InvalidArgument
        A device would get no sample.
    """
    total = sum(work_load)
    counts = [round(load * batch_size / total) for load in work_load]
    counts[-1] += batch_size - sum(counts)
    slices, start = [], 0
    for count in counts:
        stop = min(start + count, batch_size)
        if stop <= start:
            raise InvalidArgument(
                f"a batch of {batch_size} cannot be cut over {len(work_load)} devices; some get nothing"
            )
        slices.append(slice(start, stop))
        start = stop
    return slices


def on_device(descs: Sequence[DataDesc], slices: Sequence[slice], device: int) -> list[DataDesc]:
    """The shapes that one device sees of a batch's arrays."""
    length = slices[device].stop - slices[device].start
    parts = []
    for desc in descs:
        axis, shape = batch_axis(desc), tuple(desc.shape)
        if axis >= 0:
            shape = (*shape[:axis], length, *shape[axis + 1 :])
        parts.append(DataDesc(desc.name, shape, desc.dtype, desc.layout))
    return parts


def part_of(array: Any, axis: int, part: slice) -> Any:
    """The samples `part` of an array; the whole array if it has no batch axis."""
    if axis < 0:
        return array
    return array[(slice(None),) * axis + (part,)]


def load_slices(
    source: Any, targets: Sequence[NDArray], slices: Sequence[slice], axis: int, name: str
) -> None:
    """Copy each device's part of a batch array into its executor's array.

    Raises
    ------
    InvalidArgument
        The shape does not fit.
    """
    if len(targets) == 1 and type(source) is NDArray and type(targets[0]) is NDArray:  # as most often
        target, piece = targets[0]._data, source._data
        if target.shape == piece.shape:
            copy(target, piece)
            return
    if targets[0].stype != "default":
        _load_csr(source, targets, slices, name)
        return
    data = source._dense()._data if isinstance(source, NDArray) else np.asarray(source)
    for target, part in zip(targets, slices, strict=True):
        piece = data if len(targets) == 1 else part_of(data, axis, part)
        if piece.shape != target.shape:
            raise InvalidArgument(
                f"{name!r}: a device's part has shape {piece.shape}, bound as {target.shape}"
            )
        copy(target._data, piece)


def _load_csr(source: Any, targets: Sequence[NDArray], slices: Sequence[slice], name: str) -> None:
    """Give each device its rows of a csr array, or of what becomes one; they share its memory if they can."""
    if not isinstance(source, CSRNDArray):
        source = cast_storage(source if isinstance(source, NDArray) else array(source), "csr")
    for target, part in zip(targets, slices, strict=True):
        piece: Any = source if len(targets) == 1 else source[part]
        if piece.shape != target.shape:
            raise InvalidArgument(
                f"{name!r}: a device's part has shape {piece.shape}, bound as {target.shape}"
            )
        *aux, values = piece._parts()
        target._set(values.astype(target.dtype, copy=False), aux)
