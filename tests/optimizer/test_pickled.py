"""MXNet's ``.states`` files: read without running them, and written."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmod import optimizer as opt
from dmod.base import FormatError
from dmod.ndarray.ndarray import array

TESTS = Path(__file__).parent.parent
_spec = importlib.util.spec_from_file_location("optimizer_cases", TESTS / "oracle" / "optimizer_cases.py")
assert _spec is not None and _spec.loader is not None
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
PICKLES = json.loads((TESTS / "fixtures" / "optimizer_pickles.json").read_text())


def trained(name: str, options: dict[str, Any], dtype: str) -> opt.Updater:
    """The updater after the two steps that the fixtures have behind them."""
    updater = opt.get_updater(opt.create(name, multi_precision=True, **options))
    weights = [array(w, dtype=dtype) for w in cases.starts()]
    for step in (1, 2):
        for index, weight in enumerate(weights):
            updater(index, array(cases.gradient(step, index), dtype=dtype), weight)
    return updater


@pytest.mark.parametrize("dumped", [0, 1])
@pytest.mark.parametrize(("name", "options", "dtype"), cases.PICKLED)
def test_states_of_mxnet_are_those_of_our_own_steps(
    name: str, options: dict[str, Any], dtype: str, dumped: int, tmp_path: Path
) -> None:
    path = tmp_path / "mxnet.states"
    path.write_bytes(bytes.fromhex(PICKLES[f"{name} {dtype}"][dumped]))
    found, ours = opt.OptimizerStates.load(path), trained(name, options, dtype).to_states()
    assert list(found.entries) == list(ours.entries) == [0, 1, 2]
    for index, entry in found.entries.items():
        assert entry.count == (2 if dumped else 0)
        arrays = entry.arrays
        if name == "adagrad" and not dumped:
            arrays = arrays[::-1]  # which is the copy cannot be known
        for left, right in zip(arrays, ours.entries[index].arrays, strict=True):
            np.testing.assert_allclose(left, right, 1e-3, 1e-4)


@pytest.mark.parametrize(("name", "options", "dtype"), cases.PICKLED)
def test_what_is_exported_is_read_back(name: str, options: dict[str, Any], dtype: str) -> None:
    ours = trained(name, options, dtype)
    found = opt.OptimizerStates.from_bytes(ours.get_mxnet_states())
    for index, entry in ours.to_states().entries.items():
        arrays = found.entries[index].arrays
        if name == "adagrad":
            arrays = arrays[::-1]
        assert [a.tobytes() for a in arrays] == [a.tobytes() for a in entry.arrays]


def test_an_updater_goes_on_from_states_of_mxnet() -> None:
    ours = trained("adam", {}, "float32")
    other = opt.get_updater(opt.create("adam"))
    other.set_states(bytes.fromhex(PICKLES["adam float32"][1]))
    weight = array(cases.starts()[0])
    twin = weight.copy()
    ours(0, array(cases.gradient(3, 0)), weight)
    other(0, array(cases.gradient(3, 0)), twin)
    np.testing.assert_allclose(weight.asnumpy(), twin.asnumpy(), 1e-5, 1e-7)


def test_states_under_names_are_found() -> None:
    ours = trained("sgd", {"momentum": 0.9}, "float32").to_states()
    ours.entries["fc_weight"] = ours.entries.pop(0)
    other = opt.get_updater(opt.SGD(momentum=0.9, param_idx2name={0: "fc_weight"}))
    other.from_states(ours)
    weight = array(cases.starts()[0])
    other(0, array(np.zeros((2, 3))), weight)
    expected = 0.9 * ours.entries["fc_weight"].arrays[0]
    np.testing.assert_allclose(weight.asnumpy() - cases.starts()[0], expected, 1e-5, 1e-6)
    assert other.optimizer.num_update == 3


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, function: Any, *args: Any):
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_executes_nothing(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for evil in (
        Evil(os.mkdir, "made"),
        Evil(eval, "__import__('os').mkdir('made')"),
        Evil(bytearray, 1 << 62),
        Evil(open, "made", "w"),
        {0: Evil(os.mkdir, "made")},
        (Evil(os.mkdir, "made"), {}),
        {0: np.ones(3)},
        {0: {1: 2}},
        {(1,): None},
        [1],
        7,
    ):
        data = pickle.dumps(evil, protocol)
        path = tmp_path / "evil.states"
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"evil\.states"):
            opt.OptimizerStates.load(path)
        with pytest.raises(FormatError):
            opt.get_updater(opt.SGD()).set_states(data)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04",
        b"\x80\x04.",
        b"\x80\x04}\x94b.",
        b"\x80\x04h\x05.",
        b"\x80\x04u.",
        b"\x80\x04Nr\xff\xff\xff\xff.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04}K\x00]\x94h\x00as.",  # a list that holds itself
        b"\x80\x02cmxnet.optimizer.optimizer\nSGD\n)R.",
        b"\x80\x02cmxnet.ndarray.ndarray\nNDArray\nN\x85R.",
        b"\x80\x02}K\x00cmxnet.ndarray.ndarray\nNDArray\nN\x85Rs.",
        b"\x80\x02}K\x00cmxnet.ndarray.ndarray\nNDArray\nN\x85R}X\x06\x00\x00\x00handleC\x01asbs.",
    ],
)
def test_a_pickle_that_makes_no_sense_is_refused(program: bytes) -> None:
    with pytest.raises(FormatError):
        opt.OptimizerStates.from_bytes(program, "some.states")


def test_every_truncation_is_refused() -> None:
    whole = bytes.fromhex(PICKLES["adam float16"][1])
    for size in range(1, len(whole)):
        with pytest.raises(FormatError):
            opt.OptimizerStates.from_bytes(whole[:size])


def test_flipped_bytes_are_refused_or_change_values_only() -> None:
    whole = bytes.fromhex(PICKLES["adam float16"][1])
    for i in range(len(whole)):
        broken = bytearray(whole)
        broken[i] ^= 0x55
        try:
            found = opt.OptimizerStates.from_bytes(bytes(broken))
        except FormatError:
            continue
        assert isinstance(found.entries, dict)
