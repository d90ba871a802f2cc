"""Chains of element-wise operators as one generated loop."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys

import numpy as np
import pytest

import dmod as mx
from dmod.device import generated
from dmod.device.standin import stand_in_gpus
from dmod.executor.passes.fuse_elementwise import MIN_SIZE
from dmod.ops.fused_elementwise import FORMULAS, Program, Value
from tests.executor.passes.comparing import assert_agree, found, graph_of, results

PASS = "fuse_elementwise"
SHAPES = {"a": (64, 64), "b": (64, 64)}
A, B = mx.sym.Variable("a"), mx.sym.Variable("b")


def programs(symbol, **kwargs):
    """The programs that the pass makes."""
    from dmod.executor import passes

    graph = graph_of(symbol, **kwargs)
    passes.apply(graph, PASS)
    return [n.attrs.program for n in graph.order if n.op is not None and n.op.name == "_fused_elementwise"]


SYMBOLS = {
    "chain": mx.sym.tanh(A * 2 + 1) * 0.5,
    "tree": (A + B) * mx.sym.sigmoid(A - B),
    "read twice inside": mx.sym.square(mx.sym.exp(A)) - mx.sym.exp(A) * B,
    "maximum": mx.sym.maximum(A, B) - mx.sym.minimum(A * 3, B),
    "division": (A / (mx.sym.abs(B) + 1)) / 3,
    "scalar first": 2 / (3 - mx.sym.negative(mx.sym.abs(A)) + 1),
    "roots": mx.sym.sqrt(mx.sym.abs(A) + 1) + mx.sym.rsqrt(mx.sym.abs(B) + 2) * mx.sym.reciprocal(A * A + 1),
    "limits": mx.sym.maximum(mx.sym.minimum(A - 0.25, 0.5), -0.25) + B,
    "power": (A**2) * (B + 1) ** 2,
    "activations": mx.sym.Activation(A, act_type="softrelu") * mx.sym.softsign(B) + mx.sym.relu(B),
    "broadcast of one shape": mx.sym.broadcast_mul(A, mx.sym.broadcast_maximum(A, B)),
}


@pytest.mark.parametrize("name", SYMBOLS)
def test_results_agree(monkeypatch, name):
    symbol = SYMBOLS[name]
    shapes = {n: SHAPES[n] for n in symbol.list_arguments()}
    assert found(symbol, PASS, **shapes) == 1
    assert_agree(monkeypatch, PASS, symbol, shapes, rtol=1e-5, atol=1e-5)
    assert_agree(monkeypatch, PASS, symbol, shapes, rtol=1e-5, atol=1e-5, is_train=False)


def test_every_formula_is_tried():
    used = {v.formula for n, s in SYMBOLS.items() for p in programs(s, **_shapes(s)) for v in p.values}
    assert used == set(FORMULAS)


def _shapes(symbol):
    return {name: SHAPES[name] for name in symbol.list_arguments()}


@pytest.mark.parametrize("name", ["tree", "limits"])
def test_arithmetic_keeps_the_bits(monkeypatch, name):
    symbol = {"tree": (A + B) * (A - B) / 3, "limits": SYMBOLS["limits"]}[name]
    one, other = (results(monkeypatch, p, symbol, SHAPES) for p in (PASS, "none"))
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_gradients_are_added_or_left_out(monkeypatch):
    symbol = SYMBOLS["tree"]
    assert_agree(monkeypatch, PASS, symbol, SHAPES, grad_req="add", runs=2)
    assert_agree(monkeypatch, PASS, symbol, SHAPES, grad_req={"b": "write"})
    assert_agree(monkeypatch, PASS, symbol, SHAPES, grad_req={"a": "add"}, runs=2)


def test_odd_numbers_are_those_of_numpy(monkeypatch):
    odd = np.resize(np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 100, -100, 1e-30], "float32"), (64, 64))
    symbol = mx.sym.maximum(mx.sym.relu(A), -1) + mx.sym.exp(A) + mx.sym.sigmoid(A) + mx.sym.tanh(A)
    out = []
    for switches in (PASS, "none"):
        monkeypatch.setenv("DMOD_PASSES", switches)
        executor = symbol.simple_bind(mx.cpu(), a=odd.shape)
        out.append(executor.forward(a=odd)[0].asnumpy())
    np.testing.assert_allclose(*out, rtol=1e-6)


def test_several_groups_and_what_lies_between(monkeypatch):
    between = mx.sym.FullyConnected(mx.sym.tanh(A * 2), num_hidden=64, name="fc")
    symbol = mx.sym.exp(between * 0.01) + B
    assert found(symbol, PASS, **SHAPES) == 2
    assert_agree(monkeypatch, PASS, symbol, SHAPES, rtol=1e-4, atol=1e-4)


def test_a_group_reads_another_ones_result(monkeypatch):
    first = mx.sym.exp(A * 0.1)
    second = mx.sym.Group([mx.sym.sqrt(first + 2), first * 3 + B])  # what both read stays
    assert found(second, PASS, **SHAPES) == 3
    assert_agree(monkeypatch, PASS, second, SHAPES)


def test_what_is_an_output_or_read_elsewhere_stays():
    twice = A * 2
    assert found(mx.sym.Group([twice + 1, twice]), PASS, a=(64, 64)) == 0
    symbol = mx.sym.FullyConnected(twice, num_hidden=64, name="fc") + (twice + 1)
    assert [len(p.values) for p in programs(symbol, a=(64, 64))] == [2]  # without the product by 2


def test_small_arrays_other_dtypes_shapes_and_devices_are_left_alone():
    symbol = mx.sym.tanh(A * 2 + 1)
    assert found(symbol, PASS, a=(MIN_SIZE - 1,)) == 0 and found(symbol, PASS, a=(MIN_SIZE,)) == 1
    assert found(symbol, PASS, type_dict={"a": "float64"}, a=(64, 64)) == 0
    assert found(mx.sym.broadcast_mul(A, B) + 1, PASS, a=(64, 64), b=(64, 1)) == 0
    with mx.AttrScope(ctx_group="g"):
        inner = A * 2
    with stand_in_gpus():
        assert found(inner + 1, PASS, group2ctx={"g": mx.gpu(0)}, a=(64, 64)) == 0


def test_a_long_chain_is_cut(monkeypatch):
    symbol = A
    for _ in range(40):
        symbol = symbol * 1.01
    assert sorted(len(p.values) for p in programs(symbol, a=(64, 64))) == [16, 24]
    assert_agree(monkeypatch, PASS, symbol, {"a": (64, 64)})


def test_many_inputs_are_cut(monkeypatch):
    names = [f"i{k}" for k in range(9)]
    symbol = mx.sym.Variable(names[0])
    for name in names[1:]:
        symbol = symbol + mx.sym.Variable(name)
    shapes = dict.fromkeys(names, (64, 64))
    assert all(p.num_inputs <= 6 for p in programs(symbol, **shapes))
    assert_agree(monkeypatch, PASS, symbol, shapes)


def test_without_numba_nothing_is_joined(without_numba):
    assert found(A * 2 + 1, PASS, a=(64, 64)) == 0


def test_backward_reads_no_more_than_its_slopes():
    linear = Program(2, (Value("add", ("x0", "x1")), Value("_mul_scalar", ("v0",), 0)))
    assert linear.backward_reads((True, True)) == []
    product = Program(2, (Value("mul", ("x0", "x1")), Value("negative", ("v0",))))
    assert product.backward_reads((True, True)) == [0, 1] and product.backward_reads((True, False)) == [1]


# ---- the files of generated kernels

SOURCE = "from dmod.device.compiled_math import compiled\n\n\n@compiled\ndef one():\n    return {0}\n"


def test_a_second_process_finds_source_and_machine_code(tmp_path):
    code = (
        "from dmod.device.generated import module_from\n"
        f"one = module_from({SOURCE.format(1)!r}).one\n"
        "assert one() == 1\n"
        "print(sum(one.stats.cache_hits.values()), sum(one.stats.cache_misses.values()))\n"
    )
    environ = {**os.environ, "DMOD_CACHE_DIR": str(tmp_path)}
    environ.pop("NUMBA_CACHE_DIR", None)
    told = [
        subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
        for _ in range(2)
    ]
    assert [done.stdout.split() for done in told] == [["0", "1"], ["1", "0"]], told
    assert stat.S_IMODE((tmp_path / "kernels").stat().st_mode) == 0o700


@pytest.fixture
def fresh():
    generated.module_from.cache_clear()
    generated._say_once.cache_clear()
    yield
    generated.module_from.cache_clear()
    generated._say_once.cache_clear()


def test_a_directory_that_cannot_be_written_is_said_once(monkeypatch, tmp_path, caplog, fresh):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DMOD_CACHE_DIR", str(tmp_path / "file" / "below"))
    with caplog.at_level(logging.INFO, "dmod"):
        assert generated.module_from(SOURCE.format(2)).one() == 2
        assert generated.module_from(SOURCE.format(3)).one() == 3
    assert caplog.text.count("not kept on disk") == 1 and "DMOD_CACHE_DIR" in caplog.text


def test_a_directory_that_others_can_write_is_not_trusted(monkeypatch, tmp_path, caplog, fresh):
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("DMOD_CACHE_DIR", str(tmp_path))
    with caplog.at_level(logging.INFO, "dmod"):
        assert generated.module_from(SOURCE.format(4)).one() == 4
    assert "can be written by others" in caplog.text and not list(folder.iterdir())


def test_a_file_that_was_changed_is_written_again(monkeypatch, tmp_path, fresh):
    monkeypatch.setenv("DMOD_CACHE_DIR", str(tmp_path))
    generated.module_from(SOURCE.format(5))
    (path,) = (tmp_path / "kernels").glob("dmod_kernel_*.py")
    path.write_text("raise SystemExit")
    generated.module_from.cache_clear()
    assert generated.module_from(SOURCE.format(5)).one() == 5
