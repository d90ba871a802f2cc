"""`ImageDetIter`: batches of images with boxes of the objects in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dmod.base import InvalidArgument, MXNetError
from dmod.image import draws
from dmod.image.create import MEAN, STD
from dmod.image.det_augmenters import DetAugmenter
from dmod.image.det_create import CreateDetAugmenter
from dmod.image.image_iter import ImageIter
from dmod.image.pixels import as_image
from dmod.image.samples import Sample
from dmod.io.base import DataDesc
from dmod.log import logger
from dmod.ndarray.ndarray import NDArray
from dmod.recordio import opencv

__all__ = ["ImageDetIter"]


class ImageDetIter(ImageIter):
    """Batches of images with the boxes of the objects in them, padded with rows of -1 to the same number.

    A label is ``[A, B, ..., object, object, ...]``: A is how many numbers stand before the first object (at
    least 2), B how many each object has (at least 5): class, left, top, right, bottom, and whatever else.
    Places are shares of width and height. All labels are read once at the beginning, to find the greatest
    number of objects.

    Parameters
    ----------
    aug_list : list of DetAugmenter, optional
        Default: that of `CreateDetAugmenter` with the further keywords.
    **kwargs
        For `CreateDetAugmenter`; see `ImageIter` for all others.

    Raises
    ------
    InvalidArgument
        See `ImageIter`.
    MXNetError
        A label that is not as above, or without any object; the message names it.
    """

    def __init__(
        self,
        batch_size: int,
        data_shape: Sequence[int],
        path_imgrec: str | None = None,
        path_imglist: str | None = None,
        path_root: str | None = None,
        path_imgidx: str | None = None,
        shuffle: bool = False,
        part_index: int = 0,
        num_parts: int = 1,
        aug_list: Sequence[DetAugmenter] | None = None,
        imglist: Sequence[Sequence[Any]] | None = None,
        data_name: str = "data",
        label_name: str = "label",
        last_batch_handle: str = "pad",
        *,
        seed: int | None = None,
        preprocess_threads: int = 1,
        **kwargs: Any,
    ):
        super().__init__(
            batch_size,
            data_shape,
            -1,
            path_imgrec,
            path_imglist,
            path_root,
            path_imgidx,
            shuffle,
            part_index,
            num_parts,
            aug_list,
            imglist,
            data_name,
            label_name,
            "float32",
            last_batch_handle,
            seed=seed,
            preprocess_threads=preprocess_threads,
            **kwargs,
        )
        for aug in self.auglist:
            if not isinstance(aug, DetAugmenter):
                raise InvalidArgument(
                    f"ImageDetIter: aug_list has a {type(aug).__name__}, expected DetAugmenters; "
                    "DetBorrowAug makes one of an Augmenter"
                )
        self.label_shape = self._greatest_label()
        self._describe_labels()

    def _augmenters(self) -> list[Any]:
        augmenters: list[Any] = CreateDetAugmenter(self.data_shape, **(self._aug_kwargs or {}))
        return augmenters

    def _describe_labels(self) -> None:
        name = self.provide_label[0].name
        self.provide_label = [DataDesc(name, (self.batch_size, *self.label_shape), layout="NTC")]

    # ---- labels

    def _greatest_label(self) -> tuple[int, int]:
        """The greatest number of objects, and how many numbers each has."""
        objects = width = 0
        for name, raw in self._all_labels():
            label = _parsed(raw, name)
            if width and label.shape[1] != width:
                raise MXNetError(
                    f"ImageDetIter: the objects of {name} have {label.shape[1]} numbers, those before {width}"
                )
            objects, width = max(objects, len(label)), label.shape[1]
        if not objects:
            raise InvalidArgument(f"ImageDetIter: no images in {self.path_imgrec or 'the list'}")
        return objects, width

    def _all_labels(self) -> Iterator[tuple[str, Any]]:
        if self.imglist is not None and self.seq is not None:
            for key in self.seq:
                yield self.imglist[key][1], self.imglist[key][0]
            return
        while True:
            position = self.cur
            try:
                raw, _ = self.next_sample()
            except StopIteration:
                break
            yield self._name(position), raw
        self._rewind()

    def _empty_labels(self) -> np.ndarray:
        return np.full(self.provide_label[0].shape, -1, np.float32)

    def _prepare_one(self, sample: Sample, data: np.ndarray, label: np.ndarray) -> bool:
        image = self._decoded(sample)
        if image is None:
            return False
        with draws.using(draws.generator_of(self._seed, sample.epoch, sample.number)):
            image, boxes = self.augmentation_transform(image, _parsed(sample.label, sample.name))
        of_use = (boxes[:, 0] >= 0) & (boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])
        if not of_use.any():
            logger.debug("ImageDetIter: skipping %s: no valid object", sample.name)
            return False
        boxes = boxes[of_use]
        if len(boxes) > len(label) or boxes.shape[1] != label.shape[1]:
            raise InvalidArgument(
                f"ImageDetIter: {sample.name} has objects {boxes.shape}, the batch space for {label.shape}"
            )
        self._store(image, sample, data)
        label[: len(boxes)] = boxes
        label[len(boxes) :] = -1
        return True

    def augmentation_transform(  # type: ignore[override]  # as in MXNet
        self, data: NDArray, label: np.ndarray
    ) -> tuple[NDArray, np.ndarray]:
        """The image and its boxes after all augmenters."""
        for aug in self.auglist:
            data, label = aug(data, label)
        return data, label

    # ---- shapes

    def check_label_shape(self, label_shape: Sequence[int]) -> None:
        """Refuse fewer objects than there are, or objects of another width."""
        if len(label_shape) != 2:
            raise InvalidArgument(f"label_shape={tuple(label_shape)}, expected (objects, numbers of each)")
        if label_shape[0] < self.label_shape[0]:
            raise InvalidArgument(
                f"label_shape={tuple(label_shape)}: fewer than the {self.label_shape[0]} objects of a label"
            )
        if label_shape[1] != self.label_shape[1]:
            raise InvalidArgument(
                f"label_shape={tuple(label_shape)}: an object has {self.label_shape[1]} numbers"
            )

    def reshape(
        self, data_shape: Sequence[int] | None = None, label_shape: Sequence[int] | None = None
    ) -> None:
        """Give images of another size, or labels with more rows, from the next batch on.

        Augmenters that come from keywords are made anew; those of an `aug_list` stay as they are.

        Parameters
        ----------
        data_shape : (3, height, width), optional
        label_shape : (objects, numbers of each), optional
        """
        if data_shape is not None:
            self.check_data_shape(data_shape)
            self.data_shape = tuple(data_shape)
            self.provide_data = [DataDesc(self.provide_data[0].name, (self.batch_size, *self.data_shape))]
            if self._aug_kwargs is not None:
                self.auglist = self._augmenters()
        if label_shape is not None:
            self.check_label_shape(label_shape)
            self.label_shape = (label_shape[0], label_shape[1])
            self._describe_labels()

    def sync_label_shape(self, it: ImageDetIter, verbose: bool = False) -> ImageDetIter:
        """Give this iterator and another one labels with equally many rows.

        Parameters
        ----------
        it : ImageDetIter
            Say, the one for validation.
        verbose : bool
            Log the new shape.

        Returns
        -------
        ImageDetIter
            `it`.
        """
        if not isinstance(it, ImageDetIter):
            raise TypeError(f"sync_label_shape: expected an ImageDetIter, got {type(it).__name__}")
        if it.label_shape[1] != self.label_shape[1]:
            raise InvalidArgument(
                f"sync_label_shape: objects of {self.label_shape[1]} and of {it.label_shape[1]} numbers"
            )
        greatest = (max(self.label_shape[0], it.label_shape[0]), self.label_shape[1])
        for each in (self, it):
            if each.label_shape != greatest:
                each.reshape(label_shape=greatest)
                if verbose:
                    logger.info("label_shape is now %s", greatest)
        return it

    # ---- looking at it

    def draw_next(
        self,
        color: Sequence[int] | None = None,
        thickness: int = 2,
        mean: Any = None,
        std: Any = None,
        clip: bool = True,
        waitKey: int | None = None,
        window_name: str = "draw_next",
        id2labels: dict[int, str] | None = None,
    ) -> Iterator[np.ndarray]:
        """The images that are left of the epoch, augmented, with their boxes drawn.

        Parameters
        ----------
        color : (red, green, blue), optional
            Default: a random one per box.
        thickness : int
            Of the boxes' lines, in pixels.
        mean, std : numpy.ndarray or True, optional
            What the augmenters subtracted and divided by, to undo it; True: ImageNet's.
        clip : bool
            Cut values off at 0 and 255.
        waitKey : int, optional
            Show each image in a window for so many milliseconds; 0: until a key is pressed. Needs an OpenCV
            with windows, which opencv-python-headless hasn't.
        window_name : str
        id2labels : dict of int to str, optional
            Names of the classes, to write at the boxes.

        Yields
        ------
        numpy.ndarray, uint8, shape (height, width, 3)
            Blue first, as OpenCV shows and writes images.
        """
        cv2 = opencv()
        mean, std = (default if value is True else value for value, default in ((mean, MEAN), (std, STD)))
        while samples := self._draw(1):
            image = self._decoded(samples[0])
            if image is None:
                continue
            with draws.using(draws.generator_of(self._seed, samples[0].epoch, samples[0].number)):
                image, boxes = self.augmentation_transform(image, _parsed(samples[0].label, samples[0].name))
                pixels = as_image(image, "draw_next").astype(np.float32)
                pixels = pixels * (1 if std is None else std) + (0 if mean is None else mean)
                pixels = np.clip(pixels, 0, 255) if clip else pixels
                drawn = np.ascontiguousarray(pixels[:, :, ::-1].astype(np.uint8))
                for box in boxes:
                    self._draw_box(cv2, drawn, box, color, thickness, id2labels)
            if waitKey is not None:
                cv2.imshow(window_name, drawn)
                cv2.waitKey(waitKey)
            yield drawn

    @staticmethod
    def _draw_box(
        cv2: Any, drawn: np.ndarray, box: np.ndarray, color: Any, thickness: int, names: dict[int, str] | None
    ) -> None:
        height, width = drawn.shape[:2]
        left, top, right, bottom = (int(p * s) for p, s in zip(box[1:5], (width, height) * 2, strict=True))
        blue_first = tuple(color)[::-1] if color is not None else tuple(draws.whole(0, 255) for _ in range(3))
        cv2.rectangle(drawn, (left, top), (right, bottom), blue_first, thickness)
        if names is not None and int(box[0]) in names:
            place = (left + 5, top + 15)
            cv2.putText(drawn, names[int(box[0])], place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, blue_first, 1)


def _parsed(raw: Any, name: str) -> np.ndarray:
    """The boxes (objects, numbers of each) of a label as it is stored, without those that are empty.

    Raises
    ------
    MXNetError
        The label is malformed, or has no box.
    """
    numbers = np.asarray(raw.asnumpy() if isinstance(raw, NDArray) else raw, np.float32).reshape(-1)
    start, width = (int(numbers[0]), int(numbers[1])) if numbers.size >= 7 else (0, 0)
    if start < 2 or width < 5 or numbers.size <= start or (numbers.size - start) % width:
        raise MXNetError(
            f"ImageDetIter: the label of {name} has {numbers.size} numbers, beginning with {numbers[:2]}; "
            "expected how many stand before the objects (at least 2), how many each has (at least 5), objects"
        )
    boxes = numbers[start:].reshape(-1, width)
    boxes = boxes[(boxes[:, 3] > boxes[:, 1]) & (boxes[:, 4] > boxes[:, 2])]
    if not len(boxes):
        raise MXNetError(
            f"ImageDetIter: the label of {name} has no valid object: none with right > left and bottom > top"
        )
    return boxes
