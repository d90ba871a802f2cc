"""Write tests/fixtures/sparse_training.json with MXNet 1.9.1: ``python tests/oracle/make_sparse_...py``.

A linear model over csr data and a sum of embeddings, trained with row_sparse weights.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mxnet as mx

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "module"))

import sparse_cases  # noqa: E402


def main() -> None:
    found = {name: sparse_cases.trained(mx, *case) for name, case in sparse_cases.CASES.items()}
    (TESTS / "fixtures" / "sparse_training.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
