"""Data sets that tutorials use: fetched where there is a network, found where they lie already."""

from __future__ import annotations

import bz2
import gzip
import math
import os
import shutil
import zipfile
from typing import Any

import numpy as np

from dmod.atomic_file import write_atomic
from dmod.base import FormatError, MXNetError
from dmod.io import DataBatch, DataIter, NDArrayIter
from dmod.test_utils.fetching import download

__all__ = [
    "DummyIter",
    "get_bz2_data",
    "get_cifar10",
    "get_mnist",
    "get_mnist_iterator",
    "get_mnist_ubyte",
    "get_zip_data",
]

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_FILES = {
    "train_data": "train-images-idx3-ubyte",
    "train_label": "train-labels-idx1-ubyte",
    "test_data": "t10k-images-idx3-ubyte",
    "test_label": "t10k-labels-idx1-ubyte",
}


def _mnist_file(name: str) -> bytes:
    """The content of one of MNIST's files: in this directory or in data/, packed or not, else fetched."""
    for directory in ("", "data"):
        for suffix in ("", ".gz"):
            path = os.path.join(directory, name + suffix)
            if os.path.exists(path):
                return _unpacked(path)
    return _unpacked(download(f"{_MNIST}{name}.gz", dirname="data"))


def _unpacked(path: str) -> bytes:
    opener: Any = gzip.open if path.endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError) as error:
        raise FormatError(f"{path}: {error}") from None


def _array_of_idx(name: str, content: bytes) -> np.ndarray:
    """An array in the format IDX, of bytes: 0, 0, 8, number of axes, their lengths, the data."""
    ndim = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * ndim
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if not ndim or len(content) - start != math.prod(shape):
        raise FormatError(f"{name}: not MNIST's file, or cut short")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def get_mnist() -> dict[str, np.ndarray]:
    """MNIST, from its four files in this directory or in data/ (as they are, or .gz), else fetched.

    Returns
    -------
    dict
        ``train_data`` and ``test_data``: float32 of shape (n, 1, 28, 28), from 0 to 1; ``train_label`` and
        ``test_label``: uint8 of shape (n,).

    Raises
    ------
    MXNetError
        The files are not there, and there is no network; the message says where to put them.
    """
    found = {key: _array_of_idx(name, _mnist_file(name)) for key, name in _MNIST_FILES.items()}
    for key in ("train_data", "test_data"):
        images = found[key]
        found[key] = images.reshape(len(images), 1, *images.shape[1:]).astype(np.float32) / 255
    return found


def get_mnist_ubyte() -> None:
    """Put MNIST's four files into data/, unpacked."""
    os.makedirs("data", exist_ok=True)
    for name in _MNIST_FILES.values():
        if not os.path.exists(os.path.join("data", name)):
            write_atomic(os.path.join("data", name), [_mnist_file(name)])


def get_mnist_iterator(
    batch_size: int, input_shape: tuple[int, ...], num_parts: int = 1, part_index: int = 0
) -> tuple[NDArrayIter, NDArrayIter]:
    """MNIST as iterators for training, which are shuffled, and for testing.

    Parameters
    ----------
    batch_size : int
    input_shape : tuple of int
        Of one image: (784,) or (1, 28, 28).
    num_parts, part_index : int
        Train with every `num_parts`-th image, from `part_index`.
    """
    mnist = get_mnist()
    part = slice(part_index, None, num_parts)
    train = mnist["train_data"][part].reshape(-1, *input_shape)
    test = mnist["test_data"].reshape(-1, *input_shape)
    return (
        NDArrayIter(train, mnist["train_label"][part], batch_size, shuffle=True),
        NDArrayIter(test, mnist["test_label"], batch_size),
    )


def get_cifar10() -> None:
    """Not there: MXNet's packed CIFAR-10 is not offered any more.

    Raises
    ------
    MXNetError
        Unless ``data/cifar/train.rec`` and ``data/cifar/test.rec`` are there.
    """
    wanted = [os.path.join("data", "cifar", name) for name in ("train.rec", "test.rec")]
    if not all(os.path.exists(path) for path in wanted):
        raise MXNetError(
            f"get_cifar10: put the files {' and '.join(wanted)} there; no one offers them any more"
        )


def get_zip_data(data_dir: str, url: str, data_origin_name: str) -> None:
    """Fetch a zip file into `data_dir`, under `data_origin_name`, and unpack it there."""
    path = download(url, fname=data_origin_name, dirname=data_dir)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(data_dir)


def get_bz2_data(data_dir: str, data_name: str, url: str, data_origin_name: str) -> None:
    """Fetch a bz2 file, and unpack it to `data_name` in `data_dir`, unless that is there."""
    target = os.path.join(data_dir, data_name)
    if os.path.exists(target):
        return
    path = download(url, fname=data_origin_name, dirname=data_dir)
    with bz2.open(path, "rb") as packed, open(f"{target}.part", "wb") as file:
        shutil.copyfileobj(packed, file)
    os.replace(f"{target}.part", target)


class DummyIter(DataIter):
    """An iterator that gives another one's first batch for ever, to measure training without reading.

    Parameters
    ----------
    real_iter : DataIter
    """

    def __init__(self, real_iter: DataIter):
        super().__init__(real_iter.batch_size)
        self.real_iter = real_iter
        self.provide_data = real_iter.provide_data  # type: ignore[attr-defined]
        self.provide_label = real_iter.provide_label  # type: ignore[attr-defined]
        self.the_batch = real_iter.next()

    def next(self) -> DataBatch:
        """The batch."""
        return self.the_batch
