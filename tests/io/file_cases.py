"""Cases of file iterators, run here and under MXNet: files, options, and what their batches hold."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

CSV = "1,2,3\n2,3,4\n3,4,5\n4,5,6\n"
SVM = "1.0 0:0.5 2:1.2\n-2.0\n-3.0 0:0.6 1:2.4 2:1.2\n4 2:-1.2\n"
RANDOM = np.random.RandomState(3)


def csv_of(rows: int, columns: int) -> str:
    values = RANDOM.randn(rows, columns) * 10.0 ** RANDOM.randint(-6, 7, (rows, columns))
    return "".join(",".join(f"{x:.7g}" for x in row) + "\n" for row in values)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


FILES: dict[str, str | bytes] = {
    "a.csv": CSV,
    "labels.csv": "10\n20\n30\n40\n",
    "odd.csv": " 1 ,\t2,3\n\nnan,inf,-inf\r\n1e3,-2.5E-2,+3\r.5,5.,-.5,\n7,8,9",
    "bom.csv": "\ufeff1,2,3\n",
    "numbers.csv": csv_of(40, 7),
    "whole.csv": "1.7,-5,3\n2147483647,-2147483648,0\n",
    "many/b.csv": "7,8,9\n",
    "many/a.csv": "1,2,3\n4,5,6\n",
    "a.svm": SVM,
    "labels.svm": "1.0\n-2.0 0:0.125\n-3.0 2:1.2\n4 1:1.0 2:-1.2\n",
    "odd.svm": "# a comment\n\n1 qid:3 1:2 # more\n2:0.5\t0:1\r\n3 2:1e1  \n4 1:2 2:1",
    "images": idx(np.arange(11 * 2 * 3).reshape(11, 2, 3)),
    "classes": idx(np.arange(11)),
    "images300": idx(np.arange(300).repeat(2).reshape(300, 2, 1) % 251),
    "classes300": idx(np.arange(300) % 256),
}
_CSV: dict[str, Any] = {"data_csv": "a.csv", "data_shape": (3,)}
_SVM: dict[str, Any] = {"data_libsvm": "a.svm", "data_shape": (3,)}
_IDX: dict[str, Any] = {"image": "images", "label": "classes", "silent": True}
CASES: list[tuple[str, dict[str, Any]]] = [
    *(
        ("CSVIter", {**_CSV, "label_csv": "labels.csv", "batch_size": size, "round_batch": round_batch})
        for size, round_batch in [(2, True), (3, True), (3, False), (4, True), (5, True)]
    ),
    ("CSVIter", {**_CSV, "data_shape": (3, 1), "batch_size": 2}),
    ("CSVIter", {**_CSV, "label_csv": "a.csv", "label_shape": (3,), "batch_size": 2}),
    ("CSVIter", {**_CSV, "batch_size": 2, "dtype": "int64"}),
    ("CSVIter", {**_CSV, "data_csv": "whole.csv", "batch_size": 1, "dtype": "int32"}),
    ("CSVIter", {**_CSV, "data_csv": "odd.csv", "batch_size": 1}),
    ("CSVIter", {**_CSV, "data_csv": "bom.csv", "batch_size": 1}),
    ("CSVIter", {"data_csv": "numbers.csv", "data_shape": (7,), "batch_size": 9}),
    ("CSVIter", {**_CSV, "data_csv": "many", "batch_size": 2}),
    ("CSVIter", {**_CSV, "data_csv": "a.csv;many/b.csv", "batch_size": 1}),
    *(("LibSVMIter", {**_SVM, "batch_size": size}) for size in (1, 2, 3, 5)),
    ("LibSVMIter", {**_SVM, "label_libsvm": "labels.svm", "label_shape": (3,), "batch_size": 3}),
    ("LibSVMIter", {**_SVM, "data_libsvm": "odd.svm", "batch_size": 1}),
    *(
        ("LibSVMIter", {**_SVM, "batch_size": 1, "num_parts": parts, "part_index": part})
        for parts in (2, 3, 4)
        for part in range(parts)
    ),
    ("MNISTIter", {**_IDX, "batch_size": 4, "shuffle": False}),
    ("MNISTIter", {**_IDX, "batch_size": 4, "shuffle": False, "flat": True}),
    ("MNISTIter", {**_IDX, "batch_size": 3, "seed": 5}),
    ("MNISTIter", {**_IDX, "image": "images300", "label": "classes300", "batch_size": 50, "seed": 12345}),
    *(
        ("MNISTIter", {**_IDX, "batch_size": 1, "seed": 2, "num_parts": 3, "part_index": part})
        for part in range(3)
    ),
]


def write_files(directory: Path) -> None:
    for name, content in FILES.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def numbers(array: Any) -> list[Any]:
    """Storage type, dtype, and values as text, which says every bit of a float32."""
    values = array.asnumpy()
    return [array.stype, values.dtype.name, list(values.shape), json.dumps(values.tolist())]


def epochs(iterator: Any, has_index: bool, count: int = 3) -> list[Any]:
    """Everything that some epochs hold."""
    found: list[Any] = [
        [[d.name, list(d.shape), np.dtype(d.dtype).name] for d in descs]
        for descs in (iterator.provide_data, iterator.provide_label)
    ]
    for _ in range(count):
        found.append(
            [
                [
                    [numbers(a) for a in [*batch.data, *batch.label]],
                    batch.pad,
                    [int(i) for i in batch.index] if has_index else [],
                ]
                for batch in iterator
            ]
        )
        iterator.reset()
    return found
