"""Where `ImageIter` finds images and labels: record files, lists in files, lists in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dmod.base import FormatError, InvalidArgument
from dmod.ndarray.ndarray import NDArray
from dmod.recordio import MXIndexedRecordIO, MXRecordIO

__all__ = ["Sample", "check_options", "keys_of", "listed_images", "open_images", "part_of", "read_list"]

_LABEL_TYPES = ("float32", "int32", "int64", "float64")
_LAST_BATCH = ("pad", "discard", "roll_over")
Listed = dict[Any, tuple[np.ndarray, str]]


class Sample(NamedTuple):
    """An encoded image that was read, and which one it is.

    Attributes
    ----------
    label : float or numpy.ndarray
    data : bytes
    epoch, number : int
        In which epoch, and as the how manieth there, it was read: that decides its random choices.
    position : int
        Its place in the order of that epoch.
    name : str
        For errors.
    """

    label: Any
    data: bytes
    epoch: int
    number: int
    position: int
    name: str


def read_list(path: str, dtype: Any) -> Listed:
    """Labels and image files of a list file (``.lst``), by index.

    Its lines hold an index, one or more labels and a path, with tabs between them.

    Raises
    ------
    FormatError
        A line that is otherwise; the message has file and line.
    """
    found: Listed = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.strip().split("\t")
            if fields == [""]:
                continue
            try:
                if len(fields) < 3:
                    raise ValueError
                found[int(fields[0])] = (np.array([float(f) for f in fields[1:-1]], dtype), fields[-1])
            except ValueError:
                raise FormatError(
                    f"{path}, line {number}: expected an index, labels and a path with tabs between them, "
                    f"got {line.strip()[:80]!r}"
                ) from None
    return found


def listed_images(imglist: Iterable[Sequence[Any]], dtype: Any) -> Listed:
    """Labels and image files of a list of ``[label, path]`` or ``[label, label, ..., path]``, by number.

    Raises
    ------
    InvalidArgument
        An item that is otherwise.
    """
    found: Listed = {}
    for number, item in enumerate(imglist, 1):
        try:
            *labels, name = item
            if not labels or not isinstance(name, (str, Path)):
                raise ValueError
            label = labels[0] if len(labels) == 1 else labels
            label = label.asnumpy() if isinstance(label, NDArray) else label
            found[str(number)] = (np.array(label, dtype).reshape(-1), str(name))
        except (TypeError, ValueError):
            raise InvalidArgument(
                f"imglist: item {number} is {item!r}, expected [label, path] or [label, label, ..., path]"
            ) from None
    return found


def open_images(
    rec: str | None, index: str | None, path_imglist: str | None, imglist: Any, dtype: Any
) -> tuple[MXRecordIO | None, Listed | None]:
    """The record file, if there is one, and the list of images, if it counts."""
    records = None
    if rec is not None:
        records = MXRecordIO(rec, "r") if index is None else MXIndexedRecordIO(index, rec, "r")
    if path_imglist is not None:
        listed = read_list(path_imglist, dtype)
        # Without an index nobody knows which record a line belongs to: the records' own labels count.
        return records, (listed if records is None or index is not None else None)
    if imglist is not None and records is None:
        return records, listed_images(imglist, dtype)
    return records, None


def keys_of(records: MXRecordIO | None, listed: Listed | None) -> list[Any] | None:
    """The keys of all images, in the order of the files; None: records without an index.

    Raises
    ------
    InvalidArgument
        There are none, or a list names a record that the index hasn't.
    """
    keys: list[Any] | None = None if listed is None else list(listed)
    if isinstance(records, MXIndexedRecordIO):
        absent = next((key for key in keys or () if key not in records.idx), None)
        if absent is not None:
            raise InvalidArgument(f"ImageIter: image {absent} of the list is not in {records.idx_path}")
        keys = list(records.keys) if keys is None else keys
    if keys is not None and not keys:
        raise InvalidArgument(f"ImageIter: no images in {records.uri if records else 'the list'}")
    return keys


def check_options(
    path_imgrec: Any,
    path_imglist: Any,
    imglist: Any,
    dtype: str,
    last_batch_handle: str,
    label_width: int,
) -> None:
    """Refuse arguments of `ImageIter` that cannot be meant.

    Raises
    ------
    InvalidArgument
    """
    if path_imgrec is None and path_imglist is None and imglist is None:
        raise InvalidArgument("ImageIter: one of path_imgrec, path_imglist and imglist is needed")
    if dtype not in _LABEL_TYPES:
        raise InvalidArgument(f"ImageIter: dtype={dtype!r} of labels, expected one of {_LABEL_TYPES}")
    if last_batch_handle not in _LAST_BATCH:
        raise InvalidArgument(
            f"ImageIter: last_batch_handle={last_batch_handle!r}, expected one of {_LAST_BATCH}"
        )
    if label_width < 1 and label_width != -1:
        raise InvalidArgument(f"ImageIter: label_width={label_width}, expected at least 1")


def part_of(keys: list[Any], part_index: int, num_parts: int) -> list[Any]:
    """One of several parts of almost equal length; each key is in exactly one of them.

    Examples
    --------
    >>> [part_of([1, 2, 3, 4, 5], i, 2) for i in range(2)]
    [[1, 2], [3, 4, 5]]
    """
    if num_parts < 1 or not 0 <= part_index < num_parts:
        raise InvalidArgument(
            f"part_index={part_index}, num_parts={num_parts}: expected a part from 0 to num_parts - 1"
        )
    if len(keys) < num_parts:
        raise InvalidArgument(f"{len(keys)} images cannot be cut into num_parts={num_parts}")
    return keys[part_index * len(keys) // num_parts : (part_index + 1) * len(keys) // num_parts]
