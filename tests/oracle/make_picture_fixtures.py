"""Write tests/fixtures/pictures.npz with MXNet 1.9.1: ``python tests/oracle/make_picture_fixtures.py``.

What its record iterators make of pictures.rec and boxes.rec, which write_pictures.py wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from picture_cases import BATCH, BOXES, ORDERS, PICTURES, ROUNDED, SHAPE

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def small(values: np.ndarray) -> np.ndarray:
    """The values, as bytes where they are such."""
    return values.astype(np.uint8) if (values == values.astype(np.uint8)).all() else values


def first(iterator: Any, name: str, **keywords: Any) -> Any:
    keywords = {"data_shape": SHAPE, "batch_size": BATCH, **keywords}
    return iterator(
        path_imgrec=str(FIXTURES / f"{name}.rec"), preprocess_threads=1, verbose=False, **keywords
    ).next()


def orders(keywords: dict[str, Any]) -> np.ndarray:
    path = str(FIXTURES / "pictures.rec")
    keywords = dict(keywords)
    keywords["path_imgrec"] = ";".join([path] * keywords.pop("path_imgrec", 1))
    if keywords.pop("path_imgidx", False):
        keywords["path_imgidx"] = str(FIXTURES / "pictures.idx")
    iterator = mx.io.ImageRecordIter(data_shape=SHAPE, preprocess_threads=1, verbose=False, **keywords)
    rows = []
    for epoch in range(3):
        rows += [[epoch, batch.pad, *batch.label[0].asnumpy()] for batch in iterator]
        iterator.reset()
    return np.array(rows, np.uint8)


def main() -> None:
    arrays = {}
    for name, keywords in {**PICTURES, **ROUNDED}.items():
        batch = first(mx.io.ImageRecordIter, "pictures", **keywords)
        arrays[f"picture/{name}"] = small(batch.data[0].asnumpy())
    arrays["picture/int8"] = first(mx.io.ImageRecordInt8Iter, "pictures").data[0].asnumpy()
    for name, keywords in BOXES.items():
        batch = first(mx.io.ImageDetRecordIter, "boxes", **keywords)
        arrays[f"box/{name}"] = small(batch.data[0].asnumpy())
        arrays[f"label/{name}"] = batch.label[0].asnumpy()
    for name, keywords in ORDERS.items():
        arrays[f"order/{name}"] = orders(keywords)
    np.savez_compressed(FIXTURES / "pictures.npz", **arrays)


if __name__ == "__main__":
    main()
