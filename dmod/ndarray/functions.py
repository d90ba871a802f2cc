"""Functions of ``mx.nd`` that are no operators: composed ones, and exchange with other libraries."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, MXNetError
from dmod.context import Context
from dmod.ndarray.ndarray import NDArray, array

__all__ = [
    "from_dlpack",
    "histogram",
    "imdecode",
    "moveaxis",
    "onehot_encode",
    "split_v2",
    "to_dlpack_for_read",
    "to_dlpack_for_write",
]


def moveaxis(tensor: NDArray, source: int | Sequence[int], destination: int | Sequence[int]) -> NDArray:
    """A copy with axes at other places; the others keep their order.

    Parameters
    ----------
    tensor : NDArray
    source, destination : int or list of int
        Where the axes are, and where they go.

    Examples
    --------
    >>> from dmod.ndarray.ndarray import zeros
    >>> moveaxis(zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    sources = _axes(source, tensor.ndim, "source")
    targets = _axes(destination, tensor.ndim, "destination")
    if len(sources) != len(targets):
        raise InvalidArgument(f"moveaxis: {len(sources)} sources, but {len(targets)} destinations")
    order = [axis for axis in range(tensor.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return tensor.transpose(order)


def _axes(axes: int | Sequence[int], ndim: int, what: str) -> list[int]:
    listed = [axes] if isinstance(axes, (int, np.integer)) else list(axes)
    for axis in listed:
        if not -ndim <= axis < ndim:
            raise InvalidArgument(f"moveaxis: {what} {axis} is no axis of an array of {ndim}")
    if len({axis % ndim for axis in listed}) != len(listed):
        raise InvalidArgument(f"moveaxis: {what} {tuple(listed)} names an axis twice")
    return [axis % ndim for axis in listed]


def split_v2(
    ary: NDArray, indices_or_sections: int | Sequence[int], axis: int = 0, squeeze_axis: bool = False
) -> NDArray | list[NDArray]:
    """Parts of an array along an axis, as copies.

    Parameters
    ----------
    ary : NDArray
    indices_or_sections : int or tuple of int
        How many equal parts, or where the second part and its followers begin.
    axis : int
    squeeze_axis : bool
        Drop the axis; all parts must have length 1 along it.

    Returns
    -------
    list of NDArray, or an NDArray if there is one part
    """
    if not -ary.ndim <= axis < ary.ndim:
        raise InvalidArgument(f"split_v2: axis {axis} of an array of {ary.ndim} axes")
    length = ary.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if indices_or_sections < 1 or length % indices_or_sections:
            raise InvalidArgument(f"split_v2: an axis of {length} into {indices_or_sections} equal parts")
        step = length // int(indices_or_sections)
        starts = list(range(0, length, step)) if step else [0] * int(indices_or_sections)
    else:
        starts = [0, *(min(max(0, i + length if i < 0 else i), length) for i in indices_or_sections)]
    before = (slice(None),) * (axis % ary.ndim)
    parts = [ary[(*before, slice(a, b))].copy() for a, b in zip(starts, [*starts[1:], length], strict=True)]
    if squeeze_axis:
        parts = [part.squeeze(axis, inplace=True) for part in parts]
    return parts[0] if len(parts) == 1 else parts


def histogram(
    a: NDArray, bins: int | NDArray = 10, range: tuple[float, float] | None = None
) -> list[NDArray]:
    """How many values lie in each bin.

    Parameters
    ----------
    a : NDArray
    bins : int or NDArray
        The number of bins of equal width, or the edges of all bins.
    range : (float, float), optional
        Where equal bins begin and end; default: the smallest and the largest value.

    Returns
    -------
    [counts, edges]
        Counts are int64; float32 where the range follows from the values, as in MXNet.
    """
    values = a.asnumpy().reshape(-1)
    if isinstance(bins, NDArray):
        edges = bins.asnumpy()
        counts, _ = np.histogram(values, edges)
        return [array(counts, a.context, np.int64), array(edges, a.context, bins.dtype)]
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)):
        raise InvalidArgument(f"histogram: bins is {bins!r}, expected a whole number or an NDArray of edges")
    counts, edges = np.histogram(values, int(bins), range)
    return [array(counts, a.context, np.float32 if range is None else np.int64), array(edges, a.context)]


def onehot_encode(indices: NDArray, out: NDArray) -> NDArray:
    """Write a row for each index into `out`: 1 in the column of the index, 0 elsewhere.

    Parameters
    ----------
    indices : NDArray, shape (N,)
    out : NDArray, shape (N, classes)

    Returns
    -------
    NDArray
        `out`.
    """
    if out.ndim != 2 or indices.shape != out.shape[:1]:
        raise InvalidArgument(f"onehot_encode: indices {indices.shape} do not fit out {out.shape}")
    classes = indices.asnumpy().astype(np.int64)
    out[:] = (classes[:, None] == np.arange(out.shape[1])).astype(out.dtype)
    return out


def imdecode(
    str_img: bytes,
    clip_rect: tuple[int, int, int, int] = (0, 0, 0, 0),
    out: NDArray | None = None,
    index: int = 0,
    channels: int = 3,
    mean: NDArray | None = None,
) -> NDArray:
    """Decode an image to an array of shape (1, channels, height, width); needs Pillow.

    Parameters
    ----------
    str_img : bytes
        A JPEG, PNG or other image file.
    clip_rect : (x0, y0, x1, y1)
        The part to keep; by default all of it.
    out : NDArray, shape (N, channels, height, width), optional
        The image goes to ``out[index]``.
    channels : {1, 3}
    mean : NDArray, optional
        Subtracted.

    Raises
    ------
    MXNetError
        Pillow is not installed, or the bytes are no image.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MXNetError("imdecode needs Pillow: install it, or decode images yourself") from None
    if channels not in (1, 3):
        raise InvalidArgument(f"imdecode: channels is {channels}, expected 1 or 3")
    try:
        image = Image.open(io.BytesIO(str_img)).convert("RGB" if channels == 3 else "L")
    except OSError as error:
        raise MXNetError(f"imdecode: not an image that Pillow can read: {error}") from None
    pixels = np.asarray(image, np.float32).reshape(image.height, image.width, channels)
    x0, y0, x1, y1 = clip_rect
    if (x1 - x0) and (y1 - y0):
        pixels = pixels[y0:y1, x0:x1]
    result = array(pixels.transpose(2, 0, 1)[None])
    if mean is not None:
        result -= mean
    if out is None:
        return result
    out[index] = result[0]
    return out


# ---- DLPack


def to_dlpack_for_read(data: NDArray) -> Any:
    """A DLPack capsule over the memory of `data`, for a taker that only reads."""
    return data.to_dlpack_for_read()


def to_dlpack_for_write(data: NDArray) -> Any:
    """A DLPack capsule over the memory of `data`, which its taker may write to."""
    return data.to_dlpack_for_write()


class _Capsule:
    """What numpy takes: an object with DLPack's methods, around a bare capsule."""

    def __init__(self, capsule: Any):
        self._capsule = capsule

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU


def from_dlpack(dlpack: Any) -> NDArray:
    """An NDArray over the memory of a DLPack capsule, or of an object that gives one.

    Parameters
    ----------
    dlpack : PyCapsule, or object with ``__dlpack__``
        In host memory. A capsule can be taken once.
    """
    source = dlpack if hasattr(dlpack, "__dlpack__") else _Capsule(dlpack)
    try:
        host = np.from_dlpack(source)
    except (BufferError, RuntimeError, ValueError, TypeError) as error:
        raise MXNetError(f"from_dlpack: {error}") from None
    if not host.flags.writeable:
        host = np.asarray(_Writeable(host))
    return NDArray(host, Context("cpu", 0))


class _Writeable:
    """The same memory without numpy's mark that capsules of the old form may not be written to."""

    def __init__(self, host: np.ndarray):
        self.host = host  # keeps the memory alive: numpy keeps this object
        interface = host.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}
