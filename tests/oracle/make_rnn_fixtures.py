"""Writes tests/fixtures/rnn.json and a checkpoint: what MXNet 1.9.1's mx.rnn does with weights and sentences.

Runs in the oracle, from the root of the repository. Numbers and files only: no code of MXNet's is copied.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402

from tests.oracle import rnn_facts  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures"


def main() -> None:
    found = {name: fact(mx) for name, fact in rnn_facts.FACTS.items()}
    random.seed(3)
    np.random.seed(3)
    found["batches"] = rnn_facts.batches(mx)
    lines = [json.dumps(name) + ": " + json.dumps(fact) for name, fact in found.items()]
    (FIXTURES / "rnn.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    cell, net, args = rnn_facts.network(mx)
    mx.rnn.save_rnn_checkpoint(cell, str(FIXTURES / "rnn"), 3, net, args, {})


if __name__ == "__main__":
    main()
