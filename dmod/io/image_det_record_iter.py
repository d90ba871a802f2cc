"""`ImageDetRecordIter`: batches of pictures with boxes from record files."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument
from dmod.io.image_record_base import ImageRecordBase
from dmod.io.image_record_det import DetectionAugmenter, split_label
from dmod.io.image_record_parameters import COMMON, DETECTION, described
from dmod.io.image_record_pipeline import BatchJob
from dmod.io.image_record_pixels import Normalizer, Window
from dmod.io.record_draws import Draws
from dmod.ndarray.files import load

__all__ = ["ImageDetRecordIter"]

_LABEL_BYTES = 4096  # enough for the labels of most pictures
_BEFORE_LABEL = 4  # channels, height and width of the picture within the batch's, and how many numbers follow


class ImageDetRecordIter(ImageRecordBase):
    __doc__ = f"""Batches of pictures and the objects in them, changed together.

    A record's label is ``[header width, object width, ..., objects]``, an object ``[class, left, top, right,
    bottom, ...]`` with places as shares of width and height. A batch's labels have the shape (batch_size, 4 +
    width): channels, height and width of the picture, the number of values that follow, the label, and
    `label_pad_value` to the end.

    {described(COMMON, DETECTION)}

    Raises
    ------
    InvalidArgument, FormatError, MXNetError
        As for `ImageRecordIter`.
    """

    _known = {**COMMON, **DETECTION}  # noqa: RUF012

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        p = self._p
        if p.aug_seq != "det_aug_default":
            raise InvalidArgument(f"{self._name}: aug_seq={p.aug_seq!r}, there is only 'det_aug_default'")
        if self.dtype != np.float32:
            raise InvalidArgument(f"{self._name}: dtype={p.dtype!r}, expected 'float32'")
        self._augment = DetectionAugmenter(self._name, p)
        self._width = _BEFORE_LABEL + self._widest_label()
        self._make_buffers(self._width)
        mean_image = None
        if p.mean_img:
            arrays = load(p.mean_img)
            mean = arrays.get("mean_img") if isinstance(arrays, dict) else None
            if mean is None or mean.shape != p.data_shape:
                raise FormatError(
                    f"{self._name}: {p.mean_img}: expected an array 'mean_img' of shape {p.data_shape}"
                )
            mean_image = np.ascontiguousarray(mean.asnumpy(), np.float32)
        self._normalizer = Normalizer(
            p.data_shape[0],
            "float32",
            (p.mean_r, p.mean_g, p.mean_b, p.mean_a),
            [std or 1.0 for std in (p.std_r, p.std_g, p.std_b, p.std_a)],
            mean_image,
            p.scale,
        )

    def _widest_label(self) -> int:
        """How many numbers the batch's labels hold; every record's header is read for it, as in MXNet."""
        widest = max(len(self._label_of(record)) for record in range(len(self._files)))
        given = self._p.label_pad_width
        if 0 < given < widest:
            raise InvalidArgument(
                f"{self._name}: label_pad_width={given}, but a picture has {widest} numbers; set "
                f"{widest} or 0"
            )
        return max(widest, given)

    def _label_of(self, record: int) -> np.ndarray:
        try:
            header, _ = self._header(record, _LABEL_BYTES)
        except FormatError:  # a long label, or a bad one
            header, _ = self._header(record)
        label = np.atleast_1d(np.asarray(header.label, np.float32))
        try:
            split_label(label)
        except FormatError as error:
            raise self._bad(record, error) from None
        if self._p.label_width > 0 and len(label) != self._p.label_width:
            raise InvalidArgument(
                f"{self._name}: {self._files.where(record)}: label_width={self._p.label_width}, but the "
                "picture "
                f"{header.id} has {len(label)} labels"
            )
        return label

    @property
    def _label_shape(self) -> tuple[int, ...]:
        return (self.batch_size, self._width)

    def _fill(self, job: BatchJob, i: int) -> None:
        number, record = job.plan.records[i]
        header, encoded = self._header(record)
        head, objects = split_label(np.asarray(header.label, np.float32))
        draws = Draws(self._augmentation_seed, number, record)
        pixels, objects, (height, width) = self._augment(self._decoded(record, encoded), objects, draws)
        count = len(head) + objects.size
        label = job.label[i]
        label[:_BEFORE_LABEL] = self._p.data_shape[0], height, width, count
        label[_BEFORE_LABEL : _BEFORE_LABEL + len(head)] = head
        label[_BEFORE_LABEL + len(head) : _BEFORE_LABEL + count] = objects.ravel()
        label[_BEFORE_LABEL + count :] = self._p.label_pad_value
        job.index[i] = header.id
        self._normalizer.write(Window(pixels), job.data[i])
