"""Writes tests/fixtures with what MXNet 1.9.1 computes and saves: `make fixtures` runs it in the oracle.

Numbers and files that MXNet produces, nothing else: no code of MXNet's is read or copied.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("MXNET_SUBGRAPH_BACKEND", "NONE")  # run the operators as they stand in the graph

import mxnet as mx  # noqa: E402
import numpy as np  # noqa: E402

from tests.oracle import cases  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures"
DTYPES = ("float32", "float64", "float16", "uint8", "int32", "int8", "int64")


def operators() -> None:
    """Outputs, gradients and auxiliary states of every case."""
    found = {}
    for name in cases.CASES:
        for key, array in cases.run(mx, name).items():
            found[name + "/" + key] = array
    np.savez_compressed(FIXTURES / "operators.npz", **found)


def symbols() -> None:
    """The JSON of every case's symbol, as MXNet writes it, in one file with one line per case."""
    lines = []
    for name, case in cases.CASES.items():
        with mx.name.NameManager():
            graph = json.loads(case.build(mx.sym).tojson())
        lines.append(json.dumps(name) + ": " + json.dumps(graph, separators=(",", ":")))
    (FIXTURES / "symbols.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def params() -> None:
    """Array files: every dtype by name, a list without names, and a checkpoint with what it predicts."""
    rng = np.random.RandomState(5)
    arrays = {dtype: rng.uniform(0, 100, (3, 5)).astype(dtype) for dtype in DTYPES}
    mx.nd.save(str(FIXTURES / "dtypes.params"), {d: mx.nd.array(a, dtype=d) for d, a in arrays.items()})
    np.savez(FIXTURES / "dtypes.npz", **arrays)
    mx.nd.save(
        str(FIXTURES / "unnamed.params"), [mx.nd.array([1, 2, 3]), mx.nd.array([[4.5]], dtype="float64")]
    )
    net = cases.mlp(mx.sym)
    module = mx.mod.Module(net)
    shapes = cases.CASES["network_mlp"].shapes
    module.bind([("data", shapes["data"])], [("softmax_label", shapes["softmax_label"])])
    module.init_params()
    args, aux = module.get_params()
    values = [
        {
            name: mx.nd.array(cases.value("network_mlp", kind, name, array.shape))
            for name, array in arrays.items()
        }
        for kind, arrays in (("arg", args), ("aux", aux))
    ]
    module.set_params(*values)
    module.save_checkpoint(str(FIXTURES / "mlp"), 3)
    data = mx.nd.array(cases.value("network_mlp", "arg", "data", shapes["data"]))
    module.forward(mx.io.DataBatch([data]), is_train=False)
    np.save(FIXTURES / "mlp-output.npy", module.get_outputs()[0].asnumpy())


if __name__ == "__main__":
    operators()
    symbols()
    params()
