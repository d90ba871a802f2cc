"""`ImageRecordIter` and its kin: batches of labelled pictures from record files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument
from dmod.io.image_record_augment import DefaultAugmenter
from dmod.io.image_record_base import ImageRecordBase
from dmod.io.image_record_parameters import COMMON, DEFAULT_AUGMENTER, NORMALIZATION, RECORDS, described
from dmod.io.image_record_pipeline import BatchJob
from dmod.io.image_record_pixels import Normalizer
from dmod.io.record_draws import Draws
from dmod.log import logger
from dmod.ndarray.files import load, save
from dmod.ndarray.ndarray import NDArray

__all__ = [
    "ImageRecordInt8Iter",
    "ImageRecordIter",
    "ImageRecordIter_v1",
    "ImageRecordUInt8Iter",
    "ImageRecordUInt8Iter_v1",
]


class ImageRecordIter(ImageRecordBase):
    __doc__ = f"""Batches of pictures from record files, decoded and augmented by threads.

    Keywords and their defaults are MXNet's. Nothing random: the same pixels as MXNet's, to the bit; after an
    affine map or a cubic interpolation, within rounding. With the same seed every run gives the same
    pictures, whatever the number of threads, also one that was resumed; they are not MXNet's random choices.

    Without `path_imgidx` the heads of all records of the part are read once at the beginning.

    {described(COMMON, RECORDS, DEFAULT_AUGMENTER, NORMALIZATION)}

    Raises
    ------
    InvalidArgument
        A value that cannot be, or values that exclude each other.
    FormatError
        A file that is empty, truncated or no record file; the message has file and offset.
    MXNetError
        A file that cannot be opened, or OpenCV is missing.

    Examples
    --------
    >>> train = ImageRecordIter(path_imgrec='train.rec', path_imgidx='train.idx', data_shape=(3, 224, 224),
    ...                         batch_size=32, shuffle=True, rand_mirror=True)  # doctest: +SKIP
    """

    _known = {**COMMON, **RECORDS, **DEFAULT_AUGMENTER, **NORMALIZATION}  # noqa: RUF012
    _aug_seq = "aug_default"

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        p = self._p
        if p.aug_seq != self._aug_seq:
            raise InvalidArgument(f"{self._name}: aug_seq={p.aug_seq!r}, there is only {self._aug_seq!r}")
        if p.label_width < 1:
            raise InvalidArgument(f"{self._name}: label_width={p.label_width}, expected at least 1")
        self._augment = DefaultAugmenter(self._name, p)
        self._make_buffers(p.label_width)
        self._varies = p.max_random_contrast != 0 or p.max_random_illumination != 0
        mean_image = self._mean_image() if p.mean_img and self.dtype == np.float32 else None
        self._normalizer = Normalizer(
            p.data_shape[0],
            self.dtype.name,
            (p.mean_r, p.mean_g, p.mean_b, p.mean_a),
            (p.std_r, p.std_g, p.std_b, p.std_a),
            mean_image,
            p.scale,
        )

    @property
    def _label_shape(self) -> tuple[int, ...]:
        width = self._p.label_width
        return (self.batch_size,) if width == 1 else (self.batch_size, width)

    def _fill(self, job: BatchJob, i: int) -> None:
        number, record = job.plan.records[i]
        header, encoded = self._header(record)
        label = header.label
        width = 1 if isinstance(label, float) else len(label)
        if width != self._p.label_width:
            raise InvalidArgument(
                f"{self._name}: {self._files.where(record)}: label_width={self._p.label_width}, but the "
                "picture "
                f"{header.id} has {width} labels"
            )
        job.label[i] = label
        job.index[i] = header.id
        draws = Draws(self._augmentation_seed, number, record)
        window = self._augment(self._decoded(record, encoded), draws)
        contrast, illumination = 1.0, 0.0
        if self._varies:
            p = self._p
            contrast += draws.uniform(-p.max_random_contrast, p.max_random_contrast)
            illumination = draws.uniform(-p.max_random_illumination, p.max_random_illumination)
        self._normalizer.write(window, job.data[i], contrast, illumination)

    # ---- the mean picture

    def _mean_image(self) -> np.ndarray:
        """The mean picture in the file `mean_img`; if there is none, it is made from this part, and kept."""
        path, shape = self._p.mean_img, self._p.data_shape
        if not os.path.exists(path):
            logger.info("%s: computing the mean picture %s of %d records", self._name, path, len(self._files))
            save(path, {"mean_img": NDArray(self._computed_mean())})
        arrays = load(path)
        mean = arrays.get("mean_img") if isinstance(arrays, dict) else None
        if mean is None or mean.shape != shape:
            found = "has none" if mean is None else f"has one of shape {mean.shape}"
            raise FormatError(f"{self._name}: {path} {found}; expected an array 'mean_img' of shape {shape}")
        return np.ascontiguousarray(mean.asnumpy(), np.float32)

    def _computed_mean(self) -> np.ndarray:
        plain = Normalizer(self._p.data_shape[0], "float32")
        total = np.zeros(self._p.data_shape)
        one = np.empty(self._p.data_shape, np.float32)
        for record in range(len(self._files)):
            window = self._augment(
                self._decoded(record, self._header(record)[1]), Draws(self._augmentation_seed, 0, record)
            )
            window.mirror = False  # the mean is subtracted first
            plain.write(window, one)
            total += one
        return (total / len(self._files)).astype(np.float32)


class _BytesIter(ImageRecordIter):
    """Batches of bytes: no mean, scale or the like."""

    _known = {**COMMON, **RECORDS, **DEFAULT_AUGMENTER}  # noqa: RUF012
    _dtype = "uint8"

    def _parameters(self, kwargs: Mapping[str, Any]) -> SimpleNamespace:
        dtype = kwargs.get("dtype")
        if dtype not in (None, "None") and np.dtype(dtype) != self._dtype:
            raise InvalidArgument(f"{type(self).__name__}: dtype={dtype!r}, expected {self._dtype!r} or none")
        p = super()._parameters({k: v for k, v in kwargs.items() if k not in NORMALIZATION})
        for name, parameter in NORMALIZATION.items():
            setattr(p, name, parameter.default)
        p.dtype = self._dtype
        return p


class ImageRecordUInt8Iter(_BytesIter):
    """`ImageRecordIter` with batches of uint8, the pixels as they are; its normalisation is left out."""


class ImageRecordInt8Iter(_BytesIter):
    """`ImageRecordIter` with batches of int8; pixels above 127 become 127, as in MXNet."""

    _dtype = "int8"


class ImageRecordIter_v1(ImageRecordIter):
    """`ImageRecordIter` under the name of MXNet's older implementation."""


class ImageRecordUInt8Iter_v1(ImageRecordUInt8Iter):
    """`ImageRecordUInt8Iter` under the name of MXNet's older implementation."""
