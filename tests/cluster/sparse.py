"""What the workers of test_sparse.py run: ``sparse.py DIRECTORY CASE``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

import dmod as mx

sys.path.insert(0, str(Path(__file__).parents[1] / "module"))

import sparse_cases as cases


def half(batch: Any, rank: int) -> Any:
    """A worker's part of a batch."""
    rows = slice(rank * cases.BATCH // 2, (rank + 1) * cases.BATCH // 2)
    return mx.io.DataBatch([batch.data[0][rows]], [batch.label[0][rows]])


def main(directory: Path, name: str) -> None:
    """Train on this worker's half of each batch; rank 1 has other weights at first, which do not count."""
    network, optimizer, params = cases.CASES[name]
    kv = mx.kv.create("dist_sync")
    mod = mx.mod.Module(network(mx))
    first = half(next(cases.batches(mx, network)), kv.rank)
    mod.bind([("data", first.data[0].shape)], [("softmax_label", first.label[0].shape)])
    start = mx.nd.array(cases.START * (1 + kv.rank))
    mod.init_params(arg_params={"weight": start, "bias": mx.nd.zeros((2,))})
    mod.init_optimizer(kvstore=kv, optimizer=optimizer, optimizer_params=params)
    for _ in range(3):
        for batch in cases.batches(mx, network):
            mod.forward_backward(half(batch, kv.rank))
            mod.update()
        mod._end_epoch()
    weights = {n: value.asnumpy() for n, value in mod.get_params()[0].items()}
    np.savez(directory / f"sparse{kv.rank}.npz", **weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
