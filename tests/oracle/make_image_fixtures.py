"""Writes tests/fixtures/images.npz and images.json: what MXNet 1.9.1 does with the files in images/ there.

Runs in the oracle, from the root of the repository. Numbers only: no code of MXNet's is copied.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402

from tests.oracle import image_cases  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures"


def main() -> None:
    arrays = {}
    for case in image_cases.ARRAYS:
        for name, value in case(mx).items():
            arrays[name] = value if isinstance(value, np.ndarray) else value.asnumpy()
    np.savez_compressed(
        FIXTURES / "images.npz", **{name: image_cases.sampled(value) for name, value in arrays.items()}
    )
    facts = {case.__name__: case(mx) for case in image_cases.FACTS}
    facts["shapes"] = {name: value.shape for name, value in arrays.items()}
    (FIXTURES / "images.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
