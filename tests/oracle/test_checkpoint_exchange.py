"""Checkpoints travel between MXNet 1.9.1 and dmod, bit for bit.

Reading is tested against files that MXNet wrote (tests/fixtures); writing needs a live MXNet, which these
tests find through `benchmarks.oracle.find_oracle`, and skip without.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dmod as mx
from benchmarks.oracle import ROOT, find_oracle
from tests.oracle import cases

FIXTURES = ROOT / "tests" / "fixtures"

# Run by either side's Python: load a checkpoint, predict one batch, save checkpoint and outputs again.
RELAY = """
import sys, numpy as np
package, source, target, root = sys.argv[1:]
sys.path.insert(0, root)
from tests.oracle import cases
if package == "mxnet":
    import mxnet as mx
else:
    import dmod as mx
sym, args, aux = mx.model.load_checkpoint(source, 3)
shapes = cases.CASES["network_mlp"].shapes
module = mx.mod.Module(sym)
module.bind([("data", shapes["data"])], for_training=False)
module.set_params(args, aux)
batch = mx.io.DataBatch([mx.nd.array(cases.value("network_mlp", "arg", "data", shapes["data"]))])
module.forward(batch, is_train=False)
np.save(target + ".npy", module.get_outputs()[0].asnumpy())
module.save_checkpoint(target, 3)
"""


def relay(package: str, source: Path, target: Path) -> None:
    python = find_oracle() if package == "mxnet" else sys.executable
    command = [str(python), "-c", RELAY, package, str(source), str(target), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_dtype_is_read_as_mxnet_wrote_it() -> None:
    found = mx.nd.load(str(FIXTURES / "dtypes.params"))
    wanted = np.load(FIXTURES / "dtypes.npz")
    assert found.keys() == set(wanted.files)
    for dtype, array in found.items():
        assert array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(array.asnumpy(), wanted[dtype])


def test_arrays_without_names_are_read_as_a_list() -> None:
    first, second = mx.nd.load(str(FIXTURES / "unnamed.params"))
    np.testing.assert_array_equal(first.asnumpy(), np.array([1, 2, 3], "float32"))
    np.testing.assert_array_equal(second.asnumpy(), np.array([[4.5]], "float64"))


def test_array_files_are_written_byte_for_byte_as_mxnet_writes_them(tmp_path: Path) -> None:
    for name in ("dtypes", "unnamed", "mlp-0003"):
        source = FIXTURES / f"{name}.params"
        mx.nd.save(str(tmp_path / "again.params"), mx.nd.load(str(source)))
        assert (tmp_path / "again.params").read_bytes() == source.read_bytes(), name


def test_a_checkpoint_of_mxnet_has_its_values_and_gives_its_outputs(tmp_path: Path) -> None:
    sym, args, aux = mx.model.load_checkpoint(str(FIXTURES / "mlp"), 3)
    for kind, arrays in (("arg", args), ("aux", aux)):
        for name, array in arrays.items():
            np.testing.assert_array_equal(
                array.asnumpy(), cases.value("network_mlp", kind, name, array.shape)
            )
    assert set(args) | {"data", "softmax_label"} == set(sym.list_arguments())
    assert set(aux) == set(sym.list_auxiliary_states())
    relay("dmod", FIXTURES / "mlp", tmp_path / "ours")
    wanted = np.load(FIXTURES / "mlp-output.npy")
    np.testing.assert_allclose(np.load(tmp_path / "ours.npy"), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.skipif(find_oracle() is None, reason="needs MXNet 1.9.1: make oracle")
def test_a_checkpoint_goes_to_mxnet_and_back_unchanged(tmp_path: Path) -> None:
    relay("dmod", FIXTURES / "mlp", tmp_path / "ours")
    relay("mxnet", tmp_path / "ours", tmp_path / "theirs")
    relay("dmod", tmp_path / "theirs", tmp_path / "again")
    params = [(tmp_path / f"{name}-0003.params") for name in ("ours", "theirs", "again")]
    loaded = [mx.nd.load(str(path)) for path in params]
    for other in loaded[1:]:
        assert other.keys() == loaded[0].keys()
        for name, array in loaded[0].items():
            assert array.asnumpy().tobytes() == other[name].asnumpy().tobytes(), name
    ours, theirs, again = (np.load(tmp_path / f"{name}.npy") for name in ("ours", "theirs", "again"))
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(ours, again)
    assert (tmp_path / "ours-symbol.json").read_text() == (tmp_path / "again-symbol.json").read_text()
