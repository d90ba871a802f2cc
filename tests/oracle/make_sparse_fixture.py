"""Write tests/fixtures/sparse.params with MXNet 1.9.1: ``python tests/oracle/make_sparse_fixture.py``."""

from __future__ import annotations

from pathlib import Path

import mxnet as mx

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "sparse.params"


def main() -> None:
    sparse = mx.nd.sparse
    mx.nd.save(
        str(FIXTURE),
        {
            "rows": sparse.row_sparse_array(([[1, 2], [3, 4]], [0, 3]), shape=(5, 2)),
            "half": sparse.row_sparse_array(([[1.5, 2]], [1]), shape=(2, 2), dtype="float16"),
            "no_rows": sparse.zeros("row_sparse", (5, 2)),
            "csr": sparse.csr_matrix(([1, 2, 3], [0, 2, 1], [0, 2, 2, 3]), shape=(3, 4)),
            "no_values": sparse.zeros("csr", (3, 4)),
            "dense": mx.nd.arange(3),
        },
    )


if __name__ == "__main__":
    main()
