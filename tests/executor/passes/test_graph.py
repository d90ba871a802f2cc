"""The graph that passes rewrite, and the switches of passes."""

from __future__ import annotations

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument
from dmod.executor import passes
from dmod.executor.passes.graph import Graph, key_of
from dmod.ops.registry import Attrs, get_operator, register_internal
from dmod.symbol.graph import Entry


def graph_of(symbol, is_train=True, grad_req="write", **shapes):
    """The graph that passes get for a symbol."""
    binding = symbol.simple_bind(mx.cpu(), grad_req=grad_req, **shapes)._binding
    return Graph(
        binding.order,
        binding.heads,
        binding.shapes,
        binding.dtypes,
        binding.reqs,
        binding.places,
        binding.workspace,
        is_train,
    )


def names(graph):
    return [node.name for node in graph.order]


def node_of(graph, name):
    return next(node for node in graph.order if node.name == name)


def network():
    x = mx.sym.Variable("x")
    twice = mx.sym.elemwise_add(x, x, name="twice")
    return mx.sym.elemwise_mul(twice, mx.sym.negative(x, name="minus"), name="out")


TRIPLE = register_internal(
    "_test_triple",
    arguments=["x"],
    forward=lambda call: lambda: call.xp.multiply(call.inputs[0], 3, out=call.outputs[0]),
    backward=lambda call: lambda: call.xp.multiply(call.out_grads[0], 3, out=call.in_grads[0]),
)


def triple(graph):
    """Instead of doubling, triple: a pass that tests can see."""
    found = [n for n in graph.order if n.op is get_operator("elemwise_add")]
    for node in found:
        entry = Entry(node, 0)
        new = graph.add(TRIPLE, Attrs(), node.inputs[:1], node, [(graph.shape(entry), np.float32)])
        graph.replace({key_of(entry): Entry(new, 0)})
    return len(found)


def test_the_symbol_keeps_its_nodes():
    symbol = network()
    before = [(id(n), n.op, list(n.inputs)) for n in symbol._order()]
    graph = graph_of(symbol, x=(2, 3))
    assert triple(graph) == 1
    assert [(id(n), n.op, list(n.inputs)) for n in symbol._order()] == before


def test_who_reads_an_entry():
    graph = graph_of(network(), x=(2, 3))
    x, twice, out = (node_of(graph, n) for n in ("x", "twice", "out"))
    assert [(n.name, k) for n, k in graph.readers(Entry(x, 0))] == [("twice", 0), ("twice", 1), ("minus", 0)]
    assert graph.only_reader(Entry(x, 0)) is None
    assert graph.only_reader(Entry(twice, 0)) == (out, 0)
    assert graph.is_head(Entry(out, 0)) and graph.only_reader(Entry(out, 0)) is None


def test_a_replaced_node_goes_and_its_place_in_the_order_is_taken():
    graph = graph_of(network(), x=(2, 3))
    number = graph.numbers[id(node_of(graph, "twice"))]
    triple(graph)
    graph.finish()
    assert names(graph) == ["x", "twice", "minus", "out"]
    assert node_of(graph, "twice").op is TRIPLE
    assert graph.numbers[id(node_of(graph, "twice"))] == number
    assert node_of(graph, "out").inputs[0].node.op is TRIPLE


def test_an_order_that_became_wrong_is_mended():
    graph = graph_of(network(), x=(2, 3))
    twice, minus = node_of(graph, "twice"), node_of(graph, "minus")
    twice.inputs = [Entry(minus, 0), twice.inputs[1]]
    graph.finish()
    assert names(graph) == ["x", "minus", "twice", "out"]


def test_a_head_can_be_replaced():
    x = mx.sym.Variable("x")
    graph = graph_of(mx.sym.Group([mx.sym.elemwise_add(x, x, name="twice"), x]), x=(2,))
    triple(graph)
    assert graph.heads[0].node.op is TRIPLE and graph.heads[1].node is node_of(graph, "x")


def test_inference_wants_no_gradients():
    assert not graph_of(network(), is_train=False, x=(2, 3)).needs_gradient()
    assert len(graph_of(network(), x=(2, 3)).needs_gradient()) == 4
    assert not graph_of(network(), grad_req="null", x=(2, 3)).needs_gradient()


@pytest.fixture
def with_triple(monkeypatch):
    monkeypatch.setattr(passes, "PASSES", (*passes.PASSES, passes.Pass("triple", triple)))
    passes.switched_on.cache_clear()
    yield
    passes.switched_on.cache_clear()


def run(monkeypatch, switches, monitor=False):
    monkeypatch.setenv("DMOD_PASSES", switches)
    exe = network().simple_bind(mx.cpu(), x=(3,))
    exe.arg_dict["x"][:] = [1, 2, 3]
    if monitor:
        exe.set_monitor_callback(lambda name, array: None)
    out = exe.forward(is_train=True)[0].asnumpy()
    exe.backward(mx.nd.ones((3,)))
    return out.tolist(), exe.grad_dict["x"].asnumpy().tolist()


def test_a_pass_runs_where_it_is_switched_on(monkeypatch, with_triple):
    doubled, tripled = ([-2, -8, -18], [-4, -8, -12]), ([-3, -12, -27], [-6, -12, -18])
    assert run(monkeypatch, "all") == tripled
    assert run(monkeypatch, "triple") == tripled
    assert run(monkeypatch, "none") == run(monkeypatch, "-triple") == doubled


def test_a_monitor_sees_a_plan_without_passes_that_hide(monkeypatch, with_triple):
    assert run(monkeypatch, "all", monitor=True)[0] == [-2, -8, -18]


def test_a_monitor_may_come_between_forward_and_backward(monkeypatch, with_triple):
    exe = network().simple_bind(mx.cpu(), x=(3,))
    exe.arg_dict["x"][:] = [1, 2, 3]
    exe.forward(is_train=True)
    exe.set_monitor_callback(lambda name, array: None)
    exe.backward(mx.nd.ones((3,)))
    assert exe.grad_dict["x"].asnumpy().tolist() == [-6, -12, -18]


@pytest.mark.parametrize("words", ["", "all", "none,triple", "all,-none_such"])
def test_switches_are_read_from_left_to_right(with_triple, words):
    if "none_such" in words:
        with pytest.raises(InvalidArgument, match="no pass 'none_such'"):
            passes.switched_on(words)
    else:
        assert "triple" in passes.switched_on(words)


def test_a_mistyped_pass_is_named_with_the_nearest(with_triple):
    with pytest.raises(InvalidArgument, match=r"no pass 'tripel'.*'triple'"):
        passes.switched_on("-tripel")


def test_internal_operators_are_not_for_users():
    with pytest.raises(AttributeError):
        mx.sym._test_triple  # noqa: B018
    with pytest.raises(InvalidArgument):
        get_operator("_test_triple")
