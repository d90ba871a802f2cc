"""What tests of passes share: results with a pass and without it, and how often it found its pattern."""

from __future__ import annotations

import numpy as np

import dmod as mx
from dmod.executor import passes
from dmod.executor.passes.graph import Graph


def graph_of(symbol, is_train=True, grad_req="write", group2ctx=None, type_dict=None, **shapes):
    """The graph that passes get for a symbol."""
    executor = symbol.simple_bind(mx.cpu(), grad_req, type_dict, group2ctx=group2ctx, **shapes)
    b = executor._binding
    return Graph(b.order, b.heads, b.shapes, b.dtypes, b.reqs, b.places, b.workspace, is_train)


def found(symbol, name, is_train=True, before="", **kwargs):
    """How many places the pass `name` finds in a symbol, run after the passes `before`."""
    graph = graph_of(symbol, is_train, **kwargs)
    return passes.apply(graph, ",".join(filter(None, ("none", before, name))))[name]


def results(monkeypatch, switches, symbol, shapes, grad_req="write", is_train=True, runs=1, integers=()):
    """Outputs and gradients of a symbol compiled with some passes, over values from a seed."""
    monkeypatch.setenv("DMOD_PASSES", switches)
    executor = symbol.simple_bind(mx.cpu(), grad_req, **shapes)
    rng = np.random.RandomState(0)
    for name, array in executor.arg_dict.items():
        high = next((n for part, n in integers if part in name), 0)
        array[:] = rng.randint(high, size=array.shape) if high else rng.randn(*array.shape)
    for name, array in executor.aux_dict.items():
        array[:] = np.abs(rng.randn(*array.shape)) + ("var" in name)
    heads = [mx.nd.array(rng.randn(*array.shape)) for array in executor.outputs]
    for _ in range(runs):
        executor.forward(is_train=is_train)
        if is_train:
            executor.backward(heads)
    arrays = {f"output {i}": array.asnumpy() for i, array in enumerate(executor.outputs)}
    arrays.update({f"d {n}": a.asnumpy() for n, a in executor.grad_dict.items() if a is not None})
    arrays.update({f"aux {n}": a.asnumpy() for n, a in executor.aux_dict.items()})
    return arrays


def assert_agree(monkeypatch, switches, symbol, shapes, rtol=2e-6, atol=2e-6, **kwargs):
    """Assert that passes change no result by more than float32 rounding."""
    with_passes = results(monkeypatch, switches, symbol, shapes, **kwargs)
    without = results(monkeypatch, "none", symbol, shapes, **kwargs)
    assert with_passes.keys() == without.keys()
    for name, array in with_passes.items():
        np.testing.assert_allclose(array, without[name], rtol=rtol, atol=atol, err_msg=name)
