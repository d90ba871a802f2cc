"""`ImageIter`: batches of images from records or files, augmented."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument
from dmod.image import draws
from dmod.image.augmenters import Augmenter, is_own
from dmod.image.codec import decode
from dmod.image.create import CreateAugmenter
from dmod.image.pixels import as_image, as_ndarray
from dmod.image.samples import Sample, check_options, keys_of, open_images, part_of
from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.log import logger
from dmod.ndarray.ndarray import NDArray
from dmod.recordio import MXIndexedRecordIO, unpack

__all__ = ["ImageIter"]


class ImageIter(DataIter):
    """Batches of images, read from a record file, a list file or a list, decoded and augmented.

    What the augmenters draw for an image follows from `seed`, the epoch and the image's number in it:
    neither other images nor the number of threads changes it.

    Parameters
    ----------
    batch_size : int
    data_shape : (3, height, width)
        Of the images that come out.
    label_width : int
        How many labels an image has.
    path_imgrec : str, optional
        A record file.
    path_imglist : str, optional
        A list file (``.lst``): lines of index, labels and path. With a record file and its index, its
        labels count, and its indices say which records.
    path_root : str, optional
        The folder that paths in lists are relative to.
    path_imgidx : str, optional
        The record file's index; `shuffle` and `num_parts` need it.
    shuffle : bool
        Another order in each epoch.
    part_index, num_parts : int
        Read one part of so many; each image is in exactly one.
    aug_list : list of Augmenter, optional
        Default: that of `CreateAugmenter` with the further keywords.
    imglist : list of [label, path], optional
        Instead of a list file; of several labels, ``[label, label, ..., path]`` or ``[[label, ...], path]``.
    data_name, label_name : str
    dtype : {'float32', 'int32', 'int64', 'float64'}
        Of the labels; the images are float32.
    last_batch_handle : {'pad', 'discard', 'roll_over'}
        What becomes of the last images of an epoch, if they don't fill a batch: they are filled up from
        the beginning, left out, or the first ones of the next epoch.
    seed : int, optional
        Default: a number from Python's ``random``, so that ``random.seed`` repeats it.
    preprocess_threads : int
        How many threads decode and augment; 1 is the caller's own. Augmenters of one's own that draw from
        Python's ``random`` repeat only with 1.
    **kwargs
        For `CreateAugmenter`.

    Raises
    ------
    InvalidArgument
        Arguments that don't go together, a wrong shape or width, no images.
    FormatError
        A file that is corrupt; the message names it.
    """

    def __init__(
        self,
        batch_size: int,
        data_shape: Sequence[int],
        label_width: int = 1,
        path_imgrec: str | None = None,
        path_imglist: str | None = None,
        path_root: str | None = None,
        path_imgidx: str | None = None,
        shuffle: bool = False,
        part_index: int = 0,
        num_parts: int = 1,
        aug_list: Sequence[Any] | None = None,
        imglist: Sequence[Sequence[Any]] | None = None,
        data_name: str = "data",
        label_name: str = "softmax_label",
        dtype: str = "float32",
        last_batch_handle: str = "pad",
        *,
        seed: int | None = None,
        preprocess_threads: int = 1,
        **kwargs: Any,
    ):
        super().__init__(batch_size)
        check_options(path_imgrec, path_imglist, imglist, dtype, last_batch_handle, label_width)
        if batch_size < 1 or preprocess_threads < 1 or (seed is not None and seed < 0):
            raise InvalidArgument(
                f"ImageIter: batch_size={batch_size}, preprocess_threads={preprocess_threads}, seed={seed}: "
                "expected at least 1, 1 and 0"
            )
        self.check_data_shape(data_shape)
        self.path_imgrec = path_imgrec
        self.path_root = path_root
        self.shuffle = shuffle
        self.label_width = label_width
        self.last_batch_handle = last_batch_handle
        self.data_shape = tuple(data_shape)
        self._dtype = np.dtype(dtype)
        self.imgrec, self.imglist = open_images(path_imgrec, path_imgidx, path_imglist, imglist, self._dtype)
        self._keys = keys_of(self.imgrec, self.imglist)
        if self._keys is not None:
            self._keys = part_of(self._keys, part_index, num_parts)
        elif shuffle or num_parts != 1:
            raise InvalidArgument(
                f"ImageIter: shuffle and num_parts need an index of {path_imgrec}: pass path_imgidx"
            )
        self.num_image = None if self._keys is None else len(self._keys)
        self._aug_kwargs = kwargs if aug_list is None else None
        self.auglist = self._augmenters() if aug_list is None else list(aug_list)
        self.provide_data = [DataDesc(data_name, (batch_size, *self.data_shape))]
        label_shape = (batch_size,) if label_width == 1 else (batch_size, label_width)
        self.provide_label = [DataDesc(label_name, label_shape, self._dtype.type, layout="N")]
        self._threads = preprocess_threads
        self._pool: ThreadPoolExecutor | None = None
        self._seed = random.getrandbits(48) if seed is None else int(seed)
        self._epoch = -1
        self.hard_reset()

    # ---- what it reads

    @property
    def prefetchable(self) -> bool:  # type: ignore[override]  # a class's constant elsewhere
        """Whether `fit` may read ahead: unless code of the user's may draw from the process's generators."""
        return type(self).__module__.startswith("dmod.image.") and all(map(is_own, self.auglist))

    def _augmenters(self) -> list[Any]:
        augmenters: list[Augmenter] = CreateAugmenter(self.data_shape, **(self._aug_kwargs or {}))
        return augmenters

    # ---- epochs

    def reset(self) -> None:
        """Begin the next epoch."""
        self._begin(self._epoch + 1)

    def hard_reset(self) -> None:
        """Begin the next epoch, without images that are left of the last one."""
        self._carried: list[Sample] = []
        self.reset()

    def _begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._number = 0
        self._ended = False
        self.seq = self._keys
        if self.shuffle and self._keys is not None:
            self.seq = list(self._keys)
            draws.generator_of(self._seed, epoch).shuffle(self.seq)
        self._rewind()

    def _rewind(self) -> None:
        """Go to the first image, in the same order."""
        self.cur = 0
        if self.imgrec is not None:
            self.imgrec.reset()

    def next_sample(self) -> tuple[Any, bytes]:
        """The next image's label, and the bytes of its file.

        Raises
        ------
        StopIteration
            There is none in this epoch.
        """
        if self.seq is None:
            assert self.imgrec is not None  # all else has an order
            record = self.imgrec.read()
            if record is None:
                raise StopIteration
            header, data = self._unpacked(record)
            self.cur += 1
            return header.label, data
        if self.cur >= len(self.seq):
            raise StopIteration
        key = self.seq[self.cur]
        if isinstance(self.imgrec, MXIndexedRecordIO):
            header, data = self._unpacked(self.imgrec.read_idx(key))
            label = header.label if self.imglist is None else self.imglist[key][0]
        else:
            assert self.imglist is not None
            label, name = self.imglist[key]
            data = self.read_image(name)
        self.cur += 1
        return label, data

    def _unpacked(self, record: bytes) -> tuple[Any, bytes]:
        try:
            return unpack(record)
        except FormatError as error:
            raise FormatError(f"{self._name(self.cur)}: {error}") from error

    def _name(self, position: int) -> str:
        """What to call the image at a place of the current order."""
        if self.seq is None:
            return f"{self.path_imgrec}, record number {position}"
        key = self.seq[position]
        if self.imgrec is not None:
            return f"{self.path_imgrec}, record {key}"
        return self.imglist[key][1] if self.imglist is not None else str(key)

    def _draw(self, count: int) -> list[Sample]:
        """Up to `count` images: those left of the last epoch, then of this one as long as there are any."""
        samples, self._carried = self._carried[:count], self._carried[count:]
        while len(samples) < count:
            position = self.cur
            try:
                label, data = self.next_sample()
            except StopIteration:
                break
            samples.append(Sample(label, data, self._epoch, self._number, position, self._name(position)))
            self._number += 1
        return samples

    # ---- batches

    def next(self) -> DataBatch:
        """The next batch; see `DataIter.next`."""
        if self._ended:
            raise StopIteration
        data = np.empty(self.provide_data[0].shape, np.float32)
        label = self._empty_labels()
        kept: list[Sample] = []
        pad = self.batch_size - len(self._carried) if self._carried else 0
        while len(kept) < self.batch_size:
            samples = self._draw(self.batch_size - len(kept))
            short = len(kept) + len(samples) < self.batch_size
            if short and self.last_batch_handle != "pad":
                self._ended = True
                if self.last_batch_handle == "roll_over":
                    self._carried = kept + samples
                raise StopIteration
            kept += self._prepare(samples, data, label, len(kept))
            if short:
                if not kept:
                    self._ended = True
                    if not self._number:
                        raise InvalidArgument(f"ImageIter: no images in {self.path_imgrec}")
                    raise StopIteration
                if not self._ended:
                    self._ended = True
                    pad = self.batch_size - len(kept)
                self._rewind()
        return DataBatch([as_ndarray(data)], [as_ndarray(label)], pad)

    def _empty_labels(self) -> np.ndarray:
        return np.empty(self.provide_label[0].shape, self._dtype)

    def _prepare(self, samples: list[Sample], data: np.ndarray, label: np.ndarray, at: int) -> list[Sample]:
        """Decode and augment images into the rows of a batch from `at` on; those that were of use."""
        rows = data[at : at + len(samples)], label[at : at + len(samples)]
        if self._threads == 1:
            good = list(map(self._prepare_one, samples, *map(_views, rows)))
        else:
            self._pool = self._pool or ThreadPoolExecutor(self._threads, "dmod-image")
            good = list(self._pool.map(self._prepare_one, samples, *map(_views, rows)))
        kept = [sample for sample, of_use in zip(samples, good, strict=True) if of_use]
        if len(kept) < len(samples):
            for row in rows:
                row[: len(kept)] = row[np.array(good)]
        return kept

    def _prepare_one(self, sample: Sample, data: np.ndarray, label: np.ndarray) -> bool:
        """Decode and augment one image into a batch; false if it is to be skipped."""
        image = self._decoded(sample)
        if image is None:
            return False
        with draws.using(draws.generator_of(self._seed, sample.epoch, sample.number)):
            image = self.augmentation_transform(image)
        self._store(image, sample, data)
        values = np.asarray(sample.label.asnumpy() if isinstance(sample.label, NDArray) else sample.label)
        if values.size not in (1, self.label_width):
            raise InvalidArgument(
                f"ImageIter: {sample.name} has {values.size} labels, expected label_width={self.label_width}"
            )
        if values.size < self.label_width:
            warnings.warn(
                f"ImageIter: one label repeated to fill label_width={self.label_width}", stacklevel=2
            )
        label[...] = values.reshape(-1) if label.ndim else values.reshape(())
        return True

    def _decoded(self, sample: Sample) -> NDArray | None:
        """The image; None if `check_valid_image` finds fault with it."""
        try:
            image = self.imdecode(sample.data)
        except FormatError as error:
            raise FormatError(f"ImageIter: broken image {sample.name}: {error}") from error
        try:
            self.check_valid_image([image])
        except RuntimeError as error:
            logger.debug("ImageIter: skipping %s: %s", sample.name, error)
            return None
        return image

    def _store(self, image: NDArray, sample: Sample, data: np.ndarray) -> None:
        if as_image(image, f"ImageIter: {sample.name}, augmented").shape != (*data.shape[1:], data.shape[0]):
            raise InvalidArgument(
                f"ImageIter: {sample.name} is {image.shape} after the augmenters, data_shape={data.shape} "
                f"needs {(*data.shape[1:], data.shape[0])}; let one of them crop or resize it"
            )
        planes = self.postprocess_data(image)
        data[...] = planes._data if planes._is_host else planes.asnumpy()

    # ---- what a subclass may change

    def check_data_shape(self, data_shape: Sequence[int]) -> None:
        """Refuse what is not (3, height, width)."""
        if len(data_shape) != 3:
            raise InvalidArgument(f"data_shape={tuple(data_shape)}, expected (channels, height, width)")
        if data_shape[0] != 3 or min(data_shape) < 1:
            raise InvalidArgument(f"data_shape={tuple(data_shape)}, expected 3 channels, and some pixels")

    def check_valid_image(self, data: Sequence[NDArray]) -> None:
        """Raise RuntimeError for an image that is to be skipped."""
        if len(data[0].shape) == 0 or data[0].size == 0:
            raise RuntimeError(f"Data shape is wrong: {data[0].shape}")

    def imdecode(self, s: bytes) -> NDArray:
        """Decode the bytes of an image file; see `dmod.image.imdecode`."""
        return as_ndarray(decode(s, source="imdecode"))

    def read_image(self, fname: str) -> bytes:
        """The bytes of an image file, whose name is relative to `path_root`."""
        return (Path(self.path_root or "") / fname).read_bytes()

    def augmentation_transform(self, data: NDArray) -> NDArray:
        """The image (height, width, channels) after all augmenters."""
        for aug in self.auglist:
            data = aug(data)
        return data

    def postprocess_data(self, datum: NDArray) -> NDArray:
        """The image as (channels, height, width): how it lies in a batch."""
        return as_ndarray(as_image(datum, "postprocess_data").transpose(2, 0, 1))

    # ---- states

    def state_dict(self) -> dict[str, Any]:
        """See `DataIter.state_dict`. It is small: orders and random choices follow from seed and epoch."""
        return {
            "num_image": self.num_image,
            "shuffle": bool(self.shuffle),
            "seed": self._seed,
            "epoch": self._epoch,
            "cur": self.cur,
            "number": self._number,
            "ended": self._ended,
            "carried": [[s.epoch, s.number, s.position] for s in self._carried],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`."""
        if state.get("num_image") != self.num_image or state.get("shuffle") != bool(self.shuffle):
            raise InvalidArgument(
                f"ImageIter.load_state_dict: the state is of {state.get('num_image')} images, shuffle="
                f"{state.get('shuffle')}; the iterator has {self.num_image}, shuffle={bool(self.shuffle)}"
            )
        self._seed = int(state["seed"])
        self._carried = [self._again(*place) for place in state["carried"]]
        self._begin(int(state["epoch"]))
        self._go_to(int(state["cur"]))
        self._number = int(state["number"])
        self._ended = bool(state["ended"])

    def _again(self, epoch: int, number: int, position: int) -> Sample:
        """An image that was read in an earlier epoch."""
        self._begin(epoch)
        self._go_to(position)
        label, data = self.next_sample()
        return Sample(label, data, epoch, number, position, self._name(position))

    def _go_to(self, position: int) -> None:
        """Go to a place in the order, after `_begin`."""
        while self.seq is None and self.cur < position:
            self.next_sample()
        self.cur = position


def _views(rows: np.ndarray) -> list[np.ndarray]:
    """The rows as arrays that can be written to, those of one number too."""
    return [rows[i, ...] for i in range(len(rows))]
