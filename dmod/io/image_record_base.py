"""What `ImageRecordIter` and `ImageDetRecordIter` share: records in, batches of pictures out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from dmod.base import FormatError, InvalidArgument, MXNetError, NotReadyError
from dmod.context import cpu
from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.io.buffers import Buffers
from dmod.io.image_record_parameters import Parameter, parsed
from dmod.io.image_record_pipeline import BatchJob, Pipeline, usable_cpus
from dmod.io.record_files import RecordFiles
from dmod.io.record_order import Place, RecordOrder, begun_again, plan_batch
from dmod.log import logger
from dmod.ndarray.ndarray import NDArray
from dmod.recordio import IRHeader, opencv, unpack

__all__ = ["ImageRecordBase"]


class ImageRecordBase(DataIter):
    """Reads records, and has threads decode and augment their pictures into batches.

    What happens to a picture depends on the seed, the epoch and the record alone: not on the number of
    threads, nor on whether the run was resumed.
    """

    _known: Mapping[str, Parameter]
    peekable = True
    reset_draws = False  # from the process's generators

    def __init__(self, **kwargs: Any):
        self._name = type(self).__name__
        self._cv2 = opencv()
        # Every thread decodes a picture of its own; OpenCV's threads within them would only be in each
        # other's way.
        self._cv2.setNumThreads(0)
        p = self._p = self._parameters(kwargs)
        if p.batch_size < 1:
            raise InvalidArgument(f"{self._name}: batch_size={p.batch_size}, expected at least 1")
        super().__init__(p.batch_size)
        if p.shuffle_chunk_size < 0 or p.prefetch_buffer < 0 or p.preprocess_threads < 1:
            raise InvalidArgument(
                f"{self._name}: shuffle_chunk_size={p.shuffle_chunk_size}, "
                f"prefetch_buffer={p.prefetch_buffer}, "
                f"preprocess_threads={p.preprocess_threads}: expected at least 0, 0 and 1"
            )
        self._files = RecordFiles(
            p.path_imgrec, getattr(p, "path_imgidx", ""), p.num_parts, p.part_index, self._name
        )
        self._labels = _read_list(p.path_imglist, self._name) if p.path_imglist else None
        self._order = RecordOrder(
            self._files.sizes, p.shuffle, p.seed, p.shuffle_chunk_size << 20, p.shuffle_chunk_seed
        )
        self.dtype = np.dtype(p.dtype or "float32")
        self._threads = min(p.preprocess_threads, usable_cpus())
        self._depth = p.prefetch_buffer + 1
        if p.verbose:
            logger.info(
                "%s: %d records of %s, %d threads", self._name, len(self._files), p.path_imgrec, self._threads
            )
        self._place = Place()
        self._began = Place()
        self.current_batch: DataBatch | None = None
        self._skips_load = False
        self._pipeline = Pipeline(self._fill, self._threads, self._name)

    def _parameters(self, kwargs: Mapping[str, Any]) -> SimpleNamespace:
        return parsed(self._name, self._known, kwargs)

    def _make_buffers(self, label_width: int) -> None:
        """Once the width of labels is known."""
        p = self._p
        # Those in the pipeline, the one being trained on, and the one after it; and two from which a GPU may
        # still copy.
        most = self._depth + 4
        self._data = Buffers((p.batch_size, *p.data_shape), self.dtype, most)
        self._label = Buffers((p.batch_size, label_width), np.dtype(np.float32), most)

    @property
    @abstractmethod
    def _label_shape(self) -> tuple[int, ...]:
        """The shape of a batch's labels."""

    @abstractmethod
    def _fill(self, job: BatchJob, i: int) -> None:
        """Fill instance `i` of a batch."""

    @property
    def provide_data(self) -> list[DataDesc]:
        """The name and shape of the data."""
        return [DataDesc(self._p.data_name, (self.batch_size, *self._p.data_shape), self.dtype.type)]

    @property
    def provide_label(self) -> list[DataDesc]:
        """The name and shape of the labels."""
        return [DataDesc(self._p.label_name, self._label_shape, np.float32)]

    # ---- batches

    def reset(self) -> None:
        """Begin the next epoch; at the beginning of one, nothing changes."""
        if self._place == self._began:
            return
        over = self._place.over
        self._place = self._began = begun_again(self._place)
        self.current_batch = None
        if not over:
            self._pipeline.clear()

    def next(self) -> DataBatch:
        """The next batch; see `DataIter.next`.

        Raises
        ------
        FormatError
            A record or its picture is broken; the message has file and offset.
        DeadlineError
            The threads were silent for two minutes.
        """
        if not self.iter_next():
            raise StopIteration
        assert self.current_batch is not None  # there is one after a true iter_next()
        return self.current_batch

    def iter_next(self) -> bool:
        """Move to the next batch; false if the epoch is over."""
        if self._skips_load and self.current_batch is not None:
            return True
        if self._place.over:
            self.current_batch = None
            return False
        self.current_batch = None  # so that its buffers may be used again
        self._work_ahead()
        job = self._pipeline.next()
        self._place = job.plan.after
        self._work_ahead()
        context = cpu(0)
        label = job.label.reshape(self._label_shape)
        self.current_batch = DataBatch(
            [NDArray(job.data, context)], [NDArray(label, context)], job.plan.pad, job.index
        )
        return True

    def _work_ahead(self) -> None:
        """Keep as many batches in work as may be, across the ends of epochs."""
        self._pipeline.forget_parent()
        jobs = self._pipeline.jobs
        while len(jobs) < self._depth:
            place = jobs[-1].plan.after if jobs else self._place
            if place.over:
                place = begun_again(place)
            plan = plan_batch(self._order, place, self.batch_size, self._p.round_batch)
            data, label = self._data.take(), self._label.take()
            missing = len(plan.records)
            data[missing:] = 0
            label[missing:] = 0
            self._pipeline.submit(BatchJob(plan, data, label, np.zeros(self.batch_size, np.uint64)))

    def getdata(self) -> list[NDArray]:
        """The data of the current batch."""
        return self._current().data or []

    def getlabel(self) -> list[NDArray]:
        """The labels of the current batch."""
        return self._current().label or []

    def getindex(self) -> Any:
        """The numbers of the current batch's pictures, as their records have them; uint64."""
        return self._current().index

    def getpad(self) -> int:
        """How many pictures of the current batch are there only to fill it."""
        return self._current().pad or 0

    def _current(self) -> DataBatch:
        if self.current_batch is None:
            raise NotReadyError(
                f"{self._name}: no current batch; call next() or iter_next(), after the end reset()"
            )
        return self.current_batch

    def debug_skip_load(self) -> None:
        """Give the same batch again and again, to measure training without reading."""
        self._skips_load = True

    # ---- where it stands

    def state_dict(self) -> dict[str, Any]:
        """See `DataIter.state_dict`: the pass over the records, the position, and what orders depend on."""
        place, began = self._place, self._began
        return {
            "iterator": self._name,
            **self._identity(),
            "pass": place.number,
            "position": place.position,
            "over": place.over,
            "began": [began.number, began.position],
        }

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a state to mean the same."""
        p = self._p
        seeds = [p.seed, p.shuffle_chunk_seed, self._augmentation_seed]
        return {
            "records": len(self._files),
            "part": [p.part_index, p.num_parts],
            "batch_size": self.batch_size,
            "shuffle": p.shuffle,
            "seeds": seeds,
        }

    @property
    def _augmentation_seed(self) -> int:
        seed = getattr(self._p, "seed_aug", None)
        return int(self._p.seed if seed is None else seed)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `DataIter.load_state_dict`."""
        if state.get("iterator") != self._name:
            raise InvalidArgument(
                f"{self._name}.load_state_dict: the state is of a "
                f"{state.get('iterator', 'different iterator')}"
            )
        for key, own in self._identity().items():
            found = state.get(key)
            if (list(found) if isinstance(own, list) and found is not None else found) != own:
                raise InvalidArgument(
                    f"{self._name}.load_state_dict: the state has {key} {found}, this iterator {own}"
                )
        self._pipeline.clear()
        self._place = Place(int(state["pass"]), int(state["position"]), bool(state["over"]))
        number, position = state["began"]
        self._began = Place(int(number), int(position))
        self.current_batch = None

    def __del__(self) -> None:
        # Attributes are missing if the constructor failed.
        if hasattr(self, "_pipeline"):
            self._pipeline.close()

    # ---- records

    def _header(self, record: int, count: int | None = None) -> tuple[IRHeader, bytes]:
        """The header of a record, with the list's label if there is a list, and the encoded picture.

        With `count`, only about so many first bytes are read.
        """
        try:
            header, encoded = unpack(
                self._files.read(record) if count is None else self._files.first_bytes(record, count)
            )
        except FormatError as error:
            if str(error).startswith(self._name):
                raise
            raise self._bad(record, error) from None
        if self._labels is None:
            return header, encoded
        label = self._labels.get(header.id)
        if label is None:
            raise InvalidArgument(
                f"{self._name}: {self._p.path_imglist} has no line for the picture {header.id} "
                f"({self._files.where(record)})"
            )
        return header._replace(label=label, flag=len(label)), encoded

    def _decoded(self, record: int, encoded: bytes) -> np.ndarray:
        """The picture, uint8: (height, width) for one channel, else (height, width, channels), blue first."""
        cv2, channels = self._cv2, self._p.data_shape[0]
        modes = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR, 4: cv2.IMREAD_UNCHANGED}
        try:
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), modes[channels]) if encoded else None
        except cv2.error as error:
            raise self._bad(record, error) from None
        if pixels is None:
            raise self._bad(record, f"{len(encoded)} bytes that are no picture, or a truncated one")
        found = 1 if pixels.ndim == 2 else pixels.shape[2]
        if channels == 4 and (found != 4 or pixels.dtype != np.uint8):
            raise self._bad(
                record, f"a picture with {found} channels of {pixels.dtype}, data_shape asks for 4 of uint8"
            )
        return pixels

    def _bad(self, record: int, what: Any) -> FormatError:
        return FormatError(f"{self._name}: {self._files.where(record)}: {what}")


def _read_list(path: str, name: str) -> dict[int, np.ndarray]:
    """Labels by number, from a .lst file: number, labels and path, with tabs between."""
    labels = {}
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise MXNetError(f"{name}: {path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        try:
            if len(fields) < 3:
                raise ValueError
            labels[int(fields[0])] = np.array(fields[1:-1], np.float32)
        except ValueError:
            raise FormatError(
                f"{name}: {path}, line {number}: expected a number, labels and a path with tabs between, "
                f"got {line[:80]!r}"
            ) from None
    return labels
