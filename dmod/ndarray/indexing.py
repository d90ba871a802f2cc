"""Keys of ``x[key]``: what MXNet allows, in the form that the array modules understand.

Basic keys (whole numbers, slices, None, Ellipsis) select a region; the result shares memory if it is
contiguous, and is a copy if not. Advanced keys (lists, arrays) always give a copy.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument

__all__ = [
    "array_key",
    "get_indexing_dispatch_code",
    "get_oshape_of_gather_nd_op",
    "indexing_key_expand_implicit_axes",
    "is_basic",
]

_BASIC, _ADVANCED, _UNSUPPORTED = 0, 1, -1
_INTEGER = (int, np.integer)
_LISTED = (list, tuple, range, np.ndarray)


def _is_array(key: Any) -> bool:
    """Whether `key` is an NDArray; the class itself is defined above this file."""
    return hasattr(key, "_data") and hasattr(key, "asnumpy")


def get_indexing_dispatch_code(key: Any) -> int:
    """0 for a basic key, 1 for an advanced one, -1 for one that is neither.

    Examples
    --------
    >>> get_indexing_dispatch_code((0, slice(2))), get_indexing_dispatch_code([0, 1])
    (0, 1)
    """
    code = _BASIC
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, _LISTED) or _is_array(part):
            code = _ADVANCED
        elif not (part is None or part is Ellipsis or isinstance(part, (slice, *_INTEGER))):
            return _UNSUPPORTED
    return code


def is_basic(key: Any) -> bool:
    """Whether `key` selects a region."""
    return get_indexing_dispatch_code(key) == _BASIC


def indexing_key_expand_implicit_axes(key: Any, shape: Sequence[int]) -> tuple[tuple[Any, ...], int]:
    """`key` with one entry for every axis, and where a boolean mask stands in it (-1: nowhere).

    Examples
    --------
    >>> indexing_key_expand_implicit_axes((Ellipsis, 0), (2, 3))
    ((slice(None, None, None), 0), -1)
    """
    parts = key if isinstance(key, tuple) else (key,)
    mask, used = -1, 0
    for i, part in enumerate(parts):
        if _is_mask(part):
            mask, used = i, used + part.ndim
        elif part is not None and part is not Ellipsis:
            used += 1
    if used > len(shape):
        raise IndexError(f"too many indices ({used}) for array with {len(shape)} dimensions")
    ellipses = [i for i, part in enumerate(parts) if part is Ellipsis]
    if len(ellipses) > 1:
        raise IndexError("a key can have one Ellipsis only")
    at = ellipses[0] if ellipses else len(parts)
    rest = (slice(None),) * (len(shape) - used)
    return (*parts[:at], *rest, *parts[at + 1 :]), mask


def get_oshape_of_gather_nd_op(dshape: Sequence[int], ishape: Sequence[int]) -> tuple[int, ...]:
    """The shape of ``gather_nd(data, indices)`` for the shapes of the two.

    Examples
    --------
    >>> get_oshape_of_gather_nd_op((2, 3, 4), (2, 5))
    (5, 4)
    """
    if len(dshape) < 1 or len(ishape) < 1 or ishape[0] > len(dshape):
        raise InvalidArgument(f"gather_nd: indices of shape {ishape} do not fit data of shape {dshape}")
    return (*ishape[1:], *dshape[ishape[0] :])


def _is_mask(part: Any) -> bool:
    return _is_array(part) and part.dtype is np.bool_


def array_key(key: Any, memory: Any) -> Any:
    """`key` for an array of the device `memory`.

    Raises
    ------
    ValueError
        It has a part that cannot be a key.
    """
    if isinstance(key, tuple):
        return tuple(_part(part, memory) for part in key)
    return _part(key, memory)


def _part(part: Any, memory: Any) -> Any:
    if part is None or part is Ellipsis:
        return part
    if isinstance(part, (bool, np.bool_, *_INTEGER)):
        return int(part)
    if isinstance(part, slice):
        return slice(*(None if n is None else int(n) for n in (part.start, part.stop, part.step)))
    if _is_array(part):
        mask = part.dtype is np.bool_
        if memory.owns(part._data):
            return part._data if mask else part._data.astype(np.int64)
        part = part.asnumpy()
        return memory.from_host(part if mask else part.astype(np.int64))
    if isinstance(part, _LISTED):
        return _numbers(part, memory)
    raise ValueError(f"NDArray does not support slicing with key {part} of type {type(part)}.")


def _numbers(part: Any, memory: Any) -> Any:
    numbers = np.asarray(
        [n.asnumpy() if _is_array(n) else n for n in part] if isinstance(part, list) else part
    )
    if numbers.dtype.kind not in "iufb":
        raise ValueError(f"NDArray does not support slicing with key {part} of type {type(part)}.")
    if numbers.dtype.kind == "b":
        warnings.warn(
            "a list or numpy array of truth values is taken for the indices 1 and 0, as in MXNet; "
            "a boolean NDArray is a mask",
            stacklevel=5,
        )
    indices = numbers.astype(np.int64)
    return indices if memory.is_host else memory.from_host(indices)
