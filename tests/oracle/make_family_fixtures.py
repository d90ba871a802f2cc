"""Writes what MXNet 1.9.1 computes for some families' cases: ``make_family_fixtures.py losses linalg``.

Runs in the oracle, from the root of the repository. Numbers only: no code of MXNet's is read or copied.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")  # run the operators as they stand in the graph

import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402

from tests.oracle import family  # noqa: E402


def main() -> None:
    for name in sys.argv[1:]:
        module = importlib.import_module("tests.oracle.cases_" + name)
        table = module.CASES
        found = {}
        for case_name, case in table.items():
            try:
                with mx.name.NameManager():
                    if hasattr(module, "run_with_arrays"):
                        results = module.run_with_arrays(mx, case_name)
                    else:
                        results = family.run(mx, case_name, case)
            except Exception as error:
                raise SystemExit(f"{case_name}: {error}") from error
            found.update({case_name + "/" + key: array for key, array in results.items()})
        np.savez_compressed(ROOT / "tests" / "fixtures" / f"operators_{name}.npz", **found)
        print(f"{name}: {len(table)} cases")


if __name__ == "__main__":
    main()
