"""What the tests of the record iterators share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import dmod as mx
from tests.oracle.picture_cases import BATCH, SHAPE

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
RECORDS = str(FIXTURES / "pictures.rec")


def pictures(kind: Any = None, **keywords: Any) -> Any:
    keywords = {
        "path_imgrec": RECORDS,
        "data_shape": SHAPE,
        "batch_size": BATCH,
        "verbose": False,
        **keywords,
    }
    return (kind or mx.io.ImageRecordIter)(**keywords)


def boxes(**keywords: Any) -> mx.io.ImageDetRecordIter:
    found: mx.io.ImageDetRecordIter = pictures(
        mx.io.ImageDetRecordIter, path_imgrec=str(FIXTURES / "boxes.rec"), **keywords
    )
    return found


def all_pixels(iterator: Any, epochs: int = 1) -> list[np.ndarray]:
    found = []
    for _ in range(epochs):
        found += [batch.data[0].asnumpy() for batch in iterator]
        iterator.reset()
    return found


def labels(iterator: Any) -> list[list[float]]:
    return [batch.label[0].asnumpy().tolist() for batch in iterator]
