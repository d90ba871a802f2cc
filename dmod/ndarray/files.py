"""`save` and `load`: arrays in MXNet's ``.params`` files; see `params_file` for the format."""

from __future__ import annotations

import os
from typing import Any

from dmod.base import InvalidArgument, MXNetError
from dmod.context import Context
from dmod.ndarray.ndarray import NDArray
from dmod.ndarray.params_file import Stored, parse_arrays, read_arrays, write_arrays
from dmod.ndarray.sparse_array import from_stored

__all__ = ["load", "load_frombuffer", "save"]


def save(fname: str | os.PathLike[str], data: Any) -> None:
    """Save an array, a list of arrays, or a dict of names to arrays in MXNet's ``.params`` format.

    The file appears whole or not at all.

    Parameters
    ----------
    fname : path
    data : NDArray, list of NDArray, or dict of str to NDArray
        Dense or sparse, on any device.
    """
    if isinstance(data, NDArray):
        data = [data]
    if isinstance(data, dict):
        names, values = list(data.keys()), list(data.values())
    elif isinstance(data, (list, tuple)):
        names, values = [], list(data)
    else:
        raise InvalidArgument(
            f"save: expected an NDArray, a list or a dict of them, got {type(data).__name__}"
        )
    for name in names:
        if not isinstance(name, str):
            raise InvalidArgument(f"save: expected names to be strings, got {name!r}")
    for value in values:
        if not isinstance(value, NDArray):
            raise InvalidArgument(f"save: expected NDArrays, got {type(value).__name__}")
    write_arrays(fname, [value._stored() for value in values], names)


def _named(arrays: list[Any], names: list[str]) -> list[NDArray] | dict[str, NDArray]:
    host = Context("cpu", 0)
    wrapped = [from_stored(a, host) if isinstance(a, Stored) else NDArray(a, host) for a in arrays]
    return dict(zip(names, wrapped, strict=True)) if names else wrapped


def load(fname: str | os.PathLike[str]) -> list[NDArray] | dict[str, NDArray]:
    """Load what `save`, or MXNet, wrote.

    Raises
    ------
    FormatError
        The file is not a whole, valid file of arrays; the message has path and byte offset.
    MXNetError
        The file cannot be opened.
    """
    try:
        return _named(*read_arrays(fname))
    except OSError as error:
        raise MXNetError(f"load: cannot read {os.fspath(fname)}: {error.strerror or error}") from error


def load_frombuffer(buf: bytes) -> list[NDArray] | dict[str, NDArray]:
    """Load arrays from the bytes of such a file.

    Parameters
    ----------
    buf : bytes-like
    """
    if not isinstance(buf, (bytes, bytearray, memoryview)):
        raise TypeError(f"load_frombuffer: expected bytes, got {type(buf).__name__}")
    return _named(*parse_arrays(buf))
