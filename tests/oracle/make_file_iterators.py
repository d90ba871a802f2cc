"""Write tests/fixtures/file_iterators.json with MXNet 1.9.1: ``python tests/oracle/make_...py``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import mxnet as mx

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "io"))

import file_cases  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        file_cases.write_files(Path())
        found, kept = [], []  # MXNet 1.9.1 crashes now and then when such an iterator is deleted
        for name, options in file_cases.CASES:
            try:
                kept.append(getattr(mx.io, name)(**options))
                found.append(file_cases.epochs(kept[-1], name != "MNISTIter"))
            except StopIteration:  # an empty part
                found.append(None)
    (TESTS / "fixtures" / "file_iterators.json").write_text(json.dumps(found, indent=None) + "\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
