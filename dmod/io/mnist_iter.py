"""`MNISTIter`: batches of the images of IDX files, such as MNIST's."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument, MXNetError
from dmod.context import cpu
from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.io.file_options import batch_of, ignore_rest, one_dtype
from dmod.io.text_parts import check_part
from dmod.io.wrapping import MXDataIter
from dmod.log import logger, show_progress
from dmod.ndarray.ndarray import NDArray

__all__ = ["MNISTIter", "read_idx"]

_IMAGES, _LABELS = 2051, 2049  # the magic numbers: bytes, of three axes and of one


def MNISTIter(
    *,
    image: str = "./train-images-idx3-ubyte",
    label: str = "./train-labels-idx1-ubyte",
    batch_size: int = 128,
    shuffle: bool = True,
    flat: bool = False,
    seed: int = 0,
    silent: bool = False,
    num_parts: int = 1,
    part_index: int = 0,
    prefetch_buffer: int = 4,
    ctx: str = "gpu",
    dtype: str | None = None,
    data_name: str = "data",
    label_name: str = "softmax_label",
    **ignored: Any,
) -> MXDataIter:
    """Batches of the images of IDX files, such as MNIST's; pixels are divided by 256.

    All images are held in memory, as float32. What doesn't fill a batch is left out.

    Parameters
    ----------
    image, label : str
        The files; they may be compressed by gzip.
    batch_size : int
    shuffle : bool
        Whether to shuffle the images, once: all epochs have the same order, which is MXNet's for this `seed`.
    flat : bool
        Whether images are vectors, not of shape ``(1, rows, columns)``.
    seed : int
    silent : bool
        Whether to log nothing.
    num_parts, part_index : int
        Into how many parts the images are divided, and which one to read.
    prefetch_buffer, ctx
        Accepted for MXNet's sake.
    dtype : {None, 'float32'}
    data_name, label_name : str
    **ignored
        MXNet ignores what it doesn't know; so does this, with a warning.

    Returns
    -------
    MXDataIter

    Raises
    ------
    MXNetError
        A file cannot be read.
    FormatError
        It is corrupt, truncated, or no IDX file of images or labels; or there are more of the one than of the
        other.
    """
    what = "MNISTIter"
    ignore_rest(what, ignored)
    one_dtype(what, dtype, ("float32",))
    check_part(what, num_parts, part_index)
    size = batch_of(what, batch_size)
    images, labels = read_idx(image, 3), read_idx(label, 1)
    if len(images) != len(labels):
        raise FormatError(f"{what}: {image} has {len(images)} images, {label} has {len(labels)} labels")
    part = slice(len(images) * part_index // num_parts, len(images) * (part_index + 1) // num_parts)
    images, labels = images[part], labels[part]
    order = mt19937_permutation(len(images), seed) if shuffle else np.arange(len(images))
    shape = (math.prod(images.shape[1:]),) if flat else (1, *images.shape[1:])
    batches = _Images(
        images[order].reshape(-1, *shape) * np.float32(1 / 256),
        labels[order].astype(np.float32),
        order,
        size,
        seed,
    )
    if not silent:
        show_progress()
        logger.info("%s: %d images of shape %s, shuffle=%s", what, len(images), shape, bool(shuffle))
    return MXDataIter(batches, data_name, label_name)


class _Images(DataIter):
    """Batches of images in memory, which are views."""

    peekable = True

    def __init__(self, images: np.ndarray, labels: np.ndarray, order: np.ndarray, batch_size: int, seed: int):
        super().__init__(batch_size)
        self.images, self.labels, self.order, self.seed = images, labels, order, seed
        self.provide_data = [DataDesc("data", (batch_size, *images.shape[1:]), np.float32)]
        self.provide_label = [DataDesc("softmax_label", (batch_size,), np.float32)]
        self.at = 0

    def reset(self) -> None:
        self.at = 0

    def next(self) -> DataBatch:
        part = slice(self.at, self.at + self.batch_size)
        if part.stop > len(self.images):
            raise StopIteration
        self.at = part.stop
        data, label = NDArray(self.images[part], cpu()), NDArray(self.labels[part], cpu())
        return DataBatch([data], [label], 0, self.order[part].astype(np.uint64))

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "images": len(self.images), "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if {**state, "at": self.at} != self.state_dict():
            raise InvalidArgument(
                f"MNISTIter.load_state_dict: the state is of {state.get('images')} images with seed "
                f"{state.get('seed')}, here are {len(self.images)} with seed {self.seed}"
            )
        self.at = int(state["at"])


def read_idx(path: str, ndim: int) -> np.ndarray:
    """The bytes of an IDX file, which may be compressed by gzip.

    Parameters
    ----------
    path : str
    ndim : {1, 3}
        How many axes it must have: 1 for labels, 3 for images.

    Returns
    -------
    numpy.ndarray
        uint8, read-only.

    Raises
    ------
    MXNetError
        The file cannot be read.
    FormatError
        It is corrupt, truncated, or of another kind.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(f"{os.fspath(path)}: not a whole gzip file: {error}") from error
    except OSError as error:
        raise MXNetError(f"MNISTIter: cannot read {os.fspath(path)}: {error.strerror or error}") from error
    begin = 4 + 4 * ndim
    if len(content) < begin:
        raise FormatError(f"{path}: {len(content)} bytes, an IDX file of {ndim} axes begins with {begin}")
    magic, *shape = struct.unpack(f">{1 + ndim}I", content[:begin])
    wanted = _IMAGES if ndim == 3 else _LABELS
    if magic != wanted:
        raise FormatError(
            f"{path}: magic number {magic} at byte 0, expected {wanted} (bytes of {ndim} axes); "
            "are image and label mixed up?"
        )
    count = math.prod(shape)
    if len(content) - begin < count:
        raise FormatError(
            f"{path}: truncated: shape {tuple(shape)} needs {count} bytes from byte {begin}, there are "
            f"{len(content) - begin}"
        )
    return np.frombuffer(content, np.uint8, count, begin).reshape(shape)


def mt19937_permutation(count: int, seed: int) -> np.ndarray:
    """What C++'s ``std::shuffle`` makes of 0, 1, 2, ... with a 32-bit Mersenne Twister, one draw per place.

    A draw ``r`` below ``n`` is the quotient of a 32-bit word by ``(2**32 - 1) // n``; words that are too
    large for that are passed over.

    Examples
    --------
    >>> mt19937_permutation(10, 0).tolist()
    [0, 2, 3, 5, 9, 1, 6, 8, 4, 7]
    """
    generator = np.random.RandomState(seed & 0xFFFFFFFF)
    order = list(range(count))
    words = iter(generator.randint(0, 2**32, count, np.uint32).tolist())
    for place in range(1, count):
        scale = 0xFFFFFFFF // (place + 1)
        word = next(words, None)
        while word is None or word >= scale * (place + 1):
            word = next(words, None)
            if word is None:
                words = iter(generator.randint(0, 2**32, 1024, np.uint32).tolist())
        other = word // scale
        order[place], order[other] = order[other], order[place]
    return np.array(order, np.int64)
