"""Modules with row_sparse weights: MXNet's numbers, several devices, states, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("sparse_cases", HERE / "sparse_cases.py")
assert _spec is not None and _spec.loader is not None
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)
EXPECTED = json.loads((HERE.parent / "fixtures" / "sparse_training.json").read_text())
TWO = [mx.cpu(0), mx.cpu(1)]


def close(found: Any, expected: Any, tolerance: float = 2e-6) -> None:
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, tolerance, tolerance, name)


@pytest.mark.parametrize("name", cases.CASES)
def test_training_arrives_where_mxnet_does(name: str) -> None:
    close(cases.trained(mx, *cases.CASES[name]), EXPECTED[name])


@pytest.mark.parametrize("network", ["linear", "embedding"])
@pytest.mark.parametrize("optimizer", ["momentum", "eager"])
def test_devices_sum_their_rows(network: str, optimizer: str) -> None:
    name = f"{network} {optimizer}"
    close(cases.trained(mx, *cases.CASES[name], context=TWO), EXPECTED[name])


def test_rows_without_a_gradient_are_not_touched() -> None:
    mod = cases.module(mx, *cases.CASES["linear momentum"])
    batch = next(cases.batches(mx, cases.linear))
    mod.forward_backward(batch)
    mod.update()
    changed = (mod.get_params()[0]["weight"].asnumpy() != cases.START).any(1)
    assert changed.tolist() == batch.data[0].asnumpy().any(0).tolist() and not changed.all()


def test_sums_may_take_several_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmod.worker.sparse._ELEMENTS", 6)
    name = "embedding momentum"
    close(cases.trained(mx, *cases.CASES[name], context=TWO), EXPECTED[name])


@pytest.mark.parametrize("context", [mx.cpu(), TWO], ids=["one", "two"])
def test_states_are_saved_and_loaded_with_the_others(context: Any, tmp_path: Path) -> None:
    case, path = cases.CASES["linear momentum"], str(tmp_path / "s.states")
    whole, half, rest = (cases.module(mx, *case, context=context) for _ in range(3))

    def train(mod: Any) -> None:
        for batch in cases.batches(mx, case[0]):
            mod.forward_backward(batch)
            mod.update()

    train(whole)
    train(whole)
    train(half)
    half.save_optimizer_states(path)
    rest.set_params(*half.get_params())
    rest.load_optimizer_states(path)
    train(rest)
    for name, value in whole.get_params()[0].items():
        assert (rest.get_params()[0][name].asnumpy() == value.asnumpy()).all(), name


def test_an_iterator_of_csr_batches_is_trained_on() -> None:
    batches = mx.io.NDArrayIter(
        mx.nd.array(cases.DATA).tostype("csr"), cases.LABEL, 8, last_batch_handle="discard"
    )
    mod = mx.mod.Module(cases.linear(mx), context=TWO)
    params = {"learning_rate": 2.0}
    mod.fit(batches, num_epoch=30, optimizer_params=params, initializer=mx.init.Zero(), kvstore="local")
    assert dict(mod.score(batches, "acc"))["accuracy"] > 0.9
    dense = mx.io.NDArrayIter(cases.DATA, cases.LABEL, 8)  # becomes csr in the executors
    assert mod.score(dense, "acc") == mod.score(batches, "acc")


def test_wrong_names_and_stores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mod = cases.module(mx, *cases.CASES["linear sgd"])
    batch = next(cases.batches(mx, cases.linear))
    with pytest.raises(InvalidArgument, match="names 'wieght'; row_sparse parameters are 'weight'"):
        mod.prepare(batch, sparse_row_id_fn=lambda b: {"wieght": b.data[0].indices})
    mod.prepare(batch, sparse_row_id_fn=lambda b: {"weight": b.data[0].indices})
    store = mx.kv.create("local")
    monkeypatch.setattr(type(store), "asynchronous", True)
    with pytest.raises(InvalidArgument, match=r"'weight' has row_sparse gradients.*use 'dist_sync'"):
        cases.module(mx, *cases.CASES["linear sgd"], kvstore=store)
