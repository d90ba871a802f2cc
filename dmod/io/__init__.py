"""``mx.io``: iterators over batches of data."""

from __future__ import annotations

from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.io.ndarray_iter import NDArrayIter
from dmod.io.wrapping import MXDataIter, PrefetchingIter, ResizeIter

__all__ = ["DataBatch", "DataDesc", "DataIter", "MXDataIter", "NDArrayIter", "PrefetchingIter", "ResizeIter"]
