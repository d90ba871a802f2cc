"""Symbols: composition, names, attributes, inference."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import dmod as mx
from dmod.base import InvalidArgument


def mlp():
    net = mx.sym.Variable("data")
    net = mx.sym.FullyConnected(net, name="fc1", num_hidden=4)
    net = mx.sym.Activation(net, name="relu1", act_type="relu")
    net = mx.sym.BatchNorm(net, name="bn")
    net = mx.sym.FullyConnected(net, name="fc2", num_hidden=3)
    return mx.sym.SoftmaxOutput(net, name="softmax")


def test_variables_that_are_left_out_are_made():
    net = mlp()
    assert net.list_arguments() == [
        "data", "fc1_weight", "fc1_bias", "bn_gamma", "bn_beta", "fc2_weight", "fc2_bias", "softmax_label",
    ]  # fmt: skip
    assert net.list_auxiliary_states() == ["bn_moving_mean", "bn_moving_var"]
    assert net.list_outputs() == ["softmax_output"]
    assert net.name == "softmax"


def test_names_are_counted_per_kind():
    with mx.name.NameManager():
        x = mx.sym.Variable("x")
        nets = [
            mx.sym.Flatten(x),
            mx.sym.Flatten(x),
            x + x,
            x + 1,
            x * 2.0,
            2 / x,
            mx.sym.reshape(x, shape=(-1,)),
        ]
    assert [n.name for n in nets] == [
        "flatten0", "flatten1", "_plus0", "_plusscalar0", "_mulscalar0", "_rdivscalar0", "reshape0",
    ]  # fmt: skip
    with mx.name.Prefix("stage_"):
        assert mx.sym.Flatten(x).name == "stage_flatten0"


def test_shapes_follow_both_ways():
    net = mlp()
    args, outs, aux = net.infer_shape(data=(2, 5))
    assert args == [(2, 5), (4, 5), (4,), (4,), (4,), (3, 4), (3,), (2,)]
    assert outs == [(2, 3)] and aux == [(4,), (4,)]
    assert net.infer_shape() == (None, None, None)
    partial = net.infer_shape_partial()
    assert partial[0][:3] == [(), (4, 0), (4,)]
    x, y = mx.sym.Variable("x"), mx.sym.Variable("y")
    assert (x + y).infer_shape(y=(2, 3)) == ([(2, 3), (2, 3)], [(2, 3)], [])
    assert (x + y).infer_shape(x=(2, 0), y=(0, 3))[1] == [(2, 3)]


def test_types_follow():
    net = mlp()
    assert net.infer_type(data=np.float64)[1] == [np.float64]
    half = mx.sym.BatchNorm(mx.sym.Variable("x")).infer_type(x="float16")
    assert half == ([np.float16, np.float32, np.float32], [np.float16], [np.float32, np.float32])


FC, X = mx.sym.FullyConnected, mx.sym.Variable("x")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mlp().infer_shape(data=(2, 5), fc1_weight=(4, 6)), ["'fc1'", "weight", "(4, 5)", "(4, 6)"]),
        (lambda: FC(X, num_hiden=3), ["num_hiden", "did you mean", "num_hidden"]),
        (lambda: FC(X), ["needs num_hidden"]),
        (lambda: mx.sym.Activation(X, act_type="rel"), ["act_type", "'rel'", "relu"]),
        (lambda: mx.sym.Flatten(foo=X), ["no input 'foo'", "data"]),
        (lambda: mx.sym.Variable("x", foo=1), ["foo", "__foo__"]),
        (lambda: mlp()["fc1_out"], ["fc1_out"]),
        (lambda: mlp().get_internals()["fc1_ouput"], ["did you mean", "fc1_output"]),
        (lambda: mx.sym.Reshape(X, shape=(7, 2)).infer_shape(x=(3, 4)), ["14 elements", "12"]),
        (lambda: mx.sym.Flatten(mx.sym.Group([mlp(), mlp()])), ["group of 2"]),
        (lambda: mlp()(foo=X), ["no variable 'foo'"]),
        (lambda: mx.sym.Variable("x", shape=(2**60,)).infer_shape(), ["longer than any memory"]),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong_and_what_to_do(make, words):
    with pytest.raises(InvalidArgument) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_parts_of_a_network():
    net = mlp()
    internals = net.get_internals()
    assert internals["fc1_output"].list_arguments() == ["data", "fc1_weight", "fc1_bias"]
    assert net.get_children().list_outputs() == ["fc2_output", "softmax_label"]
    assert mx.sym.Variable("x").get_children() is None
    group = mx.sym.Group([internals["fc1_output"], net])
    assert group.list_outputs() == ["fc1_output", "softmax_output"] and group.name is None
    assert [s.name for s in group] == ["fc1", "softmax"] and len(group) == 2
    with pytest.raises(IndexError):
        group[2]


def test_composition_leaves_the_original_alone():
    net = mlp()
    other = net(data=mx.sym.FullyConnected(mx.sym.Variable("x"), name="fc0", num_hidden=5), name="all")
    assert other.list_arguments()[:3] == ["x", "fc0_weight", "fc0_bias"] and other.name == "all"
    assert net.list_arguments()[0] == "data" and net.name == "softmax"
    for twin in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.tojson() == net.tojson() and twin is not net


def test_attributes():
    x = mx.sym.Variable("x", lr_mult=2, init=mx.init.One(), attr={"mood": "good"})
    assert (
        x.attr("__lr_mult__") == x.attr("lr_mult") == "2"
        and x.attr("mood") == "good"
        and x.attr("foo") is None
    )
    with mx.AttrScope(__wd_mult__="3"), mx.AttrScope(ctx_group="dev"):
        net = mx.sym.FullyConnected(x, num_hidden=2, name="fc")
    assert net.list_attr() == {
        "num_hidden": "2", "__wd_mult__": "3", "wd_mult": "3", "__ctx_group__": "dev", "ctx_group": "dev",
    }  # fmt: skip
    assert net.attr_dict()["fc_weight"]["wd_mult"] == "3"
    net._set_attr(__mood__="bad")
    assert net.attr("__mood__") == "bad"


def test_functions_document_themselves():
    assert "num_hidden : a whole number, required" in mx.sym.FullyConnected.__doc__
    assert mx.sym.Flatten.__name__ == "Flatten"


def test_a_symbol_has_no_truth_value():
    with pytest.raises(NotImplementedError):
        bool(mlp())


def test_eval_computes_at_once():
    x, y = mx.sym.Variable("x"), mx.sym.Variable("y")
    (out,) = (x + y * 2).eval(x=mx.nd.ones((2,)), y=mx.nd.ones((2,)))
    assert out.asnumpy().tolist() == [3, 3]
