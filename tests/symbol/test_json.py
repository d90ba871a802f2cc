"""A symbol's JSON: MXNet's own, read and written byte for byte; damaged files."""

from __future__ import annotations

import json

import pytest

import dmod as mx
from dmod.base import GraphError, MXNetError

NET = mx.sym.SoftmaxOutput(
    mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc"), name="softmax"
)


def changed(**changes):
    graph = json.loads(NET.tojson())
    graph.update(changes)
    return json.dumps(graph)


def with_node(i, **changes):
    graph = json.loads(NET.tojson())
    graph["nodes"][i].update(changes)
    return json.dumps(graph)


def test_writing_and_reading_gives_the_same_bytes():
    text = NET.tojson()
    assert mx.sym.load_json(text).tojson() == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON at character 0"),
        ("{", "not JSON"),
        ("[" * 100000, "not JSON"),
        ("[]", "expected an object"),
        ("{}", "'nodes' is missing"),
        (changed(nodes=3), "'nodes' is missing"),
        (changed(nodes=[3]), "nodes[0]: expected an object"),
        (changed(heads=[]), "'heads' is missing"),
        (changed(heads=[[99, 0, 0]]), "heads[0]: refers to node 99"),
        (changed(heads=[[5, 7, 0]]), "refers to output 7"),
        (changed(heads=[["5", 0, 0]]), "expected whole numbers"),
        (with_node(3, inputs=[[3, 0, 0], [1, 0, 0], [2, 0, 0]]), "nodes[3]: inputs[0]: refers to node 3"),
        (with_node(3, inputs=[[0, 0, 0]]), "has 1 inputs, expected 3"),
        (
            with_node(3, op="FullyConected"),
            "unknown operator 'FullyConected'; did you mean 'FullyConnected'?",
        ),
        (with_node(3, attrs={"num_hidden": "many"}), "expected a whole number, got 'many'"),
        (with_node(3, attrs={"num_hidden": "3", "foo": "1"}), "no parameter 'foo'"),
        (with_node(3, attrs={"num_hidden": 3}), "attribute 'num_hidden' must be a string"),
        (with_node(0, name="fc_weight"), "two variables are named 'fc_weight'"),
        (with_node(0, inputs=[[0, 0, 0]]), "nodes[0]: inputs[0]"),
    ],
)
def test_damage_is_named(text, words):
    with pytest.raises(GraphError) as caught:
        mx.sym.load_json(text)
    assert words in str(caught.value)


def test_every_truncation_is_an_error_of_ours():
    text = NET.tojson()
    for end in range(0, len(text) - 1, 7):
        with pytest.raises(GraphError):
            mx.sym.load_json(text[:end])


def test_files_are_named(tmp_path):
    path = tmp_path / "net-symbol.json"
    NET.save(str(path))
    assert mx.sym.load(str(path)).tojson() == NET.tojson()
    path.write_text("{")
    with pytest.raises(GraphError, match=r"net-symbol\.json: not JSON"):
        mx.sym.load(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(GraphError, match="not text at byte 0"):
        mx.sym.load(str(path))
    with pytest.raises(MXNetError, match=r"gone\.json"):
        mx.sym.load(str(tmp_path / "gone.json"))


def test_old_files_are_read():
    """Before 0.9 parameters stood under 'param', and auxiliary states were not listed."""
    old = {
        "nodes": [
            {"op": "null", "param": {}, "name": "x", "inputs": [], "backward_source_id": -1},
            {"op": "null", "param": {}, "name": "bn_gamma", "inputs": []},
            {"op": "null", "param": {}, "name": "bn_beta", "inputs": []},
            {
                "op": "BatchNorm",
                "param": {"eps": "0.001", "momentum": "0.9"},
                "name": "bn",
                "inputs": [[0, 0], [1, 0], [2, 0]],
                "attr": {"__lr_mult__": "2"},
            },
        ],
        "arg_nodes": [0, 1, 2],
        "heads": [[3, 0]],
    }
    net = mx.sym.load_json(json.dumps(old))
    assert net.list_auxiliary_states() == ["bn_moving_mean", "bn_moving_var"]
    assert net.attr("lr_mult") == "2"
