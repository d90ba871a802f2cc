"""What each worker of test_parts.py runs: three epochs of its part, and which pictures it saw.

python part_program.py RECORDS RESULT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dmod as mx


def main(records: str, result: str) -> None:
    kv = mx.kv.create("dist_sync")
    iterator = mx.io.ImageRecordIter(
        path_imgrec=records,
        data_shape=(3, 24, 32),
        batch_size=3,
        shuffle=True,
        round_batch=False,
        num_parts=kv.num_workers,
        part_index=kv.rank,
        verbose=False,
    )
    epochs = []
    for _ in range(3):
        seen: list[int] = []
        for batch in iterator:
            seen += batch.index[: len(batch.index) - batch.pad].tolist()
        epochs.append(seen)
        iterator.reset()
    Path(f"{result}.{kv.rank}").write_text(json.dumps(epochs))


if __name__ == "__main__":
    main(*sys.argv[1:])
