"""``mx.io``: iterators over batches of data."""

from __future__ import annotations

from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.io.csv_iter import CSVIter
from dmod.io.image_det_record_iter import ImageDetRecordIter
from dmod.io.image_record_iter import (
    ImageRecordInt8Iter,
    ImageRecordIter,
    ImageRecordIter_v1,
    ImageRecordUInt8Iter,
    ImageRecordUInt8Iter_v1,
)
from dmod.io.libsvm_iter import LibSVMIter
from dmod.io.mnist_iter import MNISTIter
from dmod.io.ndarray_iter import NDArrayIter
from dmod.io.worker_split import WorkerSplit, worker_split
from dmod.io.wrapping import MXDataIter, PrefetchingIter, ResizeIter

__all__ = [
    "CSVIter",
    "DataBatch",
    "DataDesc",
    "DataIter",
    "ImageDetRecordIter",
    "ImageRecordInt8Iter",
    "ImageRecordIter",
    "ImageRecordIter_v1",
    "ImageRecordUInt8Iter",
    "ImageRecordUInt8Iter_v1",
    "LibSVMIter",
    "MNISTIter",
    "MXDataIter",
    "NDArrayIter",
    "PrefetchingIter",
    "ResizeIter",
    "WorkerSplit",
    "worker_split",
]
