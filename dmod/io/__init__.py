"""``mx.io``: iterators over batches of data."""

from __future__ import annotations

from dmod.io.base import DataBatch, DataDesc, DataIter
from dmod.io.ndarray_iter import NDArrayIter

__all__ = ["DataBatch", "DataDesc", "DataIter", "NDArrayIter"]
